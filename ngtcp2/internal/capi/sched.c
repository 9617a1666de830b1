//go:build ngtcp2 && cgo

/* Which stream is sent next: RFC 9218. Of the lowest urgency that has data,
 * incremental streams take turns, packet by packet; the others go one after
 * the other by their IDs. Where both kinds meet at one urgency the first of
 * the others takes turns with the incremental ones. */

#include "internal.h"

#include <string.h>

/* ---- a pairing heap by stream ID, without allocation ---- */

/* left is the sibling before, or the parent of the first child. */
static aq_sending *meld(aq_sending *a, aq_sending *b) {
  if (a == NULL) {
    return b;
  }
  if (b == NULL) {
    return a;
  }
  if (b->pub.id < a->pub.id) {
    aq_sending *t = a;
    a = b;
    b = t;
  }
  b->left = a;
  b->right = a->child;
  if (b->right != NULL) {
    b->right->left = b;
  }
  a->child = b;
  return a;
}

/* meld_all makes one heap of siblings: pairs from left to right, then those
 * from right to left. */
static aq_sending *meld_all(aq_sending *s) {
  aq_sending *done = NULL, *root = NULL;
  while (s != NULL) {
    aq_sending *a = s, *b = s->right, *pair;
    s = b != NULL ? b->right : NULL;
    a->left = a->right = NULL;
    if (b != NULL) {
      b->left = b->right = NULL;
    }
    pair = meld(a, b);
    pair->right = done;
    done = pair;
  }
  while (done != NULL) {
    aq_sending *next = done->right;
    done->right = NULL;
    root = meld(root, done);
    done = next;
  }
  return root;
}

static void heap_remove(aq_sending **root, aq_sending *s) {
  aq_sending *rest = meld_all(s->child);
  s->child = NULL;
  if (*root == s) {
    *root = rest;
    return;
  }
  if (s->left->child == s) {
    s->left->child = s->right;
  } else {
    s->left->right = s->right;
  }
  if (s->right != NULL) {
    s->right->left = s->left;
  }
  s->left = s->right = NULL;
  *root = meld(*root, rest);
}

/* ---- the queues ---- */

static int has_something(const aq_sending *s) {
  return s->end > s->sent || (s->fin && !s->fin_sent);
}

void aq_sched_add(aq_sending *s) {
  aq_connection *c = s->conn;
  if (s->queued || s->deferred || s->blocked || s->tx_dead || !s->known ||
      s->pub.closed || !has_something(s)) {
    return;
  }
  if (s->incremental) {
    aq_sending **ring = &c->ready[s->urgency].ring;
    if (*ring == NULL) {
      s->next = s->prev = s;
      *ring = s;
    } else { /* at the end, which is before the first */
      s->next = *ring;
      s->prev = (*ring)->prev;
      s->prev->next = s;
      s->next->prev = s;
    }
  } else {
    aq_sending **heap = &c->ready[s->urgency].heap;
    s->child = s->left = s->right = NULL;
    *heap = meld(*heap, s);
  }
  s->queued = 1;
  c->ready_mask |= 1u << s->urgency;
}

void aq_sched_remove(aq_sending *s) {
  aq_connection *c = s->conn;
  if (!s->queued) {
    return;
  }
  if (s->incremental) {
    aq_sending **ring = &c->ready[s->urgency].ring;
    if (s->next == s) {
      *ring = NULL;
    } else {
      s->prev->next = s->next;
      s->next->prev = s->prev;
      if (*ring == s) {
        *ring = s->next;
      }
    }
    s->next = s->prev = NULL;
  } else {
    heap_remove(&c->ready[s->urgency].heap, s);
  }
  s->queued = 0;
  if (c->ready[s->urgency].ring == NULL && c->ready[s->urgency].heap == NULL) {
    c->ready_mask &= ~(1u << s->urgency);
  }
}

static aq_sending *pick(aq_connection *c) {
  unsigned u;
  for (u = 0; u < AQ_URGENCIES; u++) {
    if (c->ready_mask & (1u << u)) {
      aq_sending *ring = c->ready[u].ring, *heap = c->ready[u].heap;
      if (ring != NULL && heap != NULL) {
        return c->ready[u].turn ? ring : heap;
      }
      return ring != NULL ? ring : heap;
    }
  }
  return NULL;
}

/* turn ends the turn of s, which had its packet. */
static void turn(aq_connection *c, aq_sending *s) {
  aq_sending **ring = &c->ready[s->urgency].ring;
  c->ready[s->urgency].turn = !s->incremental ? 1 : 0;
  if (s->queued && s->incremental && *ring == s) {
    *ring = s->next;
  }
}

/* ---- streams that the connection's window holds back ---- */

static void defer(aq_sending *s) {
  aq_sched_remove(s);
  if (!s->deferred) {
    s->deferred = 1;
    s->defer_next = s->conn->deferred;
    s->conn->deferred = s;
  }
}

void aq_sched_undefer(aq_connection *c) {
  /* The list is in reverse. */
  aq_sending *s = c->deferred, *in_order = NULL;
  c->deferred = NULL;
  while (s != NULL) {
    aq_sending *next = s->defer_next;
    s->defer_next = in_order;
    in_order = s;
    s = next;
  }
  while (in_order != NULL) {
    s = in_order;
    in_order = s->defer_next;
    s->defer_next = NULL;
    s->deferred = 0;
    aq_sched_add(s);
  }
}

void aq_sched_forget_deferred(aq_sending *s) {
  aq_sending **at = &s->conn->deferred;
  if (!s->deferred) {
    return;
  }
  while (*at != NULL && *at != s) {
    at = &(*at)->defer_next;
  }
  if (*at != NULL) {
    *at = s->defer_next;
  }
  s->deferred = 0;
  s->defer_next = NULL;
}

/* ---- a packet ---- */

/* What one packet is made of, while it is made. */
typedef struct aq_making {
  aq_connection *c;
  ngtcp2_path *path;
  ngtcp2_pkt_info *pi;
  uint8_t *dest;
  size_t len;
  ngtcp2_tstamp now;
  size_t used;       /* about as many bytes of application data are in it */
  uint8_t datagrams; /* are in it */
  uint8_t no_more_datagrams;
  aq_sending *held_back; /* a stream that the connection's window stops */
} aq_making;

/* more says that the packet is not complete. */
static int more(ngtcp2_ssize n) { return n == NGTCP2_ERR_WRITE_MORE; }

/* datagram puts the oldest message into the packet. *tried is 0 if there is
 * none, or it will not fit. */
static ngtcp2_ssize datagram(aq_making *m, int *tried) {
  aq_connection *c = m->c;
  aq_message *g = c->out_messages.head;
  size_t room;
  int accepted = 0;
  ngtcp2_vec vec;
  ngtcp2_ssize n;
  *tried = 0;
  if (g == NULL || m->no_more_datagrams) {
    return 0;
  }
  room = aq_datagram_room(c);
  if (room == 0) { /* the peer has not said yet what it takes */
    return 0;
  }
  while (g->len >= room) { /* room is one more than fits: the path shrank */
    aq_queue_pop(&c->out_messages);
    c->pub.datagrams_dropped++;
    g = c->out_messages.head;
    if (g == NULL) {
      return 0;
    }
  }
  if (m->used + g->len >= room || (m->datagrams && c->ready_mask != 0)) {
    return 0; /* streams get what is left */
  }
  *tried = 1;
  vec.base = g->data;
  vec.len = g->len;
  n = ngtcp2_conn_writev_datagram(c->quic, m->path, m->pi, m->dest, m->len,
                                  &accepted, NGTCP2_WRITE_DATAGRAM_FLAG_MORE, 0,
                                  &vec, 1, m->now);
  if (n == NGTCP2_ERR_INVALID_ARGUMENT || n == NGTCP2_ERR_INVALID_STATE) {
    /* Larger than the peer takes, or it takes none at all. */
    aq_queue_pop(&c->out_messages);
    c->pub.datagrams_dropped++;
    *tried = 0;
    return 0;
  }
  if (accepted) {
    m->used += g->len + 3;
    m->datagrams = 1;
    aq_queue_pop(&c->out_messages);
    c->pub.datagrams_sent++;
  } else if (more(n)) {
    m->no_more_datagrams = 1;
  }
  return n;
}

/* stream puts data of s into the packet. */
static ngtcp2_ssize stream(aq_making *m, aq_sending *s) {
  aq_connection *c = m->c;
  ngtcp2_vec vec[AQ_VECS];
  ngtcp2_ssize n, taken = -1;
  int fin;
  size_t count = aq_stream_vecs(s, vec, AQ_VECS, &fin);
  /* Padding is only added when the packet is completed here, because s has
   * more than fits: then all packets of one sendmsg have the same length. */
  uint32_t flags =
      NGTCP2_WRITE_STREAM_FLAG_MORE | NGTCP2_WRITE_STREAM_FLAG_PADDING;
  if (fin) {
    flags |= NGTCP2_WRITE_STREAM_FLAG_FIN;
  }
  n = ngtcp2_conn_writev_stream(c->quic, m->path, m->pi, m->dest, m->len,
                                &taken, flags, s->pub.id, vec, count, m->now);
  switch (n) {
  case NGTCP2_ERR_STREAM_DATA_BLOCKED:
    s->blocked = 1;
    aq_sched_remove(s);
    return NGTCP2_ERR_WRITE_MORE;
  case NGTCP2_ERR_STREAM_NOT_FOUND:
  case NGTCP2_ERR_STREAM_SHUT_WR:
    aq_sched_remove(s);
    return NGTCP2_ERR_WRITE_MORE;
  }
  if (taken >= 0) {
    aq_stream_sent(s, (size_t)taken, fin);
    m->used += (size_t)taken;
    if (c->packet_first == NULL) {
      c->packet_first = s;
    }
    if (!has_something(s)) {
      if (c->packet_first == s) {
        turn(c, s);
        c->packet_first = NULL;
      }
      aq_sched_remove(s);
    }
  } else if (more(n)) {
    /* Nothing was taken, and nothing says why: do not ask for ever. */
    aq_sched_remove(s);
  }
  return n;
}

/* complete ends the packet with what is in it. */
static ngtcp2_ssize complete(aq_making *m) {
  aq_sending *s = m->held_back;
  aq_message *g = m->c->out_messages.head;
  uint32_t flags = NGTCP2_WRITE_STREAM_FLAG_NONE;
  ngtcp2_vec vec[AQ_VECS];
  size_t count;
  ngtcp2_ssize n, taken = -1;
  int fin;
  if (m->datagrams && g != NULL) {
    /* Another packet of messages follows: if little is wasted, make this one
     * as long as a packet can be, so that both go out in one sendmsg. */
    size_t room = aq_datagram_room(m->c);
    if (m->used <= room && room - m->used <= room / 8) {
      flags |= NGTCP2_WRITE_STREAM_FLAG_PADDING;
    }
  }
  if (s == NULL) {
    return ngtcp2_conn_writev_stream(m->c->quic, m->path, m->pi, m->dest,
                                     m->len, NULL, flags, -1, NULL, 0, m->now);
  }
  /* RFC 9000, Section 4.1: a sender that is blocked says so. ngtcp2 does when
   * it is given data that it cannot send. */
  m->held_back = NULL;
  count = aq_stream_vecs(s, vec, AQ_VECS, &fin);
  n = ngtcp2_conn_writev_stream(m->c->quic, m->path, m->pi, m->dest, m->len,
                                &taken, flags, s->pub.id, vec, count, m->now);
  if (taken > 0) {
    aq_stream_sent(s, (size_t)taken, 0);
  }
  switch (n) {
  case NGTCP2_ERR_STREAM_DATA_BLOCKED:
    s->blocked = 1;
    /* fall through */
  case NGTCP2_ERR_STREAM_NOT_FOUND:
  case NGTCP2_ERR_STREAM_SHUT_WR:
    aq_sched_forget_deferred(s);
    return NGTCP2_ERR_WRITE_MORE;
  }
  return n;
}

/* early_stops says that a 0-RTT packet might not go out behind an Initial packet
 * that is sent again. ngtcp2 leaves padding the datagram to it (RFC 9000,
 * Section 14.1), and when there is no window left for it after all the server
 * drops the Initial, which is too small then. */
static int early_stops(const aq_connection *c) {
  return c->initial_again && !c->completed &&
         ngtcp2_conn_get_cwnd_left2(c->quic) <=
             ngtcp2_conn_get_path_max_tx_udp_payload_size2(c->quic);
}

ngtcp2_ssize aq_write_packet(ngtcp2_conn *quic, ngtcp2_path *path,
                             ngtcp2_pkt_info *pi, uint8_t *dest, size_t len,
                             ngtcp2_tstamp now, void *user_data) {
  aq_connection *c = user_data;
  aq_making m = {c, path, pi, dest, len, now, 0, 0, 0, NULL};
  ngtcp2_ssize n;
  int tried;
  c->packet_first = NULL;
  AQ_FAIL_HERE(AQ_FAIL_WRITING);
  if (early_stops(c)) {
    return complete(&m);
  }
  for (;;) {
    aq_sending *s;
    n = datagram(&m, &tried);
    if (tried) {
      if (more(n)) {
        continue;
      }
      break;
    }
    s = pick(c);
    if (s == NULL) {
      n = complete(&m);
    } else if (s->end > s->sent && ngtcp2_conn_get_max_data_left2(quic) == 0) {
      if (m.held_back == NULL) {
        m.held_back = s;
      }
      defer(s);
      continue;
    } else {
      n = stream(&m, s);
    }
    if (!more(n)) {
      break;
    }
  }
  if (c->packet_first != NULL) {
    turn(c, c->packet_first);
    c->packet_first = NULL;
  }
  return n;
}
