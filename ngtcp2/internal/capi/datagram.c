//go:build ngtcp2 && cgo

#include "internal.h"

#include <string.h>

static int queue_push(aq_queue *q, const uint8_t *p, size_t n) {
  aq_message *g;
  if (n > SIZE_MAX - sizeof *g) {
    return NGTCP2_ERR_NOMEM;
  }
  g = aq_malloc(sizeof *g + n);
  if (g == NULL) {
    return NGTCP2_ERR_NOMEM;
  }
  g->next = NULL;
  g->len = n;
  if (n > 0) {
    memcpy(g->data, p, n);
  }
  if (q->tail != NULL) {
    q->tail->next = g;
  } else {
    q->head = g;
  }
  q->tail = g;
  q->len++;
  return 0;
}

void aq_queue_pop(aq_queue *q) {
  aq_message *g = q->head;
  if (g == NULL) {
    return;
  }
  q->head = g->next;
  if (q->head == NULL) {
    q->tail = NULL;
  }
  q->len--;
  aq_free(g);
}

/* aq_datagram_room is one more than what fits into a packet, so that an empty
 * message fits where it is 1; 0 if the peer takes no datagrams. */
size_t aq_datagram_room(aq_connection *c) {
  const ngtcp2_transport_params *peer =
      ngtcp2_conn_get_remote_transport_params2(c->quic);
  /* A short header's first byte and packet number, the tag, and the frame's
   * type and length (RFC 9221, Section 4). */
  size_t overhead = 1 + 4 + 16 + 1 + 2, path;
  uint64_t frame;
  if (peer == NULL || peer->max_datagram_frame_size == 0) {
    return 0;
  }
  overhead += ngtcp2_conn_get_dcid2(c->quic)->datalen;
  path = ngtcp2_conn_get_path_max_tx_udp_payload_size2(c->quic);
  path = path > overhead ? path - overhead : 0;
  /* max_datagram_frame_size counts type and length too. */
  frame = peer->max_datagram_frame_size;
  if (frame < 2) {
    return 0;
  }
  frame -= frame <= 2 + 63 ? 2 : frame <= 3 + 16383 ? 3 : 5;
  return (frame < path ? (size_t)frame : path) + 1;
}

size_t aq_do_datagram_max(aq_conn *conn) {
  size_t room = aq_datagram_room(aq_of(conn));
  return room > 0 ? room - 1 : 0;
}

int aq_do_datagram_send(aq_conn *conn, const uint8_t *p, size_t n) {
  aq_connection *c = aq_of(conn);
  if (n >= aq_datagram_room(c)) {
    return -1;
  }
  if (queue_push(&c->out_messages, p, n) != 0) {
    return -1;
  }
  if (c->out_messages.len > c->max_messages) {
    aq_queue_pop(&c->out_messages);
    c->pub.datagrams_dropped++;
  }
  return 0;
}

int aq_datagram_received(aq_connection *c, const uint8_t *p, size_t n) {
  /* What arrives at a full queue is dropped. Nobody promised that it arrives. */
  if (c->in_messages.len >= c->max_messages ||
      queue_push(&c->in_messages, p, n) != 0) {
    c->pub.datagrams_dropped++;
    return 0;
  }
  c->pub.datagrams_received++;
  if (c->event_datagram) {
    return 0;
  }
  c->event_datagram = 1;
  return aq_event_add(c, AQ_EVENT_DATAGRAM, -1, 0);
}

const uint8_t *aq_datagram_peek(aq_conn *conn, size_t *len) {
  aq_connection *c = aq_of(conn);
  aq_message *g = c->in_messages.head;
  if (g == NULL) {
    c->event_datagram = 0;
    *len = 0;
    return NULL;
  }
  *len = g->len;
  return g->data;
}

void aq_datagram_pop(aq_conn *conn) { aq_queue_pop(&aq_of(conn)->in_messages); }

void aq_datagrams_free(aq_connection *c) {
  while (c->out_messages.head != NULL) {
    aq_queue_pop(&c->out_messages);
  }
  while (c->in_messages.head != NULL) {
    aq_queue_pop(&c->in_messages);
  }
}
