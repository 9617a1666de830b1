#!/usr/bin/env bash
# Runs every test with the race detector, in random order.
#
# The tests in tests/interop need the mosquitto clients, which mosquitto.sh finds
# or fetches. Where it cannot, this script says what is left out; in CI
# (CI=true) that is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

if ! command -v go >/dev/null; then
	say "make test needs Go 1.26 or newer: https://go.dev/dl/"
	exit 1
fi

tags=interop
if mosquitto=$(build/mosquitto.sh); then
	PATH="$mosquitto:$PATH"
elif [ "${CI:-}" = true ]; then
	exit 1
else
	say "left out: tests/interop"
	tags=
fi

unformatted=$(gofmt -l .)
if [ -n "$unformatted" ]; then
	say "not gofmt'ed (make fmt):" "$unformatted"
	exit 1
fi

# shellcheck disable=SC2046 # package paths have no spaces
go test -race -shuffle=on -timeout 10m -tags "$tags" $(go list -tags "$tags" ./... | grep -v '/tests$')

# Conformance by itself, for the matrix that it prints.
go test -race -shuffle=on -timeout 10m -v ./tests | { grep -vE '^ *(=== |--- PASS)' || true; }
