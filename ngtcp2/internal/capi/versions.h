/* The versions of ngtcp2 and nghttp3 that run. */
#ifndef AQ_VERSIONS_H
#define AQ_VERSIONS_H

#include "link.h"

#include <nghttp3/nghttp3.h>
#include <ngtcp2/ngtcp2.h>

/* In the object, so that the program is linked again with other libraries. */
static const char aq_libraries[] __attribute__((used)) = AQ_LIBRARIES;

static inline const char *aq_ngtcp2_version(void) {
  const ngtcp2_info *info = ngtcp2_version(0);
  return info ? info->version_str : "";
}

static inline const char *aq_nghttp3_version(void) {
  const nghttp3_info *info = nghttp3_version(0);
  return info ? info->version_str : "";
}

#endif
