//go:build ngtcp2 && cgo

/* A server's first packets. TLS begins when Go has seen the ClientHello, and
 * until then ngtcp2 has no key for 0-RTT packets: those that come before, or in
 * one datagram with the end of the ClientHello, it throws away. So the datagrams
 * are kept, and if 0-RTT packets are among them StartServerTLS gives all of them
 * to a new ngtcp2_conn that has TLS from its beginning. Nothing was sent by
 * then, so that only this machine knows that there was another one; and each
 * datagram counts once for RFC 9000, Section 8.1. */

#include "internal.h"

#include <string.h>

#define FIRST_MAX (24u * 1024u) /* bytes of datagrams, with what describes them */
#define FIRST_WAIT (AQ_SECOND / 1000)

typedef struct aq_arrival {
  struct aq_arrival *next;
  aq_path path;
  uint32_t ecn;
  size_t len;
  uint8_t data[];
} aq_arrival;

struct aq_first {
  aq_settings settings;
  aq_server_options options;
  aq_arrival *head, *tail;
  size_t bytes;
  uint64_t quiet_until;
  uint8_t early; /* 0-RTT packets are among them */
  uint8_t begun; /* quiet_until counts */
  uint8_t headless; /* the beginning of the ClientHello has not come */
  size_t token_len;
  uint8_t token[];
};

int aq_first_new(aq_connection *c, const aq_settings *s,
                 const aq_server_options *o, const uint8_t *token,
                 size_t token_len) {
  aq_first *f;
  if (token_len > UINT16_MAX) {
    return NGTCP2_ERR_INVALID_ARGUMENT;
  }
  f = aq_calloc(1, sizeof *f + token_len);
  if (f == NULL) {
    return NGTCP2_ERR_NOMEM;
  }
  f->settings = *s;
  f->options = *o;
  f->token_len = token_len;
  if (token_len > 0) {
    memcpy(f->token, token, token_len);
  }
  c->first = f;
  return 0;
}

void aq_first_free(aq_connection *c) {
  aq_first *f = c->first;
  if (f == NULL) {
    return;
  }
  c->first = NULL;
  while (f->head != NULL) {
    aq_arrival *next = f->head->next;
    aq_free(f->head);
    f->head = next;
  }
  ngtcp2_secure_clear(f->settings.reset_key, sizeof f->settings.reset_key);
  aq_free(f);
}

/* has_early looks at the long headers of the packets in a datagram. Nobody
 * vouches for them: what a liar gains is a second reading of his datagrams. */
static int has_early(const uint8_t *p, size_t len) {
  while (len > 0 && (p[0] & 0x80) != 0) {
    ngtcp2_pkt_hd hd;
    ngtcp2_ssize n = ngtcp2_pkt_decode_hd_long(&hd, p, len);
    if (n <= 0) {
      return 0;
    }
    if (hd.type == NGTCP2_PKT_0RTT) {
      return 1;
    }
    if (hd.type != NGTCP2_PKT_INITIAL && hd.type != NGTCP2_PKT_HANDSHAKE) {
      return 0;
    }
    if (hd.len > len - (size_t)n) {
      return 0;
    }
    p += (size_t)n + hd.len;
    len -= (size_t)n + hd.len;
  }
  return 0;
}

void aq_first_add(aq_connection *c, const aq_path *path, uint32_t ecn,
                  const uint8_t *p, size_t len) {
  aq_first *f = c->first;
  aq_arrival *a;
  if (f == NULL) {
    return;
  }
  if (!f->begun) {
    f->begun = 1;
    f->quiet_until = c->now + FIRST_WAIT;
  }
  if (len > FIRST_MAX - sizeof *a ||
      f->bytes > FIRST_MAX - sizeof *a - len ||
      (a = aq_malloc(sizeof *a + len)) == NULL) {
    /* The client will send its data again, as 1-RTT. */
    aq_first_free(c);
    return;
  }
  f->bytes += sizeof *a + len;
  a->next = NULL;
  a->path = *path;
  a->ecn = ecn;
  a->len = len;
  memcpy(a->data, p, len);
  if (f->tail != NULL) {
    f->tail->next = a;
  } else {
    f->head = a;
  }
  f->tail = a;
  if (!f->early) {
    f->early = (uint8_t)has_early(p, len);
  }
}

/* aq_first_quiet says that the rest of a ClientHello, and 0-RTT packets with it,
 * may be about to come: an acknowledgement waits that long. */
int aq_first_quiet(const aq_connection *c) {
  const aq_first *f = c->first;
  return f != NULL && f->begun && !c->hello_ready && c->now < f->quiet_until;
}

uint64_t aq_first_expiry(const aq_connection *c) {
  return aq_first_quiet(c) ? c->first->quiet_until : UINT64_MAX;
}

/* renew puts a new ngtcp2_conn in place of the one that read the datagrams. */
static int renew(aq_connection *c) {
  aq_first *f = c->first;
  ngtcp2_conn *was = c->quic;
  int rv = aq_server_quic(c, &f->settings, &f->options, f->token, f->token_len);
  if (rv != 0) {
    c->quic = was;
    return rv;
  }
  ngtcp2_conn_del(was);
  aq_conn_qlog_clear(&c->pub);
  return 0;
}

/* read_up_to reads the datagrams before last. */
static int read_up_to(aq_connection *c, const aq_arrival *last) {
  aq_arrival *a;
  int rv = 0;
  for (a = c->first->head; a != last && rv == 0; a = a->next) {
    ngtcp2_path_storage path;
    if (aq_path_set(&path, &a->path) == 0) {
      rv = aq_read_packet(c, &path.path, a->ecn, a->data, a->len);
    }
  }
  return rv;
}

static void begin_with_last(aq_first *f) {
  aq_arrival *last = f->tail, *a = f->head;
  if (a == last) {
    return;
  }
  while (a->next != last) {
    a = a->next;
  }
  a->next = NULL;
  f->tail = a;
  last->next = f->head;
  f->head = last;
}

/* aq_first_read_more is called when the datagram that was added last was read
 * with rv. ngtcp2 gives up a connection (NGTCP2_ERR_RETRY) whose ClientHello does
 * not begin in the first Initial packet that comes; of two that are lost or
 * change places, that can be the second for a long time. So it begins anew with
 * each datagram, until one has the beginning. */
int aq_first_read_more(aq_connection *c, int rv) {
  aq_first *f = c->first;
  if (rv == NGTCP2_ERR_RETRY || (rv == NGTCP2_ERR_DROP_CONN && f->headless)) {
    f->headless = 1;
    return renew(c);
  }
  if (rv != 0 || !f->headless) {
    return rv;
  }
  f->headless = 0;
  rv = read_up_to(c, f->tail);
  begin_with_last(f);
  return rv;
}

/* aq_first_again reads the datagrams again, with TLS, if there is something to
 * gain; *done says whether. */
int aq_first_again(aq_connection *c, int *done) {
  aq_first *f = c->first;
  int rv;
  *done = 0;
  if (f == NULL || !f->early || ngtcp2_conn_in_closing_period2(c->quic) ||
      ngtcp2_conn_in_draining_period2(c->quic)) {
    return 0;
  }
  *done = 1;
  rv = renew(c);
  if (rv != 0) {
    return rv;
  }
  ngtcp2_conn_set_tls_native_handle(c->quic, aq_tls_native(c->tls));
  aq_free(c->hello); /* it comes again */
  c->hello = NULL;
  c->hello_len = c->hello_cap = 0;
  return read_up_to(c, NULL);
}
