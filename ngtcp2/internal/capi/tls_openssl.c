//go:build ngtcp2 && cgo && !wolfssl

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <ngtcp2/ngtcp2_crypto_ossl.h>

#include "openssl.h"

#define AQ_MAX_TICKET_CHAIN 16384 /* bytes of a client's chain in a ticket */

/* Of the process, made by aq_tls_init and never changed. */
static SSL_CTX *client_ctx, *server_ctx;
static int tls_index = -1; /* ex_data of an SSL: its aq_tls */

static const struct {
  uint16_t id;
  uint8_t hybrid;
  const char *name;
} groups[] = {{4588, 1, "X25519MLKEM768"},     {4587, 1, "SecP256r1MLKEM768"},
              {4589, 1, "SecP384r1MLKEM1024"}, {29, 0, "x25519"},
              {23, 0, "secp256r1"},            {24, 0, "secp384r1"},
              {25, 0, "secp521r1"}};

static const struct {
  uint16_t id;
  const char *name;
} suites[] = {{0x1301, "TLS_AES_128_GCM_SHA256"},
              {0x1302, "TLS_AES_256_GCM_SHA384"},
              {0x1303, "TLS_CHACHA20_POLY1305_SHA256"}};

aq_tls *aq_tls_of(const SSL *ssl) {
  return ssl == NULL ? NULL : SSL_get_ex_data(ssl, tls_index);
}

void aq_tls_enter(void) {
  if (ERR_peek_error() != 0) {
    ERR_clear_error();
  }
}

void aq_tls_error_text(aq_tls *t, char *err, size_t err_len) {
  const char *data = NULL, *reason;
  int flags = 0;
  unsigned long code = ERR_get_error_all(NULL, NULL, NULL, &data, &flags);
  (void)t;
  if (err_len != 0) {
    err[0] = '\0';
  }
  if (code == 0) {
    return;
  }
  /* The oldest is the cause, what follows are the functions that gave up. */
  reason = ERR_reason_error_string(code);
  if (reason == NULL) {
    aq_text(err, err_len, "OpenSSL error %lx", code);
  } else if (data != NULL && (flags & ERR_TXT_STRING) != 0 && data[0] != '\0') {
    aq_text(err, err_len, "%s: %s", reason, data);
  } else {
    aq_text(err, err_len, "%s", reason);
  }
  ERR_clear_error();
}

/* Handshake callbacks. */

static void on_key_log(const SSL *ssl, const char *line) {
  aq_tls *t = aq_tls_of(ssl);
  if (t != NULL && t->key_log) {
    aqGoKeyLog(t->callbacks, (char *)line, strlen(line));
  }
}

/* RFC 9001, Section 8.1: without an agreed application protocol the connection
 * ends. A server that names none takes any client, as in crypto/tls. */
static int on_client_hello(SSL *ssl, int *alert, void *arg) {
  aq_tls *t = aq_tls_of(ssl);
  const unsigned char *ext;
  size_t len;
  (void)arg;
  if (t != NULL && t->alpn.n != 0 &&
      !SSL_client_hello_get0_ext(
        ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &ext, &len)) {
    *alert = SSL_AD_NO_APPLICATION_PROTOCOL;
    return SSL_CLIENT_HELLO_ERROR;
  }
  return SSL_CLIENT_HELLO_SUCCESS;
}

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                   const unsigned char *in, unsigned int in_len, void *arg) {
  aq_tls *t = aq_tls_of(ssl);
  aq_slice ours, own, theirs, one;
  (void)arg;
  if (t == NULL || t->alpn.n == 0) {
    return SSL_TLSEXT_ERR_NOACK;
  }
  ours = (aq_slice){t->alpn.p, t->alpn.n};
  while (aq_take_prefixed(&ours, 1, &own) == 0) {
    theirs = (aq_slice){in, in_len};
    while (aq_take_prefixed(&theirs, 1, &one) == 0) {
      if (one.n == own.n && memcmp(one.p, own.p, own.n) == 0) {
        *out = one.p;
        *out_len = (unsigned char)one.n;
        return SSL_TLSEXT_ERR_OK;
      }
    }
  }
  return SSL_TLSEXT_ERR_ALERT_FATAL; /* no_application_protocol */
}

/* OpenSSL derives the alert from a verification error. */
static int verify_error(int alert) {
  switch (alert) {
  case SSL_AD_HANDSHAKE_FAILURE:
    return X509_V_ERR_APPLICATION_VERIFICATION;
  case SSL_AD_UNSUPPORTED_CERTIFICATE:
    return X509_V_ERR_INVALID_PURPOSE;
  case SSL_AD_CERTIFICATE_REVOKED:
    return X509_V_ERR_CERT_REVOKED;
  case SSL_AD_CERTIFICATE_EXPIRED:
    return X509_V_ERR_CERT_HAS_EXPIRED;
  case SSL_AD_CERTIFICATE_UNKNOWN:
    return X509_V_ERR_SUBJECT_ISSUER_MISMATCH; /* any that is not in its table */
  case SSL_AD_UNKNOWN_CA:
    return X509_V_ERR_INVALID_CA;
  case SSL_AD_DECRYPT_ERROR:
    return X509_V_ERR_CERT_SIGNATURE_FAILURE;
  case SSL_AD_INTERNAL_ERROR:
    return X509_V_ERR_UNSPECIFIED;
  default:
    return X509_V_ERR_CERT_REJECTED; /* bad_certificate */
  }
}

static int add_der(aq_blob *b, int len, int (*write)(void *, unsigned char **),
                   void *object) {
  unsigned char *p;
  if (len <= 0 || b->n + (size_t)len > AQ_MAX_CHAIN ||
      (p = aq_blob_reserve(b, 3, (size_t)len)) == NULL) {
    return -1;
  }
  return write(object, &p) == len ? 0 : -1;
}

static int write_x509(void *x, unsigned char **p) { return i2d_X509(x, p); }
static int write_key(void *k, unsigned char **p) { return i2d_PUBKEY(k, p); }

static int gather_chain(aq_tls *t, X509_STORE_CTX *store) {
  EVP_PKEY *key = X509_STORE_CTX_get0_rpk(store);
  STACK_OF(X509) *sk;
  int i;
  aq_blob_free(&t->chain);
  if (key != NULL) {
    return add_der(&t->chain, i2d_PUBKEY(key, NULL), write_key, key);
  }
  sk = X509_STORE_CTX_get0_untrusted(store);
  for (i = 0; i < sk_X509_num(sk); i++) {
    X509 *x = sk_X509_value(sk, i);
    if (add_der(&t->chain, i2d_X509(x, NULL), write_x509, x) != 0) {
      return -1;
    }
  }
  return t->chain.n != 0 ? 0 : -1;
}

static int on_verify(X509_STORE_CTX *store, void *arg) {
  aq_tls *t = aq_tls_of(X509_STORE_CTX_get_ex_data(
    store, SSL_get_ex_data_X509_STORE_CTX_idx()));
  aq_blob chain;
  int alert;
  (void)arg;
  if (t == NULL || gather_chain(t, store) != 0) {
    X509_STORE_CTX_set_error(store, X509_V_ERR_OUT_OF_MEM);
    return 0;
  }
  if (t->server && t->chain.n > AQ_MAX_TICKET_CHAIN) {
    (void)SSL_set_num_tickets(t->ssl, 0); /* it would not fit into a ticket */
  }
  /* Go may ask for the state meanwhile, which does not have the chain yet. */
  chain = t->chain;
  t->chain = (aq_blob){NULL, 0};
  alert = aqGoVerifyPeer(t->callbacks, chain.p, chain.n);
  aq_blob_free(&t->chain);
  t->chain = chain;
  if (alert >= 0) {
    X509_STORE_CTX_set_error(store, verify_error(alert));
    return 0;
  }
  X509_STORE_CTX_set_error(store, X509_V_OK);
  return 1;
}

static int use_cert(aq_tls *t, aq_cert *cert) {
  return SSL_use_cert_and_key(t->ssl, cert->leaf, cert->key, cert->rest, 1) == 1
           ? 0
           : -1;
}

/* For a client, when there was a CertificateRequest; for a server, before it
 * signs. */
static int on_cert(SSL *ssl, void *arg) {
  aq_tls *t = aq_tls_of(ssl);
  const STACK_OF(X509_NAME) *names;
  aq_blob cas = {NULL, 0};
  uint16_t schemes[128];
  aq_cert *cert = NULL;
  int i, n, rv = 0;
  (void)arg;
  if (t == NULL) {
    return 0;
  }
  if (t->server) {
    aq_signing_for(t->cert != NULL && t->cert->signer ? t->callbacks : 0);
    return 1;
  }
  names = SSL_get0_peer_CA_list(ssl);
  for (i = 0; i < sk_X509_NAME_num(names); i++) {
    X509_NAME *name = sk_X509_NAME_value(names, i);
    const unsigned char *der;
    size_t len;
    if (!X509_NAME_get0_der(name, &der, &len) ||
        aq_blob_add(&cas, 2, der, len) != 0) {
      goto done;
    }
  }
  n = SSL_get_sigalgs(ssl, -1, NULL, NULL, NULL, NULL, NULL);
  if (n < 0) {
    n = 0;
  } else if (n > (int)AQ_COUNT(schemes)) {
    n = (int)AQ_COUNT(schemes);
  }
  for (i = 0; i < n; i++) {
    unsigned char signature = 0, hash = 0;
    (void)SSL_get_sigalgs(ssl, i, NULL, NULL, NULL, &signature, &hash);
    schemes[i] = (uint16_t)(hash << 8 | signature);
  }
  if (aqGoClientCertificate(t->callbacks, cas.p, cas.n, schemes, (size_t)n,
                            &cert) != 0) {
    goto done;
  }
  if (cert == NULL) {
    rv = 1;
    goto done;
  }
  aq_signing_for(cert->signer ? t->callbacks : 0);
  rv = use_cert(t, cert) == 0;
  aq_cert_free(cert);
done:
  aq_blob_free(&cas);
  return rv;
}

void aq_tls_received(aq_tls *t, const uint8_t *data, size_t len) {
  (void)t;
  (void)data;
  (void)len;
}

static int on_status(SSL *ssl, void *arg) {
  aq_tls *t = aq_tls_of(ssl);
  uint8_t *p;
  int taken;
  (void)arg;
  if (t == NULL) {
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }
  if (!t->server) {
    const unsigned char *der = NULL;
    long len = SSL_get_tlsext_status_ocsp_resp(ssl, &der);
    if (len > 0 && der != NULL &&
        aq_blob_set(&t->ocsp, der, (size_t)len) != 0) {
      return -1;
    }
    return 1; /* whether it is good is for Go to say */
  }
  if (t->cert == NULL || t->cert->ocsp.n == 0 ||
      (p = OPENSSL_memdup(t->cert->ocsp.p, t->cert->ocsp.n)) == NULL) {
    return SSL_TLSEXT_ERR_NOACK;
  }
  /* From 3.6 on OpenSSL does not take what it cannot read. An error that stays
   * in its queue would be that of the handshake. */
  ERR_set_mark();
  taken = SSL_set_tlsext_status_ocsp_resp(ssl, p, (long)t->cert->ocsp.n) == 1;
  ERR_pop_to_mark();
  if (!taken) {
    OPENSSL_free(p);
    return SSL_TLSEXT_ERR_NOACK;
  }
  return SSL_TLSEXT_ERR_OK;
}

/* Contexts. */

static SSL_CTX *new_ctx(void) {
  SSL_CTX *ctx = SSL_CTX_new(TLS_method());
  if (ctx == NULL || !SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) ||
      !SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) ||
      !SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:"
                                     "TLS_AES_256_GCM_SHA384:"
                                     "TLS_CHACHA20_POLY1305_SHA256") ||
      !SSL_CTX_set1_groups_list(
        ctx, "*X25519MLKEM768/*X25519:secp256r1:secp384r1")) {
    SSL_CTX_free(ctx);
    return NULL;
  }
  /* RFC 9001, Section 8.4: no middlebox compatibility mode. The engine does
   * not promise to stop replays of 0-RTT; a ticket store in memory would be
   * the only thing that is not stateless. */
  SSL_CTX_clear_options(ctx, SSL_OP_ENABLE_MIDDLEBOX_COMPAT);
  SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                             SSL_OP_NO_ANTI_REPLAY |
                             SSL_OP_CIPHER_SERVER_PREFERENCE |
                             SSL_OP_PRIORITIZE_CHACHA);
  SSL_CTX_set_keylog_callback(ctx, on_key_log);
  SSL_CTX_set_cert_verify_callback(ctx, on_verify, NULL);
  SSL_CTX_set_cert_cb(ctx, on_cert, NULL);
  SSL_CTX_set_tlsext_status_cb(ctx, on_status);
  if (aq_timestamps_use(ctx) != 0) {
    SSL_CTX_free(ctx);
    return NULL;
  }
  return ctx;
}

int aq_tls_init(char *err, size_t err_len) {
  static const unsigned char id[] = "anyquic";
  /* The configuration file of the system is for other programs. */
  if (!OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, NULL)) {
    goto fail;
  }
  aq_tls_enter();
  (void)ngtcp2_crypto_ossl_init(); /* an optimisation, which may fail */
  aq_tls_enter();
  tls_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
  if (tls_index < 0 || aq_tickets_init() != 0 || aq_signer_init() != 0 ||
      (client_ctx = new_ctx()) == NULL || (server_ctx = new_ctx()) == NULL) {
    goto fail;
  }
  SSL_CTX_set_session_cache_mode(client_ctx, SSL_SESS_CACHE_CLIENT |
                                               SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(client_ctx, aq_on_new_session);
  if (SSL_CTX_set_tlsext_status_type(client_ctx, TLSEXT_STATUSTYPE_ocsp) != 1) {
    goto fail;
  }
  SSL_CTX_set_session_cache_mode(server_ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_client_hello_cb(server_ctx, on_client_hello, NULL);
  SSL_CTX_set_alpn_select_cb(server_ctx, on_alpn, NULL);
  if (!SSL_CTX_set_session_id_context(server_ctx, id, sizeof(id) - 1) ||
      aq_tickets_use(server_ctx) != 0) {
    goto fail;
  }
  return 0;
fail:
  aq_tls_error_text(NULL, err, err_len);
  return -1;
}

/* One connection. */

static int set_suites(SSL *ssl, aq_slice list, char *err, size_t err_len) {
  char names[AQ_COUNT(suites) * 40] = "";
  size_t i, j, n = 0;
  uint8_t used[AQ_COUNT(suites)] = {0};
  if (list.n == 0) {
    return 0;
  }
  for (i = 0; i < list.n / 2; i++) {
    uint16_t id = aq_u16_at(list, i);
    for (j = 0; j < AQ_COUNT(suites) && suites[j].id != id; j++) {
    }
    if (j == AQ_COUNT(suites)) {
      aq_text(err, err_len, "cipher suite 0x%04x is not there", id);
      return -1;
    }
    if (!used[j]) {
      used[j] = 1;
      n += (size_t)snprintf(names + n, sizeof(names) - n, "%s%s",
                            n != 0 ? ":" : "", suites[j].name);
    }
  }
  SSL_clear_options(ssl, SSL_OP_PRIORITIZE_CHACHA);
  return SSL_set_ciphersuites(ssl, names) ? 0 : -1;
}

/* The first group gets a key share, and with a hybrid also the first that is
 * none. A server asks for a hybrid that the client knows even if that takes a
 * HelloRetryRequest, and for others only if it has to: both as crypto/tls. */
static int set_groups(SSL *ssl, aq_slice list, char *err, size_t err_len) {
  char names[AQ_COUNT(groups) * 24] = "";
  size_t i, j, n = 0;
  int hybrid = -1, classical = 0;
  uint8_t used[AQ_COUNT(groups)] = {0};
  if (list.n == 0) {
    return 0;
  }
  for (i = 0; i < list.n / 2; i++) {
    uint16_t id = aq_u16_at(list, i);
    int share;
    for (j = 0; j < AQ_COUNT(groups) && groups[j].id != id; j++) {
    }
    if (j == AQ_COUNT(groups)) {
      aq_text(err, err_len, "curve %u is not there", id);
      return -1;
    }
    if (used[j]) {
      continue;
    }
    used[j] = 1;
    share = n == 0 || (!groups[j].hybrid && !classical && used[0]);
    if (!groups[j].hybrid) {
      classical = 1;
    }
    n += (size_t)snprintf(
      names + n, sizeof(names) - n, "%s%s%s",
      n == 0 ? "" : hybrid != groups[j].hybrid ? "/" : ":", share ? "*" : "",
      groups[j].name);
    hybrid = groups[j].hybrid;
  }
  return SSL_set1_groups_list(ssl, names) ? 0 : -1;
}

static int set_cas(SSL *ssl, aq_slice cas) {
  STACK_OF(X509_NAME) *names;
  aq_slice der;
  if (cas.n == 0) {
    return 0;
  }
  if ((names = sk_X509_NAME_new_null()) == NULL) {
    return -1;
  }
  while (cas.n != 0) {
    const unsigned char *p;
    X509_NAME *name;
    if (aq_take_prefixed(&cas, 2, &der) != 0) {
      goto fail;
    }
    p = der.p;
    name = d2i_X509_NAME(NULL, &p, (long)der.n);
    if (name == NULL || !sk_X509_NAME_push(names, name)) {
      X509_NAME_free(name);
      goto fail;
    }
  }
  SSL_set0_CA_list(ssl, names);
  return 0;
fail:
  sk_X509_NAME_pop_free(names, X509_NAME_free);
  return -1;
}

static int setup_client(aq_tls *t, const aq_tls_config *c,
                        const aq_tls_data *d) {
  char name[256];
  SSL_set_connect_state(t->ssl);
  SSL_set_verify(t->ssl, SSL_VERIFY_PEER, NULL);
  if (d->alpn.n != 0 &&
      SSL_set_alpn_protos(t->ssl, d->alpn.p, (unsigned)d->alpn.n) != 0) {
    return -1;
  }
  if (d->server_name.n != 0) {
    if (d->server_name.n >= sizeof(name)) {
      return -1;
    }
    memcpy(name, d->server_name.p, d->server_name.n);
    name[d->server_name.n] = '\0';
    if (!SSL_set_tlsext_host_name(t->ssl, name)) {
      return -1;
    }
  }
  return d->session.n != 0 ? aq_use_session(t, d, c->session_age, c->early_data) : 0;
}

static int setup_server(aq_tls *t, const aq_tls_config *c,
                        const aq_tls_data *d) {
  int verify = c->client_auth == 0   ? SSL_VERIFY_NONE
               : c->client_auth == 1 ? SSL_VERIFY_PEER
                                     : SSL_VERIFY_PEER |
                                         SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
  SSL_set_accept_state(t->ssl);
  SSL_set_verify(t->ssl, verify, NULL);
  if (aq_blob_set(&t->alpn, d->alpn.p, d->alpn.n) != 0 ||
      set_cas(t->ssl, d->cas) != 0) {
    return -1;
  }
  if (t->cert != NULL && use_cert(t, t->cert) != 0) {
    return -1;
  }
  t->tickets = c->tickets && d->ticket_keys.n != 0;
  if (!SSL_set_num_tickets(t->ssl, t->tickets ? 1 : 0)) {
    return -1;
  }
  if (c->early_data && (!SSL_set_max_early_data(t->ssl, AQ_EARLY_DATA) ||
                        !SSL_set_quic_tls_early_data_enabled(t->ssl, 1))) {
    return -1;
  }
  return 0;
}

int aq_ssl_new(aq_tls *t, const aq_tls_config *c, const aq_tls_data *d,
               char *err, size_t err_len) {
  static const unsigned char types[] = {TLSEXT_cert_type_rpk};
  t->ssl = SSL_new(t->server ? server_ctx : client_ctx);
  if (t->ssl == NULL || !SSL_set_ex_data(t->ssl, tls_index, t) ||
      aq_crypto_use(t) != 0 ||
      ngtcp2_crypto_ossl_ctx_new(&t->native, t->ssl) != 0 ||
      set_suites(t->ssl, d->suites, err, err_len) != 0 ||
      set_groups(t->ssl, d->curves, err, err_len) != 0) {
    return -1;
  }
  if (c->raw_public_key &&
      (!SSL_set1_client_cert_type(t->ssl, types, sizeof(types)) ||
       !SSL_set1_server_cert_type(t->ssl, types, sizeof(types)))) {
    return -1;
  }
  return t->server ? setup_server(t, c, d) : setup_client(t, c, d);
}

void *aq_tls_native(aq_tls *t) { return t->native; }

void aq_ssl_remember(aq_tls *t) {
  const SSL_CIPHER *cipher = SSL_get_current_cipher(t->ssl);
  const unsigned char *alpn = NULL;
  unsigned int alpn_len = 0;
  const char *name;
  size_t i;
  if (cipher == NULL) {
    cipher = SSL_get_pending_cipher(t->ssl);
  }
  t->suite = cipher == NULL ? 0 : SSL_CIPHER_get_protocol_id(cipher);
  /* Before the handshake begins there is no session, which it would read. */
  name = SSL_get_session(t->ssl) == NULL ? NULL : SSL_get0_group_name(t->ssl);
  t->curve = 0;
  for (i = 0; name != NULL && i < AQ_COUNT(groups); i++) {
    if (OPENSSL_strcasecmp(name, groups[i].name) == 0) {
      t->curve = groups[i].id;
    }
  }
  t->resumed = SSL_session_reused(t->ssl) == 1;
  t->early_accepted =
    SSL_get_early_data_status(t->ssl) == SSL_EARLY_DATA_ACCEPTED;
  SSL_get0_alpn_selected(t->ssl, &alpn, &alpn_len);
  aq_tls_keep(&t->protocol, alpn, alpn_len);
  if (t->server) { /* a client's name is what was asked for */
    name = SSL_get_servername(t->ssl, TLSEXT_NAMETYPE_host_name);
    aq_tls_keep(&t->name, (const uint8_t *)name, name == NULL ? 0 : strlen(name));
  }
}

void aq_ssl_free(aq_tls *t) {
  t->ref = NULL; /* SSL_free calls back */
  SSL_free(t->ssl);
  t->ssl = NULL;
  aq_pieces_free(&t->in); /* what ssl had not read */
  ngtcp2_crypto_ossl_ctx_del(t->native);
  t->native = NULL;
  aq_blob_free(&t->alpn);
}

const char *aq_tls_version(void) {
  return OpenSSL_version(OPENSSL_VERSION_STRING);
}

const char *aq_tls_header_version(void) { return OPENSSL_VERSION_STR; }
