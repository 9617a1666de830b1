//go:build ngtcp2 && cgo

/* What a connection tells of itself. */

#include "internal.h"

#include <string.h>

void aq_do_conn_info(aq_conn *conn, aq_info *out) {
  aq_connection *c = aq_of(conn);
  ngtcp2_conn_info i;
  memset(out, 0, sizeof *out);
  AQ_FAIL_HERE(AQ_FAIL_ASKING);
  ngtcp2_conn_get_conn_info2(c->quic, &i);
  out->min_rtt = i.min_rtt;
  out->latest_rtt = i.latest_rtt;
  out->smoothed_rtt = i.smoothed_rtt;
  out->rtt_var = i.rttvar;
  out->cwnd = i.cwnd;
  out->ssthresh = i.ssthresh;
  out->bytes_in_flight = i.bytes_in_flight;
  out->packets_sent = i.pkt_sent;
  out->packets_received = i.pkt_recv;
  out->packets_lost = i.pkt_lost;
  out->bytes_sent = i.bytes_sent;
  out->bytes_received = i.bytes_recv;
  out->bytes_lost = i.bytes_lost;
  out->packets_discarded = i.pkt_discarded;
  out->max_udp_payload = ngtcp2_conn_get_path_max_tx_udp_payload_size2(c->quic);
  out->version = ngtcp2_conn_get_negotiated_version2(c->quic);
  if (out->version == 0) {
    out->version = ngtcp2_conn_get_client_chosen_version2(c->quic);
  }
  out->early_rejected = ngtcp2_conn_get_tls_early_data_rejected2(c->quic) != 0;
  out->completed = c->completed;
  out->confirmed = c->confirmed;
  out->closing = ngtcp2_conn_in_closing_period2(c->quic) != 0;
  out->draining = ngtcp2_conn_in_draining_period2(c->quic) != 0;
}

int aq_do_conn_path(aq_conn *conn, aq_path *out) {
  aq_connection *c = aq_of(conn);
  memset(out, 0, sizeof *out);
  aq_path_get(out, ngtcp2_conn_get_path2(c->quic));
  return c->validating == 0;
}

void aq_do_conn_peer_params(aq_conn *conn, aq_peer_params *out) {
  const ngtcp2_transport_params *p =
      ngtcp2_conn_get_remote_transport_params2(aq_of(conn)->quic);
  memset(out, 0, sizeof *out);
  if (p == NULL) {
    return;
  }
  out->known = 1;
  out->max_datagram_frame = p->max_datagram_frame_size;
  out->max_udp_payload = p->max_udp_payload_size;
  out->max_idle_timeout = p->max_idle_timeout;
  out->active_conn_ids = p->active_connection_id_limit;
  out->disable_active_migration = p->disable_active_migration;
}

uint64_t aq_do_conn_pto(aq_conn *conn) {
  return ngtcp2_conn_get_pto2(aq_of(conn)->quic);
}

int64_t aq_do_conn_early_params(aq_conn *conn, uint8_t *dst, size_t len) {
  aq_connection *c = aq_of(conn);
  if (c->server || ngtcp2_conn_get_remote_transport_params2(c->quic) == NULL) {
    return 0;
  }
  return ngtcp2_conn_encode_0rtt_transport_params2(c->quic, dst, len);
}

const uint8_t *aq_conn_new_token(aq_conn *conn, size_t *len) {
  aq_connection *c = aq_of(conn);
  *len = c->token_len;
  return c->token;
}
