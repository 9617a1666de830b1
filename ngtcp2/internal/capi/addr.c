//go:build ngtcp2 && cgo

/* Addresses and connection IDs, from and to ngtcp2's form. */

#include "internal.h"

#include <string.h>

void aq_cid_set(ngtcp2_cid *out, const aq_cid *id) {
  size_t len = id->len <= AQ_MAX_CID ? id->len : AQ_MAX_CID;
  ngtcp2_cid_init(out, id->data, len);
}

int aq_addr_set(ngtcp2_sockaddr_union *out, ngtcp2_socklen *len,
                const aq_addr *a) {
  memset(out, 0, sizeof *out);
  switch (a->family) {
  case 4:
    out->in.sin_family = NGTCP2_AF_INET;
    ((uint8_t *)&out->in.sin_port)[0] = (uint8_t)(a->port >> 8);
    ((uint8_t *)&out->in.sin_port)[1] = (uint8_t)a->port;
    memcpy(&out->in.sin_addr, a->ip, 4);
    *len = sizeof out->in;
    return 0;
  case 6:
    out->in6.sin6_family = NGTCP2_AF_INET6;
    ((uint8_t *)&out->in6.sin6_port)[0] = (uint8_t)(a->port >> 8);
    ((uint8_t *)&out->in6.sin6_port)[1] = (uint8_t)a->port;
    memcpy(&out->in6.sin6_addr, a->ip, 16);
    out->in6.sin6_scope_id = a->scope;
    *len = sizeof out->in6;
    return 0;
  default:
    return -1;
  }
}

static void addr_get(aq_addr *out, const ngtcp2_addr *a) {
  const ngtcp2_sockaddr_union *u = (const void *)a->addr;
  const uint8_t *port;
  memset(out, 0, sizeof *out);
  if (a->addr == NULL || a->addrlen == 0) {
    return;
  }
  switch (a->addr->sa_family) {
  case NGTCP2_AF_INET:
    out->family = 4;
    port = (const uint8_t *)&u->in.sin_port;
    memcpy(out->ip, &u->in.sin_addr, 4);
    break;
  case NGTCP2_AF_INET6:
    out->family = 6;
    port = (const uint8_t *)&u->in6.sin6_port;
    memcpy(out->ip, &u->in6.sin6_addr, 16);
    out->scope = u->in6.sin6_scope_id;
    break;
  default:
    return;
  }
  out->port = (uint16_t)(port[0] << 8 | port[1]);
}

/* aq_path_set gives a path its system form. Both ends must be of one family:
 * ngtcp2 compares them without asking. */
int aq_path_set(ngtcp2_path_storage *out, const aq_path *p) {
  aq_addr local = p->local;
  ngtcp2_path_storage_zero(out);
  if (local.family == 0) {
    memset(&local, 0, sizeof local);
    local.family = p->remote.family;
  }
  if (local.family != p->remote.family ||
      aq_addr_set(&out->local_addrbuf, &out->path.local.addrlen, &local) != 0 ||
      aq_addr_set(&out->remote_addrbuf, &out->path.remote.addrlen,
                  &p->remote) != 0) {
    return NGTCP2_ERR_INVALID_ARGUMENT;
  }
  return 0;
}

void aq_path_get(aq_path *out, const ngtcp2_path *p) {
  addr_get(&out->local, &p->local);
  addr_get(&out->remote, &p->remote);
}
