//go:build ngtcp2 && cgo

#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX_MAX 32         /* bytes; two integers need 20 */
#define KEPT (16 * 1024)      /* bytes of a buffer that stay */
#define MIN_TABLE 64          /* bytes: RFC 9204, 4.5.1.1 divides by 32 */
#define LITERAL_OVERHEAD 32   /* RFC 9114, 4.2.2 */

static aq_h3_impl *of(aq_h3_coder *c) { return (aq_h3_impl *)c; }

const char *aq_h3_version(void) { return nghttp3_version(0)->version_str; }

static int fail(aq_h3_impl *c, int code, const char *text) {
  snprintf(c->pub.error, sizeof c->pub.error, "%s", text);
  return code;
}

/* fail_with is fail for an error of libnghttp3 that is the peer's fault, unless it
 * says otherwise. */
static int fail_with(aq_h3_impl *c, int64_t rv) {
  int code = AQ_H3_MALFORMED;
  if (rv == NGHTTP3_ERR_NOMEM || rv == NGHTTP3_ERR_QPACK_FATAL) {
    code = AQ_H3_NO_MEMORY;
  }
  return fail(c, code, nghttp3_strerror((int)rv));
}

/* grow makes room for want things of the given size at *p. */
static int grow(aq_h3_impl *c, void **p, size_t *cap, size_t want, size_t size) {
  size_t n = *cap;
  void *q;
  if (want <= n) {
    return 0;
  }
  if (n == 0) {
    n = 16;
  }
  while (n < want) {
    if (n > SIZE_MAX / 4 / size) {
      return -1;
    }
    n *= 2;
  }
  q = aq_h3_realloc(&c->buffers, *p, n * size);
  if (q == NULL) {
    return -1;
  }
  *p = q;
  *cap = n;
  return 0;
}

/* begin forgets what the last call gave. */
static void begin(aq_h3_impl *c) {
  nghttp3_buf_reset(&c->prefix);
  nghttp3_buf_reset(&c->section);
  nghttp3_buf_reset(&c->encoder_stream);
  nghttp3_buf_reset(&c->decoder_stream);
  c->pub.prefix_len = c->pub.section_len = 0;
  c->pub.encoder_stream_len = c->pub.decoder_stream_len = 0;
  c->pub.nfields = c->pub.text_len = 0;
  c->pub.error[0] = '\0';
}

static size_t buf_cap(const nghttp3_buf *b) { return (size_t)(b->end - b->begin); }

static void measure(aq_h3_impl *c) {
  c->pub.large = buf_cap(&c->section) > KEPT ||
                 buf_cap(&c->encoder_stream) > KEPT ||
                 buf_cap(&c->decoder_stream) > KEPT || c->text_cap > KEPT ||
                 c->fields_cap * sizeof *c->fields > KEPT ||
                 c->nva_cap * sizeof *c->nva > KEPT;
}

/* take_decoder_stream fetches what the decoder has to say to the peer's encoder. */
static int take_decoder_stream(aq_h3_impl *c) {
  nghttp3_buf *b = &c->decoder_stream;
  size_t n = nghttp3_qpack_decoder_get_decoder_streamlen2(c->decoder);
  c->pub.inserts = nghttp3_qpack_decoder_get_icnt(c->decoder);
  if (n == 0) {
    return 0;
  }
  if (buf_cap(b) < n) {
    size_t cap = n < 64 ? 64 : n;
    uint8_t *p = aq_h3_realloc(&c->buffers, b->begin, cap);
    if (p == NULL) {
      return fail_with(c, NGHTTP3_ERR_NOMEM);
    }
    b->begin = b->pos = b->last = p;
    b->end = p + cap;
  }
  nghttp3_qpack_decoder_write_decoder(c->decoder, b);
  c->pub.decoder_stream = b->pos;
  c->pub.decoder_stream_len = nghttp3_buf_len(b);
  measure(c);
  return 0;
}

static void drop_encoder(aq_h3_impl *c) {
  nghttp3_qpack_encoder_del(c->encoder);
  c->encoder = NULL;
  c->encoder_failed = 1;
}

static void release_buf(nghttp3_buf *b, aq_h3_account *a) {
  aq_h3_release(a, b->begin);
  nghttp3_buf_init(b);
}

static void do_free(aq_h3_impl *c) {
  nghttp3_qpack_encoder_del(c->encoder);
  nghttp3_qpack_decoder_del(c->decoder);
  c->encoder = NULL;
  c->decoder = NULL;
}

static void release(aq_h3_impl *c) {
  aq_h3_account *a = &c->encoder_account;
  aq_h3_account outside;
  release_buf(&c->prefix, a);
  release_buf(&c->section, a);
  release_buf(&c->encoder_stream, a);
  release_buf(&c->decoder_stream, &c->buffers);
  aq_h3_release(&c->buffers, c->nva);
  aq_h3_release(&c->buffers, c->fields);
  aq_h3_release(&c->buffers, c->text);
  aq_h3_account_init(&outside);
  aq_h3_release(&outside, c);
}

static int do_new(aq_h3_impl *c, size_t table) {
  int rv = nghttp3_qpack_decoder_new(&c->decoder, table, 0,
                                     &c->decoder_account.mem);
  return rv == 0 ? AQ_H3_OK : fail_with(c, rv);
}

/* The encoder's buffers are its own account's, because it grows them; the prefix
 * never grows. That is on purpose: libnghttp3 does not look whether it could, and
 * would encode a section without a prefix. */
static int new_prefix(aq_h3_impl *c) {
  uint8_t *p = aq_h3_malloc(&c->encoder_account, PREFIX_MAX);
  if (p == NULL) {
    return -1;
  }
  c->prefix.begin = c->prefix.pos = c->prefix.last = p;
  c->prefix.end = p + PREFIX_MAX;
  return 0;
}

static int do_set_peer(aq_h3_impl *c, uint64_t table, uint64_t seed) {
  int rv;
  if (table < MIN_TABLE || table > SIZE_MAX || c->encoder != NULL ||
      c->encoder_failed) {
    return AQ_H3_OK;
  }
  if (c->prefix.begin == NULL && new_prefix(c) != 0) {
    return fail_with(c, NGHTTP3_ERR_NOMEM);
  }
  /* The bound is what the peer announced, although less is used: both sides
   * derive from it how Required Insert Count is written (RFC 9204, 4.5.1.1). */
  rv = nghttp3_qpack_encoder_new2(&c->encoder, (size_t)table, seed,
                                  &c->encoder_account.mem);
  if (rv != 0) {
    c->encoder = NULL;
    return fail_with(c, rv);
  }
  nghttp3_qpack_encoder_set_max_dtable_capacity(c->encoder, AQ_H3_ENCODER_TABLE);
  return AQ_H3_OK;
}

/* sensitive is what nobody on the way may put into a table (RFC 9204, 7.1.3).
 * libnghttp3 keeps the first out of its own, but does not say it to others. */
static int sensitive(const uint8_t *name, size_t len) {
  static const char direct[] = "authorization", proxy[] = "proxy-authorization";
  return (len == sizeof direct - 1 && memcmp(name, direct, len) == 0) ||
         (len == sizeof proxy - 1 && memcmp(name, proxy, len) == 0);
}

static int do_encode(aq_h3_impl *c, int64_t stream, const uint8_t *text,
                     size_t text_len, const uint32_t *lens, size_t n) {
  size_t i;
  int rv;
  if (c->encoder == NULL || c->encoder_account.live > AQ_H3_ENCODER_MEMORY) {
    return AQ_H3_FULL;
  }
  if (grow(c, (void **)&c->nva, &c->nva_cap, n, sizeof *c->nva) != 0) {
    return AQ_H3_FULL;
  }
  for (i = 0; i < n; i++) {
    nghttp3_nv *nv = &c->nva[i];
    size_t name = lens[2 * i], value = lens[2 * i + 1];
    if (name > text_len || value > text_len - name) {
      return fail(c, AQ_H3_FULL, "lengths beyond the text");
    }
    nv->name = text;
    nv->namelen = name;
    nv->value = text + name;
    nv->valuelen = value;
    nv->flags = sensitive(text, name) ? NGHTTP3_NV_FLAG_NEVER_INDEX
                                      : NGHTTP3_NV_FLAG_NONE;
    text += name + value;
    text_len -= name + value;
  }
  rv = nghttp3_qpack_encoder_encode(c->encoder, &c->prefix, &c->section,
                                    &c->encoder_stream, stream, c->nva, n);
  if (n > 0) {
    memset(c->nva, 0, n * sizeof *c->nva); /* they point to Go's memory */
  }
  if (rv != 0) {
    /* What it may have put into its table the peer will not hear of; nor will a
     * section refer to it. */
    drop_encoder(c);
    return fail_with(c, rv);
  }
  c->pub.prefix = c->prefix.pos;
  c->pub.prefix_len = nghttp3_buf_len(&c->prefix);
  c->pub.section = c->section.pos;
  c->pub.section_len = nghttp3_buf_len(&c->section);
  c->pub.encoder_stream = c->encoder_stream.pos;
  c->pub.encoder_stream_len = nghttp3_buf_len(&c->encoder_stream);
  measure(c);
  return AQ_H3_OK;
}

static int add(aq_h3_impl *c, const nghttp3_qpack_nv *nv) {
  nghttp3_vec name = nghttp3_rcbuf_get_buf(nv->name);
  nghttp3_vec value = nghttp3_rcbuf_get_buf(nv->value);
  aq_h3_coder *pub = &c->pub;
  aq_h3_field *f;
  if (grow(c, (void **)&c->fields, &c->fields_cap, pub->nfields + 1,
           sizeof *c->fields) != 0 ||
      grow(c, (void **)&c->text, &c->text_cap,
           pub->text_len + name.len + value.len, 1) != 0) {
    return -1;
  }
  f = &c->fields[pub->nfields++];
  f->name_len = (uint32_t)name.len;
  f->value_len = (uint32_t)value.len;
  f->token = nv->token;
  if (name.len > 0) {
    memcpy(c->text + pub->text_len, name.base, name.len);
    pub->text_len += name.len;
  }
  if (value.len > 0) {
    memcpy(c->text + pub->text_len, value.base, value.len);
    pub->text_len += value.len;
  }
  return 0;
}

static int decode(aq_h3_impl *c, const uint8_t *p, size_t n, uint64_t limit) {
  uint64_t size = 0;
  for (;;) {
    nghttp3_qpack_nv nv;
    uint8_t flags = 0;
    nghttp3_ssize nread = nghttp3_qpack_decoder_read_request(
        c->decoder, c->running, &nv, &flags, p, n, 1);
    if (nread < 0) {
      return fail_with(c, nread);
    }
    p += nread;
    n -= (size_t)nread;
    if (flags & NGHTTP3_QPACK_DECODE_FLAG_EMIT) {
      size_t len = nghttp3_rcbuf_get_buf(nv.name).len +
                   nghttp3_rcbuf_get_buf(nv.value).len + LITERAL_OVERHEAD;
      int rv = AQ_H3_OK;
      if (len > limit - size) {
        rv = fail(c, AQ_H3_LIMIT, "field section over the limit");
      } else if (add(c, &nv) != 0) {
        rv = fail_with(c, NGHTTP3_ERR_NOMEM);
      }
      size += len;
      nghttp3_rcbuf_decref(nv.name);
      nghttp3_rcbuf_decref(nv.value);
      if (rv != AQ_H3_OK) {
        return rv;
      }
      continue;
    }
    if (flags & NGHTTP3_QPACK_DECODE_FLAG_FINAL) {
      return AQ_H3_OK;
    }
    if (flags & NGHTTP3_QPACK_DECODE_FLAG_BLOCKED) {
      return fail(c, AQ_H3_MALFORMED, "section refers to what was not inserted");
    }
    return fail(c, AQ_H3_MALFORMED, "section ends early");
  }
}

static int do_decode(aq_h3_impl *c, int64_t stream, const uint8_t *p, size_t n,
                     uint64_t limit) {
  int rv = nghttp3_qpack_stream_context_new(&c->running, stream,
                                            &c->decoder_account.mem);
  int taken;
  if (rv != 0) {
    c->running = NULL;
    return fail_with(c, rv);
  }
  rv = decode(c, p, n, limit);
  if (rv == AQ_H3_LIMIT &&
      nghttp3_qpack_stream_context_get_ricnt2(c->running) > 0) {
    /* https://www.rfc-editor.org/rfc/rfc9204#section-2.2.2.2: the peer must not
     * wait for the acknowledgement of a section that was given up. */
    int cancelled = nghttp3_qpack_decoder_cancel_stream(c->decoder, stream);
    if (cancelled != 0) {
      rv = fail_with(c, cancelled);
    }
  }
  nghttp3_qpack_stream_context_del(c->running);
  c->running = NULL;
  c->pub.fields = c->fields;
  c->pub.text = c->text;
  measure(c);
  if (rv != AQ_H3_OK) {
    c->pub.nfields = c->pub.text_len = 0;
  }
  if (rv != AQ_H3_OK && rv != AQ_H3_LIMIT) {
    return rv;
  }
  taken = take_decoder_stream(c);
  return taken != AQ_H3_OK ? taken : rv;
}

static int do_cancel(aq_h3_impl *c, int64_t stream) {
  int rv = nghttp3_qpack_decoder_cancel_stream(c->decoder, stream);
  return rv == 0 ? take_decoder_stream(c) : fail_with(c, rv);
}

static int do_read_encoder(aq_h3_impl *c, const uint8_t *p, size_t n) {
  nghttp3_ssize rv = nghttp3_qpack_decoder_read_encoder(c->decoder, p, n);
  return rv >= 0 ? take_decoder_stream(c) : fail_with(c, rv);
}

static int do_read_decoder(aq_h3_impl *c, const uint8_t *p, size_t n) {
  nghttp3_ssize rv;
  if (c->encoder == NULL) {
    return AQ_H3_OK;
  }
  rv = nghttp3_qpack_encoder_read_decoder(c->encoder, p, n);
  return rv >= 0 ? AQ_H3_OK : fail_with(c, rv);
}

/* ---- what Go calls, each with a guard ---- */

/* The work is a function of its own, so that what it changes is not among the
 * variables of the one that calls _setjmp. */
#define GUARDED(NAME, PARAMETERS, ARGUMENTS)  \
  int aq_h3_##NAME PARAMETERS {               \
    aq_h3_guard g;                            \
    int rv;                                   \
    if (aq_h3_guard_open(&g, of(c)) != 0) {   \
      return AQ_H3_BROKEN;                    \
    }                                         \
    if (_setjmp(g.at) != 0) {                 \
      return AQ_H3_BROKEN;                    \
    }                                         \
    begin(of(c));                             \
    rv = do_##NAME ARGUMENTS;                 \
    aq_h3_guard_close();                      \
    return rv;                                \
  }

GUARDED(set_peer, (aq_h3_coder *c, uint64_t table, uint64_t seed),
        (of(c), table, seed))
GUARDED(encode,
        (aq_h3_coder *c, int64_t stream, const uint8_t *text, size_t text_len,
         const uint32_t *lens, size_t n),
        (of(c), stream, text, text_len, lens, n))
GUARDED(decode,
        (aq_h3_coder *c, int64_t stream, const uint8_t *p, size_t n,
         uint64_t limit),
        (of(c), stream, p, n, limit))
GUARDED(cancel, (aq_h3_coder *c, int64_t stream), (of(c), stream))
GUARDED(read_encoder, (aq_h3_coder *c, const uint8_t *p, size_t n),
        (of(c), p, n))
GUARDED(read_decoder, (aq_h3_coder *c, const uint8_t *p, size_t n),
        (of(c), p, n))

static int guarded_new(aq_h3_impl *c, size_t table) {
  aq_h3_guard g;
  int rv;
  if (aq_h3_guard_open(&g, c) != 0) {
    return AQ_H3_BROKEN;
  }
  if (_setjmp(g.at) != 0) {
    return AQ_H3_BROKEN;
  }
  rv = do_new(c, table);
  aq_h3_guard_close();
  return rv;
}

aq_h3_coder *aq_h3_new(size_t table) {
  aq_h3_account outside;
  aq_h3_impl *c;
  aq_h3_account_init(&outside);
  c = aq_h3_malloc(&outside, sizeof *c);
  if (c == NULL) {
    return NULL;
  }
  memset(c, 0, sizeof *c);
  aq_h3_account_init(&c->buffers);
  aq_h3_account_init(&c->encoder_account);
  aq_h3_account_init(&c->decoder_account);
  switch (guarded_new(c, table)) {
  case AQ_H3_OK:
    return &c->pub;
  case AQ_H3_BROKEN:
    aq_h3_keep(c);
    return NULL;
  }
  release(c);
  return NULL;
}

void aq_h3_free(aq_h3_coder *pub) {
  aq_h3_impl *c = of(pub);
  aq_h3_guard g;
  if (aq_h3_guard_open(&g, c) != 0) {
    aq_h3_keep(c);
    return;
  }
  if (_setjmp(g.at) != 0) {
    aq_h3_keep(c);
    return;
  }
  do_free(c);
  aq_h3_guard_close();
  release(c);
}

void aq_h3_trim(aq_h3_coder *pub) {
  aq_h3_impl *c = of(pub);
  begin(c);
  if (c->broken) {
    return; /* what it was working on may be in these */
  }
  release_buf(&c->section, &c->encoder_account);
  release_buf(&c->encoder_stream, &c->encoder_account);
  release_buf(&c->decoder_stream, &c->buffers);
  aq_h3_release(&c->buffers, c->nva);
  aq_h3_release(&c->buffers, c->fields);
  aq_h3_release(&c->buffers, c->text);
  c->nva = NULL;
  c->fields = NULL;
  c->text = NULL;
  c->nva_cap = c->fields_cap = c->text_cap = 0;
  pub->fields = NULL;
  pub->text = NULL;
  pub->large = 0;
}
