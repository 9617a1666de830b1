//go:build ngtcp2 && cgo && !wolfssl

/* What OpenSSL asks of a QUIC implementation: handshake messages in both
 * directions, and keys. ngtcp2's own table of this kind is not used because it
 * sends a second ClientHello, after one that offered 0-RTT, where CRYPTO frames
 * must not be. */

#include <openssl/core_dispatch.h>
#include <openssl/ssl.h>

#include "openssl.h"

/* Handshake messages that have arrived. OpenSSL reads them where they are, and
 * says later what it does not need any more. */
struct aq_piece {
  aq_piece *next;
  size_t len, read, released;
  uint8_t data[];
};

static int pieces_add(aq_pieces *l, const uint8_t *data, size_t len) {
  aq_piece *p;
  if (len == 0) {
    return 0;
  }
  if (len > AQ_MAX_CHAIN || (p = aq_malloc(sizeof(*p) + len)) == NULL) {
    return -1;
  }
  p->next = NULL;
  p->len = len;
  p->read = p->released = 0;
  memcpy(p->data, data, len);
  if (l->last != NULL) {
    l->last->next = p;
  } else {
    l->first = p;
  }
  l->last = p;
  return 0;
}

static void pieces_release(aq_pieces *l, size_t n) {
  while (l->first != NULL) {
    aq_piece *p = l->first;
    size_t some = p->read - p->released < n ? p->read - p->released : n;
    p->released += some;
    n -= some;
    if (p->released < p->len) {
      return;
    }
    l->first = p->next;
    if (l->first == NULL) {
      l->last = NULL;
    }
    aq_free(p);
  }
}

void aq_pieces_free(aq_pieces *l) {
  while (l->first != NULL) {
    l->first->read = l->first->len;
    pieces_release(l, l->first->len);
  }
}

/* conn_of is NULL when t is on its way out: SSL_free calls back. */
static ngtcp2_conn *conn_of(const aq_tls *t) {
  return t == NULL || t->ref == NULL ? NULL : t->ref->get_conn(t->ref);
}

static int on_send(SSL *ssl, const unsigned char *p, size_t n, size_t *consumed,
                   void *arg) {
  aq_tls *t = arg;
  ngtcp2_conn *conn = conn_of(t);
  int rv;
  (void)ssl;
  if (conn == NULL) {
    return 0;
  }
  rv = ngtcp2_conn_submit_crypto_data(conn, t->send_level, p, n);
  if (rv != 0) {
    ngtcp2_conn_set_tls_error(conn, rv);
    return 0;
  }
  if (t->server && aq_is_hello_retry_request(p, n)) {
    t->hello_retry = 1;
  }
  *consumed = n;
  return 1;
}

static int on_receive(SSL *ssl, const unsigned char **p, size_t *n, void *arg) {
  aq_tls *t = arg;
  aq_piece *piece = t->in.first;
  (void)ssl;
  while (piece != NULL && piece->read == piece->len) {
    piece = piece->next;
  }
  *p = NULL;
  *n = 0;
  if (piece != NULL) {
    *p = piece->data + piece->read;
    *n = piece->len - piece->read;
    piece->read = piece->len;
  }
  return 1;
}

static int on_release(SSL *ssl, size_t n, void *arg) {
  aq_tls *t = arg;
  (void)ssl;
  pieces_release(&t->in, n);
  return 1;
}

static int on_secret(SSL *ssl, uint32_t protection, int writes,
                     const unsigned char *secret, size_t len, void *arg) {
  aq_tls *t = arg;
  ngtcp2_conn *conn = conn_of(t);
  ngtcp2_encryption_level level =
    protection == OSSL_RECORD_PROTECTION_LEVEL_EARLY ? NGTCP2_ENCRYPTION_LEVEL_0RTT
    : protection == OSSL_RECORD_PROTECTION_LEVEL_HANDSHAKE
      ? NGTCP2_ENCRYPTION_LEVEL_HANDSHAKE
      : NGTCP2_ENCRYPTION_LEVEL_1RTT;
  (void)ssl;
  if (conn == NULL || protection == OSSL_RECORD_PROTECTION_LEVEL_NONE) {
    return 0;
  }
  if (!writes) {
    return ngtcp2_crypto_derive_and_install_rx_key(conn, NULL, NULL, NULL, level,
                                                   secret, len) == 0;
  }
  if (ngtcp2_crypto_derive_and_install_tx_key(conn, NULL, NULL, NULL, level,
                                              secret, len) != 0) {
    return 0;
  }
  /* RFC 9000, Section 12.4: no CRYPTO frames in 0-RTT packets. */
  if (level != NGTCP2_ENCRYPTION_LEVEL_0RTT) {
    t->send_level = level;
  }
  return 1;
}

static int on_params(SSL *ssl, const unsigned char *p, size_t n, void *arg) {
  ngtcp2_conn *conn = conn_of(arg);
  int rv;
  (void)ssl;
  if (conn == NULL) {
    return 0;
  }
  rv = ngtcp2_conn_decode_and_set_remote_transport_params(conn, p, n);
  if (rv != 0) {
    ngtcp2_conn_set_tls_error(conn, rv);
    return 0;
  }
  return 1;
}

static int on_alert(SSL *ssl, unsigned char alert, void *arg) {
  ngtcp2_conn *conn = conn_of(arg);
  (void)ssl;
  if (conn != NULL) {
    ngtcp2_conn_set_tls_alert(conn, alert);
  }
  return 1;
}

int aq_crypto_use(aq_tls *t) {
  static const OSSL_DISPATCH functions[] = {
    {OSSL_FUNC_SSL_QUIC_TLS_CRYPTO_SEND, (void (*)(void))on_send},
    {OSSL_FUNC_SSL_QUIC_TLS_CRYPTO_RECV_RCD, (void (*)(void))on_receive},
    {OSSL_FUNC_SSL_QUIC_TLS_CRYPTO_RELEASE_RCD, (void (*)(void))on_release},
    {OSSL_FUNC_SSL_QUIC_TLS_YIELD_SECRET, (void (*)(void))on_secret},
    {OSSL_FUNC_SSL_QUIC_TLS_GOT_TRANSPORT_PARAMS, (void (*)(void))on_params},
    {OSSL_FUNC_SSL_QUIC_TLS_ALERT, (void (*)(void))on_alert},
    OSSL_DISPATCH_END};
  t->send_level = NGTCP2_ENCRYPTION_LEVEL_INITIAL;
  return SSL_set_quic_tls_cbs(t->ssl, functions, t) ? 0 : -1;
}

/* look_for_retry sees what a server says first, before OpenSSL does. RFC 8446,
 * Section 4.1.4: a client that is asked for another ClientHello offers no early
 * data in it. OpenSSL 3.5 would, as long as the session allows it. */
static void look_for_retry(aq_tls *t, const uint8_t *p, size_t n) {
  SSL_SESSION *session;
  size_t some = sizeof(t->head) - t->head_len;
  if (t->server || some == 0 || n == 0) {
    return;
  }
  some = n < some ? n : some;
  memcpy(t->head + t->head_len, p, some);
  t->head_len += (uint8_t)some;
  if (!aq_is_hello_retry_request(t->head, t->head_len)) {
    return;
  }
  t->hello_retry = 1;
  if (t->early && (session = SSL_get_session(t->ssl)) != NULL) {
    (void)SSL_SESSION_set_max_early_data(session, 0);
  }
}

/* go_on is 0 also when OpenSSL waits for more. */
static int go_on(aq_tls *t, ngtcp2_conn *conn) {
  int rv;
  if (!ngtcp2_conn_get_handshake_completed2(conn)) {
    rv = SSL_do_handshake(t->ssl);
    if (rv <= 0) {
      rv = SSL_get_error(t->ssl, rv);
      return rv == SSL_ERROR_WANT_READ || rv == SSL_ERROR_WANT_WRITE ? 0 : -1;
    }
    ngtcp2_conn_tls_handshake_completed(conn);
  }
  /* There is no application data in TLS; this reads tickets. */
  rv = SSL_read(t->ssl, NULL, 0);
  if (rv > 0) {
    return 0;
  }
  rv = SSL_get_error(t->ssl, rv);
  return rv == SSL_ERROR_WANT_READ || rv == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

int aq_tls_feed(aq_tls *t, ngtcp2_encryption_level level, const uint8_t *data,
                size_t len) {
  ngtcp2_conn *conn = conn_of(t);
  int rv;
  if (conn == NULL) {
    return NGTCP2_ERR_INTERNAL;
  }
  if (level == NGTCP2_ENCRYPTION_LEVEL_INITIAL) {
    look_for_retry(t, data, len);
  }
  if (pieces_add(&t->in, data, len) != 0) {
    return NGTCP2_ERR_NOMEM;
  }
  if (go_on(t, conn) == 0) {
    return 0;
  }
  rv = ngtcp2_conn_get_tls_error2(conn);
  return rv != 0 ? rv : NGTCP2_ERR_CRYPTO;
}
