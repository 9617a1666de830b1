//go:build ngtcp2 && cgo

/* The life of an aq_tls and of an aq_cert, the same for both libraries. */

#ifdef AQ_WOLFSSL
#  include "wolfssl.h"
#else
#  include "openssl.h"
#endif

static int new_tls(aq_tls **out, int server, const aq_tls_config *c,
                   const uint8_t *data, size_t data_len,
                   ngtcp2_crypto_conn_ref *ref, char *err, size_t err_len) {
  aq_tls_data d;
  aq_tls *t;
  *out = NULL;
  if (err_len != 0) {
    err[0] = '\0';
  }
  aq_tls_enter();
  if (aq_tls_data_read(&d, c, data, data_len) != 0) {
    aq_text(err, err_len, "the lengths of a TLS configuration are wrong");
    return -1;
  }
  if ((t = aq_calloc(1, sizeof(*t))) == NULL) {
    aq_text(err, err_len, "out of memory");
    return -1;
  }
  t->server = (uint8_t)server;
  t->ref = ref;
  t->callbacks = c->callbacks;
  t->tickets = c->tickets;
  t->key_log = c->key_log;
  if (c->cert != NULL) {
    t->cert = aq_cert_up_ref(c->cert);
  }
  if ((!server && aq_blob_set(&t->name, d.server_name.p, d.server_name.n) != 0) ||
      (server &&
       aq_blob_set(&t->ticket_keys, d.ticket_keys.p, d.ticket_keys.n) != 0) ||
      aq_ssl_new(t, c, &d, err, err_len) != 0) {
    if (err_len != 0 && err[0] == '\0') {
      aq_tls_error_text(t, err, err_len);
      if (err[0] == '\0') {
        aq_text(err, err_len, "out of memory, or the library cannot be configured so");
      }
    }
    aq_tls_enter();
    aq_tls_free(t);
    return -1;
  }
  *out = t;
  return 0;
}

int aq_tls_client_new(aq_tls **out, const aq_tls_config *config,
                      const uint8_t *data, size_t data_len,
                      ngtcp2_crypto_conn_ref *ref, char *err, size_t err_len) {
  return new_tls(out, 0, config, data, data_len, ref, err, err_len);
}

int aq_tls_server_new(aq_tls **out, const aq_tls_config *config,
                      const uint8_t *data, size_t data_len,
                      ngtcp2_crypto_conn_ref *ref, char *err, size_t err_len) {
  return new_tls(out, 1, config, data, data_len, ref, err, err_len);
}

int aq_tls_early_data(const aq_tls *t) { return t->early; }

int aq_tls_released(const aq_tls *t) { return t == NULL || t->ssl == NULL; }

void aq_tls_get_state(aq_tls *t, aq_tls_state *out) {
  if (t->ssl != NULL) {
    aq_ssl_remember(t);
  }
  memset(out, 0, sizeof(*out));
  out->version = 0x0304; /* there is no other in QUIC: RFC 9001, Section 4.2 */
  out->suite = t->suite;
  out->curve = t->curve;
  out->resumed = t->resumed;
  out->early_accepted = t->early_accepted;
  out->hello_retry = t->hello_retry;
  out->alpn = t->protocol.p;
  out->alpn_len = t->protocol.n;
  out->server_name = t->name.p;
  out->server_name_len = t->name.n;
  out->chain = t->chain.p;
  out->chain_len = t->chain.n;
  out->ocsp = t->ocsp.p;
  out->ocsp_len = t->ocsp.n;
  out->timestamps = t->timestamps.p;
  out->timestamps_len = t->timestamps.n;
  if (t->resumed) {
    out->ticket_data = t->ticket_data.p;
    out->ticket_data_len = t->ticket_data.n;
  }
}

void aq_tls_release(aq_tls *t) {
  if (t == NULL) {
    return;
  }
  if (t->ssl != NULL) {
    aq_ssl_remember(t);
  }
  aq_ssl_free(t); /* which may leave something also when it could not be made */
  aq_cert_free(t->cert);
  t->cert = NULL;
  if (t->ticket_keys.n != 0) {
    ngtcp2_secure_clear(t->ticket_keys.p, t->ticket_keys.n);
  }
  aq_blob_free(&t->ticket_keys);
}

void aq_tls_free(aq_tls *t) {
  if (t == NULL) {
    return;
  }
  aq_tls_release(t);
  while (t->sessions[0].n != 0) {
    aq_tls_session_done(t);
  }
  aq_blob_free(&t->chain);
  aq_blob_free(&t->ocsp);
  aq_blob_free(&t->timestamps);
  aq_blob_free(&t->ticket_data);
  aq_blob_free(&t->protocol);
  aq_blob_free(&t->name);
  aq_free(t);
}

const uint8_t *aq_tls_session(aq_tls *t, size_t *len) {
  *len = t->sessions[0].n;
  return t->sessions[0].p;
}

void aq_tls_session_done(aq_tls *t) { aq_session_drop(t->sessions); }

aq_cert *aq_cert_up_ref(aq_cert *c) {
  atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
  return c;
}

void aq_cert_free(aq_cert *c) {
  if (c == NULL ||
      atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1) {
    return;
  }
  aq_cert_clear(c);
  aq_free(c);
}
