//go:build ngtcp2 && cgo

/* What Go calls and can come to ngtcp2, with a guard around it. What is not here,
 * in shim.h and tls.h, does not come to ngtcp2. */

#include "internal.h"

#include <stdio.h>
#include <string.h>

/* aq_silent is for the close of a connection that is broken: there is nothing it
 * can say. */
static int aq_silent(aq_conn *c) {
  c->out.n = 0;
  return 0;
}

static int aq_tls_error(aq_conn *c, char *err, size_t len) {
  if (len > 0) {
    snprintf(err, len, "%s", c->error.text);
  }
  return -1;
}

/* CONN is not looked at behind the work: aq_do_stream_release frees the stream. The
 * work is a function of its own, so that what it changes is not among the variables
 * of the one that calls _setjmp. */
#define ENTRY(CONN, ERROR, TYPE, FAILED, NAME, PARAMETERS, ARGUMENTS) \
  TYPE aq_##NAME PARAMETERS {                                         \
    aq_guard g;                                                       \
    TYPE rv;                                                          \
    if (aq_guard_open(&g, CONN, ERROR) != 0) {                        \
      return FAILED;                                                  \
    }                                                                 \
    if (_setjmp(g.at) != 0) {                                         \
      return FAILED;                                                  \
    }                                                                 \
    rv = aq_do_##NAME ARGUMENTS;                                      \
    aq_guard_close(&g);                                               \
    return rv;                                                        \
  }
#define ENTRY_VOID(CONN, FAILED, NAME, PARAMETERS, ARGUMENTS) \
  void aq_##NAME PARAMETERS {                                 \
    aq_guard g;                                               \
    if (aq_guard_open(&g, CONN, NULL) != 0) {                 \
      FAILED;                                                 \
      return;                                                 \
    }                                                         \
    if (_setjmp(g.at) != 0) {                                 \
      FAILED;                                                 \
      return;                                                 \
    }                                                         \
    aq_do_##NAME ARGUMENTS;                                   \
    aq_guard_close(&g);                                       \
  }
#include "entries.h"
