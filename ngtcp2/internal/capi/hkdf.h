#ifndef AQ_HKDF_H
#define AQ_HKDF_H

#include <stddef.h>
#include <stdint.h>

/* aq_hkdf is for tests: what ngtcp2 gets, of SHA-384 or of SHA-256. 0, or -1. */
int aq_hkdf(int sha384, uint8_t *dest, size_t dest_len, const uint8_t *secret,
            size_t secret_len, const uint8_t *salt, size_t salt_len,
            const uint8_t *info, size_t info_len);

#endif
