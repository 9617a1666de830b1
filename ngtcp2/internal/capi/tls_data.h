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
