//go:build ngtcp2 && cgo && !wolfssl

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "openssl.h"

static X509 *read_x509(aq_slice der) {
  const unsigned char *p = der.p;
  X509 *x = der.n > AQ_MAX_CHAIN ? NULL : d2i_X509(NULL, &p, (long)der.n);
  if (x != NULL && p != der.p + der.n) {
    X509_free(x);
    return NULL;
  }
  return x;
}

static EVP_PKEY *read_pkcs8(const uint8_t *der, size_t len) {
  const unsigned char *p = der;
  PKCS8_PRIV_KEY_INFO *info;
  EVP_PKEY *key = NULL;
  if (len > AQ_MAX_CHAIN ||
      (info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &p, (long)len)) == NULL) {
    return NULL;
  }
  key = EVP_PKCS82PKEY(info);
  PKCS8_PRIV_KEY_INFO_free(info);
  return key;
}

static int fill(aq_cert *c, aq_slice chain, aq_slice ocsp, aq_slice timestamps,
                aq_slice pkcs8, uintptr_t *signer) {
  aq_slice der;
  X509 *x;
  if ((c->rest = sk_X509_new_null()) == NULL ||
      aq_blob_set(&c->ocsp, ocsp.p, ocsp.n) != 0 ||
      aq_blob_set(&c->timestamps, timestamps.p, timestamps.n) != 0) {
    return -1;
  }
  while (chain.n != 0) {
    if (aq_take_prefixed(&chain, 3, &der) != 0 ||
        (x = read_x509(der)) == NULL) {
      return -1;
    }
    if (c->leaf == NULL) {
      c->leaf = x;
    } else if (!sk_X509_push(c->rest, x)) {
      X509_free(x);
      return -1;
    }
  }
  if (c->leaf == NULL) {
    return -1;
  }
  if (*signer == 0) {
    return (c->key = read_pkcs8(pkcs8.p, pkcs8.n)) != NULL ? 0 : -1;
  }
  if (X509_get0_pubkey(c->leaf) == NULL) {
    return -1;
  }
  c->signer = 1;
  c->key = aq_signer_key(X509_get0_pubkey(c->leaf), *signer);
  *signer = 0; /* taken, whatever came of it */
  return c->key != NULL ? 0 : -1;
}

aq_cert *aq_cert_new(const uint8_t *chain, size_t chain_len,
                     const uint8_t *ocsp, size_t ocsp_len,
                     const uint8_t *timestamps, size_t timestamps_len,
                     const uint8_t *pkcs8, size_t pkcs8_len, uintptr_t signer,
                     char *err, size_t err_len) {
  aq_slice c = {chain, chain_len}, o = {ocsp, ocsp_len}, k = {pkcs8, pkcs8_len};
  aq_slice s = {timestamps, timestamps_len};
  aq_cert *cert;
  aq_tls_enter();
  cert = aq_calloc(1, sizeof(*cert));
  if (cert != NULL) {
    atomic_init(&cert->refs, 1);
    if (fill(cert, c, o, s, k, &signer) == 0) {
      return cert;
    }
  }
  aq_tls_error_text(NULL, err, err_len);
  if (err_len != 0 && err[0] == '\0') {
    aq_text(err, err_len, "the key is of a kind that OpenSSL cannot use here, or there is no memory");
  }
  if (signer != 0) {
    aqGoSignerFree(signer);
  }
  aq_cert_free(cert);
  return NULL;
}

void aq_cert_clear(aq_cert *c) {
  X509_free(c->leaf);
  OSSL_STACK_OF_X509_free(c->rest);
  EVP_PKEY_free(c->key);
  aq_blob_free(&c->ocsp);
  aq_blob_free(&c->timestamps);
}
