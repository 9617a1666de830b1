//go:build ngtcp2 && cgo

/* What the TLS library allocates, for tests: counted, and refused when they say. */

#include "tls_memory.h"

#include <stdatomic.h>
#include <stdlib.h>

#ifdef AQ_WOLFSSL
#  include <wolfssl/options.h>

#  include <wolfssl/wolfcrypt/memory.h>
#else
#  include <openssl/crypto.h>
#endif

static _Atomic int64_t blocks;
static _Atomic int64_t countdown;

int64_t aq_tls_blocks(void) { return atomic_load(&blocks); }

void aq_tls_refuse(int64_t n) { atomic_store(&countdown, n); }

int64_t aq_tls_countdown(void) { return atomic_load(&countdown); }

static int refuse(void) {
  return atomic_load_explicit(&countdown, memory_order_relaxed) > 0 &&
         atomic_fetch_sub(&countdown, 1) == 1;
}

static void *watched_malloc(size_t n) {
  void *p = refuse() ? NULL : malloc(n);
  if (p != NULL) {
    atomic_fetch_add(&blocks, 1);
  }
  return p;
}

static void *watched_realloc(void *p, size_t n) {
  if (p == NULL) {
    return watched_malloc(n);
  }
  return refuse() ? NULL : realloc(p, n);
}

static void watched_free(void *p) {
  if (p != NULL) {
    atomic_fetch_sub(&blocks, 1);
    free(p);
  }
}

#ifdef AQ_WOLFSSL

int aq_tls_watch_memory(void) {
  return wolfSSL_SetAllocators(watched_malloc, watched_free, watched_realloc) == 0
           ? 0
           : -1;
}

#else

static void *openssl_malloc(size_t n, const char *file, int line) {
  (void)file;
  (void)line;
  return watched_malloc(n);
}

static void openssl_free(void *p, const char *file, int line) {
  (void)file;
  (void)line;
  watched_free(p);
}

/* A size of 0 frees. */
static void *openssl_realloc(void *p, size_t n, const char *file, int line) {
  if (n == 0) {
    openssl_free(p, file, line);
    return NULL;
  }
  return watched_realloc(p, n);
}

int aq_tls_watch_memory(void) {
  return CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc,
                                  openssl_free) == 1
           ? 0
           : -1;
}

#endif
