/* What must be there to compile. link_*.go has every file of this package
 * include it first, before the headers of a library; #error says what to do about
 * what is not there. Only headers of macros are read here. */
#ifndef AQ_LINK_H
#define AQ_LINK_H

/* build/deps.sh writes libraries.h when it changes build/out. Go looks for
 * changes in this folder only: without it, objects compiled for the old libraries
 * would be linked with the new ones. */
#if !defined(AQ_SYSTEM) && __has_include("libraries.h")
#  include "libraries.h"
#else
#  define AQ_LIBRARIES ""
#endif

#if !__has_include(<ngtcp2/ngtcp2.h>) || !__has_include(<nghttp3/nghttp3.h>)
#  ifdef AQ_SYSTEM
#    error "ngtcp2 or nghttp3 is missing: install their development packages, or build without the tag system"
#  else
#    error "the C libraries are missing: run make deps, which builds them into build/out"
#  endif
#else
#  include <nghttp3/version.h>
#  include <ngtcp2/version.h>
#  if NGTCP2_VERSION_NUM < 0x011800
#    error "ngtcp2 is too old: 1.24 or newer is needed"
#  endif
#endif

#ifdef AQ_WOLFSSL
#  define AQ_TLS_LIBRARY "wolfssl"
#  if !__has_include(<wolfssl/options.h>) || !__has_include(<ngtcp2/ngtcp2_crypto_wolfssl.h>)
#    ifdef AQ_SYSTEM
#      error "wolfSSL or ngtcp2's library for it is missing: install their development packages, or build without the tag system"
#    else
#      error "wolfSSL or ngtcp2's library for it is missing: run make deps"
#    endif
#  else
#    include <wolfssl/options.h>
#    include <wolfssl/version.h>
#    if LIBWOLFSSL_VERSION_HEX < 0x05008000
#      error "wolfSSL is too old: 5.8 or newer is needed"
#    endif
#    if !defined(WOLFSSL_QUIC) || !defined(WOLFSSL_EARLY_DATA) || \
      !defined(HAVE_SESSION_TICKET) || !defined(HAVE_EXT_CACHE) || \
      !defined(HAVE_ALPN) || !defined(HAVE_SNI) || \
      !defined(HAVE_PK_CALLBACKS) || !defined(HAVE_SECRET_CALLBACK) || \
      !defined(WOLFSSL_ALWAYS_VERIFY_CB) || !defined(WOLFSSL_NGINX)
#      error "wolfSSL lacks what this needs: configure it with the options of recipe_wolfssl in build/deps-recipes.sh"
#    endif
#  endif
#else
#  define AQ_TLS_LIBRARY "openssl"
#  if !__has_include(<openssl/opensslv.h>) || !__has_include(<ngtcp2/ngtcp2_crypto_ossl.h>)
#    ifdef AQ_SYSTEM
#      error "OpenSSL or ngtcp2's library for it is missing: install their development packages, or build without the tag system"
#    else
#      error "OpenSSL or ngtcp2's library for it is missing: run make deps"
#    endif
#  else
#    include <openssl/opensslv.h>
#    if OPENSSL_VERSION_NUMBER < 0x30500000L
#      error "OpenSSL is too old: 3.5 or newer is needed"
#    endif
#  endif
#endif

#endif
