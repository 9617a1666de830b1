//go:build ngtcp2 && cgo && wolfssl

/* What a client says first, as wolfSSL writes it. */

#include "wolfssl.h"
#include "tls.h"

#ifdef OPENSSL_EXTRA
#  define AQ_RECORD_HEADER 5
#  define AQ_RECORD_HANDSHAKE 22
#  define AQ_CLIENT_HELLO 1

/* wolfSSL shows the message with the header of a record, which QUIC has not. */
static void on_message(int sent, int version, int type, const void *p, size_t n,
                       WOLFSSL *ssl, void *conn) {
  const uint8_t *b = p;
  (void)version;
  (void)ssl;
  if (sent && type == AQ_RECORD_HANDSHAKE && n > AQ_RECORD_HEADER &&
      b[0] == AQ_RECORD_HANDSHAKE && b[AQ_RECORD_HEADER] == AQ_CLIENT_HELLO) {
    aq_conn_tls_sent_hello(conn, b + AQ_RECORD_HEADER, n - AQ_RECORD_HEADER);
  }
}

int aq_tls_watch_hello(aq_tls *t, void *conn) {
  if (t->ssl == NULL) {
    return -1;
  }
  wolfSSL_set_msg_callback(t->ssl, conn == NULL ? NULL : on_message);
  wolfSSL_set_msg_callback_arg(t->ssl, conn);
  return 0;
}
#else
/* This build cannot show it. It offers each session that wolfSSL_set_session has
 * taken, without another look at its age. */
int aq_tls_watch_hello(aq_tls *t, void *conn) {
  (void)t;
  (void)conn;
  return -1;
}
#endif
