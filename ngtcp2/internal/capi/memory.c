//go:build ngtcp2 && cgo

#include "internal.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Before each allocation stands its size, so that what is freed can be
 * counted. The union keeps what follows aligned for anything. */
typedef union aq_header {
  size_t size;
  max_align_t align;
} aq_header;

static _Atomic int64_t live;
static _Atomic int64_t fail_after = -1;

int64_t aq_memory(void) {
  return atomic_load_explicit(&live, memory_order_relaxed);
}

void aq_memory_fail_after(int64_t n) { atomic_store(&fail_after, n); }

static int refused(void) {
  if (atomic_load_explicit(&fail_after, memory_order_relaxed) < 0) {
    return 0;
  }
  if (atomic_fetch_sub(&fail_after, 1) > 0) {
    return 0;
  }
  atomic_store(&fail_after, 0);
  return 1;
}

static void count(int64_t n) {
  atomic_fetch_add_explicit(&live, n, memory_order_relaxed);
}

void *aq_malloc(size_t size) {
  aq_header *h;
  if (size > SIZE_MAX / 2 || refused()) {
    return NULL;
  }
  h = malloc(sizeof *h + size);
  if (h == NULL) {
    return NULL;
  }
  h->size = size;
  count((int64_t)size);
  return h + 1;
}

void *aq_calloc(size_t n, size_t size) {
  void *p;
  if (size != 0 && n > SIZE_MAX / 2 / size) {
    return NULL;
  }
  p = aq_malloc(n * size);
  if (p != NULL) {
    memset(p, 0, n * size);
  }
  return p;
}

void *aq_realloc(void *p, size_t size) {
  aq_header *h;
  size_t was;
  if (p == NULL) {
    return aq_malloc(size);
  }
  if (size > SIZE_MAX / 2 || refused()) {
    return NULL;
  }
  h = (aq_header *)p - 1;
  was = h->size;
  h = realloc(h, sizeof *h + size);
  if (h == NULL) {
    return NULL;
  }
  h->size = size;
  count((int64_t)size - (int64_t)was);
  return h + 1;
}

void aq_free(void *p) {
  aq_header *h;
  if (p == NULL) {
    return;
  }
  h = (aq_header *)p - 1;
  count(-(int64_t)h->size);
  free(h);
}

static void *mem_malloc(size_t size, void *user_data) {
  (void)user_data;
  return aq_malloc(size);
}

static void mem_free(void *p, void *user_data) {
  (void)user_data;
  aq_free(p);
}

static void *mem_calloc(size_t n, size_t size, void *user_data) {
  (void)user_data;
  return aq_calloc(n, size);
}

static void *mem_realloc(void *p, size_t size, void *user_data) {
  (void)user_data;
  return aq_realloc(p, size);
}

const ngtcp2_mem *aq_mem(void) {
  static const ngtcp2_mem mem = {NULL, mem_malloc, mem_free, mem_calloc,
                                 mem_realloc};
  return &mem;
}

/* ---- chunks ---- */

/* class_of returns the smallest class whose chunks hold want bytes, or the
 * largest. */
static unsigned class_of(size_t want) {
  unsigned k = 0;
  while (k + 1 < AQ_CHUNK_CLASSES &&
         ((size_t)AQ_CHUNK_MIN << k) - sizeof(aq_chunk) < want) {
    k++;
  }
  return k;
}

static size_t total_of(const aq_chunk *ch) { return ch->cap + sizeof *ch; }

aq_chunk *aq_chunk_get(aq_connection *c, size_t want) {
  unsigned k = class_of(want);
  size_t total = (size_t)AQ_CHUNK_MIN << k;
  aq_chunk *ch = c->free[k];
  c->touched = 1;
  if (ch != NULL) {
    c->free[k] = ch->next;
    c->free_bytes -= total;
  } else {
    ch = aq_malloc(total);
    if (ch == NULL) {
      return NULL;
    }
    ch->cap = (uint32_t)(total - sizeof *ch);
  }
  ch->next = NULL;
  ch->len = 0;
  return ch;
}

void aq_chunk_put(aq_connection *c, aq_chunk *ch) {
  size_t total = total_of(ch);
  unsigned k = class_of(ch->cap);
  if (c->free_bytes + total > AQ_FREE_MAX) {
    aq_free(ch);
    return;
  }
  c->touched = 1;
  ch->next = c->free[k];
  c->free[k] = ch;
  c->free_bytes += total;
}

void aq_chunk_put_list(aq_connection *c, aq_chunk *ch) {
  while (ch != NULL) {
    aq_chunk *next = ch->next;
    aq_chunk_put(c, ch);
    ch = next;
  }
}

void aq_chunk_sort(aq_connection *c) {
  aq_chunk *ch = c->pub.recycled;
  if (ch != NULL) {
    c->pub.recycled = NULL;
    aq_chunk_put_list(c, ch);
  }
}

void aq_chunk_trim(aq_connection *c) {
  unsigned k;
  for (k = 0; k < AQ_CHUNK_CLASSES; k++) {
    aq_chunks_free(c->free[k]);
    c->free[k] = NULL;
  }
  c->free_bytes = 0;
}

void aq_chunks_free(aq_chunk *ch) {
  while (ch != NULL) {
    aq_chunk *next = ch->next;
    aq_free(ch);
    ch = next;
  }
}

int aq_data_append(aq_connection *c, aq_data *d, const uint8_t *p, size_t n) {
  while (n > 0) {
    aq_chunk *ch = d->tail;
    size_t room;
    if (ch == NULL || ch->len == ch->cap) {
      size_t want = d->grow > n ? d->grow : n;
      ch = aq_chunk_get(c, want > sizeof *ch ? want - sizeof *ch : want);
      if (ch == NULL) {
        return NGTCP2_ERR_NOMEM;
      }
      if (d->tail != NULL) {
        d->tail->next = ch;
      } else {
        d->head = ch;
      }
      d->tail = ch;
      d->grow = (uint32_t)total_of(ch) < AQ_CHUNK_MAX
                    ? (uint32_t)total_of(ch) * 2
                    : AQ_CHUNK_MAX;
    }
    room = ch->cap - ch->len;
    if (room > n) {
      room = n;
    }
    memcpy(ch->data + ch->len, p, room);
    ch->len += (uint32_t)room;
    p += room;
    n -= room;
  }
  return 0;
}
