#!/usr/bin/env bash
# Runs every test with the race detector, in random order: all of them in the
# default build, and what there is of the native engine in builds with it. The race
# detector brings Go's checks of pointer use (-d=checkptr) along.
#
#   build/test.sh go      the default build: pure Go
#   build/test.sh native  the native engine, with OpenSSL and with wolfSSL
#   build/test.sh asan    the native engine under AddressSanitizer
#   build/test.sh         go and native
#
# What is missing on this machine is installed if this is root on Debian or Ubuntu:
# a C compiler, what the C libraries are built with (see deps.sh), the mosquitto
# clients (see mosquitto.sh), foreign QUIC peers (see peers.sh). Otherwise this script says what is missing; what it
# can do without it leaves out, but in CI (CI=true) that is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
heading() { say "" "== $* ($((SECONDS / 60))m$((SECONDS % 60))s)"; }

# go_test TAGS ARGUMENT... runs tests with the race detector if it is there.
race=-race
go_test() { go test ${race:+"$race"} -shuffle=on -timeout 10m -tags "$1" "${@:2}"; }

# conformance TAGS runs package tests by itself, for the matrix that it prints.
conformance() {
	heading "conformance of every pair of engines, tags: ${1:-none}"
	go_test "$1" -v ./tests | { grep -vE '^ *(=== |--- PASS)' || true; }
}

need_go() {
	if ! command -v go >/dev/null; then
		say "make test needs Go 1.26 or newer: https://go.dev/dl/"
		exit 1
	fi
}

# need_compiler is for the race detector of the default build.
need_compiler() {
	local compiler
	compiler=$(go env CC)
	if command -v "${compiler%% *}" >/dev/null; then
		return
	elif command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
		say "installing gcc, for the race detector"
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null
	elif [ "${CI:-}" = true ]; then
		say "there is no C compiler ($compiler), which the race detector needs: apt-get install gcc libc6-dev"
		exit 1
	else
		say "left out: the race detector (no C compiler: $compiler; apt-get install gcc libc6-dev)"
		race=
	fi
}

# need_mosquitto sets interop to the tag of tests/interop if its clients are there.
need_mosquitto() {
	local found
	if [ -n "${interop+set}" ]; then return; fi
	interop=interop
	if found=$(build/mosquitto.sh); then
		PATH="$found:$PATH"
	elif [ "${CI:-}" = true ]; then
		exit 1
	else
		say "left out: tests/interop"
		interop=
		return
	fi
	# The tests with a QUIC peer that is missing say so and are left out.
	found=$(build/peers.sh) || [ "${CI:-}" != true ] || exit 1
	PATH="${found:+$found:}$PATH"
}

# need_libraries builds or copies the C libraries into build/out.
need_libraries() {
	heading "the C libraries"
	build/deps.sh "$@" || { say "make test-go runs the tests that do without them"; exit 1; }
	# Without a C compiler, or with CGO_ENABLED=0 in the environment, Go would
	# leave the native engine out and say nothing.
	export CGO_ENABLED=1
	race=-race
}

test_format() {
	local unformatted
	unformatted=$(gofmt -l .)
	if [ -n "$unformatted" ]; then
		say "not gofmt'ed (make fmt):" "$unformatted"
		exit 1
	fi
}

test_go() {
	need_compiler
	need_mosquitto
	heading "the default build"
	local list
	list=$(go list -tags "$interop" ./... | grep -v '/tests$')
	# shellcheck disable=SC2086 # package paths are words
	go_test "$interop" $list
	conformance ""
}

# packages TAGS prints those, but for package tests, whose tests reach the native
# engine: the engine, and what runs on whichever engine the build has.
packages() {
	go list -test -tags "$1" -f '{{.ImportPath}} {{join .Deps " "}}' ./... |
		awk '$1 ~ /\.test$/ && $1 !~ /\/tests\.test$/ && / github\.com\/anyquic\/anyquic\/ngtcp2(\/[^ ]*)?( |$)/ { sub(/\.test$/, "", $1); print $1 }'
}

test_native() {
	need_libraries all
	need_mosquitto
	local wolfssl=ngtcp2,wolfssl list

	heading "the native engine with OpenSSL, and all that runs on engines"
	go vet -tags ngtcp2 ./...
	list=$(packages ngtcp2)
	# shellcheck disable=SC2086 # package paths are words
	go_test "ngtcp2${interop:+,$interop}" $list ${interop:+./tests/interop}
	# What needs packets that are not encrypted, or assertions that fail.
	go_test ngtcp2,fuzzplain ./ngtcp2/internal/capi
	conformance ngtcp2

	heading "the native engine with wolfSSL"
	go vet -tags "$wolfssl" ./ngtcp2/... ./cmd/anyquic
	go_test "$wolfssl" ./ngtcp2/...
	go_test "$wolfssl,fuzzplain" ./ngtcp2/internal/capi
	go_test "$wolfssl" -run 'README|EnginesAndVersion|Licences' ./cmd/anyquic
	conformance "$wolfssl"

	heading "the tag without cgo: the pure-Go engine alone"
	CGO_ENABLED=0 go build -tags ngtcp2 ./...
	CGO_ENABLED=0 go test -tags ngtcp2 -run 'TestTheBuildHasTheEnginesOfItsTags' ./tests
}

# test_asan links an ngtcp2 that AddressSanitizer sees into.
test_asan() {
	need_libraries openssl
	build/deps.sh asan
	heading "the native engine under AddressSanitizer"
	# shellcheck source=build/asan.sh
	. build/asan.sh
	go test -asan -shuffle=on -timeout 10m -tags ngtcp2 ./ngtcp2/...
	go test -asan -shuffle=on -timeout 10m -tags ngtcp2,fuzzplain ./ngtcp2/internal/capi
	go test -asan -shuffle=on -timeout 10m -tags ngtcp2 -run '^TestConformance$/^ngtcp2-ngtcp2$' ./tests
}

need_go
case ${1:-all} in
go)
	test_format
	test_go
	;;
native) test_native ;;
asan) test_asan ;;
all)
	test_format
	if [ "$(uname -s)" = Linux ]; then
		need_libraries all # first: what is missing is said before anything runs
		test_go
		test_native
	else
		say "left out: the native engine, which is for Linux only"
		test_go
	fi
	;;
*) say "usage: build/test.sh [go|native|asan]"; exit 2 ;;
esac
heading "passed"
