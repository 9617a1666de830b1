#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time each (default 60s). Those
# of the native engine need the libraries of `make deps`; without them this script
# says that they are left out. `build/fuzz.sh TIME asan` runs those only, under
# AddressSanitizer.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-60s} asan=${2:-}

native=1
if [ -n "$asan" ]; then
	build/deps.sh openssl
	build/deps.sh asan
	# shellcheck source=build/asan.sh
	. build/asan.sh
elif ! [ -f build/out/lib/libngtcp2.a ]; then
	printf 'left out: the fuzz targets of the native engine (make deps builds what they need)\n' >&2
	native=
fi

# targets TAGS FOLDER... prints a line "package target" for each target of a build.
targets() {
	local out
	out=$(go test ${asan:+-asan} -tags "$1" -list '^Fuzz' "${@:2}")
	awk '/^Fuzz/ { names[n++] = $1 } $1 == "ok" { while (n > 0) print $2, names[--n] }' <<<"$out" | sort
}

# fuzz TAGS TARGETS runs targets, lines as above, in the build with these tags.
fuzz() {
	local package target
	while read -r package target; do
		[ -n "$package" ] || continue
		printf '== %s %s, tags: %s%s\n' "$package" "$target" "${1:-none}" "${asan:+, -asan}"
		go test ${asan:+-asan} -tags "$1" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 2s "$package" </dev/null
	done <<<"$2"
}

# Each target runs in the smallest build that has it. With the tag fuzzplain the
# native engine can be made to send packets that are not encrypted.
mapfile -t folders < <(grep -rlE '^func Fuzz' --include='*_test.go' --exclude-dir=mochi . | xargs -n 1 dirname | sort -u)
plain=$(targets "" "${folders[@]}")
if [ -z "$asan" ]; then
	fuzz "" "$plain"
	(cd mqtt/mochi && fuzz "" "$(targets "" .)") # a module of its own
fi
if [ -n "$native" ]; then
	with=$(targets ngtcp2 "${folders[@]}")
	fuzz ngtcp2 "$(comm -13 <(echo "$plain") <(echo "$with"))"
	fuzz "ngtcp2 fuzzplain" "$(comm -13 <(echo "$with") <(targets "ngtcp2 fuzzplain" ./ngtcp2/internal/capi))"
fi
