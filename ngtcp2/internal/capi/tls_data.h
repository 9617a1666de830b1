/* What both TLS libraries' sides need: the data of an aq_tls_config, and byte
 * strings that are built and read with lengths. */
#ifndef AQ_TLS_DATA_H
#define AQ_TLS_DATA_H

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "memory.h"
#include "tls.h"

/* A piece of memory that something else owns. */
typedef struct aq_slice {
  const uint8_t *p;
  size_t n;
} aq_slice;

/* The data of an aq_tls_config, taken apart. */
typedef struct aq_tls_data {
  aq_slice alpn, server_name, suites, curves, cas, ticket_keys, session;
} aq_tls_data;

/* A piece of memory of its own, from aq_malloc. */
typedef struct aq_blob {
  uint8_t *p;
  size_t n;
} aq_blob;

/* What struct aq_tls has with either library; see tls.c. */
#define AQ_TLS_FIELDS                                                          \
  ngtcp2_crypto_conn_ref *ref; /* of no use after aq_tls_release */            \
  uintptr_t callbacks;                                                         \
  aq_cert *cert;                                                               \
  aq_blob ticket_keys;           /* server */                                  \
  aq_blob ticket_data;           /* server: of the one that may be resumed */  \
  aq_blob chain;                 /* the peer's, as it came */                  \
  aq_blob ocsp;                  /* client: what the server stapled */         \
  aq_blob timestamps;            /* client: that came with the certificate */  \
  aq_blob sessions[AQ_SESSIONS]; /* client: oldest first, until taken */       \
  aq_blob protocol, name;        /* ALPN, SNI */                               \
  uint16_t suite, curve;                                                       \
  uint8_t server, tickets, key_log;                                            \
  uint8_t early; /* client: the session allows 0-RTT */                        \
  uint8_t resumed, early_accepted, hello_retry

/* What each library has to do for tls.c. aq_ssl_new makes t->ssl; whatever came
 * of it, aq_ssl_free frees it. aq_ssl_remember reads what ssl knows.
 * aq_cert_clear frees what is in c. */
int aq_ssl_new(aq_tls *t, const aq_tls_config *c, const aq_tls_data *d,
               char *err, size_t err_len);
void aq_ssl_remember(aq_tls *t);
void aq_ssl_free(aq_tls *t);
void aq_cert_clear(aq_cert *c);

#define AQ_TICKET_KEY 32

/* AQ_SESSIONS is how many sessions wait for Go: a server may send several at a
 * time. */
#define AQ_SESSIONS 4

#define AQ_MAX_CHAIN (1 << 18) /* bytes, as crypto/tls takes from a peer */

static inline void aq_text(char *err, size_t err_len, const char *format, ...) {
  va_list ap;
  if (err_len == 0) {
    return;
  }
  va_start(ap, format);
  (void)vsnprintf(err, err_len, format, ap);
  va_end(ap);
}

static inline aq_slice aq_take(aq_slice *from, size_t n, int *bad) {
  aq_slice s = {from->p, n};
  if (n > from->n) {
    *bad = 1;
    s.n = 0;
    return s;
  }
  if (n != 0) {
    from->p += n;
    from->n -= n;
  }
  return s;
}

/* aq_tls_data_read returns -1 if the lengths do not make up data_len. */
static inline int aq_tls_data_read(aq_tls_data *d, const aq_tls_config *c,
                                   const uint8_t *data, size_t data_len) {
  aq_slice rest = {data, data_len};
  int bad = 0;
  d->alpn = aq_take(&rest, c->alpn_len, &bad);
  d->server_name = aq_take(&rest, c->server_name_len, &bad);
  d->suites = aq_take(&rest, c->suites_len, &bad);
  d->curves = aq_take(&rest, c->curves_len, &bad);
  d->cas = aq_take(&rest, c->cas_len, &bad);
  d->ticket_keys = aq_take(&rest, c->ticket_keys_len, &bad);
  d->session = aq_take(&rest, c->session_len, &bad);
  if (bad || rest.n != 0 || d->suites.n % 2 != 0 || d->curves.n % 2 != 0 ||
      d->ticket_keys.n % AQ_TICKET_KEY != 0) {
    return -1;
  }
  return 0;
}

/* aq_u16_at reads the i-th number, wherever it lies in memory. */
static inline uint16_t aq_u16_at(aq_slice s, size_t i) {
  uint16_t v;
  memcpy(&v, s.p + 2 * i, 2);
  return v;
}

/* aq_take_prefixed takes what is behind a length of size bytes. */
static inline int aq_take_prefixed(aq_slice *from, size_t size, aq_slice *out) {
  size_t i, n = 0;
  int bad = 0;
  if (from->n < size) {
    return -1;
  }
  for (i = 0; i < size; i++) {
    n = n << 8 | from->p[i];
  }
  (void)aq_take(from, size, &bad);
  *out = aq_take(from, n, &bad);
  return bad ? -1 : 0;
}

static inline void aq_blob_free(aq_blob *b) {
  aq_free(b->p);
  b->p = NULL;
  b->n = 0;
}

/* aq_blob_set copies; an empty slice empties b. */
static inline int aq_blob_set(aq_blob *b, const uint8_t *p, size_t n) {
  uint8_t *q = NULL;
  if (n != 0) {
    if ((q = aq_malloc(n)) == NULL) {
      return -1;
    }
    memcpy(q, p, n);
  }
  aq_blob_free(b);
  b->p = q;
  b->n = n;
  return 0;
}

/* aq_tls_keep is aq_blob_set for what is asked for often, and seldom new. Without
 * memory b becomes empty. */
static inline void aq_tls_keep(aq_blob *b, const uint8_t *p, size_t n) {
  if (b->n == n && (n == 0 || memcmp(b->p, p, n) == 0)) {
    return;
  }
  if (aq_blob_set(b, p, n) != 0) {
    aq_blob_free(b);
  }
}

/* aq_blob_reserve makes room for n more bytes, size of them for their length,
 * which it writes, and returns where they go; NULL without memory. */
static inline uint8_t *aq_blob_reserve(aq_blob *b, size_t size, size_t n) {
  uint8_t *p;
  size_t i;
  if (n > (size_t)1 << 24 || b->n > (size_t)1 << 26 ||
      (size != 0 && size < 4 && n >> (8 * size) != 0)) {
    return NULL;
  }
  p = aq_realloc(b->p, b->n + size + n);
  if (p == NULL) {
    return NULL;
  }
  b->p = p;
  p += b->n;
  b->n += size + n;
  for (i = 0; i < size; i++) {
    p[i] = (uint8_t)(n >> (8 * (size - 1 - i)));
  }
  return p + size;
}

static inline int aq_blob_add(aq_blob *b, size_t size, const uint8_t *p,
                              size_t n) {
  uint8_t *to = aq_blob_reserve(b, size, n);
  if (to == NULL) {
    return -1;
  }
  if (n != 0) {
    memcpy(to, p, n);
  }
  return 0;
}

#define AQ_RETRY_HEAD 38 /* bytes that tell it */

/* aq_is_hello_retry_request knows the ServerHello that asks for another ClientHello
 * by its random value: RFC 8446, Section 4.1.3. */
static inline int aq_is_hello_retry_request(const uint8_t *p, size_t n) {
  static const uint8_t magic[32] = {
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c,
    0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb,
    0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c};
  /* server_hello(2), its length in 3 bytes, legacy_version, random */
  return n >= AQ_RETRY_HEAD && p[0] == 2 &&
         memcmp(p + 6, magic, sizeof(magic)) == 0;
}

/* aq_session_drop frees the oldest session. */
static inline void aq_session_drop(aq_blob sessions[AQ_SESSIONS]) {
  if (sessions[0].n != 0) {
    ngtcp2_secure_clear(sessions[0].p, sessions[0].n);
  }
  aq_blob_free(&sessions[0]);
  memmove(sessions, sessions + 1, (AQ_SESSIONS - 1) * sizeof(*sessions));
  sessions[AQ_SESSIONS - 1] = (aq_blob){NULL, 0};
}

/* aq_session_keep adds session, which is not empty, in place of the oldest if
 * there is no room. */
static inline void aq_session_keep(aq_blob sessions[AQ_SESSIONS],
                                   aq_blob session) {
  size_t i = 0;
  if (sessions[AQ_SESSIONS - 1].n != 0) {
    aq_session_drop(sessions);
  }
  while (sessions[i].n != 0) {
    i++;
  }
  sessions[i] = session;
}

#endif
