/* What the files for OpenSSL share. */
#ifndef AQ_OPENSSL_H
#define AQ_OPENSSL_H

#include <stdatomic.h>

#include <openssl/ssl.h>

#include <ngtcp2/ngtcp2_crypto_ossl.h>

#include "tls_data.h"

#define AQ_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define AQ_EARLY_DATA UINT32_MAX /* RFC 9001, Section 4.6.1 */

/* A chain and its key. Read-only after aq_cert_new, but for refs. */
struct aq_cert {
  atomic_int refs;
  int signer; /* the key is Go's */
  X509 *leaf;
  STACK_OF(X509) *rest;
  EVP_PKEY *key;
  aq_blob ocsp;
  aq_blob timestamps; /* as they are sent */
};

typedef struct aq_piece aq_piece;
typedef struct aq_pieces {
  aq_piece *first, *last;
} aq_pieces;

struct aq_tls {
  AQ_TLS_FIELDS;
  SSL *ssl;                       /* NULL after aq_tls_release */
  ngtcp2_crypto_ossl_ctx *native; /* from which ngtcp2 gets ssl */
  ngtcp2_encryption_level send_level;
  aq_pieces in; /* of the handshake, that OpenSSL has not released */
  aq_blob alpn; /* server: ours, in order of preference */
  uint8_t head[AQ_RETRY_HEAD], head_len; /* client: what the server said first */
};

/* aq_tls_of is NULL when the object is on its way out. */
aq_tls *aq_tls_of(const SSL *ssl);

/* crypto_openssl.c: handshake messages and keys between ssl and ngtcp2. */
int aq_crypto_use(aq_tls *t);
void aq_pieces_free(aq_pieces *l);

/* timestamps_openssl.c: what a context needs to send and take signed certificate
 * timestamps. */
int aq_timestamps_use(SSL_CTX *ctx);

/* tickets_openssl.c: what the process needs once, what a server's context needs,
 * and sessions on the client. */
int aq_tickets_init(void);
int aq_tickets_use(SSL_CTX *server_ctx);
int aq_on_new_session(SSL *ssl, SSL_SESSION *session);
int aq_use_session(aq_tls *t, const aq_tls_data *d, uint64_t age,
                   int early_data);

/* aq_signer_key is a private key whose signatures Go makes. public is the
 * certificate's; the key takes the handle, also when it fails. */
EVP_PKEY *aq_signer_key(EVP_PKEY *public, uintptr_t signer);

/* aq_signer_init makes what aq_signer_key needs, once in the process. */
int aq_signer_init(void);

/* aq_signing_for names the connection whose handshake this thread is about to
 * sign for, so that a failure is told to it: the next signature takes it. */
void aq_signing_for(uintptr_t callbacks);

#endif
