/* What becomes of a failed assertion in ngtcp2: see guard.c. */
#ifndef AQ_GUARD_H
#define AQ_GUARD_H

#include <setjmp.h>

#include "shim.h"

/* A guard is where a failed assertion ends. One stands in the first frame of C
 * of every call of Go that can come to ngtcp2. */
typedef struct aq_guard {
  jmp_buf at;
  struct aq_guard *outer; /* of a call that called Go, which called this */
  aq_conn *conn;          /* that the call is about, or NULL */
  aq_conn *made;          /* that it was making */
  aq_error *error;        /* where to describe what happened without conn, or NULL */
} aq_guard;

/* aq_guard_open puts g up. It is -1 if c cannot be used: it is broken, or a call on
 * it has not returned. _setjmp comes next; where it returns twice the guard is
 * down and the connection broken. aq_guard_close takes g down. */
int aq_guard_open(aq_guard *g, aq_conn *c, aq_error *error);
void aq_guard_close(aq_guard *g);

/* aq_guard_making says that the call is making c. */
void aq_guard_making(aq_conn *c);

/* What ngtcp2 calls: see build/deps-recipes.sh. */
#define AQ_HIDDEN __attribute__((visibility("hidden")))
AQ_HIDDEN _Noreturn void aq_assert_fail(const char *expr, const char *file,
                                        unsigned line, const char *func);
AQ_HIDDEN _Noreturn void aq_abort(void);

/* aq_leaked counts the connections that were not freed. */
int64_t aq_leaked(void);

#ifdef AQ_PLAIN /* tests let assertions fail */
extern int64_t aq_fail_event; /* there is no memory for the n-th event from now on */
extern int aq_fail_at; /* one of: */
enum {
  AQ_FAIL_READING = 1, /* in a callback that has stream data */
  AQ_FAIL_WRITING,     /* while a packet is made */
  AQ_FAIL_IN_TLS,      /* below the TLS library */
  AQ_FAIL_FREEING,
  AQ_FAIL_MAKING,
  AQ_FAIL_ASKING, /* in a call that returns no error */
  AQ_FAIL_ACCEPTING /* without a connection */
};
#  define AQ_FAIL_HERE(where)                                          \
    do {                                                               \
      if (aq_fail_at == (where)) {                                     \
        aq_fail_at = 0;                                                \
        aq_assert_fail("a test", __FILE__, __LINE__, __func__);        \
      }                                                                \
    } while (0)
#else
#  define AQ_FAIL_HERE(where) ((void)0)
#endif

#endif
