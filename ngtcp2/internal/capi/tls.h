/* The TLS side of a connection, the same for OpenSSL (tls_openssl.c) and
 * wolfSSL (tls_wolfssl.c). Nothing here is safe for concurrent use on one
 * aq_tls; an aq_cert is shared by connections and counts its references.
 *
 * Go's goroutines change threads between calls, and both libraries keep errors
 * per thread: a call that may enter the TLS library begins with aq_tls_enter,
 * and one that failed takes the text with aq_tls_error_text before it returns. */
#ifndef AQ_TLS_H
#define AQ_TLS_H

#include <stddef.h>
#include <stdint.h>

#include <ngtcp2/ngtcp2.h>
#include <ngtcp2/ngtcp2_crypto.h>

typedef struct aq_tls aq_tls;
typedef struct aq_cert aq_cert;

/* aq_tls_config is what a connection's TLS object is made from. It holds no
 * Go pointer: what has a length here follows one another, in this order, in
 * the data that is passed beside it. */
typedef struct aq_tls_config {
  uintptr_t callbacks; /* cgo.Handle of a Go *tlsCallbacks; lives until aq_tls_free */
  aq_cert *cert;       /* server; a reference is taken; NULL: none */
  uint8_t client_auth; /* server: 0 none, 1 request, 2 require */
  uint8_t early_data;
  uint8_t tickets;
  uint8_t key_log;
  uint8_t raw_public_key;
  uint32_t alpn_len;        /* protocols, each behind a length byte */
  uint32_t server_name_len; /* client */
  uint32_t suites_len;      /* uint16_t in host order, as curves */
  uint32_t curves_len;
  uint32_t cas_len;         /* DER names, each behind 2 bytes of length */
  uint32_t ticket_keys_len; /* 32 bytes each; the first encrypts */
  uint32_t session_len;     /* client */
  uint64_t session_age;     /* of it, in seconds, rounded down */
} aq_tls_config;

/* aq_tls_client_new and aq_tls_server_new make *out, ready to be given to
 * ngtcp2_conn_set_tls_native_handle. ref must live until aq_tls_free, and is
 * used only once the handshake moves. 0, or -1 with the reason in err. */
int aq_tls_client_new(aq_tls **out, const aq_tls_config *config,
                      const uint8_t *data, size_t data_len,
                      ngtcp2_crypto_conn_ref *ref, char *err, size_t err_len);
int aq_tls_server_new(aq_tls **out, const aq_tls_config *config,
                      const uint8_t *data, size_t data_len,
                      ngtcp2_crypto_conn_ref *ref, char *err, size_t err_len);
void *aq_tls_native(aq_tls *t);

/* aq_tls_release frees the library's object and keeps what aq_tls_get_state
 * reports; no CRYPTO data may be fed afterwards. Not from inside a callback.
 * aq_tls_free frees everything; it must come after ngtcp2_conn_del or without
 * a later call that uses the native handle. Both take NULL. */
void aq_tls_release(aq_tls *t);
int aq_tls_released(const aq_tls *t);
void aq_tls_free(aq_tls *t);

/* aq_tls_early_data says whether a client's session lets it send 0-RTT. */
int aq_tls_early_data(const aq_tls *t);

/* aq_tls_watch_hello lets the library call aq_conn_tls_sent_hello with conn and each
 * ClientHello that it writes, with its 4 bytes of header, until conn is NULL. It
 * returns -1 if the library cannot, and 0. */
int aq_tls_watch_hello(aq_tls *t, void *conn);
void aq_conn_tls_sent_hello(void *conn, const uint8_t *hello, size_t len);

/* aq_tls_enter forgets what an earlier call on this thread left behind. */
void aq_tls_enter(void);

/* aq_tls_received tells what the library is about to be given of the handshake
 * after the ServerHello, in order. */
void aq_tls_received(aq_tls *t, const uint8_t *data, size_t len);

/* aq_tls_feed gives the library handshake messages of the peer and lets it work:
 * 0, or an error of ngtcp2. */
int aq_tls_feed(aq_tls *t, ngtcp2_encryption_level level, const uint8_t *data,
                size_t len);

/* aq_tls_error_text writes why the last TLS call failed, and empties the
 * thread's error queue. t may be NULL. Without a reason err is "". */
void aq_tls_error_text(aq_tls *t, char *err, size_t err_len);

/* aq_tls_state points into the aq_tls, valid until it is used again. chain
 * holds certificates (or one public key), each behind 3 bytes of length,
 * timestamps those that came with the first, each behind 2. */
typedef struct aq_tls_state {
  uint16_t version, suite, curve;
  uint8_t resumed, early_accepted, hello_retry;
  const uint8_t *alpn, *server_name, *chain, *ocsp, *timestamps, *ticket_data;
  size_t alpn_len, server_name_len, chain_len, ocsp_len, timestamps_len,
    ticket_data_len;
} aq_tls_state;
void aq_tls_get_state(aq_tls *t, aq_tls_state *out);

/* aq_tls_session gives the oldest session that a client was given and that
 * waits, serialised; NULL if there is none. aq_tls_session_done frees it. */
const uint8_t *aq_tls_session(aq_tls *t, size_t *len);
void aq_tls_session_done(aq_tls *t);

/* aq_conn_tls_session is called by the TLS side when a client was given a
 * session; the connection turns it into an event. */
void aq_conn_tls_session(ngtcp2_crypto_conn_ref *ref);

/* aq_conn_tls_hello is the ClientHello message, with its 4 bytes of header, of a
 * server's connection that is about to start TLS; NULL if there is none. */
const uint8_t *aq_conn_tls_hello(ngtcp2_crypto_conn_ref *ref, size_t *len);

/* aq_cert_new takes a chain (certificates behind 3 bytes of length), a stapled
 * OCSP response (may be empty), signed certificate timestamps (a
 * SignedCertificateTimestampList with its length: RFC 6962, Section 3.3; may be
 * empty) and a key: PKCS #8, or with a Go signer, which it takes also when it
 * fails, the SubjectPublicKeyInfo. aq_cert_free drops the reference that
 * aq_cert_new made. */
aq_cert *aq_cert_new(const uint8_t *chain, size_t chain_len,
                     const uint8_t *ocsp, size_t ocsp_len,
                     const uint8_t *timestamps, size_t timestamps_len,
                     const uint8_t *key, size_t key_len, uintptr_t signer,
                     char *err, size_t err_len);
aq_cert *aq_cert_up_ref(aq_cert *c);
void aq_cert_free(aq_cert *c);

/* aq_tls_init makes what the process has once: 0, or -1 with the reason. */
int aq_tls_init(char *err, size_t err_len);
const char *aq_tls_version(void);        /* of the library that runs */
const char *aq_tls_header_version(void); /* that this was compiled for */

/* What Go exports for the handshake, see callbacks.go. cgo knows no const; Go
 * writes only where out says. */

/* aqGoVerifyPeer returns -1 to accept the chain, else the alert to send. */
extern int aqGoVerifyPeer(uintptr_t callbacks, uint8_t *chain, size_t len);

/* aqGoClientCertificate returns 0 and *cert, a reference for the caller or
 * NULL for none; -1 to fail the handshake. */
extern int aqGoClientCertificate(uintptr_t callbacks, uint8_t *cas,
                                 size_t cas_len, uint16_t *schemes,
                                 size_t schemes_len, aq_cert **cert);

/* aqGoTicketData gives what a new ticket shall remember, in memory from
 * aq_malloc that the caller frees. If a client whose ticket has it may resume,
 * aqGoResumeTicket says how many milliseconds old the ticket is, else -1. */
extern int aqGoTicketData(uintptr_t callbacks, uint8_t **out, size_t *len);
extern int64_t aqGoResumeTicket(uintptr_t callbacks, uint8_t *data,
                                size_t len);

extern void aqGoKeyLog(uintptr_t callbacks, char *line, size_t len);

/* aqGoSign signs by a crypto.Signer. hash is a Go crypto.Hash, 0 when in is the
 * message itself (Ed25519); salt is the length for RSA-PSS, -1 for PKCS #1 v1.5
 * and other keys. callbacks, which is told of a failure, may be 0. It returns the signature's length, or -1. */
extern int aqGoSign(uintptr_t callbacks, uintptr_t signer, uint32_t hash, int salt,
                    uint8_t *in, size_t in_len, uint8_t *out,
                    size_t out_len);
extern void aqGoSignerFree(uintptr_t signer);

#endif
