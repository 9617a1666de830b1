//go:build ngtcp2 && cgo

/* An assertion of ngtcp2 that fails must not end the process, and going on
 * behind it is not defined. So it ends the call, with a longjmp to the guard that
 * stands where Go called C, and with it the connection: ngtcp2 is not entered with
 * it again, not even to free it.
 *
 * The jump never crosses a frame of Go. Whatever can come to ngtcp2 is called by
 * Go through entry.c only, where the function that Go calls puts up a guard. So
 * the innermost guard stands in the call of Go that the assertion failed below,
 * with nothing but C between. If that C had called Go, and Go C again, the second
 * call would have a guard of its own, or not come to ngtcp2. A goroutine stays on
 * its thread while it has frames of C, therefore the innermost guard is a variable
 * of the thread.
 *
 * The jump may cross frames of the TLS library, which then holds what it was
 * working on in no known state: it stays in memory too.
 *
 * A callback of Go that panics, or ends its goroutine, unwinds C's frames without
 * their knowledge. What is left of the guard is never used, because each call
 * puts up one of its own; and the connection still counts as in a call, so that it
 * is not entered any more. */

#include "internal.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local aq_guard *innermost;

/* Broken connections that were freed: for leak checkers, which have to find
 * them. */
static _Atomic(aq_connection *) kept;
static _Atomic int64_t leaked;

#ifdef AQ_PLAIN
int aq_fail_at;
int64_t aq_fail_event;
#endif

int64_t aq_leaked(void) {
  return atomic_load_explicit(&leaked, memory_order_relaxed);
}

static void describe(aq_error *e, const char *text) {
  e->code = NGTCP2_ERR_INTERNAL;
  e->alert = AQ_NO_ERROR_ALERT;
  e->transport = NGTCP2_INTERNAL_ERROR;
  e->fatal = 1;
  snprintf(e->text, sizeof e->text, "%s", text);
}

int aq_guard_open(aq_guard *g, aq_conn *conn, aq_error *error) {
  if (conn != NULL) {
    aq_connection *c = aq_of(conn);
    if (c->in_call || c->broken) {
      if (!c->broken) {
        describe(&conn->error, "a call on the connection has not returned");
      }
      return -1;
    }
    c->in_call = 1;
  }
  g->conn = conn;
  g->made = NULL;
  g->error = error;
  g->outer = innermost;
  innermost = g;
  return 0;
}

void aq_guard_close(aq_guard *g) {
  innermost = g->outer;
  if (g->conn != NULL) {
    aq_of(g->conn)->in_call = 0;
  }
}

void aq_guard_making(aq_conn *c) {
  if (innermost != NULL) {
    innermost->made = c;
  }
}

/* keep lets c go without freeing it. Its TLS object is freed, unless that was
 * in a call. */
static void keep(aq_connection *c) {
  aq_tls *volatile tls = c->in_tls ? NULL : c->tls; /* a jump comes back */
  aq_guard g;
  c->broken = 1;
  ngtcp2_secure_clear(c->reset_key, sizeof c->reset_key);
  atomic_fetch_add_explicit(&leaked, 1, memory_order_relaxed);
  c->kept_next = atomic_load(&kept);
  while (!atomic_compare_exchange_weak(&kept, &c->kept_next, c)) {
  }
  if (tls == NULL) {
    return;
  }
  c->tls = NULL;
  aq_guard_open(&g, NULL, NULL);
  if (_setjmp(g.at) != 0) {
    return;
  }
  aq_tls_free(tls);
  aq_guard_close(&g);
}

void aq_conn_free(aq_conn *conn) {
  aq_guard g;
  if (aq_guard_open(&g, conn, NULL) != 0) {
    keep(aq_of(conn));
    return;
  }
  if (_setjmp(g.at) != 0) {
    keep(aq_of(conn));
    return;
  }
  aq_do_conn_free(conn);
  g.conn = NULL;
  aq_guard_close(&g);
}

_Noreturn void aq_assert_fail(const char *expr, const char *file,
                              unsigned line, const char *func) {
  aq_guard *g = innermost;
  char text[sizeof g->error->text];
  (void)func;
  if (g == NULL) {
    abort(); /* there is nowhere to go; see above why this cannot be */
  }
  innermost = g->outer;
  snprintf(text, sizeof text, "assertion failed: %s (%s:%u)", expr, file, line);
  if (g->conn != NULL) {
    aq_connection *c = aq_of(g->conn);
    describe(&c->pub.error, text);
    c->broken = 1;
    c->in_call = 0;
    c->failure = NGTCP2_ERR_INTERNAL;
    c->pub.out.n = 0;
    /* If the call had nobody to tell, one that has comes at once. */
    c->pub.expiry = c->now;
    c->pub.trim_at = UINT64_MAX;
  }
  if (g->made != NULL) {
    keep(aq_of(g->made));
  }
  if (g->error != NULL) {
    describe(g->error, text);
  }
  longjmp(g->at, 1);
}

_Noreturn void aq_abort(void) { aq_assert_fail("abort()", "ngtcp2", 0, ""); }

#ifndef AQ_SYSTEM
/* Instead of ngtcp2's own, which writes to standard error. The linker takes no
 * part of an archive for what it has. */
AQ_HIDDEN _Noreturn void ngtcp2_unreachable_fail(const char *file, int line,
                                                 const char *func);
_Noreturn void ngtcp2_unreachable_fail(const char *file, int line,
                                       const char *func) {
  aq_assert_fail("unreachable", file, (unsigned)line, func);
}
#endif
