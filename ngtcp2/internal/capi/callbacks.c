//go:build ngtcp2 && cgo

/* What ngtcp2 calls. Nothing here calls Go, except through the TLS library
 * (recv_crypto_data and client_initial). */

#include "internal.h"
#include "tls_messages.h"

#include <string.h>

#define FAILED NGTCP2_ERR_CALLBACK_FAILURE

/* ---- events ---- */

static aq_event *event_new(aq_connection *c, uint32_t type) {
  aq_event *e;
#ifdef AQ_PLAIN
  if (aq_fail_event > 0 && --aq_fail_event == 0) {
    c->no_memory = 1;
    return NULL;
  }
#endif
  if (c->pub.nevents == c->pub.cap_events) {
    uint32_t cap = c->pub.cap_events ? c->pub.cap_events * 2 : 2;
    aq_event *events;
    if (cap > UINT32_MAX / sizeof *events / 2) {
      c->no_memory = 1;
      return NULL;
    }
    events = aq_realloc(c->pub.events, cap * sizeof *events);
    if (events == NULL) {
      c->no_memory = 1;
      return NULL;
    }
    c->pub.events = events;
    c->pub.cap_events = cap;
  }
  e = &c->pub.events[c->pub.nevents++];
  memset(e, 0, sizeof *e);
  e->type = type;
  e->stream = -1;
  return e;
}

int aq_event_add(aq_connection *c, uint32_t type, int64_t stream,
                 uint64_t code) {
  aq_event *e = event_new(c, type);
  if (e == NULL) {
    return NGTCP2_ERR_NOMEM;
  }
  e->stream = stream;
  e->code = code;
  return 0;
}

int aq_event_once(aq_connection *c, uint32_t type, uint64_t code) {
  uint32_t *at;
  int rv;
  switch (type) {
  case AQ_EVENT_STREAMS_BIDI:
    at = &c->once[0];
    break;
  case AQ_EVENT_STREAMS_UNI:
    at = &c->once[1];
    break;
  case AQ_EVENT_NEW_TOKEN:
    at = &c->once[2];
    break;
  default:
    at = &c->once[AQ_ONCE - 1];
  }
  if (*at < c->pub.nevents && c->pub.events[*at].type == type) {
    c->pub.events[*at].code = code;
    return 0;
  }
  rv = aq_event_add(c, type, -1, code);
  if (rv == 0) {
    *at = c->pub.nevents - 1;
  }
  return rv;
}

int aq_event_cid(aq_connection *c, uint32_t type, const ngtcp2_cid *id) {
  aq_event *e;
  if (id->datalen > AQ_MAX_CID) {
    return NGTCP2_ERR_INVALID_ARGUMENT;
  }
  e = event_new(c, type);
  if (e == NULL) {
    return NGTCP2_ERR_NOMEM;
  }
  e->cid_len = (uint8_t)id->datalen;
  memcpy(e->cid, id->data, id->datalen);
  return 0;
}

int aq_event_token(aq_connection *c, uint32_t type, const uint8_t *token) {
  aq_event *e = event_new(c, type);
  if (e == NULL) {
    return NGTCP2_ERR_NOMEM;
  }
  memcpy(e->token, token, AQ_TOKEN);
  return 0;
}

static int failed(int rv) { return rv != 0 ? FAILED : 0; }

static int event(aq_connection *c, uint32_t type, int64_t stream,
                 uint64_t code) {
  return failed(aq_event_add(c, type, stream, code));
}

void aq_conn_tls_session(ngtcp2_crypto_conn_ref *ref) {
  aq_connection *c = ref->user_data;
  uint8_t no_memory = c->no_memory;
  AQ_FAIL_HERE(AQ_FAIL_IN_TLS);
  if (aq_event_once(c, AQ_EVENT_SESSION, 0) != 0) {
    c->no_memory = no_memory; /* the session is lost, nothing else */
  }
}

const uint8_t *aq_conn_tls_hello(ngtcp2_crypto_conn_ref *ref, size_t *len) {
  aq_connection *c = ref->user_data;
  return aq_conn_hello(&c->pub, len);
}

/* ---- handshake ---- */

static int crypto_alert(aq_connection *c, uint8_t alert) {
  ngtcp2_conn_set_tls_alert(c->quic, alert);
  return NGTCP2_ERR_CRYPTO;
}

#define ALERT_UNEXPECTED_MESSAGE 10
#define ALERT_ILLEGAL_PARAMETER 47

static int hello_append(aq_connection *c, const uint8_t *data, size_t len) {
  size_t message;
  if (len > AQ_MAX_HELLO - c->hello_len) {
    return crypto_alert(c, ALERT_ILLEGAL_PARAMETER);
  }
  if (c->hello_len + len > c->hello_cap) {
    size_t cap = c->hello_cap ? c->hello_cap : 2048;
    uint8_t *hello;
    while (cap < c->hello_len + len) {
      cap *= 2;
    }
    hello = aq_realloc(c->hello, cap);
    if (hello == NULL) {
      c->no_memory = 1;
      return NGTCP2_ERR_NOMEM;
    }
    c->hello = hello;
    c->hello_cap = cap;
  }
  memcpy(c->hello + c->hello_len, data, len);
  c->hello_len += len;
  /* RFC 8446, Section 4: type and 24 bits of length; 1 is client_hello. */
  if (c->hello[0] != 1) {
    return crypto_alert(c, ALERT_UNEXPECTED_MESSAGE);
  }
  if (c->hello_ready || c->hello_len < 4) {
    return 0;
  }
  message = 4 + ((size_t)c->hello[1] << 16 | (size_t)c->hello[2] << 8 |
                 (size_t)c->hello[3]);
  if (message > AQ_MAX_HELLO) {
    return crypto_alert(c, ALERT_ILLEGAL_PARAMETER);
  }
  if (c->hello_len < message) {
    return 0;
  }
  c->hello_ready = 1;
  return event(c, AQ_EVENT_CLIENT_HELLO, -1, 0);
}

/* feed lets the TLS library work. */
static int feed(aq_connection *c, ngtcp2_encryption_level level,
                const uint8_t *data, size_t len) {
  int rv;
  c->in_tls++;
  rv = aq_tls_feed(c->tls, level, data, len);
  c->in_tls--;
  return rv;
}

static int recv_crypto_data(ngtcp2_conn *quic, ngtcp2_encryption_level level,
                            uint64_t offset, const uint8_t *data, size_t len,
                            void *user_data) {
  aq_connection *c = user_data;
  int rv;
  (void)quic;
  (void)offset;
  if (c->tls == NULL) {
    if (!c->server || level != NGTCP2_ENCRYPTION_LEVEL_INITIAL) {
      return crypto_alert(c, ALERT_UNEXPECTED_MESSAGE);
    }
    return len == 0 ? 0 : hello_append(c, data, len);
  }
  if (aq_tls_released(c->tls)) {
    return crypto_alert(c, ALERT_UNEXPECTED_MESSAGE);
  }
  aq_tls_enter();
  if (c->hello != NULL) {
    /* StartServerTLS: ngtcp2_conn_continue_handshake brings no data. */
    uint8_t *hello = c->hello;
    size_t hello_len = c->hello_len;
    c->hello = NULL;
    c->hello_len = c->hello_cap = 0;
    rv = feed(c, level, hello, hello_len);
    aq_free(hello);
    if (rv != 0 || len == 0) {
      return rv;
    }
  }
  if (level == NGTCP2_ENCRYPTION_LEVEL_HANDSHAKE) {
    aq_tls_received(c->tls, data, len);
  }
  return feed(c, level, data, len);
}

/* offers_early says whether a ClientHello asks for 0-RTT with a session (RFC 8446,
 * Section 4.2.10). */
static int offers_early(const uint8_t *hello, size_t len) {
  aq_slice message = {hello, len}, extensions, body;
  return aq_hello_extensions(message, &extensions) == 0 &&
         aq_extension(extensions, AQ_EXT_EARLY_DATA, &body) == 0 &&
         aq_extension(extensions, AQ_EXT_PRE_SHARED_KEY, &body) == 0;
}

void aq_conn_tls_sent_hello(void *conn, const uint8_t *hello, size_t len) {
  aq_connection *c = conn;
  c->offered_early = (uint8_t)offers_early(hello, len);
}

static int client_initial(ngtcp2_conn *quic, void *user_data) {
  aq_connection *c = user_data;
  int rv;
  if (c->tls == NULL) {
    return FAILED;
  }
  aq_tls_enter();
  c->in_tls++;
  c->offered_early = aq_tls_watch_hello(c->tls, c) != 0;
  rv = ngtcp2_crypto_client_initial_cb(quic, user_data);
  (void)aq_tls_watch_hello(c->tls, NULL);
  c->in_tls--;
  /* The library judges the session once more when it writes the ClientHello. One
   * that it leaves out then brings no key that only the server can have: what is
   * sent with it, anybody could read. */
  if (!c->offered_early) {
    c->pub.early_data = 0;
  }
  return rv;
}

static int handshake_completed(ngtcp2_conn *quic, void *user_data) {
  aq_connection *c = user_data;
  int rv;
  c->completed = 1;
  aq_streams_unblock(c);
  if (!c->server && c->tls != NULL && aq_tls_early_data(c->tls)) {
    aq_tls_state state;
    aq_tls_get_state(c->tls, &state);
    if (!state.early_accepted) {
      rv = ngtcp2_conn_tls_early_data_rejected(quic);
      if (rv != 0) {
        return FAILED;
      }
    }
  }
  rv = event(c, AQ_EVENT_HANDSHAKE_COMPLETED, -1, 0);
  if (rv == 0 && c->server) {
    c->confirmed = 1;
    /* RFC 9001, Section 4.1.2: for a server that is the same. */
    rv = event(c, AQ_EVENT_HANDSHAKE_CONFIRMED, -1, 0);
  }
  return rv;
}

static int handshake_confirmed(ngtcp2_conn *quic, void *user_data) {
  aq_connection *c = user_data;
  (void)quic;
  if (!c->settled) {
    /* RFC 9001, Section 4.1.2: the server sends HANDSHAKE_DONE when it has our
     * Finished, which was not written yet. ngtcp2 has freed what it would need
     * to write it. */
    if (!c->close_set) {
      c->close_set = 1;
      ngtcp2_ccerr_set_transport_error(&c->close, NGTCP2_PROTOCOL_VIOLATION,
                                       NULL, 0);
    }
    return FAILED;
  }
  c->confirmed = 1;
  return event(c, AQ_EVENT_HANDSHAKE_CONFIRMED, -1, 0);
}

static int early_data_rejected(ngtcp2_conn *quic, void *user_data) {
  aq_connection *c = user_data;
  (void)quic;
  if (!c->pub.early_data) {
    return 0; /* there was none */
  }
  return failed(aq_streams_reject(c));
}

static int recv_new_token(ngtcp2_conn *quic, const uint8_t *token, size_t len,
                          void *user_data) {
  aq_connection *c = user_data;
  uint8_t *copy;
  (void)quic;
  if (len == 0 || len > AQ_MAX_NEW_TOKEN) {
    return 0;
  }
  copy = aq_realloc(c->token, len);
  if (copy == NULL) {
    return 0; /* it is only good for another connection */
  }
  memcpy(copy, token, len);
  c->token = copy;
  c->token_len = len;
  return failed(aq_event_once(c, AQ_EVENT_NEW_TOKEN, 0));
}

/* ---- streams ---- */

static int stream_open(ngtcp2_conn *quic, int64_t id, void *user_data) {
  aq_connection *c = user_data;
  aq_sending *s = aq_stream_find(c, id);
  if (s == NULL) {
    s = aq_stream_add(c, id);
    if (s == NULL) {
      c->no_memory = 1;
      return FAILED;
    }
  }
  s->known = 1;
  if (ngtcp2_conn_set_stream_user_data(quic, id, s) != 0) {
    return FAILED;
  }
  if (s->reset_pending || s->stop_pending) {
    aq_streams_apply_later(s);
  }
  aq_sched_add(s);
  aq_stream_opened(c, id);
  return event(c, AQ_EVENT_STREAM_OPENED, id, 0);
}

static int recv_stream_data(ngtcp2_conn *quic, uint32_t flags, int64_t id,
                            uint64_t offset, const uint8_t *data, size_t len,
                            void *user_data, void *stream_user_data) {
  (void)quic;
  (void)id;
  (void)offset;
  (void)user_data;
  AQ_FAIL_HERE(AQ_FAIL_READING);
  if (stream_user_data == NULL) {
    return FAILED;
  }
  return failed(aq_stream_received(stream_user_data, data, len,
                                   (flags & NGTCP2_STREAM_DATA_FLAG_FIN) != 0));
}

static int acked_stream_data(ngtcp2_conn *quic, int64_t id, uint64_t offset,
                             uint64_t len, void *user_data,
                             void *stream_user_data) {
  (void)quic;
  (void)id;
  (void)user_data;
  if (stream_user_data == NULL) {
    return 0;
  }
  return failed(aq_stream_acked(stream_user_data, offset, len));
}

static int stream_close(ngtcp2_conn *quic, uint32_t flags, int64_t id,
                        uint64_t code, void *user_data,
                        void *stream_user_data) {
  (void)quic;
  (void)flags;
  (void)id;
  (void)user_data;
  if (stream_user_data == NULL) {
    return 0;
  }
  return failed(aq_stream_ended(stream_user_data, code));
}

static int stream_reset(ngtcp2_conn *quic, int64_t id, uint64_t final_size,
                        uint64_t code, void *user_data,
                        void *stream_user_data) {
  aq_sending *s = stream_user_data;
  (void)quic;
  (void)final_size;
  if (s == NULL || s->rx_reset) {
    return 0;
  }
  s->rx_reset = 1;
  aq_stream_abandon(s);
  if (s->released) {
    return 0;
  }
  return event(user_data, AQ_EVENT_STREAM_RESET, id, code);
}

static int recv_stop_sending(ngtcp2_conn *quic, int64_t id, uint64_t code,
                             void *user_data, void *stream_user_data) {
  aq_sending *s = stream_user_data;
  (void)quic;
  if (s == NULL || s->tx_dead || s->pub.send_done) {
    return 0;
  }
  aq_stream_drop_unsent(s);
  if (s->released) {
    return 0;
  }
  return event(user_data, AQ_EVENT_STOP_SENDING, id, code);
}

static int extend_max_stream_data(ngtcp2_conn *quic, int64_t id, uint64_t max,
                                  void *user_data, void *stream_user_data) {
  aq_sending *s = stream_user_data;
  (void)quic;
  (void)id;
  (void)max;
  (void)user_data;
  if (s != NULL) {
    s->blocked = 0;
    aq_sched_add(s);
  }
  return 0;
}

static int extend_max_bidi(ngtcp2_conn *quic, uint64_t max, void *user_data) {
  (void)quic;
  return failed(aq_event_once(user_data, AQ_EVENT_STREAMS_BIDI, max));
}

static int extend_max_uni(ngtcp2_conn *quic, uint64_t max, void *user_data) {
  (void)quic;
  return failed(aq_event_once(user_data, AQ_EVENT_STREAMS_UNI, max));
}

/* ---- connection IDs, paths ---- */

static void rand_bytes(uint8_t *dst, size_t len, const ngtcp2_rand_ctx *ctx) {
  (void)ctx;
  if (aq_rand(dst, len) != 0) {
    memset(dst, 0, len); /* nothing secret is made of it */
  }
}

int aq_make_reset_token(aq_connection *c, const ngtcp2_cid *id,
                        uint8_t *token) {
  if (!c->reset_key_set) {
    return aq_rand(token, AQ_TOKEN);
  }
  return ngtcp2_crypto_generate_stateless_reset_token(
      token, c->reset_key, sizeof c->reset_key, id);
}

static int get_new_connection_id(ngtcp2_conn *quic, ngtcp2_cid *id,
                                 ngtcp2_stateless_reset_token *token,
                                 size_t len, void *user_data) {
  aq_connection *c = user_data;
  (void)quic;
  if (c->engine_ids && c->pub.cid_pool_len > 0 && c->pool[0].len == len) {
    aq_cid_set(id, &c->pool[0]);
    c->pub.cid_pool_len--;
    memmove(&c->pool[0], &c->pool[1],
            c->pub.cid_pool_len * sizeof c->pool[0]);
  } else {
    /* An ID that is not the engine's is found too, on this machine. */
    if (len > sizeof id->data || aq_rand(id->data, len) != 0) {
      return FAILED;
    }
    id->datalen = len;
  }
  if (aq_make_reset_token(c, id, token->data) != 0) {
    return FAILED;
  }
  return failed(aq_event_cid(c, AQ_EVENT_CONN_ID_ADDED, id));
}

static int remove_connection_id(ngtcp2_conn *quic, const ngtcp2_cid *id,
                                void *user_data) {
  (void)quic;
  return failed(aq_event_cid(user_data, AQ_EVENT_CONN_ID_REMOVED, id));
}

static int dcid_status(ngtcp2_conn *quic, ngtcp2_connection_id_status_type type,
                       uint64_t seq, const ngtcp2_cid *id,
                       const ngtcp2_stateless_reset_token *token,
                       void *user_data) {
  aq_connection *c = user_data;
  (void)quic;
  (void)seq;
  (void)id;
  c->settled = 1; /* it activates the first when the Finished is written */
  if (token == NULL) {
    return 0;
  }
  switch (type) {
  case NGTCP2_CONNECTION_ID_STATUS_TYPE_ACTIVATE:
    return failed(
        aq_event_token(user_data, AQ_EVENT_RESET_TOKEN_ADDED, token->data));
  case NGTCP2_CONNECTION_ID_STATUS_TYPE_DEACTIVATE:
    return failed(
        aq_event_token(user_data, AQ_EVENT_RESET_TOKEN_REMOVED, token->data));
  default:
    return 0;
  }
}

/* spare_connection_id makes a server take one connection ID more than it has said
 * (RFC 9000, Section 5.1.1), once its client has changed its path. ngtcp2 1.24
 * counts one too many when the client does so again while the path of before is
 * asked: the ID of that is retired, but kept as the way back, and still counts
 * when the client sends another in its place. The connection would end for it.
 * Nothing but this count looks at the number once the client has been told, and
 * there is no function that would set it then. */
static void spare_connection_id(aq_connection *c) {
  ngtcp2_transport_params *params;
  if (c->server && !c->spare_id) {
    c->spare_id = 1;
    params = (ngtcp2_transport_params *)ngtcp2_conn_get_local_transport_params2(
        c->quic);
    params->active_connection_id_limit++;
  }
}

static int begin_path_validation(ngtcp2_conn *quic, uint32_t flags,
                                 const ngtcp2_path *path,
                                 const ngtcp2_path *fallback, void *user_data) {
  aq_connection *c = user_data;
  (void)flags;
  (void)fallback;
  /* A server moves to the path before it is validated. */
  c->validating = ngtcp2_path_eq(path, ngtcp2_conn_get_path2(quic)) != 0;
  spare_connection_id(c);
  return 0;
}

static int path_validation(ngtcp2_conn *quic, uint32_t flags,
                           const ngtcp2_path *path,
                           const ngtcp2_path *fallback,
                           ngtcp2_path_validation_result result,
                           void *user_data) {
  aq_connection *c = user_data;
  (void)quic;
  (void)flags;
  (void)path;
  (void)fallback;
  c->validating = 0;
  if (result == NGTCP2_PATH_VALIDATION_RESULT_ABORTED) {
    return 0; /* another one took its place */
  }
  return event(user_data, AQ_EVENT_PATH_VALIDATED, -1,
               result == NGTCP2_PATH_VALIDATION_RESULT_SUCCESS);
}

static int recv_stateless_reset(ngtcp2_conn *quic,
                                const ngtcp2_pkt_stateless_reset2 *reset,
                                void *user_data) {
  (void)quic;
  (void)reset;
  return event(user_data, AQ_EVENT_STATELESS_RESET, -1, 0);
}

static int recv_datagram(ngtcp2_conn *quic, uint32_t flags,
                         const uint8_t *data, size_t len, void *user_data) {
  (void)quic;
  (void)flags;
  return failed(aq_datagram_received(user_data, data, len));
}

const ngtcp2_callbacks aq_callbacks = {
    .client_initial = client_initial,
    .recv_client_initial = ngtcp2_crypto_recv_client_initial_cb,
    .recv_crypto_data = recv_crypto_data,
    .handshake_completed = handshake_completed,
    .handshake_confirmed = handshake_confirmed,
    .encrypt = ngtcp2_crypto_encrypt_cb,
    .decrypt = ngtcp2_crypto_decrypt_cb,
    .hp_mask = ngtcp2_crypto_hp_mask_cb,
    .recv_stream_data = recv_stream_data,
    .acked_stream_data_offset = acked_stream_data,
    .stream_open = stream_open,
    .stream_close = stream_close,
    .stream_reset = stream_reset,
    .recv_stop_sending = recv_stop_sending,
    .recv_retry = ngtcp2_crypto_recv_retry_cb,
    .extend_max_local_streams_bidi = extend_max_bidi,
    .extend_max_local_streams_uni = extend_max_uni,
    .extend_max_stream_data = extend_max_stream_data,
    .rand = rand_bytes,
    .get_new_connection_id2 = get_new_connection_id,
    .remove_connection_id = remove_connection_id,
    .dcid_status2 = dcid_status,
    .update_key = ngtcp2_crypto_update_key_cb,
    .begin_path_validation = begin_path_validation,
    .path_validation = path_validation,
    .recv_stateless_reset2 = recv_stateless_reset,
    .recv_new_token = recv_new_token,
    .delete_crypto_aead_ctx = ngtcp2_crypto_delete_crypto_aead_ctx_cb,
    .delete_crypto_cipher_ctx = ngtcp2_crypto_delete_crypto_cipher_ctx_cb,
    .recv_datagram = recv_datagram,
    .get_path_challenge_data2 = ngtcp2_crypto_get_path_challenge_data2_cb,
    .version_negotiation = ngtcp2_crypto_version_negotiation_cb,
    .tls_early_data_rejected = early_data_rejected,
};
