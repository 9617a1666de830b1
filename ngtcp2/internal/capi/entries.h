/* The functions of shim.h that can come to ngtcp2: each has a guard around the
 * function that does the work, aq_do_NAME, see entry.c. internal.h declares those
 * from this list, so there is no include guard.
 *
 *   ENTRY(connection or NULL, error or NULL, TYPE, failed, NAME, parameters, arguments)
 *   ENTRY_VOID(connection, what to do when it failed, NAME, parameters, arguments) */

#define OF(s) (&aq_stream_of(s)->conn->pub)
#define NOTHING ((void)0)
#define FAILURE NGTCP2_ERR_INTERNAL

ENTRY(NULL, err, aq_conn *, NULL, client_new,
      (const aq_settings *s, const aq_client_options *o, const uint8_t *token,
       size_t token_len, aq_error *err),
      (s, o, token, token_len, err))
ENTRY(NULL, err, aq_conn *, NULL, server_new,
      (const aq_settings *s, const aq_server_options *o, const uint8_t *token,
       size_t token_len, aq_error *err),
      (s, o, token, token_len, err))
ENTRY(c, NULL, int, aq_tls_error(c, err, err_len), conn_make_tls,
      (aq_conn *c, aq_tls **out, const aq_tls_config *config,
       const uint8_t *data, size_t data_len, char *err, size_t err_len),
      (c, out, config, data, data_len, err, err_len))
ENTRY(c, NULL, int, FAILURE, conn_set_client_tls,
      (aq_conn *c, aq_tls *tls, const uint8_t *early_params,
       size_t early_params_len),
      (c, tls, early_params, early_params_len))
ENTRY(c, NULL, int, FAILURE, conn_start_server_tls,
      (aq_conn *c, aq_tls *tls, uint64_t now), (c, tls, now))
ENTRY_VOID(c, NOTHING, conn_release_tls, (aq_conn *c), (c))
ENTRY_VOID(c, NOTHING, conn_fail_handshake, (aq_conn *c, uint8_t alert),
           (c, alert))

ENTRY(c, NULL, int, FAILURE, conn_read,
      (aq_conn *c, const aq_path *path, uint32_t ecn, const uint8_t *data,
       size_t len, size_t segment, uint64_t now),
      (c, path, ecn, data, len, segment, now))
ENTRY(c, NULL, int, FAILURE, conn_handle_expiry, (aq_conn *c, uint64_t now),
      (c, now))
ENTRY(c, NULL, int, FAILURE, conn_write,
      (aq_conn *c, uint8_t *buf, size_t len, uint64_t now), (c, buf, len, now))
ENTRY(c, NULL, int, aq_silent(c), conn_write_close,
      (aq_conn *c, uint8_t *buf, size_t len, uint32_t kind, uint64_t code,
       const uint8_t *reason, size_t reason_len, uint64_t now),
      (c, buf, len, kind, code, reason, reason_len, now))
ENTRY_VOID(c, memset(out, 0, sizeof *out), conn_close_info,
           (aq_conn *c, aq_close_info *out), (c, out))
ENTRY(c, NULL, int, FAILURE, conn_submit_new_token,
      (aq_conn *c, const uint8_t *token, size_t len), (c, token, len))
ENTRY(c, NULL, int, FAILURE, conn_migrate,
      (aq_conn *c, const aq_path *path, uint64_t now), (c, path, now))
ENTRY(c, NULL, int, FAILURE, conn_set_local, (aq_conn *c, const aq_path *path),
      (c, path))
ENTRY(c, NULL, int, FAILURE, conn_key_update, (aq_conn *c, uint64_t now),
      (c, now))
ENTRY_VOID(c, memset(out, 0, sizeof *out), conn_info,
           (aq_conn *c, aq_info *out), (c, out))
ENTRY(c, NULL, int, 0, conn_path, (aq_conn *c, aq_path *out), (c, out))
ENTRY_VOID(c, memset(out, 0, sizeof *out), conn_peer_params,
           (aq_conn *c, aq_peer_params *out), (c, out))
ENTRY(c, NULL, uint64_t, 0, conn_pto, (aq_conn *c), (c))
ENTRY(c, NULL, int64_t, 0, conn_early_params,
      (aq_conn *c, uint8_t *dst, size_t len), (c, dst, len))

ENTRY(c, NULL, int, FAILURE, stream_open,
      (aq_conn *c, int uni, aq_stream **out), (c, uni, out))
ENTRY(OF(s), NULL, int64_t, 0, stream_write,
      (aq_stream *s, const uint8_t *p, size_t n), (s, p, n))
ENTRY(OF(s), NULL, int, FAILURE, stream_reset, (aq_stream *s, uint64_t code),
      (s, code))
ENTRY(OF(s), NULL, int, FAILURE, stream_stop_sending,
      (aq_stream *s, uint64_t code), (s, code))

ENTRY_VOID(OF(s), NOTHING, stream_release, (aq_stream *s), (s))

ENTRY(c, NULL, int, -1, datagram_send,
      (aq_conn *c, const uint8_t *p, size_t n), (c, p, n))
ENTRY(c, NULL, size_t, 0, datagram_max, (aq_conn *c), (c))

ENTRY(NULL, NULL, int, -1, accept,
      (const uint8_t *pkt, size_t len, aq_initial *out), (pkt, len, out))
ENTRY(NULL, NULL, int64_t, -1, write_version_negotiation,
      (uint8_t *dst, size_t len, const uint8_t *dcid, size_t dcid_len,
       const uint8_t *scid, size_t scid_len),
      (dst, len, dcid, dcid_len, scid, scid_len))
ENTRY(NULL, err, int64_t, -1, write_retry,
      (uint8_t *dst, size_t len, const uint8_t *key, uint32_t version,
       const aq_cid *dcid, const aq_cid *scid, const aq_cid *new_scid,
       const aq_addr *remote, uint64_t wall_now, aq_error *err),
      (dst, len, key, version, dcid, scid, new_scid, remote, wall_now, err))
ENTRY(NULL, NULL, int, -1, verify_retry_token,
      (const uint8_t *key, uint32_t version, const uint8_t *token, size_t len,
       const aq_cid *dcid, const aq_addr *remote, uint64_t lifetime,
       uint64_t wall_now, aq_cid *original),
      (key, version, token, len, dcid, remote, lifetime, wall_now, original))
ENTRY(NULL, NULL, int64_t, -1, regular_token,
      (uint8_t *dst, size_t len, const uint8_t *key, const aq_addr *remote,
       uint64_t wall_now),
      (dst, len, key, remote, wall_now))
ENTRY(NULL, NULL, int, -1, verify_regular_token,
      (const uint8_t *key, const uint8_t *token, size_t len,
       const aq_addr *remote, uint64_t lifetime, uint64_t wall_now),
      (key, token, len, remote, lifetime, wall_now))
ENTRY(NULL, NULL, int, -1, reset_token,
      (const uint8_t *key, const aq_cid *cid, uint8_t *token), (key, cid, token))
ENTRY(NULL, NULL, int64_t, -1, write_stateless_reset,
      (uint8_t *dst, size_t len, const uint8_t *token, size_t received),
      (dst, len, token, received))
ENTRY(NULL, NULL, int64_t, -1, write_initial_close,
      (uint8_t *dst, size_t len, uint32_t version, const aq_cid *dcid,
       const aq_cid *scid, uint64_t code, const uint8_t *reason,
       size_t reason_len),
      (dst, len, version, dcid, scid, code, reason, reason_len))

#undef OF
#undef NOTHING
#undef FAILURE
#undef ENTRY
#undef ENTRY_VOID
