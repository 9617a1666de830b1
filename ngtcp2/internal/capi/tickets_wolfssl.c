//go:build ngtcp2 && cgo && wolfssl

#include <time.h>

#include "wolfssl.h"

#include <wolfssl/wolfcrypt/aes.h>
#include <wolfssl/wolfcrypt/hash.h>

#define AQ_SESSION_MAGIC "aqW3"
#define AQ_TICKET_MARGIN 10 /* seconds, from here to the ClientHello */
#define AQ_TICKET_KEY_BYTES 32 /* of what is made of a key: 16 of name, 16 of AES */

/* Sessions, on the client. Before wolfSSL's encoding stand the group, the server's
 * name and the application protocol, for which alone they are good. */

int aq_on_new_session(WOLFSSL *ssl, WOLFSSL_SESSION *session) {
  aq_tls *t = aq_tls_of(ssl);
  aq_blob b = {NULL, 0};
  char *protocol = NULL;
  word16 protocol_len = 0;
  unsigned char *p;
  uint8_t group[2];
  int len;
  if (t == NULL || t->server || !t->tickets ||
      (len = wolfSSL_i2d_SSL_SESSION(session, NULL)) <= 0) {
    return 0;
  }
  if (wolfSSL_ALPN_GetProtocol(ssl, &protocol, &protocol_len) !=
        WOLFSSL_SUCCESS ||
      protocol == NULL || protocol_len > 255) {
    protocol_len = 0;
  }
  aq_ssl_remember(t);
  group[0] = (uint8_t)(t->curve >> 8);
  group[1] = (uint8_t)t->curve;
  if (aq_blob_add(&b, 0, (const uint8_t *)AQ_SESSION_MAGIC,
                  sizeof(AQ_SESSION_MAGIC) - 1) != 0 ||
      aq_blob_add(&b, 0, group, sizeof(group)) != 0 ||
      aq_blob_add(&b, 1, t->name.p, t->name.n) != 0 ||
      aq_blob_add(&b, 1, (const uint8_t *)protocol, protocol_len) != 0 ||
      (p = aq_blob_reserve(&b, 0, (size_t)len)) == NULL ||
      wolfSSL_i2d_SSL_SESSION(session, &p) != len) {
    aq_blob_free(&b);
    return 0;
  }
  aq_session_keep(t->sessions, b);
  aq_conn_tls_session(t->ref);
  return 0;
}

static int offers(aq_slice list, aq_slice protocol) {
  aq_slice one;
  while (aq_take_prefixed(&list, 1, &one) == 0) {
    if (one.n == protocol.n && memcmp(one.p, protocol.p, one.n) == 0) {
      return 1;
    }
  }
  return protocol.n == 0 && list.n == 0;
}

/* begin takes what stands before the names: the group. -1: it is no session. */
static int begin(aq_slice *in, uint16_t *group) {
  int bad = 0;
  aq_slice magic = aq_take(in, sizeof(AQ_SESSION_MAGIC) - 1, &bad);
  return bad || memcmp(magic.p, AQ_SESSION_MAGIC, magic.n) != 0 ? -1
                                                                : aq_take_u16(in, group);
}

uint16_t aq_session_group(aq_slice session) {
  uint16_t group;
  return begin(&session, &group) == 0 ? group : 0;
}

/* aq_use_session resumes what fits; what does not is left out, and the handshake
 * is a full one. Go's clock, which may not be this host's, says how many seconds
 * old the session is: what wolfSSL did not offer must not bring early data. */
void aq_use_session(aq_tls *t, const aq_tls_data *d, uint64_t age,
                    int early_data) {
  aq_slice in = d->session, host, protocol;
  const unsigned char *p;
  WOLFSSL_SESSION *session;
  long lifetime;
  uint16_t group;
  if (begin(&in, &group) != 0 || group == 0 || group != t->session_group ||
      aq_take_prefixed(&in, 1, &host) != 0 || host.n != d->server_name.n ||
      (host.n != 0 && memcmp(host.p, d->server_name.p, host.n) != 0) ||
      aq_take_prefixed(&in, 1, &protocol) != 0 || in.n > AQ_MAX_CHAIN) {
    return; /* with another name, the server proved who it is to others */
  }
  p = in.p;
  session = wolfSSL_d2i_SSL_SESSION(NULL, &p, (long)in.n);
  if (session == NULL) {
    aq_tls_enter();
    return;
  }
  lifetime = wolfSSL_SESSION_get_timeout(session);
  if (lifetime > AQ_TICKET_MARGIN &&
      age < (uint64_t)(lifetime - AQ_TICKET_MARGIN) &&
      wolfSSL_SESSION_has_ticket(session) &&
      wolfSSL_SESSION_set_time(session, (long)(time(NULL) - (time_t)age)) != 0 &&
      wolfSSL_set_session(t->ssl, session) == WOLFSSL_SUCCESS && early_data &&
      wolfSSL_SESSION_get_max_early_data(session) == UINT32_MAX &&
      offers(d->alpn, protocol)) {
    wolfSSL_set_quic_early_data_enabled(t->ssl, 1);
    t->early = 1;
  }
  wolfSSL_SESSION_free(session);
}

/* wolfSSL takes 0-RTT only for a session that it can remove from a cache, so that
 * it is good once. There is none here, and the engine does not promise to stop
 * replays: that the callback exists is what says yes. */
void aq_on_session_used(WOLFSSL_CTX *ctx, WOLFSSL_SESSION *session) {
  (void)ctx;
  (void)session;
}

/* Tickets, on the server: wolfSSL's state, then what Go says of the client, then
 * in 2 bytes each the length of that and where in the state its time is, all
 * sealed by AES-128-GCM. */

#define AQ_TRAILER 4
#define AQ_NO_TIME 0xffff

int aq_ticket_fits(size_t chain_len) {
  /* Go may need a little more than the chain's own lengths. */
  return chain_len + 64 + AQ_TRAILER <= WOLFSSL_TICKET_EXTRA_PADDING_SZ;
}

/* A key's parts are hashed, since the name is public. */
static int ticket_key(const uint8_t *key, uint8_t out[AQ_TICKET_KEY_BYTES]) {
  uint8_t sum[WC_SHA512_DIGEST_SIZE];
  int rv = wc_Sha512Hash(key, AQ_TICKET_KEY, sum);
  memcpy(out, sum, AQ_TICKET_KEY_BYTES);
  wolfSSL_OPENSSL_cleanse(sum, sizeof(sum));
  return rv == 0 ? 0 : -1;
}

/* additional is what is not in a ticket but must be the same when the client comes
 * back: the application protocol (RFC 8446, Section 4.2.10). */
static size_t additional(WOLFSSL *ssl, const uint8_t *name,
                         uint8_t out[WOLFSSL_TICKET_NAME_SZ + 255]) {
  char *protocol = NULL;
  word16 len = 0;
  memcpy(out, name, WOLFSSL_TICKET_NAME_SZ);
  if (wolfSSL_ALPN_GetProtocol(ssl, &protocol, &len) != WOLFSSL_SUCCESS ||
      protocol == NULL || len > 255) {
    return WOLFSSL_TICKET_NAME_SZ;
  }
  memcpy(out + WOLFSSL_TICKET_NAME_SZ, protocol, len);
  return WOLFSSL_TICKET_NAME_SZ + (size_t)len;
}

static int seal(WOLFSSL *ssl, const uint8_t *key, int encrypt, uint8_t *iv,
                uint8_t *mac, uint8_t *ticket, size_t len) {
  uint8_t aad[WOLFSSL_TICKET_NAME_SZ + 255];
  word32 aad_len = (word32)additional(ssl, key, aad);
  Aes aes;
  int rv;
  if (wc_AesInit(&aes, NULL, INVALID_DEVID) != 0) {
    return -1;
  }
  rv = wc_AesGcmSetKey(&aes, key + WOLFSSL_TICKET_NAME_SZ, 16);
  if (rv == 0 && encrypt) {
    rv = wc_AesGcmEncrypt(&aes, ticket, ticket, (word32)len, iv,
                          WOLFSSL_TICKET_IV_SZ, mac, 16, aad, aad_len);
  } else if (rv == 0) {
    rv = wc_AesGcmDecrypt(&aes, ticket, ticket, (word32)len, iv,
                          WOLFSSL_TICKET_IV_SZ, mac, 16, aad, aad_len);
  }
  wc_AesFree(&aes);
  return rv == 0 ? 0 : -1;
}

static uint64_t milliseconds(void) {
  struct timespec now;
  return timespec_get(&now, TIME_UTC) != TIME_UTC
           ? 0
           : (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* find_time finds when a ticket's state, which is new, was made: its layout is
 * wolfSSL's secret, but nothing else in it is so near to now. */
static size_t find_time(const uint8_t *state, size_t len) {
  uint64_t v, now = milliseconds();
  size_t i, j;
  for (i = 0; i + 8 <= len && i < AQ_NO_TIME; i++) {
    for (v = 0, j = 0; j < 8; j++) {
      v = v << 8 | state[i + j];
    }
    if (v <= now && now - v < 5000) {
      return i;
    }
  }
  return AQ_NO_TIME;
}

/* set_age makes a ticket's state as old as Go says. Its clock, which may not be
 * this host's, judges the age that the client tells (RFC 8446, Section 8.3). */
static void set_age(uint8_t *state, size_t len, size_t at, int64_t age) {
  uint64_t made = milliseconds() - (uint64_t)age;
  size_t i;
  for (i = 0; i < 8 && at + 8 <= len; i++) {
    state[at + i] = (uint8_t)(made >> (56 - 8 * i));
  }
}

/* make_ticket fails only if the handshake shall fail. What has no room for what Go
 * says becomes a ticket that nobody can open: a later handshake is a full one. */
static int make_ticket(aq_tls *t, uint8_t *name, uint8_t *iv, uint8_t *mac,
                       uint8_t *ticket, size_t len, size_t room) {
  uint8_t key[AQ_TICKET_KEY_BYTES];
  aq_blob data = {NULL, 0};
  size_t at = find_time(ticket, len);
  int rv = -1;
  if (aqGoTicketData(t->callbacks, &data.p, &data.n) != 0 ||
      data.n > UINT16_MAX || data.n + AQ_TRAILER > room - len) {
    aq_blob_free(&data);
    if (aq_rand(key, sizeof(key)) != 0) {
      return -1;
    }
  } else if (ticket_key(t->ticket_keys.p, key) != 0) {
    goto done;
  }
  if (data.n != 0) {
    memcpy(ticket + len, data.p, data.n);
    len += data.n;
  }
  ticket[len++] = (uint8_t)(data.n >> 8);
  ticket[len++] = (uint8_t)data.n;
  ticket[len++] = (uint8_t)(at >> 8);
  ticket[len++] = (uint8_t)at;
  memcpy(name, key, WOLFSSL_TICKET_NAME_SZ);
  memset(mac, 0, WOLFSSL_TICKET_MAC_SZ);
  if (aq_rand(iv, WOLFSSL_TICKET_IV_SZ) == 0 &&
      seal(t->ssl, key, 1, iv, mac, ticket, len) == 0) {
    rv = (int)len;
  }
done:
  aq_blob_free(&data);
  wolfSSL_OPENSSL_cleanse(key, sizeof(key));
  return rv;
}

/* find_key makes the key of a ticket's name. */
static int find_key(const aq_tls *t, const uint8_t *name,
                    uint8_t key[AQ_TICKET_KEY_BYTES]) {
  size_t i;
  for (i = 0; i < t->ticket_keys.n; i += AQ_TICKET_KEY) {
    if (ticket_key(t->ticket_keys.p + i, key) != 0) {
      return -1;
    }
    if (memcmp(name, key, WOLFSSL_TICKET_NAME_SZ) == 0) {
      return 0;
    }
  }
  return -1;
}

/* read_ticket returns the length of wolfSSL's state in it, or -1. wolfSSL may ask
 * about several, and use one before the last: what Go knows would then be another
 * client's. Only the first that can be opened counts, which a second ClientHello
 * may bring again. */
static int read_ticket(aq_tls *t, const uint8_t *name, uint8_t *iv, uint8_t *mac,
                       uint8_t *ticket, size_t len) {
  uint8_t key[AQ_TICKET_KEY_BYTES], tag[16];
  size_t n, at;
  int64_t age;
  int rv = -1;
  memcpy(tag, mac, sizeof(tag));
  if (len < AQ_TRAILER || find_key(t, name, key) != 0 ||
      seal(t->ssl, key, 0, iv, mac, ticket, len) != 0) {
    goto done;
  }
  if (t->ticket_read && memcmp(tag, t->ticket_mac, sizeof(tag)) != 0) {
    goto done;
  }
  t->ticket_read = 1;
  memcpy(t->ticket_mac, tag, sizeof(tag));
  len -= AQ_TRAILER;
  n = (size_t)ticket[len] << 8 | ticket[len + 1];
  at = (size_t)ticket[len + 2] << 8 | ticket[len + 3];
  if (n > len || aq_blob_set(&t->ticket_data, ticket + len - n, n) != 0) {
    goto done;
  }
  age = aqGoResumeTicket(t->callbacks, t->ticket_data.p, n);
  if (age < 0) {
    goto done;
  }
  set_age(ticket, len - n, at, age);
  rv = (int)(len - n);
done:
  wolfSSL_OPENSSL_cleanse(key, sizeof(key));
  return rv;
}

int aq_on_ticket(WOLFSSL *ssl, unsigned char name[WOLFSSL_TICKET_NAME_SZ],
                 unsigned char iv[WOLFSSL_TICKET_IV_SZ],
                 unsigned char mac[WOLFSSL_TICKET_MAC_SZ], int encrypt,
                 unsigned char *ticket, int len, int *out_len, void *arg) {
  aq_tls *t = aq_tls_of(ssl);
  int n;
  (void)arg;
  if (t == NULL || t->ticket_keys.n == 0 || len < 0) {
    return WOLFSSL_TICKET_RET_REJECT;
  }
  if (encrypt) {
    /* *out_len is the room there is, which wolfSSL has cleared. */
    if (*out_len < len + AQ_TRAILER) {
      return WOLFSSL_TICKET_RET_REJECT;
    }
    n = make_ticket(t, name, iv, mac, ticket, (size_t)len, (size_t)*out_len);
  } else {
    n = read_ticket(t, name, iv, mac, ticket, (size_t)len);
  }
  if (n < 0) {
    return WOLFSSL_TICKET_RET_REJECT;
  }
  *out_len = n;
  return WOLFSSL_TICKET_RET_OK; /* TLS 1.3 gives a new one in any case */
}
