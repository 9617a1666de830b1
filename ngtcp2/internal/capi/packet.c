//go:build ngtcp2 && cgo

/* Packets that belong to no connection. */

#include "internal.h"

#include <string.h>

static void cid_get(aq_cid *out, const ngtcp2_cid *id) {
  memset(out, 0, sizeof *out);
  out->len = (uint8_t)(id->datalen <= AQ_MAX_CID ? id->datalen : AQ_MAX_CID);
  memcpy(out->data, id->data, out->len);
}

int aq_do_accept(const uint8_t *pkt, size_t len, aq_initial *out) {
  ngtcp2_pkt_hd hd;
  memset(out, 0, sizeof *out);
  AQ_FAIL_HERE(AQ_FAIL_ACCEPTING);
  if (ngtcp2_accept(&hd, pkt, len) != 0 ||
      !ngtcp2_is_supported_version(hd.version)) {
    return -1;
  }
  out->version = hd.version;
  cid_get(&out->dcid, &hd.dcid);
  cid_get(&out->scid, &hd.scid);
  if (hd.tokenlen > 0) {
    out->token_at = (uint64_t)(hd.token - pkt);
    out->token_len = hd.tokenlen;
  }
  return 0;
}

int64_t aq_do_write_version_negotiation(uint8_t *dst, size_t len,
                                     const uint8_t *dcid, size_t dcid_len,
                                     const uint8_t *scid, size_t scid_len) {
  uint8_t random;
  uint32_t versions[2];
  if (dcid_len > 255 || scid_len > 255 || aq_rand(&random, 1) != 0) {
    return -1;
  }
  /* RFC 9000, Section 6.3: a reserved version keeps clients honest. */
  versions[0] = NGTCP2_PROTO_VER_V1;
  versions[1] = NGTCP2_RESERVED_VERSION_MASK | (uint32_t)(random & 0xf0) << 24;
  /* Section 17.2.1: the IDs change places. */
  return ngtcp2_pkt_write_version_negotiation(dst, len, random & 0x3f, scid,
                                              scid_len, dcid, dcid_len,
                                              versions, 2);
}

int64_t aq_do_write_retry(uint8_t *dst, size_t len, const uint8_t *key,
                       uint32_t version, const aq_cid *dcid, const aq_cid *scid,
                       const aq_cid *new_scid, const aq_addr *remote,
                       uint64_t wall_now, aq_error *err) {
  uint8_t token[NGTCP2_CRYPTO_MAX_RETRY_TOKENLEN2];
  ngtcp2_sockaddr_union addr;
  ngtcp2_socklen addr_len;
  ngtcp2_cid original, peer, fresh;
  ngtcp2_ssize n;
  aq_addr a = *remote;
  a.scope = 0;
  aq_tls_enter();
  aq_cid_set(&original, dcid);
  aq_cid_set(&peer, scid);
  aq_cid_set(&fresh, new_scid);
  if (aq_addr_set(&addr, &addr_len, &a) != 0 || original.datalen == 0 ||
      fresh.datalen == 0) {
    aq_error_set(err, NULL, NGTCP2_ERR_INVALID_ARGUMENT);
    return -1;
  }
  n = ngtcp2_crypto_generate_retry_token2(token, key, 32, version, &addr.sa,
                                          addr_len, &fresh, &original, wall_now);
  if (n > 0) {
    n = ngtcp2_crypto_write_retry(dst, len, version, &peer, &fresh, &original,
                                  token, (size_t)n);
  }
  if (n <= 0) {
    aq_error_set(err, NULL, NGTCP2_ERR_INTERNAL);
    aq_tls_error_text(NULL, err->text, sizeof err->text);
    if (err->text[0] == '\0') {
      aq_error_set(err, NULL, NGTCP2_ERR_NOBUF);
    }
    return -1;
  }
  return n;
}

int aq_do_verify_retry_token(const uint8_t *key, uint32_t version,
                          const uint8_t *token, size_t len, const aq_cid *dcid,
                          const aq_addr *remote, uint64_t lifetime,
                          uint64_t wall_now, aq_cid *original) {
  ngtcp2_sockaddr_union addr;
  ngtcp2_socklen addr_len;
  ngtcp2_cid id, odcid;
  aq_addr a = *remote;
  int rv;
  if (len == 0 || token[0] != NGTCP2_CRYPTO_TOKEN_MAGIC_RETRY2) {
    return 1;
  }
  a.scope = 0;
  aq_cid_set(&id, dcid);
  if (aq_addr_set(&addr, &addr_len, &a) != 0) {
    return -1;
  }
  aq_tls_enter();
  rv = ngtcp2_crypto_verify_retry_token2(&odcid, token, len, key, 32, version,
                                         &addr.sa, addr_len, &id, lifetime,
                                         wall_now);
  if (rv != 0) {
    aq_tls_enter();
    return -1;
  }
  cid_get(original, &odcid);
  return 0;
}

int64_t aq_do_regular_token(uint8_t *dst, size_t len, const uint8_t *key,
                         const aq_addr *remote, uint64_t wall_now) {
  ngtcp2_sockaddr_union addr;
  ngtcp2_socklen addr_len;
  if (len < NGTCP2_CRYPTO_MAX_REGULAR_TOKENLEN ||
      aq_addr_set(&addr, &addr_len, remote) != 0) {
    return -1;
  }
  aq_tls_enter();
  return ngtcp2_crypto_generate_regular_token(dst, key, 32, &addr.sa, addr_len,
                                              wall_now);
}

int aq_do_verify_regular_token(const uint8_t *key, const uint8_t *token,
                            size_t len, const aq_addr *remote,
                            uint64_t lifetime, uint64_t wall_now) {
  ngtcp2_sockaddr_union addr;
  ngtcp2_socklen addr_len;
  int rv;
  if (len == 0 || aq_addr_set(&addr, &addr_len, remote) != 0) {
    return -1;
  }
  aq_tls_enter();
  rv = ngtcp2_crypto_verify_regular_token(token, len, key, 32, &addr.sa,
                                          addr_len, lifetime, wall_now);
  aq_tls_enter();
  return rv;
}

int aq_do_reset_token(const uint8_t *key, const aq_cid *cid, uint8_t *token) {
  ngtcp2_cid id;
  aq_cid_set(&id, cid);
  aq_tls_enter();
  return ngtcp2_crypto_generate_stateless_reset_token(token, key, 32, &id);
}

int64_t aq_do_write_stateless_reset(uint8_t *dst, size_t len,
                                 const uint8_t *token, size_t received) {
  ngtcp2_stateless_reset_token t;
  uint8_t random[32];
  size_t n;
  /* RFC 9000, Section 10.3: 5 unpredictable bytes and the token at least, and
   * Section 10.3.3: shorter than what is answered, so that two endpoints do
   * not answer each other for ever. Section 10.3 also advises against lengths
   * that tell a reset from other packets: some more bytes, if there is room. */
  if (received <= NGTCP2_MIN_STATELESS_RESET_RANDLEN + AQ_TOKEN) {
    return 0;
  }
  n = received - 1 - AQ_TOKEN;
  if (n > sizeof random - 8) {
    uint8_t spread;
    if (aq_rand(&spread, 1) != 0) {
      return -1;
    }
    n = sizeof random - 8 + (spread & 7);
    if (n > received - 1 - AQ_TOKEN) {
      n = received - 1 - AQ_TOKEN;
    }
  }
  if (aq_rand(random, n) != 0) {
    return -1;
  }
  memcpy(t.data, token, AQ_TOKEN);
  return ngtcp2_pkt_write_stateless_reset2(dst, len, &t, random, n);
}

int64_t aq_do_write_initial_close(uint8_t *dst, size_t len, uint32_t version,
                               const aq_cid *dcid, const aq_cid *scid,
                               uint64_t code, const uint8_t *reason,
                               size_t reason_len) {
  ngtcp2_cid peer, ours;
  if (!ngtcp2_is_supported_version(version) || reason_len > 512 ||
      code > NGTCP2_MAX_VARINT || len < NGTCP2_MAX_UDP_PAYLOAD_SIZE) {
    return -1;
  }
  aq_cid_set(&peer, scid);
  aq_cid_set(&ours, dcid);
  aq_tls_enter();
  return ngtcp2_crypto_write_connection_close(dst, len, version, &peer, &ours,
                                              code, reason, reason_len);
}
