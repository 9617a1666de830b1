//go:build ngtcp2 && cgo

/* HKDF (RFC 5869) for what ngtcp2 derives: packet protection keys, tokens. A
 * handshake needs dozens of HMACs of a few bytes. ngtcp2's crypto library asks
 * OpenSSL's KDFs for them, which find their hash by its name each time, and
 * wolfSSL's EVP_PKEY, which makes and tests a random generator each time: a tenth
 * and almost half of what a handshake cost. The linker puts these in their place,
 * see hkdf.go; where it cannot they are dead code, and nothing else is different. */

#include "hkdf.h"

#include <string.h>

#include <ngtcp2/ngtcp2_crypto.h>

#ifdef AQ_WOLFSSL
#  include <wolfssl/options.h>

#  include <wolfssl/openssl/evp.h>
#  include <wolfssl/wolfcrypt/hmac.h>
#else
#  include <openssl/crypto.h>
#  include <openssl/evp.h>
#  include <openssl/sha.h>
/* Deprecated since 3.0 in favour of objects that providers make; these are the
 * functions below them. */
#  pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#endif

/* TLS 1.3 has two hashes (RFC 8446, Appendix B.4). */
enum { SHA256_BYTES = 32, SHA384_BYTES = 48, BLOCK_MAX = 128 };

#ifdef AQ_WOLFSSL

static int kind(size_t hash_len) {
  return hash_len == SHA256_BYTES ? WC_SHA256 : WC_SHA384;
}

static int extract(size_t hash_len, uint8_t *dest, const uint8_t *salt,
                   size_t salt_len, const uint8_t *secret, size_t secret_len) {
  return wc_HKDF_Extract(kind(hash_len), salt, (word32)salt_len, secret,
                         (word32)secret_len, dest) == 0
           ? 0
           : -1;
}

static int expand(size_t hash_len, uint8_t *dest, size_t len,
                  const uint8_t *secret, size_t secret_len, const uint8_t *info,
                  size_t info_len) {
  return wc_HKDF_Expand(kind(hash_len), secret, (word32)secret_len, info,
                        (word32)info_len, dest, (word32)len) == 0
           ? 0
           : -1;
}

static void cleanse(void *p, size_t n) { wc_ForceZero(p, n); }

#else

typedef struct hash {
  size_t len; /* of what it gives, which says which one it is */
  union {
    SHA256_CTX sha256;
    SHA512_CTX sha512;
  } u;
} hash;

static int hash_begin(hash *h, size_t len) {
  h->len = len;
  return len == SHA256_BYTES ? SHA256_Init(&h->u.sha256)
                             : SHA384_Init(&h->u.sha512);
}

static int hash_add(hash *h, const uint8_t *p, size_t n) {
  if (n == 0) {
    return 1;
  }
  return h->len == SHA256_BYTES ? SHA256_Update(&h->u.sha256, p, n)
                                : SHA384_Update(&h->u.sha512, p, n);
}

static int hash_end(hash *h, uint8_t *out) {
  return h->len == SHA256_BYTES ? SHA256_Final(out, &h->u.sha256)
                                : SHA384_Final(out, &h->u.sha512);
}

/* An HMAC (RFC 2104) that has taken its key. */
typedef struct hmac {
  hash inner, outer;
} hmac;

static int hmac_begin(hmac *m, size_t hash_len, const uint8_t *key, size_t n) {
  uint8_t block[BLOCK_MAX] = {0};
  size_t i, size = hash_len == SHA256_BYTES ? SHA256_CBLOCK : SHA512_CBLOCK;
  int ok;
  if (n > size) {
    ok = hash_begin(&m->inner, hash_len) && hash_add(&m->inner, key, n) &&
         hash_end(&m->inner, block);
    if (!ok) {
      return 0;
    }
  } else if (n != 0) {
    memcpy(block, key, n);
  }
  for (i = 0; i < size; i++) {
    block[i] ^= 0x36;
  }
  ok = hash_begin(&m->inner, hash_len) && hash_add(&m->inner, block, size);
  for (i = 0; i < size; i++) {
    block[i] ^= 0x36 ^ 0x5c;
  }
  ok = ok && hash_begin(&m->outer, hash_len) && hash_add(&m->outer, block, size);
  OPENSSL_cleanse(block, sizeof(block));
  return ok;
}

/* hmac_end leaves m as it was when it had its key, if inner is a copy. */
static int hmac_end(const hmac *m, hash *inner, uint8_t *out) {
  hash outer = m->outer;
  int ok = hash_end(inner, out) && hash_add(&outer, out, inner->len) &&
           hash_end(&outer, out);
  OPENSSL_cleanse(&outer, sizeof(outer));
  return ok;
}

static int extract(size_t hash_len, uint8_t *dest, const uint8_t *salt,
                   size_t salt_len, const uint8_t *secret, size_t secret_len) {
  hmac m;
  int ok = hmac_begin(&m, hash_len, salt, salt_len) &&
           hash_add(&m.inner, secret, secret_len) && hmac_end(&m, &m.inner, dest);
  OPENSSL_cleanse(&m, sizeof(m));
  return ok ? 0 : -1;
}

static int expand(size_t hash_len, uint8_t *dest, size_t len,
                  const uint8_t *secret, size_t secret_len, const uint8_t *info,
                  size_t info_len) {
  uint8_t t[SHA384_BYTES], count = 0;
  hash inner;
  hmac m;
  int ok;
  if (len > 255 * hash_len) {
    return -1;
  }
  ok = hmac_begin(&m, hash_len, secret, secret_len);
  while (ok && len != 0) {
    size_t n = len < hash_len ? len : hash_len;
    inner = m.inner;
    ok = (count == 0 || hash_add(&inner, t, hash_len)) &&
         hash_add(&inner, info, info_len);
    count++;
    ok = ok && hash_add(&inner, &count, 1) && hmac_end(&m, &inner, t);
    if (ok) {
      memcpy(dest, t, n);
      dest += n;
      len -= n;
    }
    OPENSSL_cleanse(&inner, sizeof(inner));
  }
  OPENSSL_cleanse(&m, sizeof(m));
  OPENSSL_cleanse(t, sizeof(t));
  return ok ? 0 : -1;
}

static void cleanse(void *p, size_t n) { OPENSSL_cleanse(p, n); }

#endif

/* length is 0 for a hash that TLS 1.3 does not have. */
static size_t length(const ngtcp2_crypto_md *md) {
  size_t n = ngtcp2_crypto_md_hashlen(md);
  return n == SHA256_BYTES || n == SHA384_BYTES ? n : 0;
}

int __wrap_ngtcp2_crypto_hkdf_extract(uint8_t *dest, const ngtcp2_crypto_md *md,
                                      const uint8_t *secret, size_t secretlen,
                                      const uint8_t *salt, size_t saltlen) {
  size_t n = length(md);
  return n == 0 ? -1 : extract(n, dest, salt, saltlen, secret, secretlen);
}

int __wrap_ngtcp2_crypto_hkdf_expand(uint8_t *dest, size_t destlen,
                                     const ngtcp2_crypto_md *md,
                                     const uint8_t *secret, size_t secretlen,
                                     const uint8_t *info, size_t infolen) {
  size_t n = length(md);
  return n == 0 ? -1
                : expand(n, dest, destlen, secret, secretlen, info, infolen);
}

int aq_hkdf(int sha384, uint8_t *dest, size_t dest_len, const uint8_t *secret,
            size_t secret_len, const uint8_t *salt, size_t salt_len,
            const uint8_t *info, size_t info_len) {
#ifdef AQ_WOLFSSL
  ngtcp2_crypto_md md = {
    (void *)(sha384 ? wolfSSL_EVP_sha384() : wolfSSL_EVP_sha256())};
#else
  ngtcp2_crypto_md md = {(void *)(sha384 ? EVP_sha384() : EVP_sha256())};
#endif
  return ngtcp2_crypto_hkdf(dest, dest_len, &md, secret, secret_len, salt,
                            salt_len, info, info_len);
}

int __wrap_ngtcp2_crypto_hkdf(uint8_t *dest, size_t destlen,
                              const ngtcp2_crypto_md *md, const uint8_t *secret,
                              size_t secretlen, const uint8_t *salt,
                              size_t saltlen, const uint8_t *info,
                              size_t infolen) {
  uint8_t key[SHA384_BYTES];
  size_t n = length(md);
  int rv = -1;
  if (n != 0 && extract(n, key, salt, saltlen, secret, secretlen) == 0) {
    rv = expand(n, dest, destlen, key, n, info, infolen);
  }
  cleanse(key, sizeof(key));
  return rv;
}
