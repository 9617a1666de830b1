//go:build ngtcp2 && cgo && !wolfssl

/* What a client says first, as OpenSSL writes it. */

#include "openssl.h"
#include "tls.h"

static void on_message(int sent, int version, int type, const void *p, size_t n,
                       SSL *ssl, void *conn) {
  (void)version;
  (void)ssl;
  if (sent && type == SSL3_RT_HANDSHAKE && n > 0 &&
      *(const unsigned char *)p == SSL3_MT_CLIENT_HELLO) {
    aq_conn_tls_sent_hello(conn, p, n);
  }
}

int aq_tls_watch_hello(aq_tls *t, void *conn) {
  if (t->ssl == NULL) {
    return -1;
  }
  SSL_set_msg_callback(t->ssl, conn == NULL ? NULL : on_message);
  SSL_set_msg_callback_arg(t->ssl, conn);
  return 0;
}
