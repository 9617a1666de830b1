//go:build ngtcp2 && cgo

#include "internal.h"

#include <string.h>

/* ngtcp2 writes whole records, one per call: what does not fit is left out
 * as a whole. */
void aq_qlog_write(void *user_data, uint32_t flags, const void *data,
                   size_t len) {
  aq_connection *c = user_data;
  (void)flags;
  if (len == 0 || len > AQ_QLOG_MAX - c->qlog_len) {
    return;
  }
  if (c->qlog_len + len > c->qlog_cap) {
    size_t cap = c->qlog_cap ? c->qlog_cap : 4096;
    uint8_t *qlog;
    while (cap < c->qlog_len + len) {
      cap *= 2;
    }
    qlog = aq_realloc(c->qlog, cap);
    if (qlog == NULL) {
      return;
    }
    c->qlog = qlog;
    c->qlog_cap = cap;
  }
  memcpy(c->qlog + c->qlog_len, data, len);
  c->qlog_len += len;
}

const uint8_t *aq_conn_qlog(aq_conn *conn, size_t *len) {
  aq_connection *c = aq_of(conn);
  *len = c->qlog_len;
  return c->qlog;
}

void aq_conn_qlog_clear(aq_conn *conn) {
  aq_connection *c = aq_of(conn);
  aq_free(c->qlog);
  c->qlog = NULL;
  c->qlog_len = c->qlog_cap = 0;
}
