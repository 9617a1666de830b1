/* The C side of package nghttp3 as Go calls it: see doc.go for the rules. */
#ifndef AQ_H3_SHIM_H
#define AQ_H3_SHIM_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#  define AQ_H3_HIDDEN __attribute__((visibility("hidden")))
#else
#  define AQ_H3_HIDDEN
#endif

/* What our encoder fills of the peer's table, in bytes. */
#define AQ_H3_ENCODER_TABLE 4096
/* The encoder is not used while it has more memory than this, in bytes: what the
 * peer does not acknowledge is not forgotten. */
#define AQ_H3_ENCODER_MEMORY (128 * 1024)
/* The longest literals, as encoded, that libnghttp3 reads. */
#define AQ_H3_MAX_NAME 256
#define AQ_H3_MAX_VALUE 65536

enum aq_h3_code {
  AQ_H3_OK = 0,
  AQ_H3_NO_MEMORY = -1, /* or the coder failed before */
  AQ_H3_BROKEN = -2,    /* an assertion failed: now, or in an earlier call */
  AQ_H3_MALFORMED = -3, /* the peer broke a rule of QPACK */
  AQ_H3_LIMIT = -4,     /* the field section is over the limit */
  AQ_H3_FULL = -5       /* there is no encoder, or it has too much memory */
};

/* A field of a section that was decoded. Its text stands in aq_h3_coder.text, the
 * name and then the value, behind that of the fields before. */
typedef struct aq_h3_field {
  uint32_t name_len, value_len;
  int32_t token; /* the same for the same name, or -1 */
} aq_h3_field;

/* C memory, of which Go reads this part. Every pointer is into memory of the
 * coder, and valid until the next call. */
typedef struct aq_h3_coder {
  /* aq_h3_encode */
  const uint8_t *prefix, *section;
  size_t prefix_len, section_len;
  /* aq_h3_decode */
  const aq_h3_field *fields;
  const uint8_t *text;
  size_t nfields, text_len;
  /* every call: what has to be sent on the stream */
  const uint8_t *encoder_stream, *decoder_stream;
  size_t encoder_stream_len, decoder_stream_len;

  uint64_t inserts; /* of the peer into the decoder's table */
  uint8_t large;    /* aq_h3_trim would free something */
  char error[120];  /* of the call that failed last */
} aq_h3_coder;

/* aq_h3_new makes a coder whose decoder has a table of table bytes at most, and
 * which has no encoder before aq_h3_set_peer. NULL: no memory. */
AQ_H3_HIDDEN aq_h3_coder *aq_h3_new(size_t table);
AQ_H3_HIDDEN void aq_h3_free(aq_h3_coder *c);

/* aq_h3_set_peer says which table the peer's decoder allows, in bytes; the first
 * call counts. seed has to be unpredictable. */
AQ_H3_HIDDEN int aq_h3_set_peer(aq_h3_coder *c, uint64_t table, uint64_t seed);

/* aq_h3_encode encodes n fields. lens has 2 * n lengths, of names and values in
 * turns; text is all names and values. When it fails nothing was encoded; but for
 * AQ_H3_FULL there will be no encoder any more. The decoder is not affected, unless
 * it is AQ_H3_BROKEN. */
AQ_H3_HIDDEN int aq_h3_encode(aq_h3_coder *c, int64_t stream,
                              const uint8_t *text, size_t text_len,
                              const uint32_t *lens, size_t n);

/* aq_h3_decode decodes a section that is complete. limit bounds the size of
 * all fields, as in RFC 9114, Section 4.2.2. */
AQ_H3_HIDDEN int aq_h3_decode(aq_h3_coder *c, int64_t stream, const uint8_t *p,
                              size_t n, uint64_t limit);
AQ_H3_HIDDEN int aq_h3_cancel(aq_h3_coder *c, int64_t stream);

AQ_H3_HIDDEN int aq_h3_read_encoder(aq_h3_coder *c, const uint8_t *p, size_t n);
AQ_H3_HIDDEN int aq_h3_read_decoder(aq_h3_coder *c, const uint8_t *p, size_t n);

AQ_H3_HIDDEN void aq_h3_trim(aq_h3_coder *c);

/* aq_h3_memory returns the bytes that all coders have, aq_h3_leaked how many coders
 * could not be freed because an assertion had failed. */
AQ_H3_HIDDEN int64_t aq_h3_memory(void);
AQ_H3_HIDDEN int64_t aq_h3_leaked(void);

/* aq_h3_fail_after makes the n-th allocation from now on fail, and those behind
 * it; negative: none. Tests use it. */
AQ_H3_HIDDEN void aq_h3_fail_after(int64_t n);

AQ_H3_HIDDEN const char *aq_h3_version(void);

#endif
