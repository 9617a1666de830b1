//go:build ngtcp2 && cgo && wolfssl

#include "wolfssl.h"

static int to_pem(aq_blob *out, aq_slice der) {
  static const char alphabet[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  static const char begin[] = "-----BEGIN CERTIFICATE-----\n";
  static const char end[] = "-----END CERTIFICATE-----\n";
  size_t i, chars = (der.n + 2) / 3 * 4, n = 0, column = 0;
  uint8_t *p;
  if (aq_blob_add(out, 0, (const uint8_t *)begin, sizeof(begin) - 1) != 0 ||
      (p = aq_blob_reserve(out, 0, chars + (chars + 63) / 64)) == NULL) {
    return -1;
  }
  for (i = 0; i < der.n; i += 3) {
    uint32_t v = (uint32_t)der.p[i] << 16;
    v |= i + 1 < der.n ? (uint32_t)der.p[i + 1] << 8 : 0;
    v |= i + 2 < der.n ? der.p[i + 2] : 0;
    p[n++] = (uint8_t)alphabet[v >> 18];
    p[n++] = (uint8_t)alphabet[v >> 12 & 63];
    p[n++] = i + 1 < der.n ? (uint8_t)alphabet[v >> 6 & 63] : '=';
    p[n++] = i + 2 < der.n ? (uint8_t)alphabet[v & 63] : '=';
    column += 4;
    if (column == 64 || i + 3 >= der.n) {
      p[n++] = '\n';
      column = 0;
    }
  }
  return aq_blob_add(out, 0, (const uint8_t *)end, sizeof(end) - 1);
}

static int fill(aq_cert *c, aq_slice chain, aq_slice key) {
  aq_slice der;
  while (chain.n != 0) {
    if (aq_take_prefixed(&chain, 3, &der) != 0 || der.n == 0 ||
        to_pem(&c->chain, der) != 0) {
      return -1;
    }
  }
  if (aq_blob_set(&c->key, key.p, key.n) != 0 ||
      (c->ctx = aq_ctx_new(AQ_CTX_SERVER | AQ_CTX_CERT_CB |
                           (c->signer != 0 ? AQ_CTX_SIGNS : 0))) == NULL ||
      wolfSSL_CTX_use_certificate_chain_buffer(
        c->ctx, c->chain.p, (long)c->chain.n) != WOLFSSL_SUCCESS ||
      wolfSSL_CTX_use_PrivateKey_buffer(c->ctx, c->key.p, (long)c->key.n,
                                        WOLFSSL_FILETYPE_ASN1) !=
        WOLFSSL_SUCCESS) {
    return -1;
  }
  return 0;
}

aq_cert *aq_cert_new(const uint8_t *chain, size_t chain_len,
                     const uint8_t *ocsp, size_t ocsp_len,
                     const uint8_t *timestamps, size_t timestamps_len,
                     const uint8_t *key, size_t key_len, uintptr_t signer,
                     char *err, size_t err_len) {
  aq_slice c = {chain, chain_len}, k = {key, key_len};
  aq_cert *cert = NULL;
  (void)ocsp;
  (void)timestamps;
  aq_tls_enter();
  if (err_len != 0) {
    err[0] = '\0';
  }
  if (ocsp_len != 0) {
    aq_text(err, err_len, "wolfSSL staples no OCSP response");
    goto fail;
  }
  if (timestamps_len != 0) {
    aq_text(err, err_len, "wolfSSL sends no signed certificate timestamps");
    goto fail;
  }
#if !defined(HAVE_PK_CALLBACKS) || !defined(WOLF_PRIVATE_KEY_ID)
  if (signer != 0) {
    aq_text(err, err_len, "this build of wolfSSL needs the private key itself");
    goto fail;
  }
#endif
  if ((cert = aq_calloc(1, sizeof(*cert))) != NULL) {
    atomic_init(&cert->refs, 1);
    cert->signer = signer;
    signer = 0; /* it is freed with cert */
    if (fill(cert, c, k) == 0) {
      return cert;
    }
  }
  aq_tls_error_text(NULL, err, err_len);
  if (err_len != 0 && err[0] == '\0') {
    aq_text(err, err_len, "wolfSSL cannot use the certificate or its key");
  }
fail:
  if (signer != 0) {
    aqGoSignerFree(signer);
  }
  aq_cert_free(cert);
  return NULL;
}

void aq_cert_clear(aq_cert *c) {
  wolfSSL_CTX_free(c->ctx);
  aq_blob_free(&c->chain);
  if (c->key.n != 0) {
    wolfSSL_OPENSSL_cleanse(c->key.p, c->key.n);
  }
  aq_blob_free(&c->key);
  if (c->signer != 0) {
    aqGoSignerFree(c->signer);
  }
}

int aq_use_cert(WOLFSSL *ssl, const aq_cert *cert) {
  return wolfSSL_use_certificate_chain_buffer(ssl, cert->chain.p,
                                              (long)cert->chain.n) ==
             WOLFSSL_SUCCESS &&
           wolfSSL_use_PrivateKey_buffer(ssl, cert->key.p, (long)cert->key.n,
                                         WOLFSSL_FILETYPE_ASN1) ==
             WOLFSSL_SUCCESS
         ? 0
         : -1;
}
