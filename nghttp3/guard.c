//go:build ngtcp2 && cgo

/* An assertion of libnghttp3 that fails must not end the process, and going on
 * behind it is not defined. So it ends the call, with a longjmp to the guard that
 * stands where Go called C, and with it the coder: libnghttp3 is not entered with
 * it again, not even to free it. The jump never crosses a frame of Go, because C
 * does not call Go here; a goroutine stays on its thread while it is in C, so the
 * guard is a variable of the thread. */

#include "internal.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static _Thread_local aq_h3_guard *innermost;

/* Broken coders that were freed: for leak checkers, which have to find them. */
static _Atomic(aq_h3_impl *) kept;
static _Atomic int64_t leaked;

int64_t aq_h3_leaked(void) {
  return atomic_load_explicit(&leaked, memory_order_relaxed);
}

int aq_h3_guard_open(aq_h3_guard *g, aq_h3_impl *c) {
  if (c->broken) {
    return -1;
  }
  g->coder = c;
  innermost = g;
  return 0;
}

void aq_h3_guard_close(void) { innermost = NULL; }

void aq_h3_keep(aq_h3_impl *c) {
  atomic_fetch_add_explicit(&leaked, 1, memory_order_relaxed);
  c->kept_next = atomic_load(&kept);
  while (!atomic_compare_exchange_weak(&kept, &c->kept_next, c)) {
  }
}

_Noreturn void aq_h3_assert_fail(const char *expr, const char *file,
                                 unsigned line, const char *func) {
  aq_h3_guard *g = innermost;
  aq_h3_coder *c;
  (void)func;
  if (g == NULL) {
    abort(); /* every call of coder.c to libnghttp3 is behind a guard */
  }
  innermost = NULL;
  g->coder->broken = 1;
  c = &g->coder->pub;
  snprintf(c->error, sizeof c->error, "assertion failed: %s (%s:%u)", expr, file,
           line);
  c->nfields = 0;
  c->encoder_stream_len = 0;
  c->decoder_stream_len = 0;
  c->large = 0;
  longjmp(g->at, 1);
}

_Noreturn void aq_h3_abort(void) {
  aq_h3_assert_fail("abort()", "libnghttp3", 0, "");
}
