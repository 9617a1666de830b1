#!/usr/bin/env bash
# Runs every test with the race detector, in random order.
#
# The race detector needs a C compiler, which is installed if this is root on
# Debian or Ubuntu. Without one the tests run without it, and this script says so.
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

race=-race
compiler=$(go env CC)
if ! command -v "${compiler%% *}" >/dev/null; then
	if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
		say "installing gcc, for the race detector"
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null
	elif [ "${CI:-}" = true ]; then
		say "there is no C compiler ($compiler), which the race detector needs: apt-get install gcc libc6-dev"
		exit 1
	else
		say "left out: the race detector (no C compiler: $compiler; apt-get install gcc libc6-dev)"
		race=
	fi
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

# shellcheck disable=SC2046,SC2086 # package paths and an empty flag are words of their own
go test $race -shuffle=on -timeout 10m -tags "$tags" $(go list -tags "$tags" ./... | grep -v '/tests$')

# Conformance by itself, for the matrix that it prints.
# shellcheck disable=SC2086
go test $race -shuffle=on -timeout 10m -v ./tests | { grep -vE '^ *(=== |--- PASS)' || true; }
