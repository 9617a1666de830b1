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
# clients (see mosquitto.sh), foreign QUIC and HTTP/3 peers and mqtt.js (see peers.sh). Otherwise this
# script says what is missing; what it can do without it leaves out, but in CI
# (CI=true) that is a failure. It ends with the conformance matrix of each build and
# with the foreign peers, those that ran and those that did not.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
heading() { printf '\n== %s (%dm%ds)\n' "$*" $((SECONDS / 60)) $((SECONDS % 60)) >&2; }

# shellcheck source=build/again.sh
. build/again.sh

# What the summary is made of: foreign.TAGS, matrix.TAGS and failed.
results=

# go_test TAGS ARGUMENT... runs tests with the race detector if it is there. Tests
# that fail do not stop the others: the summary names what failed.
race=-race
go_test() { run_tests ${race:+"$race"} -tags "$@"; }

# run_tests ARGUMENT... runs go test.
run_tests() { go test -shuffle=on -timeout 30m "$@" || printf 'go test %s\n' "$*" >>"$results/failed"; }

# conformance TAGS runs package tests by itself, for the matrix that it prints.
conformance() {
	heading "conformance of every pair of engines, tags: ${1:-none}"
	go_test "$1" -v ./tests | awk -v matrix="$results/matrix.${1:-none}" '
		/^ *case +rows / { on = 1 }
		on { print >matrix }
		!on && !/^ *(=== |--- PASS)/
		/^ *total skip / { on = 0 }'
}

# matrices and peers print the results, if there are any.
matrices() {
	local file
	for file in "$results"/matrix.*; do
		[ -e "$file" ] || continue
		printf '\nconformance CLIENT-SERVER, tags: %s\n' "${file#*/matrix.}"
		cat "$file"
	done
}

# The outcome of tests with foreign peers is in lines "PEER OUTCOME".
peers() {
	local files=("$results"/foreign.*)
	[ -e "${files[0]}" ] || return 0
	printf '\nforeign peers, and the tests with them\n'
	awk '
		FNR == 1 { build = FILENAME; sub(/.*\/foreign\./, "", build); builds[++n] = build }
		{ count[$1, build, $2]++; peers[$1] }
		function cell(peer, build,   text) {
			if (count[peer, build, "fail"]) text = text count[peer, build, "fail"] " FAILED "
			if (count[peer, build, "skip"]) text = text count[peer, build, "skip"] " LEFT OUT "
			if (count[peer, build, "pass"]) text = text count[peer, build, "pass"] " passed "
			return text == "" ? "none" : text
		}
		END {
			printf "    %-16s", "peer"
			for (i = 1; i <= n; i++) printf " %-24s", "tags: " builds[i]
			print ""
			for (peer in peers) {
				line = sprintf("    %-16s", peer)
				for (i = 1; i <= n; i++) line = line sprintf(" %-24s", cell(peer, builds[i]))
				print line | "sort"
			}
		}' "${files[@]}"
}

summary() {
	local rc=$?
	matrices
	peers
	if [ -e "$results/failed" ]; then
		rc=1
		printf '\nthese have failed; their output is above\n'
		cut -c 1-200 "$results/failed"
	fi
	rm -rf "$results"
	if [ -n "$lacking" ]; then say "left out, because they could not be had:$lacking"; fi
	if [ $rc = 0 ]; then heading "passed"; else heading "failed"; fi
	exit "$rc"
}

need_go() {
	if ! command -v go >/dev/null; then
		say "make test needs Go 1.26 or newer: https://go.dev/dl/"
		exit 1
	fi
}

# need_modules has the modules come that the tests need, before anything is run: Go asks
# its proxy once. The tests say what they miss.
need_modules() {
	again go mod download || true
	(cd mqtt/mochi && again go mod download) || true
}

# need_compiler is for the race detector of the default build.
need_compiler() {
	local compiler
	compiler=$(go env CC)
	if command -v "${compiler%% *}" >/dev/null; then
		return
	elif command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
		say "installing gcc, for the race detector"
		again apt-get "${apt_root[@]}" update -qq
		again env DEBIAN_FRONTEND=noninteractive apt-get "${apt_root[@]}" install -y -qq --no-install-recommends gcc libc6-dev >/dev/null
	elif [ "${CI:-}" = true ]; then
		say "there is no C compiler ($compiler), which the race detector needs: apt-get install gcc libc6-dev"
		exit 1
	else
		say "left out: the race detector (no C compiler: $compiler; apt-get install gcc libc6-dev)"
		race=
	fi
}

# need_foreign puts the foreign programs into PATH. The tests without theirs are
# left out, but in CI this script ends.
lacking=
need_foreign() {
	local found
	if [ -n "${asked_foreign:-}" ]; then return; fi
	asked_foreign=1
	if found=$(build/mosquitto.sh); then
		PATH=$found:$PATH
	else
		lacking+=" the clients of mosquitto 2.1 (build/mosquitto.sh)"
	fi
	found=$(build/peers.sh) || lacking+="${lacking:+,} foreign QUIC or HTTP/3 peers (build/peers.sh)"
	PATH=${found:+$found:}$PATH
	if [ -n "$lacking" ] && [ "${CI:-}" = true ]; then
		say "CI runs the tests with foreign peers or fails, and these could not be had, for the reasons above:$lacking"
		lacking=
		exit 1
	fi
}

# interop_test TAGS ARGUMENT... is go_test, with what the tests with foreign peers
# say of themselves.
interop_test() {
	ANYQUIC_FOREIGN_LOG=$results/foreign.${1:-none} go_test "${1:+$1,}interop" "${@:2}"
}

# mochi TAGS tests the adapter for mochi-mqtt, which is a module of its own.
mochi() {
	(cd mqtt/mochi && go vet -tags "$1" ./... && go_test "$1" ./...)
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
	need_foreign
	heading "the default build"
	local list
	list=$(go list -tags interop ./... | grep -v '/tests$')
	# shellcheck disable=SC2086 # package paths are words
	interop_test "" $list
	mochi ""
	conformance ""
}

# packages TAGS prints those, but for package tests, whose tests reach the native
# engine: the engine, and what runs on whichever engine the build has.
packages() {
	go list -test -tags "$1" -f '{{.ImportPath}} {{join .Deps " "}}' ./... |
		awk '$1 ~ /\.test$/ && $1 !~ /\/tests\.test$/ && / github\.com\/anyquic\/anyquic\/(ngtcp2|nghttp3)(\/[^ ]*)?( |$)/ { sub(/\.test$/, "", $1); print $1 }'
}

test_native() {
	need_libraries all
	need_foreign
	local wolfssl=ngtcp2,wolfssl list

	heading "the native engine with OpenSSL, and all that runs on engines"
	go vet -tags ngtcp2 ./...
	list=$(packages ngtcp2)
	# shellcheck disable=SC2086 # package paths are words
	interop_test ngtcp2 $list ./tests/interop
	mochi ngtcp2
	# What needs packets that are not encrypted, or assertions that fail.
	go_test ngtcp2,fuzzplain ./ngtcp2/internal/capi
	conformance ngtcp2

	heading "the native engine with wolfSSL"
	go vet -tags "$wolfssl" ./ngtcp2/... ./cmd/anyquic
	go_test "$wolfssl" ./ngtcp2/... ./http3
	go_test "$wolfssl,fuzzplain" ./ngtcp2/internal/capi
	go_test "$wolfssl" -run 'README|EnginesAndVersion|Licences' ./cmd/anyquic
	conformance "$wolfssl"

	heading "the tag without cgo: the pure-Go engine alone"
	CGO_ENABLED=0 go build -tags ngtcp2 ./...
	CGO_ENABLED=0 run_tests -tags ngtcp2 -run 'TestTheBuildHasTheEnginesOfItsTags' ./tests
}

# test_asan links an ngtcp2 that AddressSanitizer sees into.
test_asan() {
	need_libraries openssl
	build/deps.sh asan
	heading "the native engine under AddressSanitizer"
	# shellcheck source=build/asan.sh
	. build/asan.sh
	run_tests -asan -tags ngtcp2 ./ngtcp2/... ./nghttp3 ./http3
	run_tests -asan -tags ngtcp2,fuzzplain ./ngtcp2/internal/capi
	run_tests -asan -tags ngtcp2 -run '^TestConformance$/^ngtcp2-ngtcp2$' ./tests
}

case ${1:-all} in
go | native | asan | all) ;;
*) say "usage: build/test.sh [go|native|asan]"; exit 2 ;;
esac
need_go
results=$(mktemp -d)
trap summary EXIT
need_modules
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
esac
