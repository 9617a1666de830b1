//go:build ngtcp2 && cgo

#include "internal.h"

#include <stdio.h>
#include <string.h>

const char *aq_strerror(int code) { return ngtcp2_strerror(code); }

void aq_error_set(aq_error *e, aq_connection *c, int code) {
  e->code = code;
  e->alert = AQ_NO_ERROR_ALERT;
  e->fatal = 0;
  e->transport = ngtcp2_err_infer_quic_transport_error_code(code);
  e->text[0] = '\0';
  if (code == NGTCP2_ERR_CRYPTO && c != NULL && c->quic != NULL) {
    e->alert = ngtcp2_conn_get_tls_alert2(c->quic);
    if (e->alert == 0) {
      e->alert = 80; /* internal_error: the TLS library failed without an alert */
    }
    e->transport = NGTCP2_CRYPTO_ERROR | (uint8_t)e->alert;
    aq_tls_error_text(c->tls, e->text, sizeof e->text);
  }
  if (e->text[0] == '\0') {
    snprintf(e->text, sizeof e->text, "%s", ngtcp2_strerror(code));
  }
}

int aq_fail(aq_connection *c, int code) {
  if (code == NGTCP2_ERR_CALLBACK_FAILURE && c->no_memory) {
    code = NGTCP2_ERR_NOMEM;
  }
  aq_error_set(&c->pub.error, c, code);
  c->pub.error.fatal = 1;
  c->failure = code;
  if (!c->close_set) {
    c->close_set = 1;
    if (code == NGTCP2_ERR_CRYPTO) {
      ngtcp2_ccerr_set_tls_alert(&c->close, (uint8_t)c->pub.error.alert, NULL, 0);
    } else {
      ngtcp2_ccerr_set_liberr(&c->close, code, NULL, 0);
    }
  }
  return code;
}

int aq_fail_softly(aq_connection *c, int code) {
  if (ngtcp2_err_is_fatal(code)) {
    return aq_fail(c, code);
  }
  aq_error_set(&c->pub.error, c, code);
  return code;
}
