//go:build ngtcp2 && cgo && !wolfssl

#include <time.h>

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include "openssl.h"

#define AQ_TICKET_SECONDS (7 * 24 * 3600) /* RFC 8446, Section 4.6.1: the most */
#define AQ_TICKET_MARGIN 10 /* seconds, from here to the ClientHello */
#define AQ_SESSION_MAGIC "aqO1"

static EVP_CIPHER *ticket_cipher; /* made by aq_tickets_init and never changed */

/* Sessions, on the client. */

int aq_on_new_session(SSL *ssl, SSL_SESSION *session) {
  aq_tls *t = aq_tls_of(ssl);
  aq_blob b = {NULL, 0};
  unsigned char *p;
  int len;
  if (t == NULL || t->server || !t->tickets) {
    return 0;
  }
  len = i2d_SSL_SESSION(session, NULL);
  if (len <= 0 || aq_blob_add(&b, 0, (const uint8_t *)AQ_SESSION_MAGIC,
                              sizeof(AQ_SESSION_MAGIC) - 1) != 0) {
    return 0;
  }
  if (aq_blob_add(&b, 1, t->name.p, t->name.n) != 0 ||
      (p = aq_blob_reserve(&b, 0, (size_t)len)) == NULL ||
      i2d_SSL_SESSION(session, &p) != len) {
    aq_blob_free(&b);
    return 0;
  }
  aq_session_keep(t->sessions, b);
  aq_conn_tls_session(t->ref);
  return 0;
}

/* offers says whether protocol is one of the list. */
static int offers(aq_slice list, const uint8_t *protocol, size_t len) {
  aq_slice one;
  while (aq_take_prefixed(&list, 1, &one) == 0) {
    if (one.n == len && memcmp(one.p, protocol, len) == 0) {
      return 1;
    }
  }
  return 0;
}

/* will_offer says whether OpenSSL will put the session, which is age seconds old,
 * into the ClientHello. It must not be in doubt: what it silently leaves out it
 * still takes early data for, under a key that anybody can compute. Go's clock,
 * which may not be this host's, judges. */
static int will_offer(SSL_SESSION *session, uint64_t age) {
  uint64_t lifetime = SSL_SESSION_get_ticket_lifetime_hint(session);
  time_t now = time(NULL);
  return SSL_SESSION_is_resumable(session) && SSL_SESSION_has_ticket(session) &&
         SSL_SESSION_get_protocol_version(session) == TLS1_3_VERSION &&
         SSL_SESSION_get0_cipher(session) != NULL && now > AQ_TICKET_SECONDS &&
         lifetime <= AQ_TICKET_SECONDS && age < lifetime &&
         lifetime - age > AQ_TICKET_MARGIN &&
         SSL_SESSION_set_time_ex(session, now - (time_t)age) != 0;
}

/* aq_use_session resumes what fits; what does not is left out, and the handshake
 * is a full one. */
int aq_use_session(aq_tls *t, const aq_tls_data *d, uint64_t age,
                   int early_data) {
  aq_slice in = d->session;
  const unsigned char *p;
  const unsigned char *protocol = NULL;
  aq_slice host;
  size_t protocol_len = 0;
  SSL_SESSION *session;
  int bad = 0, rv = 0;
  aq_slice magic = aq_take(&in, sizeof(AQ_SESSION_MAGIC) - 1, &bad);
  if (bad || memcmp(magic.p, AQ_SESSION_MAGIC, magic.n) != 0 ||
      aq_take_prefixed(&in, 1, &host) != 0 || host.n != d->server_name.n ||
      (host.n != 0 && memcmp(host.p, d->server_name.p, host.n) != 0) ||
      in.n > AQ_MAX_CHAIN) {
    return 0; /* with another name, the server proved who it is to others */
  }
  p = in.p;
  session = d2i_SSL_SESSION(NULL, &p, (long)in.n);
  if (session == NULL) {
    ERR_clear_error();
    return 0;
  }
  if (!will_offer(session, age)) {
    goto done;
  }
  if (!SSL_set_session(t->ssl, session)) {
    rv = -1;
    goto done;
  }
  SSL_SESSION_get0_alpn_selected(session, &protocol, &protocol_len);
  if (early_data &&
      SSL_SESSION_get_max_early_data(session) == AQ_EARLY_DATA &&
      (protocol_len == 0 ? d->alpn.n == 0
                         : offers(d->alpn, protocol, protocol_len))) {
    if (!SSL_set_quic_tls_early_data_enabled(t->ssl, 1)) {
      rv = -1;
      goto done;
    }
    t->early = 1;
  }
done:
  SSL_SESSION_free(session);
  return rv;
}

/* Tickets, on the server. */

/* A ticket remembers what Go says of the client, and is good for what Go lets
 * it be good for. */
static int on_ticket_make(SSL *ssl, void *arg) {
  aq_tls *t = aq_tls_of(ssl);
  aq_blob b = {NULL, 0};
  int ok;
  (void)arg;
  if (t == NULL || aqGoTicketData(t->callbacks, &b.p, &b.n) != 0) {
    return 0;
  }
  ok = SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), b.p, b.n);
  aq_blob_free(&b);
  return ok;
}

static SSL_TICKET_RETURN on_ticket_read(SSL *ssl, SSL_SESSION *session,
                                        const unsigned char *name,
                                        size_t name_len,
                                        SSL_TICKET_STATUS status, void *arg) {
  aq_tls *t = aq_tls_of(ssl);
  void *p = NULL;
  size_t n = 0;
  int64_t age;
  (void)name;
  (void)name_len;
  (void)arg;
  if (t == NULL || session == NULL ||
      (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW) ||
      !SSL_SESSION_get0_ticket_appdata(session, &p, &n) ||
      aq_blob_set(&t->ticket_data, p, n) != 0) {
    return SSL_TICKET_RETURN_IGNORE_RENEW;
  }
  age = aqGoResumeTicket(t->callbacks, t->ticket_data.p, n);
  if (age < 0) {
    return SSL_TICKET_RETURN_IGNORE_RENEW;
  }
  /* Go's clock, which may not be this host's, judges the age that the client
   * tells (RFC 8446, Section 8.3). OpenSSL takes one that is up to a second more
   * than the session's, whose time has no fraction: it is not to be younger than
   * Go says. */
  (void)SSL_SESSION_set_time_ex(session,
                                time(NULL) - (time_t)((age + 999) / 1000));
  /* A client uses a session once (RFC 8446, Appendix C.4): it gets another. */
  return SSL_TICKET_RETURN_USE_RENEW;
}

/* A ticket key's parts: 16 bytes of name, of AES key, of MAC key. Hashed, since
 * the name is public. */
static int ticket_key(const uint8_t *key, uint8_t out[64]) {
  size_t n = 64;
  return EVP_Q_digest(NULL, "SHA512", NULL, key, AQ_TICKET_KEY, out, &n) &&
             n == 64
           ? 0
           : -1;
}

static int on_ticket_key(SSL *ssl, unsigned char *name, unsigned char *iv,
                         EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int encrypt) {
  aq_tls *t = aq_tls_of(ssl);
  uint8_t key[64];
  OSSL_PARAM params[3];
  size_t i;
  int rv = -1;
  if (t == NULL || t->ticket_keys.n == 0) {
    return encrypt ? -1 : 0;
  }
  for (i = 0; i < t->ticket_keys.n; i += AQ_TICKET_KEY) {
    if (ticket_key(t->ticket_keys.p + i, key) != 0) {
      goto done;
    }
    if (encrypt || memcmp(name, key, 16) == 0) {
      break;
    }
  }
  if (i == t->ticket_keys.n) {
    rv = 0; /* none of ours */
    goto done;
  }
  params[0] = OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key + 32, 16);
  params[1] =
    OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, "SHA256", 0);
  params[2] = OSSL_PARAM_construct_end();
  if (encrypt) {
    memcpy(name, key, 16);
    if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(ticket_cipher)) != 1 ||
        !EVP_EncryptInit_ex2(cipher, ticket_cipher, key + 16, iv, NULL)) {
      goto done;
    }
  } else if (!EVP_DecryptInit_ex2(cipher, ticket_cipher, key + 16, iv, NULL)) {
    goto done;
  }
  if (EVP_MAC_CTX_set_params(mac, params)) {
    rv = !encrypt && i != 0 ? 2 : 1;
  }
done:
  OPENSSL_cleanse(key, sizeof(key));
  return rv;
}

int aq_tickets_init(void) {
  ticket_cipher = EVP_CIPHER_fetch(NULL, "AES-128-CBC", NULL);
  return ticket_cipher != NULL ? 0 : -1;
}

int aq_tickets_use(SSL_CTX *server_ctx) {
  SSL_CTX_set_timeout(server_ctx, AQ_TICKET_SECONDS);
  return SSL_CTX_set_tlsext_ticket_key_evp_cb(server_ctx, on_ticket_key) &&
             SSL_CTX_set_session_ticket_cb(server_ctx, on_ticket_make,
                                           on_ticket_read, NULL)
           ? 0
           : -1;
}
