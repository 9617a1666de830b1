//go:build ngtcp2 && cgo

#include "internal.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

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

/* The C library knows how large a block is: a size of our own before each would be a
 * few hundred bytes for a connection. */
static int64_t size_of(void *p) { return (int64_t)malloc_usable_size(p); }

void *aq_malloc(size_t size) {
  void *p = size > SIZE_MAX / 2 || refused() ? NULL : malloc(size);
  if (p != NULL) {
    count(size_of(p));
  }
  return p;
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
  int64_t was;
  if (p == NULL) {
    return aq_malloc(size);
  }
  if (size == 0 || size > SIZE_MAX / 2 || refused()) {
    return NULL; /* what realloc does with 0 differs */
  }
  was = size_of(p);
  p = realloc(p, size);
  if (p != NULL) {
    count(size_of(p) - was);
  }
  return p;
}

void aq_free(void *p) {
  if (p != NULL) {
    count(-size_of(p));
    free(p);
  }
}

int aq_memory_trim(void) {
#ifdef __GLIBC__
  return malloc_trim(0);
#else
  return 0;
#endif
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
