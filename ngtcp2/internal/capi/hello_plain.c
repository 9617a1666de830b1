//go:build ngtcp2 && cgo && !wolfssl && fuzzplain

/* For a test: a session that is too old when the ClientHello is written. No
 * other build compiles this file. */

#include <time.h>

#include "internal.h"
#include "openssl.h"

int aq_plain_make_old(aq_conn *c) {
  SSL_SESSION *s = SSL_get_session(aq_conn_tls(c)->ssl);
  return s != NULL && SSL_SESSION_set_time_ex(s, time(NULL) - 30 * 24 * 3600) != 0;
}
