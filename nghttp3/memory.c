//go:build ngtcp2 && cgo

#include "internal.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Before each allocation stands its size. The union keeps what follows aligned
 * for anything. */
typedef union header {
  size_t size;
  max_align_t align;
} header;

static _Atomic int64_t live;
static _Atomic int64_t fail_after = -1;

int64_t aq_h3_memory(void) {
  return atomic_load_explicit(&live, memory_order_relaxed);
}

void aq_h3_fail_after(int64_t n) { atomic_store(&fail_after, n); }

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

static void count(aq_h3_account *a, int64_t n) {
  a->live += n;
  atomic_fetch_add_explicit(&live, n, memory_order_relaxed);
}

void *aq_h3_malloc(aq_h3_account *a, size_t size) {
  return aq_h3_realloc(a, NULL, size);
}

void *aq_h3_realloc(aq_h3_account *a, void *p, size_t size) {
  header *h = p == NULL ? NULL : (header *)p - 1;
  size_t was = h == NULL ? 0 : h->size;
  if (size > SIZE_MAX / 2 || refused()) {
    return NULL;
  }
  h = realloc(h, sizeof *h + size);
  if (h == NULL) {
    return NULL;
  }
  h->size = size;
  count(a, (int64_t)size - (int64_t)was);
  return h + 1;
}

void aq_h3_release(aq_h3_account *a, void *p) {
  header *h;
  if (p == NULL) {
    return;
  }
  h = (header *)p - 1;
  count(a, -(int64_t)h->size);
  free(h);
}

static void *mem_malloc(size_t size, void *account) {
  return aq_h3_malloc(account, size);
}

static void mem_free(void *p, void *account) { aq_h3_release(account, p); }

static void *mem_calloc(size_t n, size_t size, void *account) {
  void *p;
  if (size != 0 && n > SIZE_MAX / 2 / size) {
    return NULL;
  }
  p = aq_h3_malloc(account, n * size);
  if (p != NULL) {
    memset(p, 0, n * size);
  }
  return p;
}

static void *mem_realloc(void *p, size_t size, void *account) {
  return aq_h3_realloc(account, p, size);
}

void aq_h3_account_init(aq_h3_account *a) {
  a->live = 0;
  a->mem.user_data = a;
  a->mem.malloc = mem_malloc;
  a->mem.free = mem_free;
  a->mem.calloc = mem_calloc;
  a->mem.realloc = mem_realloc;
}
