//go:build ngtcp2 && cgo

#include "internal.h"

#include <string.h>

/* ---- making and freeing ---- */

static ngtcp2_conn *get_conn(ngtcp2_crypto_conn_ref *ref) {
  return ((aq_connection *)ref->user_data)->quic;
}

static uint64_t at_most(uint64_t n, uint64_t most) { return n < most ? n : most; }

static aq_connection *conn_new(const aq_settings *s, int server) {
  aq_connection *c = aq_calloc(1, sizeof *c);
  if (c == NULL) {
    return NULL;
  }
  aq_guard_making(&c->pub);
  c->server = (uint8_t)server;
  c->ref.get_conn = get_conn;
  c->ref.user_data = c;
  c->now = s->now ? s->now : 1;
  c->pub.expiry = c->pub.trim_at = UINT64_MAX;
  c->send_buffer = s->send_buffer ? s->send_buffer : AQ_SEND_MIN;
  c->initial_window = s->stream_window;
  c->pub.credit_step = s->conn_window / 8 ? s->conn_window / 8 : 1;
  c->max_messages = s->datagram_queue ? s->datagram_queue : 64;
  c->engine_ids = s->engine_conn_ids;
  c->cid_len = s->conn_id_len;
  c->reset_key_set = s->reset_key_set;
  memcpy(c->reset_key, s->reset_key, sizeof c->reset_key);
  ngtcp2_ccerr_default(&c->close);
  return c;
}

/* probes_set lists the sizes to try, the largest first: on most paths it is
 * the right one. */
static void probes_set(aq_connection *c, ngtcp2_settings *out) {
  static const uint16_t sizes[] = {8900, 1452, 1420, 1380, 1280};
  size_t i, n = 0, max = out->max_tx_udp_payload_size;
  out->no_pmtud = max <= NGTCP2_MAX_UDP_PAYLOAD_SIZE;
  if (out->no_pmtud) {
    return;
  }
  c->probes[n++] = (uint16_t)max;
  for (i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    if (sizes[i] < max) {
      c->probes[n++] = sizes[i];
    }
  }
  out->pmtud_probes = c->probes;
  out->pmtud_probeslen = n;
}

static void settings_set(aq_connection *c, ngtcp2_settings *out,
                         ngtcp2_transport_params *params, const aq_settings *s,
                         const uint8_t *token, size_t token_len) {
  ngtcp2_settings_default(out);
  ngtcp2_transport_params_default(params);

  out->initial_ts = c->now;
  switch (s->congestion_control) {
  case 0:
    out->cc_algo = NGTCP2_CC_ALGO_RENO;
    break;
  case 2:
    out->cc_algo = NGTCP2_CC_ALGO_BBR;
    break;
  default:
    out->cc_algo = NGTCP2_CC_ALGO_CUBIC;
  }
  out->handshake_timeout = s->handshake_timeout;
  if (out->handshake_timeout > UINT64_MAX - c->now) {
    out->handshake_timeout = UINT64_MAX;
  }
  out->max_tx_udp_payload_size = s->max_udp_payload;
  if (out->max_tx_udp_payload_size < NGTCP2_MAX_UDP_PAYLOAD_SIZE) {
    out->max_tx_udp_payload_size = NGTCP2_MAX_UDP_PAYLOAD_SIZE;
  } else if (out->max_tx_udp_payload_size > NGTCP2_MAX_TX_UDP_PAYLOAD_SIZE) {
    out->max_tx_udp_payload_size = NGTCP2_MAX_TX_UDP_PAYLOAD_SIZE;
  }
  probes_set(c, out);
  /* 0 is a window that does not grow. */
  if (s->max_conn_window > s->conn_window) {
    out->max_window = at_most(s->max_conn_window, NGTCP2_MAX_VARINT);
  }
  if (s->max_stream_window > s->stream_window) {
    out->max_stream_window = at_most(s->max_stream_window, NGTCP2_MAX_VARINT);
  }
  if (token_len > 0) {
    out->token = token;
    out->tokenlen = token_len;
  }
  /* Whatever is sent takes an acknowledgment along; when one is sent for its
   * own sake is decided by answer_waits. */
  out->ack_thresh = 1;
  if (s->qlog) {
    out->qlog_write = aq_qlog_write;
  }

  params->initial_max_streams_bidi = at_most(s->max_streams, 1ull << 60);
  params->initial_max_streams_uni = at_most(s->max_uni_streams, 1ull << 60);
  memset(c->places, 0, sizeof c->places);
  c->places[0].most = c->places[0].allowed = params->initial_max_streams_bidi;
  c->places[1].most = c->places[1].allowed = params->initial_max_streams_uni;
  params->initial_max_data = at_most(s->conn_window, NGTCP2_MAX_VARINT);
  params->initial_max_stream_data_bidi_local =
      params->initial_max_stream_data_bidi_remote =
          params->initial_max_stream_data_uni =
              at_most(s->stream_window, NGTCP2_MAX_VARINT);
  /* It goes out in milliseconds. */
  params->max_idle_timeout =
      at_most(s->idle_timeout, NGTCP2_MAX_VARINT);
  params->max_datagram_frame_size =
      at_most(s->max_datagram_frame, NGTCP2_MAX_VARINT);
  params->disable_active_migration = s->disable_active_migration;
  if (s->active_conn_ids) {
    params->active_connection_id_limit =
        s->active_conn_ids < 2 ? 2 : s->active_conn_ids > 8 ? 8 : s->active_conn_ids;
  } else {
    params->active_connection_id_limit = 7;
  }
}

static void keep_alive_set(aq_connection *c, const aq_settings *s) {
  if (s->keep_alive != 0 && s->keep_alive != UINT64_MAX) {
    ngtcp2_conn_set_keep_alive_timeout(c->quic, s->keep_alive);
  }
}

static aq_conn *conn_made(aq_connection *c, int rv, aq_error *err) {
  if (rv != 0) {
    c->quic = NULL;
    aq_error_set(err, NULL, rv);
    aq_do_conn_free(&c->pub);
    aq_guard_making(NULL);
    return NULL;
  }
  c->pub.expiry = ngtcp2_conn_get_expiry2(c->quic);
  return &c->pub;
}

aq_conn *aq_do_client_new(const aq_settings *s, const aq_client_options *o,
                       const uint8_t *token, size_t token_len, aq_error *err) {
  aq_connection *c = conn_new(s, 0);
  ngtcp2_settings settings;
  ngtcp2_transport_params params;
  ngtcp2_path_storage path;
  ngtcp2_cid dcid, scid;
  int rv;
  if (c == NULL) {
    aq_error_set(err, NULL, NGTCP2_ERR_NOMEM);
    return NULL;
  }
  rv = aq_path_set(&path, &o->path);
  if (rv == 0 && o->dcid.len < NGTCP2_MIN_INITIAL_DCIDLEN) {
    rv = NGTCP2_ERR_INVALID_ARGUMENT;
  }
  if (rv == 0) {
    settings_set(c, &settings, &params, s, token, token_len);
    aq_cid_set(&dcid, &o->dcid);
    aq_cid_set(&scid, &o->scid);
    AQ_FAIL_HERE(AQ_FAIL_MAKING);
    rv = ngtcp2_conn_client_new(&c->quic, &dcid, &scid, &path.path,
                                NGTCP2_PROTO_VER_V1, AQ_CALLBACKS, &settings,
                                &params, aq_mem(), c);
  }
  if (rv == 0) {
    keep_alive_set(c, s);
  }
  return conn_made(c, rv, err);
}

int aq_server_quic(aq_connection *c, const aq_settings *s,
                   const aq_server_options *o, const uint8_t *token,
                   size_t token_len) {
  static const uint32_t versions[] = {NGTCP2_PROTO_VER_V1};
  ngtcp2_settings settings;
  ngtcp2_transport_params params;
  ngtcp2_path_storage path;
  ngtcp2_cid peer, scid;
  int rv;
  if (aq_path_set(&path, &o->path) != 0 ||
      !ngtcp2_is_supported_version(o->version)) {
    return NGTCP2_ERR_INVALID_ARGUMENT;
  }
  settings_set(c, &settings, &params, s, NULL, 0);
  settings.available_versions = versions;
  settings.available_versionslen = sizeof versions / sizeof versions[0];
  aq_cid_set(&peer, &o->peer_scid);
  aq_cid_set(&scid, &o->scid);
  params.original_dcid_present = 1;
  aq_cid_set(&params.original_dcid, &o->dcid);
  if (token_len > 0 && o->token_kind != AQ_TOKEN_NONE) {
    /* ngtcp2 takes a client with a token for validated. */
    settings.token = token;
    settings.tokenlen = token_len;
    settings.token_type = NGTCP2_TOKEN_TYPE_NEW_TOKEN;
    if (o->token_kind == AQ_TOKEN_RETRY) {
      settings.token_type = NGTCP2_TOKEN_TYPE_RETRY;
      aq_cid_set(&params.original_dcid, &o->original_dcid);
      params.retry_scid_present = 1;
      aq_cid_set(&params.retry_scid, &o->dcid);
    }
  }
  if (c->reset_key_set && scid.datalen > 0) {
    params.stateless_reset_token_present = 1;
    if (aq_make_reset_token(c, &scid, params.stateless_reset_token) != 0) {
      return NGTCP2_ERR_INTERNAL;
    }
  }
  rv = ngtcp2_conn_server_new(&c->quic, &peer, &scid, &path.path, o->version,
                              AQ_CALLBACKS, &settings, &params, aq_mem(), c);
  if (rv == 0) {
    keep_alive_set(c, s);
  }
  return rv;
}

aq_conn *aq_do_server_new(const aq_settings *s, const aq_server_options *o,
                       const uint8_t *token, size_t token_len, aq_error *err) {
  aq_connection *c = conn_new(s, 1);
  int rv;
  if (c == NULL) {
    aq_error_set(err, NULL, NGTCP2_ERR_NOMEM);
    return NULL;
  }
  rv = aq_first_new(c, s, o, token, token_len);
  if (rv == 0) {
    rv = aq_server_quic(c, s, o, token, token_len);
  }
  return conn_made(c, rv, err);
}

void aq_do_conn_free(aq_conn *conn) {
  aq_connection *c = aq_of(conn);
  aq_chunk_sort(c);
  /* The streams first, while their conn is whole; ngtcp2 looks at no stream
   * data when it goes. */
  aq_streams_free(c);
  ngtcp2_conn_del(c->quic);
  c->quic = NULL;
  AQ_FAIL_HERE(AQ_FAIL_FREEING);
  c->in_tls++;
  aq_tls_free(c->tls);
  c->tls = NULL;
  aq_datagrams_free(c);
  aq_chunk_trim(c);
  aq_first_free(c);
  aq_free(c->hello);
  aq_free(c->token);
  aq_free(c->pool);
  aq_free(c->qlog);
  aq_free(c->pub.events);
  ngtcp2_secure_clear(c->reset_key, sizeof c->reset_key);
  aq_free(c);
}

aq_tls *aq_conn_tls(aq_conn *conn) {
  aq_connection *c = aq_of(conn);
  /* What an assertion left in a call is in no known state. */
  return c->broken && c->in_tls ? NULL : c->tls;
}

/* ---- before and behind each call ---- */

/* over gives the error that has ended the connection, or 0: after it ngtcp2 may
 * be in a state in which it must not be called, except for the close. */
static int over(aq_connection *c) {
  if (c->failure != 0 && c->pub.error.code == 0) {
    aq_error_set(&c->pub.error, c, c->failure);
    c->pub.error.fatal = 1;
  }
  return c->failure;
}

/* free_events gives the memory of the list back, if Go has seen all of it. */
static void free_events(aq_connection *c) {
  if (c->pub.nevents == 0) {
    aq_free(c->pub.events);
    c->pub.events = NULL;
    c->pub.cap_events = 0;
  }
}

/* begin takes the time, which does not run backwards for ngtcp2. */
static void begin(aq_connection *c, uint64_t now) {
  if (now > c->now) {
    c->now = now;
  }
  c->pub.error.code = 0;
  c->pub.answer_waits = 0;
  c->pub.held = 0;
  aq_chunk_sort(c);
  if (c->now >= c->pub.trim_at) {
    c->pub.trim_at = UINT64_MAX;
    if (!c->touched) {
      aq_chunk_trim(c);
      free_events(c);
    }
    c->touched = 0;
  }
}

/* publish_expiry tells Go when ngtcp2 wants to be called. Exact times are for
 * pacing. When there is nothing to send, a timer that is due within the
 * granularity (RFC 9002, Section 6.1.2) has that much time from when it was set:
 * it is a pause that nothing waits for, the delay of an acknowledgment, which may
 * go with an answer until then, or a loss. */
static void publish_expiry(aq_connection *c) {
  uint64_t at = ngtcp2_conn_get_expiry2(c->quic);
  if (c->confirmed && !c->sending && c->ready_mask == 0 &&
      c->out_messages.head == NULL && at < c->now + AQ_GRANULARITY) {
    if (at != c->soon) {
      c->soon = at;
      c->tick = c->now + AQ_GRANULARITY;
    }
    if (at < c->tick) {
      at = c->tick;
    }
  }
  c->pub.expiry = at;
}

static int end(aq_connection *c, int rv) {
  publish_expiry(c);
  if (c->first != NULL) {
    uint64_t at = aq_first_expiry(c);
    c->pub.expiry = at < c->pub.expiry ? at : c->pub.expiry;
  }
  if (c->pub.trim_at == UINT64_MAX &&
      (c->free_bytes > 0 || c->pub.cap_events > 8)) {
    c->pub.trim_at = c->now + AQ_TRIM_AFTER;
  }
  if (rv == 0 && c->no_memory) {
    rv = NGTCP2_ERR_NOMEM;
  }
  return rv == 0 ? 0 : aq_fail(c, rv);
}

/* ---- TLS ---- */

int aq_do_conn_make_tls(aq_conn *conn, aq_tls **out,
                        const aq_tls_config *config, const uint8_t *data,
                        size_t data_len, char *err, size_t err_len) {
  aq_connection *c = aq_of(conn);
  int rv;
  c->in_tls++;
  rv = (c->server ? aq_tls_server_new : aq_tls_client_new)(
      out, config, data, data_len, &c->ref, err, err_len);
  c->in_tls--;
  return rv;
}

int aq_do_conn_set_client_tls(aq_conn *conn, aq_tls *tls,
                           const uint8_t *early_params,
                           size_t early_params_len) {
  aq_connection *c = aq_of(conn);
  c->tls = tls;
  ngtcp2_conn_set_tls_native_handle(c->quic, aq_tls_native(tls));
  if (early_params_len > 0 && aq_tls_early_data(tls)) {
    /* Parameters that make no sense are as good as none: no stream can be
     * opened before the handshake. */
    c->pub.early_data = ngtcp2_conn_decode_and_set_0rtt_transport_params(
                          c->quic, early_params, early_params_len) == 0;
  }
  return 0;
}

const uint8_t *aq_conn_hello(aq_conn *conn, size_t *len) {
  aq_connection *c = aq_of(conn);
  *len = 0;
  if (!c->hello_ready || c->hello == NULL) {
    return NULL;
  }
  *len = 4 + ((size_t)c->hello[1] << 16 | (size_t)c->hello[2] << 8 |
              (size_t)c->hello[3]);
  return c->hello;
}

int aq_do_conn_start_server_tls(aq_conn *conn, aq_tls *tls, uint64_t now) {
  aq_connection *c = aq_of(conn);
  int rv, done;
  c->tls = tls;
  if (over(c) != 0) {
    return c->failure;
  }
  begin(c, now);
  ngtcp2_conn_set_tls_native_handle(c->quic, aq_tls_native(tls));
  rv = aq_first_again(c, &done);
  aq_first_free(c);
  if (!done) {
    rv = ngtcp2_conn_continue_handshake(c->quic, c->now);
  }
  if (rv == 0) {
    rv = aq_streams_apply(c);
  }
  return end(c, rv);
}

void aq_do_conn_release_tls(aq_conn *conn) {
  aq_connection *c = aq_of(conn);
  /* A client needs its TLS object for tickets; before the handshake is done
   * everybody does. */
  if (c->server && c->completed && c->tls != NULL && !aq_tls_released(c->tls)) {
    c->in_tls++;
    aq_tls_release(c->tls);
    c->in_tls--;
    ngtcp2_conn_set_tls_native_handle(c->quic, aq_tls_native(c->tls)); /* NULL */
    free_events(c); /* a handshake has more of them than what follows */
  }
}

void aq_do_conn_fail_handshake(aq_conn *conn, uint8_t alert) {
  aq_connection *c = aq_of(conn);
  c->close_set = 1;
  ngtcp2_conn_set_tls_alert(c->quic, alert);
  ngtcp2_ccerr_set_tls_alert(&c->close, alert, NULL, 0);
}

/* ---- packets ---- */

int aq_read_packet(aq_connection *c, const ngtcp2_path *path, uint32_t ecn,
                   const uint8_t *data, size_t len) {
  ngtcp2_pkt_info pi = {0};
  pi.ecn = (uint8_t)(ecn & NGTCP2_ECN_MASK);
  aq_tls_enter();
  return ngtcp2_conn_read_pkt(c->quic, path, &pi, data, len, c->now);
}

/* answer_waits says that nothing need be sent yet for the packet that was just
 * read: it brought data, of one stream or many, to which the application will have
 * an answer or will not, or the acknowledgment of some while such data waits. The
 * second packet with data is acknowledged at once, as RFC 9000, Section 13.2.2 has
 * it. */
static int answer_waits(aq_connection *c) {
  ngtcp2_conn_info info;
  uint32_t i;
  if (!c->got || c->pub.raised || c->unanswered != 1 || !c->confirmed || c->sending ||
      c->ready_mask != 0 || c->out_messages.head != NULL) {
    return 0;
  }
  for (i = 0; i < c->pub.nevents; i++) {
    switch (c->pub.events[i].type) {
    case AQ_EVENT_STREAM_OPENED:
    case AQ_EVENT_READABLE:
    case AQ_EVENT_WRITABLE:
    case AQ_EVENT_STREAM_FINISHED:
    case AQ_EVENT_STREAM_CLOSED:
      break;
    default:
      return 0;
    }
  }
  ngtcp2_conn_get_conn_info2(c->quic, &info);
  if (info.pkt_lost != c->lost) {
    c->lost = info.pkt_lost;
    return 0;
  }
  return 1;
}

/* burst_max is how much may go out before pacing makes a pause: what it would
 * spread over AQ_PAUSE, and not more than two sendmsg take. Below 2 Gbit/s that is
 * less than one takes, and nothing is different from what ngtcp2 does by itself. */
static uint64_t burst_max(aq_connection *c) {
  ngtcp2_conn_info info;
  uint64_t n;
  ngtcp2_conn_get_conn_info2(c->quic, &info);
  if (info.smoothed_rtt == 0 || info.cwnd > UINT64_MAX / AQ_PAUSE) {
    return 0;
  }
  n = info.cwnd * AQ_PAUSE / info.smoothed_rtt;
  return n < AQ_BURST_MAX ? n : AQ_BURST_MAX;
}

int aq_do_conn_read(aq_conn *conn, const aq_path *p, uint32_t ecn,
                 const uint8_t *data, size_t len, size_t segment,
                 uint64_t now) {
  aq_connection *c = aq_of(conn);
  ngtcp2_path_storage path;
  int rv = 0;
  if (over(c) != 0) {
    return c->failure;
  }
  begin(c, now);
  if (aq_path_set(&path, p) != 0) {
    return end(c, 0); /* no packet of this connection came that way */
  }
  c->initial_again = !c->server;
  if (segment == 0) {
    segment = len;
  }
  c->got = 0;
  if (segment < len) {
    c->unanswered = 2;
  }
  while (len > 0 && rv == 0) {
    size_t n = segment < len ? segment : len;
    if (c->first != NULL) {
      aq_first_add(c, p, ecn, data, n);
    }
    c->asks = 0;
    rv = aq_read_packet(c, &path.path, ecn, data, n);
    if (c->first != NULL) {
      rv = aq_first_read_more(c, rv);
    }
    if (c->asks && c->unanswered < 2) {
      c->unanswered++;
    }
    data += n;
    len -= n;
  }
  if (rv == 0) {
    rv = aq_streams_apply(c);
  }
  c->pub.answer_waits = rv == 0 && answer_waits(c);
  c->burst = burst_max(c);
  return end(c, rv);
}

int aq_do_conn_handle_expiry(aq_conn *conn, uint64_t now) {
  aq_connection *c = aq_of(conn);
  int rv = 0;
  if (over(c) != 0) {
    return c->failure;
  }
  begin(c, now);
  c->soon = 0;
  c->sending = 0;
  c->burst = burst_max(c);
  c->initial_again = !c->server;
  if (ngtcp2_conn_get_expiry2(c->quic) <= c->now) {
    rv = ngtcp2_conn_handle_expiry(c->quic, c->now);
  }
  return end(c, rv);
}

static void output(aq_connection *c, size_t n, size_t segment,
                   const ngtcp2_path *path, const ngtcp2_pkt_info *pi) {
  c->pub.out.n = n;
  c->pub.out.segment = segment;
  if (n > 0) {
    c->pub.out.ecn = pi->ecn;
    aq_path_get(&c->pub.out.path, path);
  }
}

int aq_do_conn_write(aq_conn *conn, uint8_t *buf, size_t len, uint64_t now) {
  aq_connection *c = aq_of(conn);
  ngtcp2_path_storage path;
  ngtcp2_pkt_info pi = {0};
  ngtcp2_ssize n;
  size_t segment = 0, quantum, least;
  int rv;
  if (over(c) != 0) {
    return c->failure;
  }
  begin(c, now);
  c->pub.out.n = 0;
  least = ngtcp2_conn_get_max_tx_udp_payload_size2(c->quic);
  if (buf == NULL || len < least) {
    return end(c, NGTCP2_ERR_INVALID_ARGUMENT);
  }
  if (aq_first_quiet(c)) {
    return end(c, 0);
  }
  rv = aq_streams_apply(c);
  if (rv == 0) {
    rv = aq_streams_credit(c);
  }
  if (rv != 0) {
    return end(c, rv);
  }
  if (c->deferred != NULL && ngtcp2_conn_get_max_data_left2(c->quic) > 0) {
    aq_sched_undefer(c);
  }
  quantum = ngtcp2_conn_get_send_quantum2(c->quic);
  if (quantum > AQ_AGGREGATE) {
    quantum = AQ_AGGREGATE;
  }
  if (quantum < least) {
    quantum = least;
  }
  if (quantum < len) {
    len = quantum;
  }
  ngtcp2_path_storage_zero(&path);
  aq_tls_enter();
  n = ngtcp2_conn_write_aggregate_pkt2(c->quic, &path.path, &pi, buf, len,
                                       &segment, aq_write_packet, 0, c->now);
  if (n < 0) {
    return end(c, (int)n);
  }
  /* A client's first flight is a burst: the initial window bounds it (RFC 9002,
   * Section 7.7), and 0-RTT data waits for nothing. */
  if (n > 0 && (uint64_t)n < c->burst) {
    c->burst -= (uint64_t)n;
  } else if (c->server || ngtcp2_conn_get_handshake_completed2(c->quic)) {
    ngtcp2_conn_update_pkt_tx_time(c->quic, c->now);
    c->burst = 0;
  }
  output(c, (size_t)n, segment, &path.path, &pi);
  if (n == 0) {
    c->initial_again = 0;
    c->pub.raised = 0;
    c->pub.held = c->confirmed && c->ready_mask != 0;
  } else {
    c->unanswered = 0;
    /* What did not fit goes out when pacing allows. */
    c->sending = len - (size_t)n < least;
  }
  if (n > 0 && c->first != NULL) {
    aq_first_free(c); /* the peer knows this ngtcp2_conn now */
  }
  if (n == 0 && c->fin_waiting > 0) {
    ngtcp2_conn_info info;
    ngtcp2_conn_get_conn_info2(c->quic, &info);
    if (info.bytes_in_flight == 0) {
      rv = aq_streams_settle(c);
    }
  }
  return end(c, rv);
}

int aq_do_conn_write_close(aq_conn *conn, uint8_t *buf, size_t len, uint32_t kind,
                        uint64_t code, const uint8_t *reason,
                        size_t reason_len, uint64_t now) {
  aq_connection *c = aq_of(conn);
  ngtcp2_path_storage path;
  ngtcp2_pkt_info pi = {0};
  ngtcp2_ccerr ccerr;
  ngtcp2_ssize n;
  /* While the handshake goes on, the frame may have to go out in packets of
   * more than one kind, in one datagram. */
  size_t most = c->completed ? AQ_MAX_REASON - 24 : 200;
  begin(c, now);
  c->pub.out.n = 0;
  if (buf == NULL || len < NGTCP2_MAX_UDP_PAYLOAD_SIZE) {
    return aq_fail_softly(c, NGTCP2_ERR_INVALID_ARGUMENT);
  }
  if (reason_len > most) {
    /* RFC 9000, Section 19.19: UTF-8; do not cut a character. */
    reason_len = most;
    while (reason_len > 0 && (reason[reason_len] & 0xc0) == 0x80) {
      reason_len--;
    }
  }
  if (code > NGTCP2_MAX_VARINT) {
    code = NGTCP2_MAX_VARINT;
  }
  switch (kind) {
  case AQ_CLOSE_APPLICATION:
    ngtcp2_ccerr_set_application_error(&ccerr, code, reason, reason_len);
    break;
  case AQ_CLOSE_TRANSPORT:
    ngtcp2_ccerr_set_transport_error(&ccerr, code, reason, reason_len);
    break;
  default:
    ccerr = c->close;
    if (ccerr.type == NGTCP2_CCERR_TYPE_TRANSPORT) {
      ccerr.reason = reason;
      ccerr.reasonlen = reason_len;
    }
  }
  ngtcp2_path_storage_zero(&path);
  n = ngtcp2_conn_write_connection_close(c->quic, &path.path, &pi, buf, len,
                                         &ccerr, c->now);
  aq_first_free(c);
  c->pub.expiry = ngtcp2_conn_get_expiry2(c->quic);
  switch (n) {
  case NGTCP2_ERR_INVALID_STATE: /* nothing was sent yet that it could end */
  case NGTCP2_ERR_NOBUF:         /* or nothing may be sent */
    n = 0;
  }
  if (n < 0) {
    return aq_fail(c, (int)n);
  }
  output(c, (size_t)n, (size_t)n, &path.path, &pi);
  return 0;
}

void aq_do_conn_close_info(aq_conn *conn, aq_close_info *out) {
  aq_connection *c = aq_of(conn);
  const ngtcp2_ccerr *e = ngtcp2_conn_get_ccerr2(c->quic);
  memset(out, 0, sizeof *out);
  out->kind = e->type == NGTCP2_CCERR_TYPE_APPLICATION ? AQ_CLOSE_APPLICATION
                                                       : AQ_CLOSE_TRANSPORT;
  out->code = e->error_code;
  out->frame = e->frame_type;
  out->reason_len =
      (uint32_t)(e->reasonlen < AQ_MAX_REASON ? e->reasonlen : AQ_MAX_REASON);
  if (out->reason_len > 0) {
    memcpy(out->reason, e->reason, out->reason_len);
  }
}

/* ---- the rest ---- */

int aq_conn_supply_id(aq_conn *conn, const uint8_t *id, size_t len) {
  aq_connection *c = aq_of(conn);
  aq_cid *at;
  if (len == 0 || len > AQ_MAX_CID || c->pub.cid_pool_len >= AQ_CID_POOL) {
    return -1;
  }
  if (c->pool == NULL &&
      (c->pool = aq_calloc(AQ_CID_POOL, sizeof *c->pool)) == NULL) {
    return -1;
  }
  at = &c->pool[c->pub.cid_pool_len++];
  at->len = (uint8_t)len;
  memcpy(at->data, id, len);
  return 0;
}

int aq_do_conn_submit_new_token(aq_conn *conn, const uint8_t *token, size_t len) {
  aq_connection *c = aq_of(conn);
  int rv;
  if (!c->server || token == NULL || len == 0 || len > AQ_MAX_NEW_TOKEN) {
    return aq_fail_softly(c, NGTCP2_ERR_INVALID_ARGUMENT);
  }
  rv = ngtcp2_conn_submit_new_token(c->quic, token, len);
  return rv == 0 ? 0 : aq_fail_softly(c, rv);
}

int aq_do_conn_migrate(aq_conn *conn, const aq_path *p, uint64_t now) {
  aq_connection *c = aq_of(conn);
  ngtcp2_path_storage path;
  int rv;
  if (over(c) != 0) {
    return c->failure;
  }
  begin(c, now);
  rv = aq_path_set(&path, p);
  if (rv == 0 && c->server) {
    rv = NGTCP2_ERR_INVALID_STATE;
  }
  if (rv == 0) {
    rv = ngtcp2_conn_initiate_migration(c->quic, &path.path, c->now);
  }
  if (rv != 0) {
    return aq_fail_softly(c, rv);
  }
  return end(c, 0);
}

int aq_do_conn_set_local(aq_conn *conn, const aq_path *p) {
  aq_connection *c = aq_of(conn);
  ngtcp2_path_storage path;
  const ngtcp2_path *current = ngtcp2_conn_get_path2(c->quic);
  int rv = aq_path_set(&path, p);
  if (rv == 0 && current->remote.addrlen != path.path.remote.addrlen) {
    rv = NGTCP2_ERR_INVALID_ARGUMENT; /* the family is another */
  }
  if (rv != 0) {
    return aq_fail_softly(c, rv);
  }
  ngtcp2_conn_set_local_addr(c->quic, &path.path.local);
  return 0;
}

int aq_do_conn_key_update(aq_conn *conn, uint64_t now) {
  aq_connection *c = aq_of(conn);
  int rv;
  if (over(c) != 0) {
    return c->failure;
  }
  begin(c, now);
  rv = c->completed ? ngtcp2_conn_initiate_key_update(c->quic, c->now)
                    : NGTCP2_ERR_INVALID_STATE;
  if (rv != 0) {
    return aq_fail_softly(c, rv);
  }
  return end(c, 0);
}
