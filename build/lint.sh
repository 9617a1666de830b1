#!/usr/bin/env bash
# Vets and lints every build. Those with the native engine need the libraries of
# `make deps`; without them this script says what is left out.
set -euo pipefail
cd "$(dirname "$0")/.."

builds=("")
if [ -f build/out/lib/libngtcp2_crypto_ossl.a ]; then builds+=(ngtcp2); fi
if [ -f build/out/lib/libngtcp2_crypto_wolfssl.a ]; then builds+=(ngtcp2,wolfssl); fi
for tags in "${builds[@]}"; do
	printf '== tags: %s\n' "${tags:-none}" >&2
	go vet -tags "$tags" ./...
	go tool -modfile=tools/go.mod golangci-lint run --build-tags "$tags" ./...
done
if [ ${#builds[@]} != 3 ]; then
	printf 'lint: left out: the native engine (make deps builds its libraries)\n' >&2
fi
