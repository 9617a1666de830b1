/* What the files for wolfSSL share. */
#ifndef AQ_WOLFSSL_H
#define AQ_WOLFSSL_H

#include <stdatomic.h>

#include "link.h"

#include <wolfssl/ssl.h>

#include "tls_data.h"
#include "tls_messages.h"

#define AQ_COUNT(a) (sizeof(a) / sizeof((a)[0]))

enum {
  AQ_ALERT_HANDSHAKE_FAILURE = 40,
  AQ_ALERT_INTERNAL_ERROR = 80,
  AQ_ALERT_NO_APPLICATION_PROTOCOL = 120
};

/* What the build leaves free in a ticket, for the client's certificates. */
#ifndef WOLFSSL_TICKET_EXTRA_PADDING_SZ
#  define WOLFSSL_TICKET_EXTRA_PADDING_SZ 32 /* as wolfSSL's own */
#endif

/* A chain and its key. A server's connections are made from a context that has
 * both, so that they are parsed once; a client's get them when asked. */
struct aq_cert {
  atomic_int refs;
  WOLFSSL_CTX *ctx;
  uintptr_t signer; /* the key is Go's */
  aq_blob chain;    /* PEM, the form in which wolfSSL takes more than one */
  aq_blob key;      /* PKCS #8; with signer SubjectPublicKeyInfo */
};

struct aq_tls {
  AQ_TLS_FIELDS;
  WOLFSSL *ssl; /* NULL after aq_tls_release */
  uint8_t verified, hello_sent;
  int alert;  /* what the peer gets instead of wolfSSL's choice; -1: that */
  int refuse; /* server: the ClientHello gets this alert; -1: none */
  uint8_t ticket_mac[16], ticket_read; /* server: which ticket_data is about */
  aq_request request;                  /* client */
  uint16_t session_group; /* client: of the session, if we have it, or 0 */
};

/* aq_tls_of is NULL when the object is on its way out. */
static inline aq_tls *aq_tls_of(const WOLFSSL *ssl) {
  return ssl == NULL ? NULL : wolfSSL_get_app_data(ssl);
}

/* aq_fail_with makes the handshake end with alert, also where wolfSSL sends
 * none. */
void aq_fail_with(aq_tls *t, int alert);

/* Contexts. A server's asks for tickets' keys; the one that signs lets Go do it. */
enum { AQ_CTX_SERVER = 1, AQ_CTX_CERT_CB = 2, AQ_CTX_SIGNS = 4 };
WOLFSSL_CTX *aq_ctx_new(int flags);

/* signer_wolfssl.c: the signatures of ctx's connections are made by Go. */
void aq_ctx_signs(WOLFSSL_CTX *ctx);

/* aq_use_cert gives a client's connection its certificate. */
int aq_use_cert(WOLFSSL *ssl, const aq_cert *cert);

/* tickets_wolfssl.c */
int aq_on_new_session(WOLFSSL *ssl, WOLFSSL_SESSION *session);
int aq_on_ticket(WOLFSSL *ssl, unsigned char name[WOLFSSL_TICKET_NAME_SZ],
                 unsigned char iv[WOLFSSL_TICKET_IV_SZ],
                 unsigned char mac[WOLFSSL_TICKET_MAC_SZ], int encrypt,
                 unsigned char *ticket, int len, int *out_len, void *arg);
void aq_on_session_used(WOLFSSL_CTX *ctx, WOLFSSL_SESSION *session);
void aq_use_session(aq_tls *t, const aq_tls_data *d, uint64_t age,
                    int early_data);

/* aq_session_group is the group of a stored session, 0 if it is none. */
uint16_t aq_session_group(aq_slice session);

/* aq_ticket_fits says whether a ticket has room for a chain. */
int aq_ticket_fits(size_t chain_len);

#endif
