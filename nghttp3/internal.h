#ifndef AQ_H3_INTERNAL_H
#define AQ_H3_INTERNAL_H

#include <nghttp3/nghttp3.h>

#include <setjmp.h>

#include "shim.h"

/* An account is a user of memory. */
typedef struct aq_h3_account {
  nghttp3_mem mem; /* its user_data is the account */
  int64_t live;    /* bytes */
} aq_h3_account;

typedef struct aq_h3_impl {
  aq_h3_coder pub; /* first: Go's pointer is to both */

  aq_h3_account buffers, encoder_account, decoder_account;
  nghttp3_qpack_encoder *encoder; /* NULL before aq_h3_set_peer, or after it failed */
  nghttp3_qpack_decoder *decoder;

  nghttp3_buf prefix, section, encoder_stream, decoder_stream;
  nghttp3_nv *nva;
  aq_h3_field *fields;
  uint8_t *text;
  size_t nva_cap, fields_cap, text_cap;

  nghttp3_qpack_stream_context *running; /* of aq_h3_decode, while it runs */
  uint8_t encoder_failed;
  uint8_t broken;               /* an assertion failed: nothing is entered again */
  struct aq_h3_impl *kept_next; /* in the list of guard.c */
} aq_h3_impl;

/* memory.c */
AQ_H3_HIDDEN void aq_h3_account_init(aq_h3_account *a);
AQ_H3_HIDDEN void *aq_h3_malloc(aq_h3_account *a, size_t size);
AQ_H3_HIDDEN void *aq_h3_realloc(aq_h3_account *a, void *p, size_t size);
AQ_H3_HIDDEN void aq_h3_release(aq_h3_account *a, void *p);

/* guard.c: what becomes of a failed assertion. */
typedef struct aq_h3_guard {
  jmp_buf at;
  aq_h3_impl *coder;
} aq_h3_guard;

/* aq_h3_guard_open puts g up; it is -1 if c is broken. _setjmp comes next: where it
 * returns twice the guard is down and c broken. */
AQ_H3_HIDDEN int aq_h3_guard_open(aq_h3_guard *g, aq_h3_impl *c);
AQ_H3_HIDDEN void aq_h3_guard_close(void);
AQ_H3_HIDDEN void aq_h3_keep(aq_h3_impl *c);

/* What libnghttp3 calls: see build/deps-recipes.sh. */
AQ_H3_HIDDEN _Noreturn void aq_h3_assert_fail(const char *expr,
                                              const char *file, unsigned line,
                                              const char *func);
AQ_H3_HIDDEN _Noreturn void aq_h3_abort(void);

#endif
