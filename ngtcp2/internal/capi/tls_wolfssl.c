//go:build ngtcp2 && cgo && wolfssl

#include "wolfssl.h"

#include <ngtcp2/ngtcp2_crypto_wolfssl.h>

/* Of the process, made by aq_tls_init and never changed. A client that is asked for
 * its certificate changes from client_ctx to one of the others: without a callback
 * wolfSSL may send none, and where Go signs it must for all of a context. */
static WOLFSSL_CTX *client_ctx, *blank_ctx, *signing_ctx, *server_ctx;

static const struct {
  uint16_t id;
  uint8_t hybrid;
  const char *name;
} groups[] = {{4588, 1, "X25519MLKEM768"},     {4587, 1, "SecP256r1MLKEM768"},
              {4589, 1, "SecP384r1MLKEM1024"}, {29, 0, "X25519"},
              {23, 0, "SECP256R1"},            {24, 0, "SECP384R1"},
              {25, 0, "SECP521R1"}};

static const struct {
  uint16_t id;
  const char *name;
} suites[] = {{0x1301, "TLS13-AES128-GCM-SHA256"},
              {0x1302, "TLS13-AES256-GCM-SHA384"},
              {0x1303, "TLS13-CHACHA20-POLY1305-SHA256"}};

void aq_tls_enter(void) { wolfSSL_ERR_clear_error(); }

void aq_tls_error_text(aq_tls *t, char *err, size_t err_len) {
  char text[WOLFSSL_MAX_ERROR_SZ] = "";
  unsigned long code = 0;
  if (err_len == 0) {
    return;
  }
  err[0] = '\0';
  if (t != NULL && t->ssl != NULL) {
    int e = wolfSSL_get_error(t->ssl, -1);
    if (e != 0 && e != WOLFSSL_ERROR_WANT_READ && e != WOLFSSL_ERROR_WANT_WRITE) {
      code = (unsigned long)(e < 0 ? -e : e);
    }
  }
  if (code == 0) {
    code = wolfSSL_ERR_get_error();
  }
  if (code != 0) {
    wolfSSL_ERR_error_string_n(code, text, sizeof(text));
    aq_text(err, err_len, "%s", text);
  }
  wolfSSL_ERR_clear_error();
}

/* What wolfSSL asks of a QUIC implementation. This is ngtcp2's own method with
 * one addition: the alert may be ours. */

static int on_secrets(WOLFSSL *ssl, WOLFSSL_ENCRYPTION_LEVEL wolf_level,
                      const uint8_t *rx, const uint8_t *tx, size_t len) {
  aq_tls *t = aq_tls_of(ssl);
  ngtcp2_encryption_level level;
  ngtcp2_conn *conn;
  if (t == NULL) {
    return 0;
  }
  conn = t->ref->get_conn(t->ref);
  level = ngtcp2_crypto_wolfssl_from_wolfssl_encryption_level(wolf_level);
  if (rx != NULL && ngtcp2_crypto_derive_and_install_rx_key(
                      conn, NULL, NULL, NULL, level, rx, len) != 0) {
    return 0;
  }
  if (rx != NULL && t->server && level == NGTCP2_ENCRYPTION_LEVEL_0RTT) {
    t->early_accepted = 1;
  }
  if (tx != NULL && ngtcp2_crypto_derive_and_install_tx_key(
                      conn, NULL, NULL, NULL, level, tx, len) != 0) {
    return 0;
  }
  return 1;
}

static int on_crypto_data(WOLFSSL *ssl, WOLFSSL_ENCRYPTION_LEVEL wolf_level,
                          const uint8_t *data, size_t len) {
  aq_tls *t = aq_tls_of(ssl);
  ngtcp2_conn *conn;
  int rv;
  if (t == NULL) {
    return 0;
  }
  /* Each call brings one message, or several whole ones. */
  t->hello_retry |= t->server ? aq_is_hello_retry_request(data, len)
                              : t->hello_sent && len != 0 && data[0] == 1;
  t->hello_sent |= len != 0 && data[0] == 1; /* client_hello */
  conn = t->ref->get_conn(t->ref);
  rv = ngtcp2_conn_submit_crypto_data(
    conn, ngtcp2_crypto_wolfssl_from_wolfssl_encryption_level(wolf_level), data,
    len);
  if (rv != 0) {
    ngtcp2_conn_set_tls_error(conn, rv);
    return 0;
  }
  return 1;
}

static int on_flush(WOLFSSL *ssl) {
  (void)ssl;
  return 1;
}

static int on_alert(WOLFSSL *ssl, WOLFSSL_ENCRYPTION_LEVEL level,
                    uint8_t alert) {
  aq_tls *t = aq_tls_of(ssl);
  (void)level;
  if (t != NULL) {
    ngtcp2_conn_set_tls_alert(t->ref->get_conn(t->ref),
                              t->alert >= 0 ? (uint8_t)t->alert : alert);
  }
  return 1;
}

static const WOLFSSL_QUIC_METHOD quic_method = {on_secrets, on_crypto_data,
                                                on_flush, on_alert};

void aq_fail_with(aq_tls *t, int alert) {
  t->alert = alert;
  ngtcp2_conn_set_tls_alert(t->ref->get_conn(t->ref), (uint8_t)alert);
}

/* Handshake callbacks. */

/* Others write small letters, and may compare. */
static void on_key_log(const WOLFSSL *ssl, const char *line) {
  aq_tls *t = aq_tls_of(ssl);
  char out[512];
  size_t i, n = strlen(line);
  int label = 1;
  if (t == NULL || !t->key_log || n > sizeof(out)) {
    return;
  }
  for (i = 0; i < n; i++) {
    label = label && line[i] != ' ';
    out[i] = !label && line[i] >= 'A' && line[i] <= 'F' ? (char)(line[i] + 32)
                                                        : line[i];
  }
  aqGoKeyLog(t->callbacks, out, n);
}

/* The chain is empty if the client has none: wolfSSL asks all the same. */
static int gather_chain(aq_tls *t, const WOLFSSL_X509_STORE_CTX *store) {
  int i;
  aq_blob_free(&t->chain);
  for (i = 0; i < store->totalCerts; i++) {
    if (t->chain.n + store->certs[i].length > AQ_MAX_CHAIN ||
        aq_blob_add(&t->chain, 3, store->certs[i].buffer,
                    store->certs[i].length) != 0) {
      return -1;
    }
  }
  return 0;
}

/* The library's own verdict does not count: it knows no authority, and its
 * clock is not the application's. It asks for some or all certificates; the
 * first time Go is asked about the whole chain. */
static int on_verify(int ok, WOLFSSL_X509_STORE_CTX *store) {
  aq_tls *t = store == NULL ? NULL : store->userCtx;
  aq_blob chain;
  int alert;
  if (t == NULL) {
    return 0;
  }
  if (t->verified) {
    return t->alert < 0;
  }
  t->verified = 1;
  if (gather_chain(t, store) != 0) {
    aq_fail_with(t, AQ_ALERT_INTERNAL_ERROR);
    return 0;
  }
  if (t->chain.n == 0) {
    return ok;
  }
  if (t->server && !aq_ticket_fits(t->chain.n)) {
    (void)wolfSSL_no_ticket_TLSv13(t->ssl);
  }
  /* Go may ask for the state meanwhile, which does not have the chain yet. */
  chain = t->chain;
  t->chain = (aq_blob){NULL, 0};
  alert = aqGoVerifyPeer(t->callbacks, chain.p, chain.n);
  aq_blob_free(&t->chain);
  t->chain = chain;
  if (alert >= 0) {
    aq_fail_with(t, alert);
    return 0;
  }
  return 1;
}

/* answer_request takes from Go what a client answers a CertificateRequest with. */
static int answer_request(aq_tls *t) {
  aq_slice names, list;
  uint16_t schemes[256];
  aq_cert *cert = NULL;
  size_t n = 0;
  int rv;
  aq_request_lists(&t->request, &names, &list);
  while (n < AQ_COUNT(schemes) && aq_take_u16(&list, &schemes[n]) == 0) {
    n++;
  }
  rv = aqGoClientCertificate(t->callbacks, (uint8_t *)names.p, names.n, schemes, n,
                             &cert);
  aq_blob_free(&t->request.body);
  if (rv != 0) {
    return -1;
  }
  if (cert == NULL) {
    return wolfSSL_set_SSL_CTX(t->ssl, blank_ctx) != NULL ? 0 : -1;
  }
  t->cert = cert;
  if (cert->signer != 0 && wolfSSL_set_SSL_CTX(t->ssl, signing_ctx) == NULL) {
    return -1;
  }
  return aq_use_cert(t->ssl, cert);
}

/* For a client, when there was a CertificateRequest; for a server, after it read
 * a ClientHello. */
static int on_cert(WOLFSSL *ssl, void *arg) {
  aq_tls *t = aq_tls_of(ssl);
  (void)arg;
  if (t == NULL) {
    return 0;
  }
  if (t->server) {
    if (t->refuse >= 0) {
      aq_fail_with(t, t->refuse);
    }
    return t->refuse < 0;
  }
  if (t->cert != NULL) {
    return 1;
  }
  if (answer_request(t) != 0) {
    aq_fail_with(t, AQ_ALERT_INTERNAL_ERROR);
    return 0;
  }
  return 1;
}

int aq_tls_feed(aq_tls *t, ngtcp2_encryption_level level, const uint8_t *data,
                size_t len) {
  return ngtcp2_crypto_recv_crypto_data_cb(t->ref->get_conn(t->ref), level, 0,
                                           data, len, NULL);
}

void aq_tls_received(aq_tls *t, const uint8_t *data, size_t len) {
  if (!t->server) {
    aq_request_read(&t->request, data, len);
  }
}

/* The name that a client sends is kept only for a server that asks. */
static int on_server_name(WOLFSSL *ssl, int *alert, void *arg) {
  (void)ssl;
  (void)alert;
  (void)arg;
  return 0;
}

/* Contexts. */

WOLFSSL_CTX *aq_ctx_new(int flags) {
  int list[] = {WOLFSSL_X25519MLKEM768, WOLFSSL_ECC_X25519,
                WOLFSSL_ECC_SECP256R1, WOLFSSL_ECC_SECP384R1};
  int server = (flags & AQ_CTX_SERVER) != 0;
  WOLFSSL_CTX *ctx = wolfSSL_CTX_new(server ? wolfTLSv1_3_server_method()
                                            : wolfTLSv1_3_client_method());
  if (ctx == NULL ||
      wolfSSL_CTX_set_quic_method(ctx, &quic_method) != WOLFSSL_SUCCESS ||
      wolfSSL_CTX_set_groups(ctx, list, (int)AQ_COUNT(list)) !=
        WOLFSSL_SUCCESS ||
      wolfSSL_CTX_set_cipher_list(ctx, "TLS13-AES128-GCM-SHA256:"
                                       "TLS13-AES256-GCM-SHA384:"
                                       "TLS13-CHACHA20-POLY1305-SHA256") !=
        WOLFSSL_SUCCESS ||
      (server && wolfSSL_CTX_set_TicketEncCb(ctx, aq_on_ticket) !=
                   WOLFSSL_SUCCESS)) {
    wolfSSL_CTX_free(ctx);
    return NULL;
  }
  (void)wolfSSL_CTX_set_session_cache_mode(ctx, WOLFSSL_SESS_CACHE_OFF);
  wolfSSL_CTX_set_keylog_callback(ctx, on_key_log);
  if ((flags & AQ_CTX_CERT_CB) != 0) {
    wolfSSL_CTX_set_cert_cb(ctx, on_cert, NULL);
  }
  if ((flags & AQ_CTX_SIGNS) != 0) {
    aq_ctx_signs(ctx);
  }
  if (server) {
    wolfSSL_CTX_set_servername_callback(ctx, on_server_name);
    wolfSSL_CTX_sess_set_remove_cb(ctx, aq_on_session_used);
  } else {
    wolfSSL_CTX_sess_set_new_cb(ctx, aq_on_new_session);
  }
  return ctx;
}

int aq_tls_init(char *err, size_t err_len) {
  if (wolfSSL_Init() != WOLFSSL_SUCCESS ||
      (client_ctx = aq_ctx_new(AQ_CTX_CERT_CB)) == NULL ||
      (blank_ctx = aq_ctx_new(0)) == NULL ||
      (signing_ctx = aq_ctx_new(AQ_CTX_SIGNS)) == NULL ||
      (server_ctx = aq_ctx_new(AQ_CTX_SERVER | AQ_CTX_CERT_CB)) == NULL) {
    aq_tls_error_text(NULL, err, err_len);
    if (err_len != 0 && err[0] == '\0') {
      aq_text(err, err_len, "wolfSSL could not be initialised");
    }
    return -1;
  }
  return 0;
}

/* One connection. */

static int set_suites(WOLFSSL *ssl, aq_slice list, char *err, size_t err_len) {
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
  return wolfSSL_set_cipher_list(ssl, names) == WOLFSSL_SUCCESS ? 0 : -1;
}

/* The first group gets a key share, and with a hybrid also the first that is
 * none, as crypto/tls does. */
static int set_groups(aq_tls *t, aq_slice list, uint16_t session_group,
                      char *err, size_t err_len) {
  int ids[AQ_COUNT(groups)] = {4588, 29, 23, 24};
  int n = list.n == 0 ? 4 : 0, first_hybrid = 1, second = 29;
  uint8_t used[AQ_COUNT(groups)] = {0};
  size_t i, j;
  for (i = 0; i < list.n / 2; i++) {
    uint16_t id = aq_u16_at(list, i);
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
    if (n == 0) {
      first_hybrid = groups[j].hybrid;
      second = 0;
    } else if (first_hybrid && second == 0 && !groups[j].hybrid) {
      second = id;
    }
    ids[n++] = id;
  }
  if (list.n != 0 && wolfSSL_set_groups(t->ssl, ids, n) != WOLFSSL_SUCCESS) {
    aq_text(err, err_len, "wolfSSL does not have all of the curves");
    return -1;
  }
  if (t->server) {
    return 0;
  }
  /* A server that resumes a session with another group than the one it began with
   * does nothing wrong, but wolfSSL ends the handshake: it gets no other share. */
  for (i = 0; i < (size_t)n; i++) {
    if (ids[i] == session_group) {
      t->session_group = session_group;
      ids[0] = session_group;
      second = 0;
      break;
    }
  }
  if (wolfSSL_UseKeyShare(t->ssl, (word16)ids[0]) != WOLFSSL_SUCCESS ||
      (second != 0 && second != ids[0] &&
       wolfSSL_UseKeyShare(t->ssl, (word16)second) != WOLFSSL_SUCCESS)) {
    return -1;
  }
  return 0;
}

static int use_protocols(WOLFSSL *ssl, aq_slice list) {
  aq_blob names = {NULL, 0};
  aq_slice one;
  int rv = 0;
  while (rv == 0 && aq_take_prefixed(&list, 1, &one) == 0) {
    if (names.n != 0) {
      rv = aq_blob_add(&names, 0, (const uint8_t *)",", 1);
    }
    if (rv == 0) {
      rv = aq_blob_add(&names, 0, one.p, one.n);
    }
  }
  if (rv == 0 && names.n != 0 &&
      wolfSSL_UseALPN(ssl, (char *)names.p, (word32)names.n,
                      WOLFSSL_ALPN_FAILED_ON_MISMATCH) != WOLFSSL_SUCCESS) {
    rv = -1;
  }
  aq_blob_free(&names);
  return rv;
}

/* wolfSSL takes the first of the client's protocols that is among ours. crypto/tls,
 * and this, take the first of ours that the client has: it is the only one that
 * wolfSSL gets to know. RFC 9001, Section 8.1: without one the connection ends; a
 * server that names none takes any client, as in crypto/tls. */
static int choose_protocol(aq_tls *t, aq_slice extensions, aq_slice ours) {
  aq_slice theirs, list, one, own, rest = ours, all;
  if (ours.n == 0) {
    return 0;
  }
  if (aq_list_extension(extensions, AQ_EXT_ALPN, &theirs) == 0) {
    for (all = rest; aq_take_prefixed(&rest, 1, &own) == 0; all = rest) {
      list = theirs;
      while (aq_take_prefixed(&list, 1, &one) == 0) {
        if (one.n == own.n && memcmp(one.p, own.p, own.n) == 0) {
          all.n = 1 + own.n;
          return use_protocols(t->ssl, all);
        }
      }
    }
  }
  t->refuse = AQ_ALERT_NO_APPLICATION_PROTOCOL;
  return 0;
}

static int ours_has(aq_slice ours, uint16_t group) {
  static const uint16_t defaults[] = {4588, 29, 23, 24};
  size_t i;
  if (ours.n == 0) {
    ours = (aq_slice){(const uint8_t *)defaults, sizeof(defaults)};
  }
  for (i = 0; i < ours.n / 2 && aq_u16_at(ours, i) != group; i++) {
  }
  return i < ours.n / 2;
}

/* check_groups does what wolfSSL leaves out: it would ask a client that has none
 * of our groups for one of them, and take 0-RTT from one that must say hello
 * again (RFC 8446, Sections 4.1.1 and 4.2.10). */
static void check_groups(aq_tls *t, aq_slice extensions, aq_slice ours,
                         int *early_data) {
  aq_slice list, key;
  uint16_t group;
  int common = 0, share = 0;
  if (aq_list_extension(extensions, AQ_EXT_SUPPORTED_GROUPS, &list) != 0) {
    return; /* wolfSSL knows what to do */
  }
  while (aq_take_u16(&list, &group) == 0) {
    common |= ours_has(ours, group);
  }
  if (!common) {
    t->refuse = AQ_ALERT_HANDSHAKE_FAILURE;
  }
  if (aq_list_extension(extensions, AQ_EXT_KEY_SHARE, &list) == 0) {
    while (aq_take_u16(&list, &group) == 0 &&
           aq_take_prefixed(&list, 2, &key) == 0) {
      share |= ours_has(ours, group);
    }
  }
  *early_data = *early_data && share;
}

static int setup_client(aq_tls *t, const aq_tls_config *c,
                        const aq_tls_data *d) {
  wolfSSL_set_connect_state(t->ssl);
  /* Nothing is checked by wolfSSL, and on_verify is asked all the same. */
  wolfSSL_set_verify(t->ssl, WOLFSSL_VERIFY_NONE, on_verify);
  if (d->server_name.n > 255) {
    return -1;
  }
  if (use_protocols(t->ssl, d->alpn) != 0 ||
      (d->server_name.n != 0 &&
       wolfSSL_UseSNI(t->ssl, WOLFSSL_SNI_HOST_NAME, d->server_name.p,
                      (unsigned short)d->server_name.n) != WOLFSSL_SUCCESS) ||
      wolfSSL_UseSessionTicket(t->ssl) != WOLFSSL_SUCCESS) {
    return -1;
  }
  if (d->session.n != 0) {
    aq_use_session(t, d, c->session_age, c->early_data);
  }
  return 0;
}

/* A name that wolfSSL would cut is not sent, and no list without it either: for a
 * client it means that its certificate is not wanted. */
#if defined(OPENSSL_ALL) || defined(WOLFSSL_NGINX)
#  define AQ_MAX_NAME (256 - 4)
#else
#  define AQ_MAX_NAME 0 /* this build sends nothing but their number */
#endif

static int set_cas(aq_tls *t, aq_slice cas) {
  WOLF_STACK_OF(WOLFSSL_X509_NAME) *names;
  aq_slice all = cas, der;
  while (all.n != 0) {
    if (aq_take_prefixed(&all, 2, &der) != 0) {
      return -1;
    }
    if (der.n > AQ_MAX_NAME) {
      return 0;
    }
  }
  if (cas.n == 0) {
    return 0;
  }
  if ((names = wolfSSL_sk_X509_NAME_new(NULL)) == NULL) {
    return -1;
  }
  while (aq_take_prefixed(&cas, 2, &der) == 0) {
    unsigned char *p = (unsigned char *)der.p;
    WOLFSSL_X509_NAME *name = wolfSSL_d2i_X509_NAME(NULL, &p, (long)der.n);
    if (name == NULL || wolfSSL_sk_X509_NAME_push(names, name) <= 0) {
      wolfSSL_X509_NAME_free(name);
      wolfSSL_sk_X509_NAME_pop_free(names, wolfSSL_X509_NAME_free);
      return -1;
    }
  }
  wolfSSL_set0_CA_list(t->ssl, names);
  return 0;
}

static int set_client_auth(aq_tls *t, int auth, aq_slice cas) {
  WOLFSSL_X509_STORE *store;
  wolfSSL_set_verify(
    t->ssl,
    WOLFSSL_VERIFY_PEER | (auth == 2 ? WOLFSSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
    on_verify);
  /* wolfSSL remembers the authorities that it saw: not for other connections. */
  if ((store = wolfSSL_X509_STORE_new()) == NULL) {
    return -1;
  }
  if (wolfSSL_set0_verify_cert_store(t->ssl, store) != WOLFSSL_SUCCESS) {
    wolfSSL_X509_STORE_free(store);
    return -1;
  }
  return set_cas(t, cas);
}

static int setup_server(aq_tls *t, const aq_tls_config *c,
                        const aq_tls_data *d) {
  aq_slice hello = {NULL, 0}, extensions = {NULL, 0};
  int early_data = c->early_data;
  wolfSSL_set_accept_state(t->ssl);
  if (c->client_auth == 0) {
    wolfSSL_set_verify(t->ssl, WOLFSSL_VERIFY_NONE, on_verify);
  } else if (set_client_auth(t, c->client_auth, d->cas) != 0) {
    return -1;
  }
  if (!t->tickets) {
    aq_blob_free(&t->ticket_keys);
  }
  if (t->ticket_keys.n == 0 && wolfSSL_no_ticket_TLSv13(t->ssl) != 0) {
    return -1;
  }
  hello.p = aq_conn_tls_hello(t->ref, &hello.n);
  if (hello.p == NULL || aq_hello_extensions(hello, &extensions) != 0) {
    extensions = (aq_slice){NULL, 0};
  }
  check_groups(t, extensions, d->curves, &early_data);
  wolfSSL_set_quic_early_data_enabled(t->ssl,
                                      early_data && t->ticket_keys.n != 0);
  return t->refuse < 0 ? choose_protocol(t, extensions, d->alpn) : 0;
}

int aq_ssl_new(aq_tls *t, const aq_tls_config *c, const aq_tls_data *d,
               char *err, size_t err_len) {
  t->alert = -1;
  t->refuse = -1;
  t->ssl = wolfSSL_new(!t->server        ? client_ctx
                       : t->cert != NULL ? t->cert->ctx
                                         : server_ctx);
  if (t->ssl == NULL || wolfSSL_set_app_data(t->ssl, t) != WOLFSSL_SUCCESS) {
    return -1;
  }
  wolfSSL_SetCertCbCtx(t->ssl, t);
  wolfSSL_set_quic_transport_version(t->ssl, 0x39); /* RFC 9001, Section 8.2 */
  if (set_suites(t->ssl, d->suites, err, err_len) != 0 ||
      set_groups(t, d->curves, aq_session_group(d->session), err, err_len) != 0) {
    return -1;
  }
  return t->server ? setup_server(t, c, d) : setup_client(t, c, d);
}

void *aq_tls_native(aq_tls *t) { return t->ssl; }

void aq_ssl_remember(aq_tls *t) {
  char *protocol = NULL;
  word16 n = 0;
  void *host = NULL;
  const char *name;
  size_t i;
  t->suite = (uint16_t)wolfSSL_get_current_cipher_suite(t->ssl);
  name = wolfSSL_get_curve_name(t->ssl);
  t->curve = 0;
  for (i = 0; name != NULL && i < AQ_COUNT(groups); i++) {
    if (strcmp(name, groups[i].name) == 0) {
      t->curve = groups[i].id;
    }
  }
  t->resumed = wolfSSL_session_reused(t->ssl) == 1;
  if (!t->server) {
    t->early_accepted = wolfSSL_get_early_data_status(t->ssl) ==
                        WOLFSSL_EARLY_DATA_ACCEPTED;
  }
  if (wolfSSL_ALPN_GetProtocol(t->ssl, &protocol, &n) != WOLFSSL_SUCCESS) {
    protocol = NULL;
  }
  aq_tls_keep(&t->protocol, (const uint8_t *)protocol, protocol == NULL ? 0 : n);
  if (t->server) { /* a client's name is what was asked for */
    n = wolfSSL_SNI_GetRequest(t->ssl, WOLFSSL_SNI_HOST_NAME, &host);
    aq_tls_keep(&t->name, host, host == NULL ? 0 : n);
  }
}

void aq_ssl_free(aq_tls *t) {
  if (t->ssl != NULL) {
    (void)wolfSSL_set_app_data(t->ssl, NULL);
    wolfSSL_free(t->ssl);
    t->ssl = NULL;
  }
  aq_blob_free(&t->request.body);
}

const char *aq_tls_version(void) { return wolfSSL_lib_version(); }

const char *aq_tls_header_version(void) { return LIBWOLFSSL_VERSION_STRING; }
