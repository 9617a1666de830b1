/* The C side of package capi as Go calls it: see doc.go for the rules. What is
 * a struct here holds no pointer where it crosses as an argument; aq_conn and
 * aq_stream are C memory whose first part Go reads and, where said, writes. */
#ifndef AQ_SHIM_H
#define AQ_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include "memory.h"

struct ngtcp2_conn;
struct aq_tls;
struct aq_tls_config;

#define AQ_MAX_CID 20
#define AQ_TOKEN 16          /* bytes of a stateless reset token */
#define AQ_CID_POOL 16       /* connection IDs that wait to be used */
#define AQ_MAX_HELLO 16384 /* bytes, with its header: ngtcp2 drops what is behind */
#define AQ_MAX_NEW_TOKEN 1024
#define AQ_MAX_REASON 1024   /* of a CONNECTION_CLOSE frame we send or keep */
#define AQ_NO_ERROR_ALERT (-1)

/* An address, without pointers. family is 0 (none), 4 or 6. */
typedef struct aq_addr {
  uint8_t ip[16];
  uint32_t scope;
  uint16_t port; /* host order */
  uint8_t family;
  uint8_t unused;
} aq_addr;

typedef struct aq_path {
  aq_addr local, remote;
} aq_path;

typedef struct aq_cid {
  uint8_t data[AQ_MAX_CID];
  uint8_t len;
} aq_cid;

typedef struct aq_error {
  int32_t code;  /* ngtcp2's negative number, 0: none */
  int32_t alert; /* TLS alert or -1 */
  uint64_t transport;
  uint8_t fatal; /* the connection is of no use any more */
  char text[255];
} aq_error;

enum aq_event_type {
  AQ_EVENT_HANDSHAKE_COMPLETED = 1,
  AQ_EVENT_HANDSHAKE_CONFIRMED,
  AQ_EVENT_CLIENT_HELLO,
  AQ_EVENT_STREAM_OPENED,
  AQ_EVENT_READABLE,
  AQ_EVENT_WRITABLE,
  AQ_EVENT_STREAM_RESET,
  AQ_EVENT_STOP_SENDING,
  AQ_EVENT_STREAM_FINISHED,
  AQ_EVENT_STREAM_CLOSED,
  AQ_EVENT_STREAMS_BIDI,
  AQ_EVENT_STREAMS_UNI,
  AQ_EVENT_DATAGRAM,
  AQ_EVENT_CONN_ID_ADDED,
  AQ_EVENT_CONN_ID_REMOVED,
  AQ_EVENT_RESET_TOKEN_ADDED,
  AQ_EVENT_RESET_TOKEN_REMOVED,
  AQ_EVENT_NEW_TOKEN,
  AQ_EVENT_SESSION,
  AQ_EVENT_EARLY_DATA_REJECTED,
  AQ_EVENT_PATH_VALIDATED,
  AQ_EVENT_STATELESS_RESET
};

/* One cache line. */
typedef struct aq_event {
  int64_t stream;
  uint64_t code;
  uint32_t type;
  uint8_t cid_len;
  uint8_t cid[AQ_MAX_CID];
  uint8_t token[AQ_TOKEN];
  uint8_t unused[7];
} aq_event;

/* A piece of stream data. Once detached it belongs to its reader, whatever
 * becomes of the connection. */
typedef struct aq_chunk {
  struct aq_chunk *next;
  uint32_t len, cap;
  uint8_t data[];
} aq_chunk;

typedef struct aq_settings {
  uint64_t now, handshake_timeout, idle_timeout, keep_alive;
  uint64_t max_streams, max_uni_streams;
  uint64_t stream_window, conn_window, max_stream_window, max_conn_window;
  uint64_t send_buffer, max_datagram_frame;
  uint32_t datagram_queue, max_udp_payload, active_conn_ids;
  uint8_t congestion_control, disable_active_migration, qlog, reset_key_set;
  uint8_t conn_id_len, engine_conn_ids;
  uint8_t reset_key[32];
} aq_settings;

enum aq_token_kind { AQ_TOKEN_NONE, AQ_TOKEN_RETRY, AQ_TOKEN_REGULAR };

typedef struct aq_client_options {
  aq_path path;
  aq_cid dcid, scid;
} aq_client_options;

typedef struct aq_server_options {
  aq_path path;
  uint32_t version;
  uint32_t token_kind;
  aq_cid dcid, peer_scid; /* of the client's Initial */
  aq_cid scid;            /* ours */
  aq_cid original_dcid;   /* before Retry; len 0: there was none */
} aq_server_options;

/* Where packets go, written for each aq_conn_write. */
typedef struct aq_output {
  uint64_t n, segment;
  uint32_t ecn;
  aq_path path;
} aq_output;

typedef struct aq_info {
  uint64_t min_rtt, latest_rtt, smoothed_rtt, rtt_var;
  uint64_t cwnd, ssthresh, bytes_in_flight;
  uint64_t packets_sent, packets_received, packets_lost;
  uint64_t bytes_sent, bytes_received, bytes_lost, packets_discarded;
  uint64_t max_udp_payload;
  uint32_t version;
  uint8_t early_rejected, completed, confirmed, closing, draining;
} aq_info;

typedef struct aq_peer_params {
  uint64_t max_datagram_frame, max_udp_payload, max_idle_timeout, active_conn_ids;
  uint8_t known, disable_active_migration;
} aq_peer_params;

typedef struct aq_close_info {
  uint32_t kind; /* enum aq_close_kind */
  uint32_t reason_len;
  uint64_t code, frame;
  uint8_t reason[AQ_MAX_REASON];
} aq_close_info;

enum aq_close_kind { AQ_CLOSE_APPLICATION, AQ_CLOSE_TRANSPORT, AQ_CLOSE_PENDING };

/* A stream as Go sees it. The first fields are shared: those of the second
 * group are written by Go too, with the connection's lock. */
typedef struct aq_stream {
  int64_t id;
  uint8_t rx_fin;    /* FIN is behind what is in rx_head */
  uint8_t send_done; /* all data and FIN are acknowledged */
  uint8_t closed;    /* ngtcp2 has forgotten the stream */

  uint8_t readable; /* event Readable is out, and nobody has looked since */
  uint8_t credit_linked;
  aq_chunk *rx_head, *rx_tail;
  uint64_t consumed, credit_step;
  struct aq_stream *credit_next;
} aq_stream;

typedef struct aq_conn {
  uint64_t expiry;
  uint64_t trim_at; /* when idle memory is let go; UINT64_MAX: never */
  aq_event *events;
  uint32_t nevents, cap_events;
  aq_error error; /* of the call that failed last */
  aq_output out;
  uint8_t answer_waits; /* set by aq_conn_read */
  uint8_t raised; /* the peer may open more streams, which the next aq_conn_write says */
  uint8_t held; /* the last call was an aq_conn_write that left stream data */
  uint8_t early_data;   /* client: 0-RTT can be sent; said again by the first write */

  /* Go writes: */
  aq_stream *credit;  /* streams that have consumed bytes */
  uint64_t consumed, credit_step; /* of all streams since the last write */
  aq_chunk *recycled;
  aq_path in; /* of the packets that are read: an argument would be on the heap */

  /* Counters, for Go to read. */
  uint64_t datagrams_sent, datagrams_received, datagrams_dropped;
  uint32_t cid_pool_len;
} aq_conn;

/* Connections. -1 and below is an error, described in *err or c->error. */
aq_conn *aq_client_new(const aq_settings *s, const aq_client_options *o,
                       const uint8_t *token, size_t token_len, aq_error *err);
aq_conn *aq_server_new(const aq_settings *s, const aq_server_options *o,
                       const uint8_t *token, size_t token_len, aq_error *err);
void aq_conn_free(aq_conn *c);
/* aq_conn_make_tls makes a TLS object for c, whose owner is the caller until one of the
 * two functions behind takes it. What it takes is aq_tls_client_new's. */
int aq_conn_make_tls(aq_conn *c, struct aq_tls **out,
                     const struct aq_tls_config *config, const uint8_t *data,
                     size_t data_len, char *err, size_t err_len);
int aq_conn_set_client_tls(aq_conn *c, struct aq_tls *tls,
                           const uint8_t *early_params, size_t early_params_len);
int aq_conn_start_server_tls(aq_conn *c, struct aq_tls *tls, uint64_t now);
struct aq_tls *aq_conn_tls(aq_conn *c);
void aq_conn_release_tls(aq_conn *c);
void aq_conn_fail_handshake(aq_conn *c, uint8_t alert);
const uint8_t *aq_conn_hello(aq_conn *c, size_t *len);

int aq_conn_read(aq_conn *c, const aq_path *path, uint32_t ecn,
                 const uint8_t *data, size_t len, size_t segment, uint64_t now);
int aq_conn_handle_expiry(aq_conn *c, uint64_t now);
int aq_conn_write(aq_conn *c, uint8_t *buf, size_t len, uint64_t now);
int aq_conn_write_close(aq_conn *c, uint8_t *buf, size_t len, uint32_t kind,
                        uint64_t code, const uint8_t *reason,
                        size_t reason_len, uint64_t now);
void aq_conn_close_info(aq_conn *c, aq_close_info *out);
int aq_conn_supply_id(aq_conn *c, const uint8_t *id, size_t len);
int aq_conn_submit_new_token(aq_conn *c, const uint8_t *token, size_t len);
int aq_conn_migrate(aq_conn *c, const aq_path *path, uint64_t now);
int aq_conn_set_local(aq_conn *c, const aq_path *path);
int aq_conn_key_update(aq_conn *c, uint64_t now);
void aq_conn_info(aq_conn *c, aq_info *out);
int aq_conn_path(aq_conn *c, aq_path *out); /* whether it was validated */
void aq_conn_peer_params(aq_conn *c, aq_peer_params *out);
uint64_t aq_conn_pto(aq_conn *c);
const uint8_t *aq_conn_qlog(aq_conn *c, size_t *len); /* until aq_conn_qlog_clear */
void aq_conn_qlog_clear(aq_conn *c);
int64_t aq_conn_early_params(aq_conn *c, uint8_t *dst, size_t len);
const uint8_t *aq_conn_new_token(aq_conn *c, size_t *len);

/* Streams. */
int aq_stream_open(aq_conn *c, int uni, aq_stream **out);
aq_stream *aq_stream_remote(aq_conn *c, int64_t id);
int64_t aq_stream_write(aq_stream *s, const uint8_t *p, size_t n);
void aq_stream_finish(aq_stream *s);
int aq_stream_reset(aq_stream *s, uint64_t code);
int aq_stream_stop_sending(aq_stream *s, uint64_t code);
void aq_stream_set_priority(aq_stream *s, uint32_t urgency, int incremental);
void aq_stream_release(aq_stream *s);
void aq_chunks_free(aq_chunk *ch);

/* Datagrams. */
int aq_datagram_send(aq_conn *c, const uint8_t *p, size_t n);
size_t aq_datagram_max(aq_conn *c);
const uint8_t *aq_datagram_peek(aq_conn *c, size_t *len); /* NULL: none */
void aq_datagram_pop(aq_conn *c);

/* Without a connection. */
typedef struct aq_initial {
  uint32_t version;
  aq_cid dcid, scid;
  uint64_t token_at, token_len; /* within the packet */
} aq_initial;

int aq_accept(const uint8_t *pkt, size_t len, aq_initial *out);
int64_t aq_write_version_negotiation(uint8_t *dst, size_t len,
                                     const uint8_t *dcid, size_t dcid_len,
                                     const uint8_t *scid, size_t scid_len);
int64_t aq_write_retry(uint8_t *dst, size_t len, const uint8_t *key,
                       uint32_t version, const aq_cid *dcid, const aq_cid *scid,
                       const aq_cid *new_scid, const aq_addr *remote,
                       uint64_t wall_now, aq_error *err);
int aq_verify_retry_token(const uint8_t *key, uint32_t version,
                          const uint8_t *token, size_t len, const aq_cid *dcid,
                          const aq_addr *remote, uint64_t lifetime,
                          uint64_t wall_now, aq_cid *original);
int64_t aq_regular_token(uint8_t *dst, size_t len, const uint8_t *key,
                         const aq_addr *remote, uint64_t wall_now);
int aq_verify_regular_token(const uint8_t *key, const uint8_t *token,
                            size_t len, const aq_addr *remote,
                            uint64_t lifetime, uint64_t wall_now);
int aq_reset_token(const uint8_t *key, const aq_cid *cid, uint8_t *token);
int64_t aq_write_stateless_reset(uint8_t *dst, size_t len,
                                 const uint8_t *token, size_t received);
int64_t aq_write_initial_close(uint8_t *dst, size_t len, uint32_t version,
                               const aq_cid *dcid, const aq_cid *scid,
                               uint64_t code, const uint8_t *reason,
                               size_t reason_len);
const char *aq_strerror(int code);

#endif
