//go:build ngtcp2 && cgo

#include "memory.h"

#include <limits.h>
#include <string.h>

#include <ngtcp2/ngtcp2.h>

#ifdef AQ_WOLFSSL
#  include <wolfssl/options.h>
#  include <wolfssl/openssl/rand.h>
#else
#  include <openssl/rand.h>
#endif

/* Both libraries take a lock for each request, and OpenSSL asks the kernel several
 * times whether the process has forked, so small requests share one. A process of
 * Go does not go on in a child that it forks. */
#define AQ_RAND_SMALL 32
static _Thread_local struct {
  uint8_t bytes[8 * AQ_RAND_SMALL];
  size_t left; /* at the end of bytes; the others were used, and are zero */
} pool;

static int generate(uint8_t *dst, size_t len) {
#ifdef AQ_WOLFSSL
  return wolfSSL_RAND_bytes(dst, (int)len) == 1 ? 0 : -1;
#else
  return RAND_bytes(dst, (int)len) == 1 ? 0 : -1;
#endif
}

int aq_rand(uint8_t *dst, size_t len) {
  uint8_t *from;
  if (len > INT_MAX) {
    return -1;
  }
  if (len == 0) {
    return 0;
  }
  if (len > AQ_RAND_SMALL) {
    return generate(dst, len);
  }
  if (pool.left < len) {
    pool.left = 0; /* should it fail, what is there is not used */
    if (generate(pool.bytes, sizeof pool.bytes) != 0) {
      return -1;
    }
    pool.left = sizeof pool.bytes;
  }
  from = pool.bytes + sizeof pool.bytes - pool.left;
  memcpy(dst, from, len);
  ngtcp2_secure_clear(from, len);
  pool.left -= len;
  return 0;
}
