/* What must be there to compile. link_*.go has every file of this package include
 * it first; only headers of macros are read here. */
#ifndef AQ_H3_LINK_H
#define AQ_H3_LINK_H

/* build/deps.sh writes libraries.h when it changes build/out. Go looks for
 * changes in this folder only: without it, objects compiled for the old library
 * would be linked with the new one. */
#if !defined(AQ_H3_SYSTEM) && __has_include("libraries.h")
#  include "libraries.h"
#endif

#if !__has_include(<nghttp3/nghttp3.h>)
#  ifdef AQ_H3_SYSTEM
#    error "nghttp3 is missing: install its development package, or build without the tag system"
#  else
#    error "the C libraries are missing: run make deps, which builds them into build/out"
#  endif
#else
#  include <nghttp3/version.h>
#  if NGHTTP3_VERSION_NUM < 0x011000
#    error "nghttp3 is too old: 1.16 or newer is needed"
#  endif
#endif

#endif
