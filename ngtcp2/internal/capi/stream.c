//go:build ngtcp2 && cgo

#include "internal.h"

#include <string.h>

/* ---- the table ---- */

static size_t slot_of(const aq_connection *c, int64_t id) {
  /* IDs of one type differ by 4: the low bits are kept. */
  return (size_t)(((uint64_t)id >> 2) ^ ((uint64_t)id & 3) << 1) &
         (c->table_size - 1);
}

aq_sending *aq_stream_find(aq_connection *c, int64_t id) {
  aq_sending *s;
  if (c->table_size == 0) {
    return NULL;
  }
  for (s = c->table[slot_of(c, id)]; s != NULL; s = s->hash_next) {
    if (s->pub.id == id) {
      return s;
    }
  }
  return NULL;
}

static int table_grow(aq_connection *c) {
  size_t size = c->table_size ? c->table_size * 2 : 8, was = c->table_size, i;
  aq_sending **old = c->table, **table = aq_calloc(size, sizeof *table);
  if (table == NULL) {
    return NGTCP2_ERR_NOMEM;
  }
  c->table = table;
  c->table_size = size;
  for (i = 0; i < was; i++) {
    aq_sending *s = old[i];
    while (s != NULL) {
      aq_sending *next = s->hash_next;
      size_t at = slot_of(c, s->pub.id);
      s->hash_next = table[at];
      table[at] = s;
      s = next;
    }
  }
  aq_free(old);
  return 0;
}

static void table_remove(aq_connection *c, aq_sending *s) {
  aq_sending **at = &c->table[slot_of(c, s->pub.id)];
  while (*at != s) {
    at = &(*at)->hash_next;
  }
  *at = s->hash_next;
  s->hash_next = NULL;
  c->table_len--;
}

aq_sending *aq_stream_add(aq_connection *c, int64_t id) {
  aq_sending *s;
  size_t at;
  if (c->table_len == c->table_size && table_grow(c) != 0) {
    return NULL;
  }
  s = aq_calloc(1, sizeof *s);
  if (s == NULL) {
    return NULL;
  }
  s->pub.id = id;
  s->conn = c;
  s->urgency = 3; /* RFC 9218, Section 4.1: the default */
  s->incremental = 1;
  s->pub.credit_step = c->initial_window / 8 ? c->initial_window / 8 : 1;
  at = slot_of(c, id);
  s->hash_next = c->table[at];
  c->table[at] = s;
  c->table_len++;
  return s;
}

static int is_remote(const aq_sending *s) {
  return (s->pub.id & 1) != s->conn->server;
}
static int is_uni(const aq_sending *s) { return (s->pub.id & 2) != 0; }
static int can_send(const aq_sending *s) { return !is_uni(s) || !is_remote(s); }
static int can_receive(const aq_sending *s) { return !is_uni(s) || is_remote(s); }

/* no_memory makes the next call that can fail do so. */
static int no_memory(aq_connection *c) {
  c->no_memory = 1;
  return NGTCP2_ERR_NOMEM;
}

static void unlink_credit(aq_sending *s) {
  aq_stream **at = &s->conn->pub.credit;
  if (!s->pub.credit_linked) {
    return;
  }
  while (*at != NULL && *at != &s->pub) {
    at = &(*at)->credit_next;
  }
  if (*at != NULL) {
    *at = s->pub.credit_next;
  }
  s->pub.credit_linked = 0;
  s->pub.credit_next = NULL;
}

static void unlink_apply(aq_sending *s) {
  aq_sending **at = &s->conn->apply;
  if (!s->applying) {
    return;
  }
  while (*at != NULL && *at != s) {
    at = &(*at)->apply_next;
  }
  if (*at != NULL) {
    *at = s->apply_next;
  }
  s->applying = 0;
  s->apply_next = NULL;
}

static void free_tx(aq_sending *s) {
  aq_chunk_put_list(s->conn, s->tx.head);
  s->tx.head = s->tx.tail = s->cur = NULL;
  s->tx.grow = 0;
}

static void fin_waits(aq_sending *s, uint8_t waits) {
  if (s->fin_waits != waits) {
    s->fin_waits = waits;
    s->conn->fin_waiting += waits ? 1u : -1u;
  }
}

static void stream_free(aq_sending *s) {
  aq_connection *c = s->conn;
  fin_waits(s, 0);
  aq_sched_remove(s);
  aq_sched_forget_deferred(s);
  unlink_credit(s);
  unlink_apply(s);
  free_tx(s);
  aq_chunk_put_list(c, s->pub.rx_head);
  if (c->packet_first == s) {
    c->packet_first = NULL;
  }
  aq_free(s);
}

static void free_list(aq_sending *s) {
  while (s != NULL) {
    aq_sending *next = s->hash_next;
    stream_free(s);
    s = next;
  }
}

void aq_streams_free(aq_connection *c) {
  size_t i;
  for (i = 0; i < c->table_size; i++) {
    free_list(c->table[i]);
  }
  free_list(c->orphans);
  aq_free(c->table);
  c->table = NULL;
  c->table_size = c->table_len = 0;
  c->orphans = NULL;
}

/* ---- opening and letting go ---- */

int aq_do_stream_open(aq_conn *conn, int uni, aq_stream **out) {
  aq_connection *c = aq_of(conn);
  aq_sending *s;
  int64_t id = -1;
  int rv;
  *out = NULL;
  if (c->failure != 0) {
    return aq_fail(c, c->failure);
  }
  rv = uni ? ngtcp2_conn_open_uni_stream(c->quic, &id, NULL)
           : ngtcp2_conn_open_bidi_stream(c->quic, &id, NULL);
  if (rv != 0) {
    return rv == NGTCP2_ERR_STREAM_ID_BLOCKED ? rv : aq_fail(c, rv);
  }
  s = aq_stream_add(c, id);
  if (s == NULL) {
    return aq_fail(c, NGTCP2_ERR_NOMEM);
  }
  s->known = 1;
  rv = ngtcp2_conn_set_stream_user_data(c->quic, id, s);
  if (rv != 0) {
    return aq_fail(c, rv);
  }
  *out = &s->pub;
  return 0;
}

aq_stream *aq_stream_remote(aq_conn *conn, int64_t id) {
  aq_connection *c = aq_of(conn);
  aq_sending *s;
  if (id < 0 || (id & 1) == c->server) {
    return NULL;
  }
  s = aq_stream_find(c, id);
  if (s == NULL) {
    s = aq_stream_add(c, id);
  }
  return s == NULL || s->released ? NULL : &s->pub;
}

/* raise_limits lets the peer open streams in place of those that have ended. Each
 * time takes a frame that wants an acknowledgment: it is done for many at once, or
 * when few places are left. */
static void raise_limits(aq_connection *c, int uni) {
  aq_places *p = &c->places[uni];
  uint64_t left = p->allowed > p->opened ? p->allowed - p->opened : 0;
  if (p->ended == 0 || (p->ended < p->most / 4 && left > p->most / 4)) {
    return;
  }
  if (uni) {
    ngtcp2_conn_extend_max_streams_uni(c->quic, (size_t)p->ended);
  } else {
    ngtcp2_conn_extend_max_streams_bidi(c->quic, (size_t)p->ended);
  }
  p->allowed += p->ended;
  p->ended = 0;
  c->pub.raised = 1;
}

/* leave_place is called when s has ended and nobody needs it any more. */
static void leave_place(aq_sending *s) {
  if (is_remote(s) && s->known) {
    s->conn->places[is_uni(s)].ended++;
    raise_limits(s->conn, is_uni(s));
  }
}

/* aq_stream_opened accounts for a stream that the peer has opened, and those below
 * it (RFC 9000, Section 2.1). */
void aq_stream_opened(aq_connection *c, int64_t id) {
  int uni = (id & 2) != 0;
  uint64_t opened = ((uint64_t)id >> 2) + 1;
  if (c->places[uni].opened < opened) {
    c->places[uni].opened = opened;
    raise_limits(c, uni);
  }
}

static void orphans_remove(aq_connection *c, aq_sending *s) {
  aq_sending **at = &c->orphans;
  while (*at != NULL && *at != s) {
    at = &(*at)->hash_next;
  }
  if (*at != NULL) {
    *at = s->hash_next;
  }
}

void aq_do_stream_release(aq_stream *stream) {
  aq_sending *s = aq_stream_of(stream);
  aq_connection *c = s->conn;
  if (s->released) {
    return;
  }
  s->released = 1;
  if (s->orphan) {
    orphans_remove(c, s);
    stream_free(s);
    return;
  }
  aq_stream_abandon(s);
  if (s->pub.closed || !s->known) {
    leave_place(s);
    table_remove(c, s);
    stream_free(s);
  }
}

int aq_stream_ended(aq_sending *s, uint64_t code) {
  aq_connection *c = s->conn;
  int rv;
  s->pub.closed = 1;
  s->reset_pending = s->stop_pending = 0;
  aq_sched_remove(s);
  aq_sched_forget_deferred(s);
  if (s->fin_sent && !s->tx_dead && !s->pub.send_done) {
    rv = aq_stream_finished(s);
    if (rv != 0) {
      return rv;
    }
  }
  fin_waits(s, 0);
  free_tx(s);
  if (s->released) {
    leave_place(s);
    table_remove(c, s);
    stream_free(s);
    return 0;
  }
  return aq_event_add(c, AQ_EVENT_STREAM_CLOSED, s->pub.id, code);
}

/* aq_streams_reject is for early data that the server did not take: ngtcp2 has
 * forgotten the streams, and their IDs begin again. */
int aq_streams_reject(aq_connection *c) {
  size_t i;
  for (i = 0; i < c->table_size; i++) {
    aq_sending *s = c->table[i];
    c->table[i] = NULL;
    while (s != NULL) {
      aq_sending *next = s->hash_next;
      aq_sched_remove(s);
      aq_sched_forget_deferred(s);
      unlink_credit(s);
      unlink_apply(s);
      fin_waits(s, 0);
      free_tx(s);
      s->orphan = 1;
      s->pub.closed = 1;
      s->tx_dead = s->rx_dead = 1;
      s->hash_next = NULL;
      if (s->released) {
        stream_free(s);
      } else {
        s->hash_next = c->orphans;
        c->orphans = s;
      }
      s = next;
    }
  }
  c->table_len = 0;
  return aq_event_add(c, AQ_EVENT_EARLY_DATA_REJECTED, -1, 0);
}

/* ---- what waits until ngtcp2 knows the stream ---- */

void aq_streams_apply_later(aq_sending *s) {
  if (!s->applying) {
    s->applying = 1;
    s->apply_next = s->conn->apply;
    s->conn->apply = s;
  }
}

static int tell_reset(aq_sending *s) {
  return ngtcp2_conn_shutdown_stream_write(s->conn->quic, 0, s->pub.id,
                                           s->reset_code);
}

static int tell_stop(aq_sending *s) {
  return ngtcp2_conn_shutdown_stream_read(s->conn->quic, 0, s->pub.id,
                                          s->stop_code);
}

int aq_streams_apply(aq_connection *c) {
  int rv = 0;
  while (c->apply != NULL && rv == 0) {
    aq_sending *s = c->apply;
    unlink_apply(s);
    if (s->pub.closed) {
      continue;
    }
    if (s->stop_pending) {
      s->stop_pending = 0;
      rv = tell_stop(s);
    }
    if (s->reset_pending && rv == 0) {
      s->reset_pending = 0;
      rv = tell_reset(s);
    }
  }
  return rv;
}

/* ---- sending ---- */

static uint64_t send_limit(aq_sending *s) {
  aq_connection *c = s->conn;
  ngtcp2_conn_info info;
  uint64_t limit;
  ngtcp2_conn_get_conn_info2(c->quic, &info);
  limit = info.cwnd > UINT64_MAX / 2 ? UINT64_MAX : info.cwnd * 2;
  if (limit < AQ_SEND_MIN) {
    limit = AQ_SEND_MIN;
  }
  return limit < c->send_buffer ? limit : c->send_buffer;
}

/* send_room is how much may be written now. What the peer's windows do not
 * admit is buffered only as far as it takes to use a window at once when it
 * opens: while it waits it would get its share of windows that streams need
 * whose reader comes first. */
static uint64_t send_room(aq_sending *s, uint64_t limit) {
  ngtcp2_conn *quic = s->conn->quic;
  uint64_t used = s->end - s->acked, unsent = s->end - s->sent;
  uint64_t ahead, left;
  if (used >= limit) {
    return 0;
  }
  limit -= used;
  left = ngtcp2_conn_get_max_data_left2(quic);
  ahead = ngtcp2_conn_get_max_stream_data_left2(quic, s->pub.id);
  if (left < ahead) {
    ahead = left;
  }
  ahead += AQ_SEND_AHEAD;
  if (ahead > AQ_UNSENT_MAX) {
    ahead = AQ_UNSENT_MAX;
  }
  if (unsent >= ahead) {
    return 0;
  }
  ahead -= unsent;
  return ahead < limit ? ahead : limit;
}

/* wake_writer reports that there is room again, if enough: as much as is unsent,
 * so that there is something to send until the writer has come. */
static int wake_writer(aq_sending *s) {
  uint64_t limit, least = s->end - s->sent;
  if (!s->want_write || s->tx_dead || s->released) {
    return 0;
  }
  limit = send_limit(s);
  if (least < AQ_SEND_AHEAD / 2) {
    least = AQ_SEND_AHEAD / 2;
  }
  if (least > limit / 4) {
    least = limit / 4 + 1;
  }
  if (send_room(s, limit) < least) {
    return 0;
  }
  s->want_write = 0;
  return aq_event_add(s->conn, AQ_EVENT_WRITABLE, s->pub.id, 0);
}

int64_t aq_do_stream_write(aq_stream *stream, const uint8_t *p, size_t n) {
  aq_sending *s = aq_stream_of(stream);
  aq_connection *c = s->conn;
  uint64_t take;
  aq_chunk *tail = s->tx.tail;
  uint64_t tail_full;
  if (s->tx_dead || s->fin || s->pub.closed || !can_send(s) || n == 0) {
    return 0;
  }
  aq_chunk_sort(c);
  take = send_room(s, send_limit(s));
  if (take == 0) {
    s->want_write = 1;
    return 0;
  }
  if (take >= n) {
    take = n;
  } else {
    s->want_write = 1;
  }
  if (s->tx.head == NULL) {
    s->head_offset = s->end;
  }
  tail_full = tail != NULL && tail == s->cur && tail->len == tail->cap;
  if (aq_data_append(c, &s->tx, p, (size_t)take) != 0) {
    /* What was appended stays unused: the connection ends. */
    no_memory(c);
    return 0;
  }
  if (s->cur == NULL) {
    s->cur = s->tx.head;
    s->cur_offset = s->head_offset;
  } else if (tail_full && s->sent == s->cur_offset + s->cur->len) {
    s->cur_offset += s->cur->len;
    s->cur = s->cur->next;
  }
  s->end += take;
  aq_sched_add(s);
  return (int64_t)take;
}

void aq_stream_finish(aq_stream *stream) {
  aq_sending *s = aq_stream_of(stream);
  if (s->tx_dead || s->fin || s->pub.closed || !can_send(s)) {
    return;
  }
  s->fin = 1;
  aq_sched_add(s);
}

/* aq_stream_drop_unsent frees what ngtcp2 was never given. What it was given it
 * may look at until the stream is closed. */
void aq_stream_drop_unsent(aq_sending *s) {
  s->tx_dead = 1;
  s->want_write = 0;
  fin_waits(s, 0);
  aq_sched_remove(s);
  aq_sched_forget_deferred(s);
  if (s->sent == s->acked) {
    free_tx(s);
  } else if (s->cur != NULL && s->cur->next != NULL) {
    aq_chunk_put_list(s->conn, s->cur->next);
    s->cur->next = NULL;
    s->tx.tail = s->cur;
  }
  s->end = s->sent;
}

int aq_do_stream_reset(aq_stream *stream, uint64_t code) {
  aq_sending *s = aq_stream_of(stream);
  int rv;
  if (s->tx_dead || s->pub.send_done || s->pub.closed || !can_send(s)) {
    return 0;
  }
  s->reset_code = code;
  aq_stream_drop_unsent(s);
  if (!s->known) {
    s->reset_pending = 1;
    return 0;
  }
  rv = tell_reset(s);
  if (rv != 0) {
    no_memory(s->conn);
  }
  return rv;
}

/* aq_stream_vecs describes what is not sent yet, as far as n vectors reach or a
 * packet can. */
size_t aq_stream_vecs(aq_sending *s, ngtcp2_vec *vec, size_t n, int *fin) {
  uint64_t left = s->end - s->sent, packet = 65536;
  size_t count = 0;
  aq_chunk *ch = s->cur;
  uint64_t skip = ch != NULL ? s->sent - s->cur_offset : 0;
  while (left > 0 && ch != NULL && count < n && packet > 0) {
    if (skip < ch->len) {
      vec[count].base = ch->data + skip;
      vec[count].len = ch->len - (size_t)skip;
      if (vec[count].len > left) {
        vec[count].len = (size_t)left;
      }
      left -= vec[count].len;
      packet -= vec[count].len < packet ? vec[count].len : packet;
      count++;
    }
    skip = 0;
    ch = ch->next;
  }
  *fin = left == 0 && s->fin && !s->fin_sent;
  return count;
}

void aq_stream_sent(aq_sending *s, size_t n, int fin) {
  s->sent += n;
  while (s->cur != NULL && s->cur->next != NULL &&
         s->sent >= s->cur_offset + s->cur->len) {
    s->cur_offset += s->cur->len;
    s->cur = s->cur->next;
  }
  if (fin && s->sent == s->end) {
    s->fin_sent = 1;
    s->fin_alone = n == 0 && s->end != 0;
  }
  wake_writer(s); /* without memory the next call fails */
}

int aq_stream_finished(aq_sending *s) {
  fin_waits(s, 0);
  s->pub.send_done = 1;
  if (s->released) {
    return 0;
  }
  return aq_event_add(s->conn, AQ_EVENT_STREAM_FINISHED, s->pub.id, 0);
}

/* aq_streams_settle is called when nothing is in flight and nothing is to be
 * sent, so that the FINs that wait have arrived. */
int aq_streams_settle(aq_connection *c) {
  size_t i;
  int rv;
  for (i = 0; i < c->table_size && c->fin_waiting > 0; i++) {
    aq_sending *s;
    for (s = c->table[i]; s != NULL; s = s->hash_next) {
      if (s->fin_waits) {
        rv = aq_stream_finished(s);
        if (rv != 0) {
          return rv;
        }
      }
    }
  }
  return 0;
}

void aq_streams_unblock(aq_connection *c) {
  size_t i;
  for (i = 0; i < c->table_size; i++) {
    aq_sending *s;
    for (s = c->table[i]; s != NULL; s = s->hash_next) {
      s->blocked = 0;
      aq_sched_add(s);
    }
  }
}

int aq_stream_acked(aq_sending *s, uint64_t offset, uint64_t n) {
  aq_connection *c = s->conn;
  uint64_t acked = offset + n;
  int rv;
  if (acked > s->sent || acked < s->acked) {
    return NGTCP2_ERR_CALLBACK_FAILURE;
  }
  s->acked = acked;
  c->got = 1;
  while (s->tx.head != NULL) {
    aq_chunk *ch = s->tx.head;
    if (s->head_offset + ch->len > acked ||
        (ch->next == NULL && acked != s->end)) {
      break;
    }
    if (s->cur == ch) {
      s->cur_offset += ch->len;
      s->cur = ch->next;
    }
    s->head_offset += ch->len;
    s->tx.head = ch->next;
    if (s->tx.head == NULL) {
      s->tx.tail = NULL;
      s->tx.grow = 0;
    }
    aq_chunk_put(c, ch);
  }
  rv = wake_writer(s);
  if (rv != 0) {
    return rv;
  }
  if (!s->fin_sent || s->tx_dead || s->pub.send_done) {
    return 0;
  }
  /* n is 0 only if a frame with FIN was acknowledged. Otherwise it was the
   * last frame that carried data; FIN was in it, unless FIN went alone. A
   * retransmission may have put both into one frame, which cannot be told
   * from here: such a stream waits until all that was sent is acknowledged. */
  if (n == 0) {
    s->fin_alone = 0;
  }
  if (acked < s->end) {
    return 0;
  }
  if (s->fin_alone) {
    fin_waits(s, 1);
    return 0;
  }
  return aq_stream_finished(s);
}

void aq_stream_set_priority(aq_stream *stream, uint32_t urgency,
                            int incremental) {
  aq_sending *s = aq_stream_of(stream);
  int queued = s->queued;
  if (urgency >= AQ_URGENCIES) {
    urgency = AQ_URGENCIES - 1;
  }
  aq_sched_remove(s);
  s->urgency = (uint8_t)urgency;
  s->incremental = incremental != 0;
  if (queued) {
    aq_sched_add(s);
  }
}

/* ---- receiving ---- */

/* credit gives n bytes back to the connection's window, but no more than came. */
static void credit(aq_sending *s, uint64_t n) {
  if (n > s->rx_total - s->rx_credited) {
    n = s->rx_total - s->rx_credited;
  }
  s->rx_credited += n;
  if (n > 0 && !s->orphan) {
    ngtcp2_conn_extend_max_offset(s->conn->quic, n);
  }
}

int aq_stream_received(aq_sending *s, const uint8_t *p, size_t n, int fin) {
  aq_connection *c = s->conn;
  s->rx_total += n;
  if (s->rx_dead) {
    credit(s, n);
    return 0;
  }
  c->got = c->asks = 1;
  if (n > 0) {
    aq_data d = {s->pub.rx_head, s->pub.rx_tail, s->rx_grow};
    int rv;
    if (d.tail == NULL) {
      /* The reader has taken all: begin with half of what was needed. */
      d.grow /= 4;
    }
    rv = aq_data_append(c, &d, p, n);
    s->pub.rx_head = d.head;
    s->pub.rx_tail = d.tail;
    s->rx_grow = d.grow;
    if (rv != 0) {
      return no_memory(c);
    }
  }
  if (fin) {
    s->pub.rx_fin = 1;
  }
  if (!s->pub.readable) {
    s->pub.readable = 1;
    return aq_event_add(c, AQ_EVENT_READABLE, s->pub.id, 0);
  }
  return 0;
}

void aq_stream_abandon(aq_sending *s) {
  s->rx_dead = 1;
  aq_chunk_put_list(s->conn, s->pub.rx_head);
  s->pub.rx_head = s->pub.rx_tail = NULL;
  unlink_credit(s);
  s->pub.consumed = 0;
  credit(s, UINT64_MAX);
}

int aq_do_stream_stop_sending(aq_stream *stream, uint64_t code) {
  aq_sending *s = aq_stream_of(stream);
  int rv;
  if (s->rx_dead || !can_receive(s) || s->orphan) {
    return 0;
  }
  s->stop_code = code;
  aq_stream_abandon(s);
  if (s->pub.closed) {
    return 0;
  }
  if (!s->known) {
    s->stop_pending = 1;
    return 0;
  }
  rv = tell_stop(s);
  if (rv != 0) {
    no_memory(s->conn);
  }
  return rv;
}

/* aq_streams_credit passes on what Go has consumed. */
int aq_streams_credit(aq_connection *c) {
  while (c->pub.credit != NULL) {
    aq_sending *s = aq_stream_of(c->pub.credit);
    uint64_t n = s->pub.consumed, most = s->rx_total - s->rx_credited;
    int rv;
    c->pub.credit = s->pub.credit_next;
    s->pub.credit_next = NULL;
    s->pub.credit_linked = 0;
    s->pub.consumed = 0;
    if (n > most) {
      n = most;
    }
    credit(s, n);
    if (n > 0 && !s->pub.closed && !s->rx_dead) {
      rv = ngtcp2_conn_extend_max_stream_offset(c->quic, s->pub.id, n);
      if (rv != 0) {
        return rv;
      }
    }
  }
  c->pub.consumed = 0;
  return 0;
}
