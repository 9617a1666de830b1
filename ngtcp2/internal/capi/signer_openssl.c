//go:build ngtcp2 && cgo && !wolfssl

/* Private keys that stay with a Go crypto.Signer, as an OpenSSL provider: a key
 * holds the public half, which answers all questions, and the signer's handle.
 * The provider lives in a library context of its own; a key in it is used with
 * any SSL, and nothing else finds it. */

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/provider.h>

#include "openssl.h"

#define AQ_PARAM_PUBLIC "aq-public"
#define AQ_PARAM_SIGNER "aq-signer"

typedef struct aq_key {
  EVP_PKEY *public;
  uintptr_t signer;
} aq_key;

static OSSL_LIB_CTX *signer_ctx;

static _Thread_local uintptr_t signing_for;

void aq_signing_for(uintptr_t callbacks) { signing_for = callbacks; }

/* Keys. */

static void *key_new(void *provider) {
  (void)provider;
  return aq_calloc(1, sizeof(aq_key));
}

static void key_free(void *data) {
  aq_key *k = data;
  if (k == NULL) {
    return;
  }
  EVP_PKEY_free(k->public);
  if (k->signer != 0) {
    aqGoSignerFree(k->signer);
  }
  aq_free(k);
}

static int key_has(const void *data, int selection) {
  const aq_key *k = data;
  (void)selection;
  return k != NULL && k->public != NULL;
}

static int key_import(void *data, int selection, const OSSL_PARAM params[]) {
  aq_key *k = data;
  const OSSL_PARAM *public = OSSL_PARAM_locate_const(params, AQ_PARAM_PUBLIC);
  const OSSL_PARAM *signer = OSSL_PARAM_locate_const(params, AQ_PARAM_SIGNER);
  EVP_PKEY *key;
  uintptr_t *slot;
  (void)selection;
  if (k->public != NULL || public == NULL || signer == NULL ||
      public->data_type != OSSL_PARAM_OCTET_STRING ||
      public->data_size != sizeof(key) ||
      signer->data_type != OSSL_PARAM_OCTET_STRING ||
      signer->data_size != sizeof(slot)) {
    return 0;
  }
  memcpy(&key, public->data, sizeof(key));
  memcpy(&slot, signer->data, sizeof(slot));
  if (!EVP_PKEY_up_ref(key)) {
    return 0;
  }
  k->public = key;
  k->signer = *slot;
  *slot = 0; /* the handle is this key's now */
  return 1;
}

static const OSSL_PARAM *key_import_types(int selection) {
  static const OSSL_PARAM types[] = {
    OSSL_PARAM_octet_string(AQ_PARAM_PUBLIC, NULL, 0),
    OSSL_PARAM_octet_string(AQ_PARAM_SIGNER, NULL, 0), OSSL_PARAM_END};
  (void)selection;
  return types;
}

/* The public half may be compared with a certificate's; a private one that
 * could go anywhere does not exist. */
static int key_export(void *data, int selection, OSSL_CALLBACK *callback,
                      void *arg) {
  aq_key *k = data;
  if ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0) {
    return 0;
  }
  return EVP_PKEY_export(k->public, EVP_PKEY_PUBLIC_KEY, callback, arg);
}

static const OSSL_PARAM *key_export_types(int selection) {
  static const OSSL_PARAM types[] = {
    OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0), OSSL_PARAM_END};
  (void)selection;
  return types;
}

static int key_get_params(void *data, OSSL_PARAM params[]) {
  aq_key *k = data;
  return EVP_PKEY_get_params(k->public, params);
}

static const OSSL_PARAM *key_gettable_params(void *provider) {
  static const OSSL_PARAM types[] = {
    OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),
    OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
    OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
    OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
    OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, NULL, 0),
    OSSL_PARAM_END};
  (void)provider;
  return types;
}

static const char *ec_operation(int operation) {
  return operation == OSSL_OP_SIGNATURE ? "ECDSA" : "EC";
}

#define AQ_KEY_FUNCTIONS                                                       \
  {OSSL_FUNC_KEYMGMT_NEW, (void (*)(void))key_new},                            \
    {OSSL_FUNC_KEYMGMT_FREE, (void (*)(void))key_free},                        \
    {OSSL_FUNC_KEYMGMT_HAS, (void (*)(void))key_has},                          \
    {OSSL_FUNC_KEYMGMT_IMPORT, (void (*)(void))key_import},                    \
    {OSSL_FUNC_KEYMGMT_IMPORT_TYPES, (void (*)(void))key_import_types},        \
    {OSSL_FUNC_KEYMGMT_EXPORT, (void (*)(void))key_export},                    \
    {OSSL_FUNC_KEYMGMT_EXPORT_TYPES, (void (*)(void))key_export_types},        \
    {OSSL_FUNC_KEYMGMT_GET_PARAMS, (void (*)(void))key_get_params},            \
  {                                                                            \
    OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, (void (*)(void))key_gettable_params     \
  }

static const OSSL_DISPATCH key_functions[] = {AQ_KEY_FUNCTIONS,
                                              OSSL_DISPATCH_END};
static const OSSL_DISPATCH ec_key_functions[] = {
  AQ_KEY_FUNCTIONS,
  {OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, (void (*)(void))ec_operation},
  OSSL_DISPATCH_END};

/* Signatures, as TLS 1.3 makes them: the whole message in one call. */

typedef struct aq_sign {
  aq_key *key; /* the EVP_PKEY holds it meanwhile */
  uint32_t hash;
  int pss;
  char digest[32];
} aq_sign;

static void *sign_new(void *provider, const char *properties) {
  (void)provider;
  (void)properties;
  return aq_calloc(1, sizeof(aq_sign));
}

static void sign_free(void *ctx) { aq_free(ctx); }

static int sign_set_params(void *ctx, const OSSL_PARAM params[]) {
  aq_sign *s = ctx;
  const OSSL_PARAM *p;
  int mode = 0;
  if (params == NULL) {
    return 1;
  }
  p = OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PAD_MODE);
  if (p == NULL) {
    return 1; /* the salt is always as long as the hash: RFC 8446, Section 4.2.3 */
  }
  if (p->data_type == OSSL_PARAM_UTF8_STRING) {
    s->pss = p->data != NULL &&
             strcmp(p->data, OSSL_PKEY_RSA_PAD_MODE_PSS) == 0;
    return s->pss;
  }
  if (!OSSL_PARAM_get_int(p, &mode)) {
    return 0;
  }
  s->pss = mode == 6; /* RSA_PKCS1_PSS_PADDING */
  return s->pss;
}

static const OSSL_PARAM *sign_settable_params(void *ctx, void *provider) {
  static const OSSL_PARAM types[] = {
    OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL, 0),
    OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, NULL, 0),
    OSSL_PARAM_END};
  (void)ctx;
  (void)provider;
  return types;
}

static int sign_init(void *ctx, const char *digest, void *key,
                     const OSSL_PARAM params[]) {
  /* The numbers are Go's crypto.Hash. */
  static const struct {
    const char *name;
    uint32_t hash;
  } hashes[] = {{"SHA256", 5}, {"SHA384", 6}, {"SHA512", 7}};
  aq_sign *s = ctx;
  size_t i;
  s->key = key;
  s->hash = 0;
  s->digest[0] = '\0';
  if (digest == NULL || digest[0] == '\0') {
    return sign_set_params(ctx, params);
  }
  for (i = 0; i < sizeof(hashes) / sizeof(hashes[0]); i++) {
    EVP_MD *md = EVP_MD_fetch(NULL, hashes[i].name, NULL);
    int same = md != NULL && EVP_MD_is_a(md, digest);
    EVP_MD_free(md);
    if (same) {
      s->hash = hashes[i].hash;
      (void)snprintf(s->digest, sizeof(s->digest), "%s", hashes[i].name);
      return sign_set_params(ctx, params);
    }
  }
  return 0;
}

static int sign_message(void *ctx, unsigned char *sig, size_t *sig_len,
                        size_t size, const unsigned char *in, size_t in_len) {
  aq_sign *s = ctx;
  uint8_t md[EVP_MAX_MD_SIZE];
  size_t md_len = 0;
  uintptr_t callbacks;
  int n, max = EVP_PKEY_get_size(s->key->public);
  if (max <= 0) {
    return 0;
  }
  if (sig == NULL) {
    *sig_len = (size_t)max;
    return 1;
  }
  callbacks = signing_for;
  signing_for = 0;
  if (s->hash != 0) {
    if (!EVP_Q_digest(NULL, s->digest, NULL, in, in_len, md, &md_len)) {
      return 0;
    }
    in = md;
    in_len = md_len;
  }
  n = aqGoSign(callbacks, s->key->signer, s->hash, s->pss ? (int)md_len : -1,
               (uint8_t *)in, in_len, sig, size);
  if (n <= 0) {
    return 0;
  }
  *sig_len = (size_t)n;
  return 1;
}

static const OSSL_DISPATCH sign_functions[] = {
  {OSSL_FUNC_SIGNATURE_NEWCTX, (void (*)(void))sign_new},
  {OSSL_FUNC_SIGNATURE_FREECTX, (void (*)(void))sign_free},
  {OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, (void (*)(void))sign_init},
  {OSSL_FUNC_SIGNATURE_DIGEST_SIGN, (void (*)(void))sign_message},
  {OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, (void (*)(void))sign_set_params},
  {OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS,
   (void (*)(void))sign_settable_params},
  OSSL_DISPATCH_END};

/* The provider. */

#define AQ_RSA "RSA:rsaEncryption:1.2.840.113549.1.1.1"
#define AQ_EC "EC:id-ecPublicKey:1.2.840.10045.2.1"
#define AQ_ED25519 "ED25519:1.3.101.112"

static const OSSL_ALGORITHM keys[] = {
  {AQ_RSA, "provider=anyquic", key_functions, NULL},
  {AQ_EC, "provider=anyquic", ec_key_functions, NULL},
  {AQ_ED25519, "provider=anyquic", key_functions, NULL},
  {NULL, NULL, NULL, NULL}};
static const OSSL_ALGORITHM signatures[] = {
  {AQ_RSA, "provider=anyquic", sign_functions, NULL},
  {"ECDSA", "provider=anyquic", sign_functions, NULL},
  {AQ_ED25519, "provider=anyquic", sign_functions, NULL},
  {NULL, NULL, NULL, NULL}};

static const OSSL_ALGORITHM *provider_query(void *provider, int operation,
                                            int *no_cache) {
  (void)provider;
  *no_cache = 0;
  switch (operation) {
  case OSSL_OP_KEYMGMT:
    return keys;
  case OSSL_OP_SIGNATURE:
    return signatures;
  default:
    return NULL;
  }
}

static int provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in,
                         const OSSL_DISPATCH **out, void **provider) {
  static const OSSL_DISPATCH functions[] = {
    {OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))provider_query},
    OSSL_DISPATCH_END};
  (void)in;
  *out = functions;
  *provider = (void *)handle;
  return 1;
}

int aq_signer_init(void) {
  OSSL_LIB_CTX *ctx = OSSL_LIB_CTX_new();
  if (ctx == NULL || !OSSL_PROVIDER_add_builtin(ctx, "anyquic", provider_init) ||
      OSSL_PROVIDER_load(ctx, "anyquic") == NULL) {
    OSSL_LIB_CTX_free(ctx);
    return -1;
  }
  signer_ctx = ctx;
  return 0;
}

EVP_PKEY *aq_signer_key(EVP_PKEY *public, uintptr_t signer) {
  const char *type = EVP_PKEY_is_a(public, "RSA")       ? "RSA"
                     : EVP_PKEY_is_a(public, "EC")      ? "EC"
                     : EVP_PKEY_is_a(public, "ED25519") ? "ED25519"
                                                        : NULL;
  EVP_PKEY_CTX *ctx = NULL;
  EVP_PKEY *key = NULL;
  uintptr_t *slot = &signer;
  OSSL_PARAM params[3];
  params[0] =
    OSSL_PARAM_construct_octet_string(AQ_PARAM_PUBLIC, &public, sizeof(public));
  params[1] =
    OSSL_PARAM_construct_octet_string(AQ_PARAM_SIGNER, &slot, sizeof(slot));
  params[2] = OSSL_PARAM_construct_end();
  if (type != NULL &&
      (ctx = EVP_PKEY_CTX_new_from_name(signer_ctx, type, NULL)) != NULL &&
      EVP_PKEY_fromdata_init(ctx) > 0 &&
      EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_KEYPAIR, params) > 0) {
    EVP_PKEY_CTX_free(ctx);
    return key;
  }
  EVP_PKEY_CTX_free(ctx);
  if (signer != 0) {
    aqGoSignerFree(signer);
  }
  return NULL;
}
