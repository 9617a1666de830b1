/* What is read of the peer's handshake messages where the TLS library does not
 * tell: pure functions over their bytes, which are not trusted. */
#ifndef AQ_TLS_MESSAGES_H
#define AQ_TLS_MESSAGES_H

#include "tls_data.h"

enum {
  AQ_EXT_SUPPORTED_GROUPS = 10,
  AQ_EXT_SIGNATURE_ALGORITHMS = 13,
  AQ_EXT_ALPN = 16,
  AQ_EXT_TIMESTAMPS = 18,
  AQ_EXT_PRE_SHARED_KEY = 41,
  AQ_EXT_EARLY_DATA = 42,
  AQ_EXT_AUTHORITIES = 47,
  AQ_EXT_KEY_SHARE = 51
};

/* aq_extension finds one of a list of extensions (RFC 8446, Section 4.2): 0, or
 * -1 if it is not there or the list is broken before it. */
static inline int aq_extension(aq_slice list, unsigned type, aq_slice *body) {
  aq_slice t;
  int bad = 0;
  while (list.n != 0) {
    t = aq_take(&list, 2, &bad);
    if (bad || aq_take_prefixed(&list, 2, body) != 0) {
      return -1;
    }
    if (((unsigned)t.p[0] << 8 | t.p[1]) == type) {
      return 0;
    }
  }
  return -1;
}

/* aq_hello_extensions gives the extensions of a ClientHello, which has its 4
 * bytes of header (RFC 8446, Section 4.1.2). */
static inline int aq_hello_extensions(aq_slice hello, aq_slice *extensions) {
  aq_slice skip;
  int bad = 0;
  (void)aq_take(&hello, 4 + 2 + 32, &bad);
  return bad || aq_take_prefixed(&hello, 1, &skip) != 0 ||
             aq_take_prefixed(&hello, 2, &skip) != 0 ||
             aq_take_prefixed(&hello, 1, &skip) != 0 ||
             aq_take_prefixed(&hello, 2, extensions) != 0
           ? -1
           : 0;
}

/* aq_list_extension gives the list that is all of an extension's body. */
static inline int aq_list_extension(aq_slice extensions, unsigned type,
                                    aq_slice *list) {
  aq_slice body;
  return aq_extension(extensions, type, &body) != 0 ? -1
                                                    : aq_take_prefixed(&body, 2, list);
}

/* aq_take_u16 takes a number in network order. */
static inline int aq_take_u16(aq_slice *from, uint16_t *v) {
  int bad = 0;
  aq_slice s = aq_take(from, 2, &bad);
  if (bad) {
    return -1;
  }
  *v = (uint16_t)(s.p[0] << 8 | s.p[1]);
  return 0;
}

/* aq_timestamps_read gives what is in a SignedCertificateTimestampList (RFC 6962,
 * Section 3.3), each behind 2 bytes of length: 0, or -1 if it is broken or has an
 * empty one, or none. */
static inline int aq_timestamps_read(aq_slice body, aq_slice *list) {
  aq_slice rest, one;
  if (aq_take_prefixed(&body, 2, list) != 0 || body.n != 0 || list->n == 0) {
    return -1;
  }
  for (rest = *list; rest.n != 0;) {
    if (aq_take_prefixed(&rest, 2, &one) != 0 || one.n == 0) {
      return -1;
    }
  }
  return 0;
}

/* A CertificateRequest, gathered from a stream of handshake messages. */
typedef struct aq_request {
  aq_blob body;    /* of the message, without its header */
  size_t missing;  /* bytes of the message that is read */
  uint8_t head[4]; /* of the next message */
  uint8_t have;    /* bytes in head */
  uint8_t keep;    /* the message that is read is the request */
  uint8_t found;   /* it is complete, or too long to be kept */
} aq_request;

/* The most that is kept of a request: its two lists and then some. */
#define AQ_MAX_REQUEST (1 << 18)

/* aq_request_read takes what comes next in the stream. Without memory there is no
 * request, and nothing else happens. */
static inline void aq_request_read(aq_request *r, const uint8_t *p, size_t n) {
  aq_slice rest = {p, n}, part;
  int bad = 0;
  while (rest.n != 0 && !r->found) {
    if (r->missing == 0 && !r->keep) {
      r->head[r->have++] = *rest.p;
      (void)aq_take(&rest, 1, &bad);
      if (r->have < 4) {
        continue;
      }
      r->have = 0;
      r->missing = (size_t)r->head[1] << 16 | (size_t)r->head[2] << 8 | r->head[3];
      r->keep = r->head[0] == 13; /* certificate_request */
      if (r->keep && (r->missing == 0 || r->missing > AQ_MAX_REQUEST)) {
        r->found = 1;
      }
      continue;
    }
    part = aq_take(&rest, rest.n < r->missing ? rest.n : r->missing, &bad);
    r->missing -= part.n;
    if (!r->keep) {
      continue;
    }
    if (aq_blob_add(&r->body, 0, part.p, part.n) != 0) {
      aq_blob_free(&r->body);
      r->found = 1;
    } else if (r->missing == 0) {
      r->found = 1;
    }
  }
}

/* aq_request_lists gives the two lists of a complete request (RFC 8446, Section
 * 4.3.2): names, each behind 2 bytes of length, and signature schemes. What is not
 * there, or broken, is empty. */
static inline void aq_request_lists(const aq_request *r, aq_slice *names,
                                    aq_slice *schemes) {
  aq_slice body = {r->body.p, r->body.n}, context, extensions;
  *names = *schemes = (aq_slice){NULL, 0};
  if (!r->found || r->missing != 0 ||
      aq_take_prefixed(&body, 1, &context) != 0 ||
      aq_take_prefixed(&body, 2, &extensions) != 0) {
    return;
  }
  if (aq_list_extension(extensions, AQ_EXT_AUTHORITIES, names) != 0) {
    *names = (aq_slice){NULL, 0};
  }
  if (aq_list_extension(extensions, AQ_EXT_SIGNATURE_ALGORITHMS, schemes) != 0) {
    *schemes = (aq_slice){NULL, 0};
  }
}

#endif
