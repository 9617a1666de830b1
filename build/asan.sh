# What links a program with the ngtcp2 of `build/deps.sh asan`: what CGO_LDFLAGS
# names comes before the libraries that the package names, and nothing is left for
# those to provide. Sourced in the module's root.
# shellcheck shell=bash
asan_lib=$PWD/build/out-asan/lib
export CGO_ENABLED=1 CGO_LDFLAGS="-O2 -g $asan_lib/libngtcp2_crypto_ossl.a $asan_lib/libngtcp2.a $asan_lib/libnghttp3.a"
