//go:build ngtcp2 && cgo && !wolfssl

/* Signed certificate timestamps (RFC 6962, Section 3.3) as crypto/tls has them: a
 * client offers to take them and leaves their judgement to others, a server sends
 * what it was given with its certificate (RFC 8446, Section 4.4.2.1). OpenSSL's own
 * support for them would judge, and has no server side.
 *
 * What a server says about them in a CertificateRequest does not get past OpenSSL,
 * so that a client's certificate goes without. */

#include "openssl.h"
#include "tls_messages.h"

static int on_add(SSL *ssl, unsigned type, unsigned context,
                  const unsigned char **out, size_t *out_len, X509 *x,
                  size_t index, int *alert, void *arg) {
  aq_tls *t = aq_tls_of(ssl);
  (void)type;
  (void)x;
  (void)alert;
  (void)arg;
  *out = NULL;
  *out_len = 0;
  if (t == NULL || !t->server) {
    return (context & SSL_EXT_CLIENT_HELLO) != 0;
  }
  if ((context & SSL_EXT_TLS1_3_CERTIFICATE) == 0 || index != 0 ||
      t->cert == NULL || t->cert->timestamps.n == 0) {
    return 0;
  }
  *out = t->cert->timestamps.p;
  *out_len = t->cert->timestamps.n;
  return 1;
}

static int on_parse(SSL *ssl, unsigned type, unsigned context,
                    const unsigned char *in, size_t in_len, X509 *x,
                    size_t index, int *alert, void *arg) {
  aq_tls *t = aq_tls_of(ssl);
  aq_slice list;
  (void)type;
  (void)x;
  (void)arg;
  if ((context & SSL_EXT_CLIENT_HELLO) != 0) {
    *alert = SSL_AD_DECODE_ERROR;
    return in_len == 0;
  }
  if (t == NULL || t->server || index != 0) {
    return 1; /* of no use here, as in crypto/tls */
  }
  if (aq_timestamps_read((aq_slice){in, in_len}, &list) != 0) {
    *alert = SSL_AD_DECODE_ERROR;
    return 0;
  }
  if (aq_blob_set(&t->timestamps, list.p, list.n) != 0) {
    *alert = SSL_AD_INTERNAL_ERROR;
    return 0;
  }
  return 1;
}

int aq_timestamps_use(SSL_CTX *ctx) {
  return SSL_CTX_add_custom_ext(ctx, AQ_EXT_TIMESTAMPS,
                                SSL_EXT_TLS1_3_ONLY | SSL_EXT_CLIENT_HELLO |
                                  SSL_EXT_TLS1_3_CERTIFICATE,
                                on_add, NULL, NULL, on_parse, NULL) == 1
           ? 0
           : -1;
}
