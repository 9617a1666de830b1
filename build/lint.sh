#!/usr/bin/env bash
# Vets and lints every build, and the scripts. Builds with the native engine need
# the libraries of `make deps`, and the scripts shellcheck; without them this script
# says what is left out.
set -euo pipefail
cd "$(dirname "$0")/.."

left_out() { printf 'lint: left out: %s\n' "$*" >&2; }

builds=(interop)
if [ -f build/out/lib/libngtcp2_crypto_ossl.a ]; then builds+=("ngtcp2,interop"); fi
if [ -f build/out/lib/libngtcp2_crypto_wolfssl.a ]; then builds+=("ngtcp2,wolfssl"); fi
for tags in "${builds[@]}"; do
	printf '== tags: %s\n' "$tags" >&2
	go vet -tags "$tags" ./...
	go tool -modfile=tools/go.mod golangci-lint run --build-tags "$tags" ./...
done
if [ ${#builds[@]} != 3 ]; then left_out "the native engine (make deps builds its libraries)"; fi

if command -v shellcheck >/dev/null; then
	printf '== scripts\n' >&2
	shellcheck -x build/*.sh .ci/run
else
	left_out "the scripts (shellcheck is not installed)"
fi
