//go:build ngtcp2 && cgo && wolfssl

/* Private keys that stay with a Go crypto.Signer: wolfSSL has the public half,
 * and asks for each signature. */

#include "wolfssl.h"

/* hash_of is Go's crypto.Hash for a digest's length, as TLS 1.3 pairs them; 0 for
 * no digest. */
static uint32_t hash_of(size_t len) {
  switch (len) {
  case 32:
    return 5;
  case 48:
    return 6;
  case 64:
    return 7;
  default:
    return 0;
  }
}

static int sign(WOLFSSL *ssl, uint32_t hash, int salt, const uint8_t *in,
                size_t in_len, uint8_t *out, word32 *out_len) {
  aq_tls *t = aq_tls_of(ssl);
  int n;
  if (t == NULL || t->cert == NULL || t->cert->signer == 0) {
    return WOLFSSL_FATAL_ERROR;
  }
  n = aqGoSign(t->callbacks, t->cert->signer, hash, salt, (uint8_t *)in, in_len,
               out, *out_len);
  if (n <= 0) {
    aq_fail_with(t, AQ_ALERT_INTERNAL_ERROR);
    return WOLFSSL_FATAL_ERROR;
  }
  *out_len = (word32)n;
  return 0;
}

static int ecc_sign(WOLFSSL *ssl, const unsigned char *in, unsigned int in_len,
                    unsigned char *out, word32 *out_len,
                    const unsigned char *key, unsigned int key_len, void *arg) {
  uint32_t hash = hash_of(in_len);
  (void)key;
  (void)key_len;
  (void)arg;
  return hash == 0 ? WOLFSSL_FATAL_ERROR
                   : sign(ssl, hash, -1, in, in_len, out, out_len);
}

/* RFC 8446, Section 4.2.3: the salt is as long as the digest. */
static int pss_sign(WOLFSSL *ssl, const unsigned char *in, unsigned int in_len,
                    unsigned char *out, unsigned int *out_len, int hash_type,
                    int mgf, const unsigned char *key, unsigned int key_len,
                    void *arg) {
  uint32_t hash = hash_of(in_len);
  (void)hash_type;
  (void)mgf;
  (void)key;
  (void)key_len;
  (void)arg;
  return hash == 0 ? WOLFSSL_FATAL_ERROR
                   : sign(ssl, hash, (int)in_len, in, in_len, out, out_len);
}

static int ed25519_sign(WOLFSSL *ssl, const unsigned char *in,
                        unsigned int in_len, unsigned char *out,
                        unsigned int *out_len, const unsigned char *key,
                        unsigned int key_len, void *arg) {
  (void)key;
  (void)key_len;
  (void)arg;
  return sign(ssl, 0, -1, in, in_len, out, out_len);
}

void aq_ctx_signs(WOLFSSL_CTX *ctx) {
  wolfSSL_CTX_SetEccSignCb(ctx, ecc_sign);
  wolfSSL_CTX_SetRsaPssSignCb(ctx, pss_sign);
  wolfSSL_CTX_SetEd25519SignCb(ctx, ed25519_sign);
}
