//go:build ngtcp2 && cgo && fuzzplain

/* For fuzzing: packets that are not encrypted, behind a handshake that is not
 * TLS, so that bytes of a fuzzer's choice arrive as frames, and quickly. No
 * other build compiles this file. */

#include "internal.h"

#include <string.h>

#define OVERHEAD 16
#define SECRET 32
#define IV 12

int aq_plain;

static int encrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead,
                   const ngtcp2_crypto_aead_ctx *ctx, const uint8_t *p,
                   size_t n, const uint8_t *nonce, size_t nonce_len,
                   const uint8_t *aad, size_t aad_len) {
  (void)aead, (void)ctx, (void)nonce, (void)nonce_len, (void)aad, (void)aad_len;
  memmove(dest, p, n);
  memset(dest + n, 0, OVERHEAD);
  return 0;
}

static int decrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead,
                   const ngtcp2_crypto_aead_ctx *ctx, const uint8_t *p,
                   size_t n, const uint8_t *nonce, size_t nonce_len,
                   const uint8_t *aad, size_t aad_len) {
  (void)aead, (void)ctx, (void)nonce, (void)nonce_len, (void)aad, (void)aad_len;
  if (n < OVERHEAD) {
    return NGTCP2_ERR_DECRYPT;
  }
  memmove(dest, p, n - OVERHEAD);
  return 0;
}

static int hp_mask(uint8_t *dest, const ngtcp2_crypto_cipher *hp,
                   const ngtcp2_crypto_cipher_ctx *ctx, const uint8_t *sample) {
  (void)hp, (void)ctx, (void)sample;
  memset(dest, 0, 5);
  return 0;
}

static const ngtcp2_crypto_ctx context = {
    .aead = {NULL, OVERHEAD},
    .max_encryption = 1u << 20,
    .max_decryption_failure = 1u << 20,
};

static uint8_t zeros[SECRET];
static const ngtcp2_crypto_aead_ctx aead_ctx = {zeros};
static const ngtcp2_crypto_cipher_ctx cipher_ctx = {zeros};

static int initial_keys(ngtcp2_conn *quic) {
  ngtcp2_crypto_aead retry = {NULL, OVERHEAD};
  ngtcp2_conn_set_retry_aead(quic, &retry, &aead_ctx);
  ngtcp2_conn_set_initial_crypto_ctx(quic, &context);
  return ngtcp2_conn_install_initial_key(quic, &aead_ctx, zeros, &cipher_ctx,
                                         &aead_ctx, zeros, &cipher_ctx, IV);
}

static int handshake_keys(ngtcp2_conn *quic) {
  ngtcp2_conn_set_crypto_ctx(quic, &context);
  return ngtcp2_conn_install_rx_handshake_key(quic, &aead_ctx, zeros, IV,
                                              &cipher_ctx) != 0 ||
         ngtcp2_conn_install_tx_handshake_key(quic, &aead_ctx, zeros, IV,
                                              &cipher_ctx) != 0;
}

static int rx_keys(ngtcp2_conn *quic) {
  return ngtcp2_conn_install_rx_key(quic, zeros, SECRET, &aead_ctx, zeros, IV,
                                    &cipher_ctx);
}

static int tx_keys(ngtcp2_conn *quic) {
  return ngtcp2_conn_install_tx_key(quic, zeros, SECRET, &aead_ctx, zeros, IV,
                                    &cipher_ctx);
}

/* A message is 2 bytes of length and transport parameters, or nothing. */
static int say(ngtcp2_conn *quic, ngtcp2_encryption_level level, int params) {
  uint8_t b[512];
  ngtcp2_ssize n = 0;
  if (params) {
    n = ngtcp2_conn_encode_local_transport_params(quic, b + 2, sizeof b - 2);
    if (n < 0) {
      return -1;
    }
  }
  b[0] = (uint8_t)(n >> 8);
  b[1] = (uint8_t)n;
  return ngtcp2_conn_submit_crypto_data(quic, level, b, (size_t)n + 2);
}

static int client_initial(ngtcp2_conn *quic, void *user_data) {
  (void)user_data;
  return initial_keys(quic) != 0 ||
                 say(quic, NGTCP2_ENCRYPTION_LEVEL_INITIAL, 1) != 0
             ? NGTCP2_ERR_CALLBACK_FAILURE
             : 0;
}

static int recv_client_initial(ngtcp2_conn *quic, const ngtcp2_cid *dcid,
                               void *user_data) {
  (void)dcid, (void)user_data;
  return initial_keys(quic) != 0 ? NGTCP2_ERR_CALLBACK_FAILURE : 0;
}

static int message(aq_connection *c, ngtcp2_conn *quic,
                   ngtcp2_encryption_level level, const uint8_t *p, size_t n) {
  if (c->server && level == NGTCP2_ENCRYPTION_LEVEL_INITIAL) {
    return ngtcp2_conn_decode_and_set_remote_transport_params(quic, p, n) !=
               0 ||
           say(quic, NGTCP2_ENCRYPTION_LEVEL_INITIAL, 0) != 0 ||
           handshake_keys(quic) != 0 ||
           say(quic, NGTCP2_ENCRYPTION_LEVEL_HANDSHAKE, 1) != 0 ||
           tx_keys(quic) != 0;
  }
  if (c->server && level == NGTCP2_ENCRYPTION_LEVEL_HANDSHAKE) {
    if (rx_keys(quic) != 0) {
      return -1;
    }
    ngtcp2_conn_tls_handshake_completed(quic);
    return 0;
  }
  if (level == NGTCP2_ENCRYPTION_LEVEL_INITIAL) {
    return handshake_keys(quic);
  }
  if (level == NGTCP2_ENCRYPTION_LEVEL_HANDSHAKE) {
    if (ngtcp2_conn_decode_and_set_remote_transport_params(quic, p, n) != 0 ||
        rx_keys(quic) != 0 || tx_keys(quic) != 0 ||
        say(quic, NGTCP2_ENCRYPTION_LEVEL_HANDSHAKE, 0) != 0) {
      return -1;
    }
    ngtcp2_conn_tls_handshake_completed(quic);
    return 0;
  }
  return 0;
}

/* c->hello gathers a message of a level; hello_ready counts the messages. */
static int recv_crypto_data(ngtcp2_conn *quic, ngtcp2_encryption_level level,
                            uint64_t offset, const uint8_t *data, size_t len,
                            void *user_data) {
  aq_connection *c = user_data;
  size_t n;
  int want = c->hello_ready == 0   ? NGTCP2_ENCRYPTION_LEVEL_INITIAL
             : c->hello_ready == 1 ? NGTCP2_ENCRYPTION_LEVEL_HANDSHAKE
                                   : -1;
  (void)offset;
  if ((int)level != want || c->hello_len + len > 4096) {
    return len == 0 ? 0 : NGTCP2_ERR_CRYPTO;
  }
  if (c->hello == NULL && (c->hello = aq_malloc(4096)) == NULL) {
    return NGTCP2_ERR_CALLBACK_FAILURE;
  }
  memcpy(c->hello + c->hello_len, data, len);
  c->hello_len += len;
  if (c->hello_len < 2) {
    return 0;
  }
  n = (size_t)c->hello[0] << 8 | c->hello[1];
  if (c->hello_len < n + 2) {
    return 0;
  }
  c->hello_ready++;
  c->hello_len = 0;
  return message(c, quic, level, c->hello + 2, n) != 0 ? NGTCP2_ERR_CRYPTO : 0;
}

static int recv_retry(ngtcp2_conn *quic, const ngtcp2_pkt_hd *hd,
                      void *user_data) {
  (void)hd, (void)user_data;
  return ngtcp2_conn_install_initial_key(quic, &aead_ctx, zeros, &cipher_ctx,
                                         &aead_ctx, zeros, &cipher_ctx, IV);
}

static int update_key(ngtcp2_conn *quic, uint8_t *rx_secret, uint8_t *tx_secret,
                      ngtcp2_crypto_aead_ctx *rx, uint8_t *rx_iv,
                      ngtcp2_crypto_aead_ctx *tx, uint8_t *tx_iv,
                      const uint8_t *rx_was, const uint8_t *tx_was,
                      size_t secret_len, void *user_data) {
  (void)quic, (void)rx_was, (void)tx_was, (void)user_data;
  memset(rx_secret, 0, secret_len);
  memset(tx_secret, 0, secret_len);
  *rx = *tx = aead_ctx;
  memset(rx_iv, 0, IV);
  memset(tx_iv, 0, IV);
  return 0;
}

static void delete_aead(ngtcp2_conn *quic, ngtcp2_crypto_aead_ctx *ctx,
                        void *user_data) {
  (void)quic, (void)ctx, (void)user_data;
}

static void delete_cipher(ngtcp2_conn *quic, ngtcp2_crypto_cipher_ctx *ctx,
                          void *user_data) {
  (void)quic, (void)ctx, (void)user_data;
}

static int version_negotiation(ngtcp2_conn *quic, uint32_t version,
                               const ngtcp2_cid *dcid, void *user_data) {
  (void)version, (void)dcid, (void)user_data;
  return ngtcp2_conn_install_vneg_initial_key(quic, version, &aead_ctx, zeros,
                                              &cipher_ctx, &aead_ctx, zeros,
                                              &cipher_ctx, IV);
}

const ngtcp2_callbacks *aq_plain_callbacks(void) {
  static ngtcp2_callbacks cb;
  cb = aq_callbacks;
  cb.client_initial = client_initial;
  cb.recv_client_initial = recv_client_initial;
  cb.recv_crypto_data = recv_crypto_data;
  cb.encrypt = encrypt;
  cb.decrypt = decrypt;
  cb.hp_mask = hp_mask;
  cb.recv_retry = recv_retry;
  cb.update_key = update_key;
  cb.delete_crypto_aead_ctx = delete_aead;
  cb.delete_crypto_cipher_ctx = delete_cipher;
  cb.version_negotiation = version_negotiation;
  return &cb;
}

/* For tests that know that no assertion fails here. */
int aq_plain_crypto(aq_conn *conn, const uint8_t *p, size_t n) {
  return ngtcp2_conn_submit_crypto_data(aq_of(conn)->quic,
                                        NGTCP2_ENCRYPTION_LEVEL_1RTT, p, n);
}

#ifdef __SANITIZE_ADDRESS__
#  include <sanitizer/asan_interface.h>
#  include <sanitizer/lsan_interface.h>
#else
static void __lsan_disable(void) {}
static void __lsan_enable(void) {}
static void __asan_handle_no_return(void) {}
#endif

/* aq_plain_unwinds says that the frames above this one are left without a return, as a
 * callback of Go that panics does. */
int aq_plain_unwinds(void) {
  __asan_handle_no_return();
  return 0;
}

/* aq_plain_leaks says that what this thread allocates from now on is not missed: an
 * assertion may leave what a TLS library was making. */
void aq_plain_leaks(int on) {
  if (on) {
    __lsan_disable();
  } else {
    __lsan_enable();
  }
}
