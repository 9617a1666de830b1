#!/usr/bin/env bash
# Builds the C libraries of the native engine, static and position-independent,
# into build/out/{include,lib,lib/pkgconfig,licences}.
#
# third_party/manifest says what is built, deps-recipes.sh how, deps-fetch.sh gets
# the sources. Each built library is kept in a cache outside the tree under a hash
# of its part of the manifest, its recipe, the compiler and the libraries that it
# needs; a second clone copies it from there. Progress goes to standard error.
set -euo pipefail

usage() {
	cat <<'USAGE'
usage: build/deps.sh [--check] [--force] [openssl|wolfssl|all|asan]

Builds ngtcp2 and nghttp3 with the named TLS library, or with both of them (all,
the default), into build/out. Does nothing when they are there already. asan is
ngtcp2 with AddressSanitizer and OpenSSL, for tests, into build/out-asan.

  --check   then compiles, links and runs a small C program against build/out
  --force   builds again, whatever the cache has
  --keys    prints the cache keys and ends
  --help    prints this

environment:
  THIRD_PARTY_DIR   a folder with sources, looked into before the network
  XDG_CACHE_HOME    where the cache is (default ~/.cache); in it anyquic/deps
  CC                the C compiler (default cc)
  JOBS              compilations at once (default: the number of CPUs)
USAGE
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
manifest=$here/../third_party/manifest
out=$here/out
headers=("$here/../ngtcp2/internal/capi/libraries.h" "$here/../nghttp3/libraries.h")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/anyquic/deps
JOBS=${JOBS:-$(nproc)}
export CC=${CC:-cc}
# The cache key does not know these.
unset CFLAGS CPPFLAGS LDFLAGS LIBS CDPATH DESTDIR MAKEFLAGS MFLAGS PKG_CONFIG_PATH

say() { printf 'deps: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

# shellcheck source=build/again.sh
. "$here/again.sh"
# shellcheck source=build/deps-recipes.sh
. "$here/deps-recipes.sh"
# shellcheck source=build/deps-fetch.sh
. "$here/deps-fetch.sh"

what=all check="" force="" keys=""
for arg; do
	case $arg in
	openssl | wolfssl | all | asan) what=$arg ;;
	--check) check=1 ;;
	--force) force=1 ;;
	--keys) keys=1 ;;
	--help | -h) usage; exit 0 ;;
	*) usage >&2; exit 2 ;;
	esac
done
[ "$(uname -s)" = Linux ] || die "the native engine builds on Linux only: use the pure-Go engine here (no build tag)"

# ngtcp2 is built once for each TLS library; its core comes out the same.
declare -A needs=([openssl]="" [wolfssl]="" [nghttp3]="" [ngtcp2_openssl]=openssl [ngtcp2_wolfssl]=wolfssl [ngtcp2_asan]=openssl)
case $what in
all) parts="openssl wolfssl nghttp3 ngtcp2_openssl ngtcp2_wolfssl" ;;
asan)
	parts="openssl nghttp3 ngtcp2_asan"
	out=$here/out-asan headers=("$here/out-asan/libraries.h") # nothing in the tree reads this one
	;;
*) parts="$what nghttp3 ngtcp2_$what" ;;
esac

declare -A stanza # manifest section -> its lines
section=
while read -r key value; do
	case $key in
	"" | "#"*) ;;
	"["*"]") section=${key:1:-1} ;;
	*) stanza[$section]+="$key $value"$'\n' ;;
	esac
done <"$manifest"

# field SECTION KEY prints the values of all such lines.
field() {
	local key value
	while read -r key value; do
		if [ "$key" = "$2" ]; then printf '%s\n' "$value"; fi
	done <<<"${stanza[$1]}"
}

# part_key PART sets key[PART], the keys of what it needs first.
declare -A key
compiler=$({ $CC -dumpmachine && $CC -dumpfullversion; } 2>/dev/null) || compiler=none
part_key() {
	[ -z "${key[$1]:-}" ] || return 0
	local need
	for need in ${needs[$1]}; do part_key "$need"; done
	key[$1]=$({
		printf '%s\n' "${stanza[${1%%_*}]}" "$CC $compiler" "${needs[$1]:+${key[${needs[$1]}]}}"
		declare -f flags "recipe_$1" install_pc apply_patches
		if [[ $1 = ng* ]]; then declare -f notices; fi
		if [[ $1 = ngtcp2_* ]]; then declare -f recipe_ngtcp2; fi
		if [ "$1" = ngtcp2_asan ]; then declare -f recipe_ngtcp2_openssl; fi
	} | sha256sum)
	key[$1]=${key[$1]:0:24}
}
# The stamp has a line "part key version" for each part that is in out, and the
# hash of how they are laid out. The headers say the same to Go's build cache,
# which does not look into out.
stamped() {
	[ -r "$out/.deps" ] && [ -f "$out/lib/libngtcp2.a" ] && [ -f "$out/lib/libnghttp3.a" ] || return 1
	local part lines header
	lines=$(<"$out/.deps")
	for header in "${headers[@]}"; do
		[ -r "$header" ] && [[ $(<"$header") == "$(header_text)" ]] || return 1
	done
	[[ $lines == *"layout $layout" ]] || return 1
	for part in $parts; do
		[[ $'\n'$lines == *$'\n'"$part ${key[$part]} "* ]] || return 1
		case $part in
		openssl) [ -f "$out/lib/libssl.a" ] && [ -f "$out/lib/libcrypto.a" ] || return 1 ;;
		wolfssl) [ -f "$out/lib/libwolfssl.a" ] || return 1 ;;
		esac
	done
}

header_text() { printf '#define AQ_LIBRARIES "%s"' "$(tr '\n' ';' <"$out/.deps")"; }

# warn_versions says which library is not the pinned one, every time.
warn_versions() {
	local part version pinned
	while read -r part _ version; do
		[ "$part" != layout ] || continue
		pinned=$(field "${part%%_*}" version)
		if [ "$version" != "$pinned" ] && [[ $part != ngtcp2_w* || $what = wolfssl ]]; then
			say "warning: ${part%%_*} $version is in use, not the pinned $pinned"
		fi
	done <"$out/.deps"
}

lock() {
	mkdir -p "$cache" "$out"
	local fd
	exec 8>"$out/.lock" 9>"$cache/lock" # always in this order
	for fd in 8 9; do
		if ! flock -n $fd; then
			say "waiting for another build in this folder or in $cache"
			flock $fd
		fi
	done
	rm -rf "$cache"/.tmp.* "$out"/.new.* "$out"/.old.* # what a killed run left
}

# run NAME COMMAND... keeps the output to itself unless the command fails.
run() {
	local name=$1 log=$tmp/log
	shift
	if ! "$@" >"$log" 2>&1 8>&- 9>&- </dev/null; then
		say "$name failed; the end of its output:"
		tail -n 40 "$log" >&2
		return 1
	fi
}

# build PART makes $cache/PART-KEY, all of it or nothing.
build() {
	local part=$1 name=${1%%_*} dir=$cache/$1-${key[$1]} start=$SECONDS
	if [ -d "$dir" ] && [ -z "$force" ]; then return; fi
	rm -rf "$tmp/src" "$tmp/stage"
	mkdir -p "$tmp/src" "$tmp/stage/licences"
	fetch "$name" "$tmp/src"
	if [ -d "$tmp/src/usr" ]; then
		say "$part: taking $version as Debian built it"
	else
		say "$part: building $version, $JOBS compilations at once"
	fi
	local rc=0
	set +e # "( … ) || rc=$?" would switch it off inside as well
	(
		set -e
		cd "$tmp/src"
		"recipe_$part" "$tmp/stage"
	)
	rc=$?
	set -e
	[ $rc = 0 ] || die "$part: not built"
	find "$tmp/stage/lib" \( -name '*.so*' -o -name '*.la' \) -exec rm -f {} +
	rm -rf "$tmp/stage/bin" "$tmp/stage/share" "$tmp/stage/lib/cmake"
	printf '%s\n' "$version" >"$tmp/stage/.version"
	rm -rf "$dir"
	mv "$tmp/stage" "$dir"
	rm -rf "$tmp/src"
	say "$part: done in $((SECONDS - start)) s"
}

# assemble copies the parts into out; the stamp goes first and comes last.
assemble() {
	local new old entry part header kept=""
	new=$(mktemp -d "$out/.new.XXXXXX")
	chmod 755 "$new"
	# Parts of an earlier run that are still right stay.
	for part in "${!needs[@]}"; do
		part_key "$part"
		if [[ " $parts " == *" $part "* ]] || { [ -r "$out/.deps" ] && grep -q "^$part ${key[$part]} " "$out/.deps" && [ -d "$cache/$part-${key[$part]}" ]; }; then
			kept+=" $part"
		fi
	done
	for part in $kept; do
		cp -R --preserve=mode,timestamps "$cache/$part-${key[$part]}/." "$new/"
		printf '%s %s %s\n' "$part" "${key[$part]}" "$(<"$cache/$part-${key[$part]}/.version")" >>"$new/.deps"
	done
	rm -f "$new/.version"
	printf 'layout %s\n' "$layout" >>"$new/.deps"
	link_files "$new" "$kept"
	rm -f "$out/.deps"
	old=$(mktemp -d "$out/.old.XXXXXX")
	for entry in include lib licences; do
		if [ -e "$out/$entry" ]; then mv "$out/$entry" "$old/"; fi
		mv "$new/$entry" "$out/$entry"
	done
	mv "$new/.deps" "$out/.deps"
	for header in "${headers[@]}"; do header_text >"$header"; done
	rm -rf "$new" "$old"
}

# link_files writes anyquic-TLS.pc: whole archive paths in link order, nothing
# required, so that no library of the distribution can take the place of ours.
link_files() {
	local tls crypto libs
	for tls in openssl wolfssl; do
		[[ " $2 " == *" ngtcp2_$tls "* ]] || continue
		# shellcheck disable=SC2016 # pkg-config expands it, not the shell
		case $tls in
		openssl) crypto=ossl libs='${libdir}/libssl.a ${libdir}/libcrypto.a -ldl -pthread' ;;
		wolfssl) crypto=wolfssl libs='${libdir}/libwolfssl.a -lm -pthread' ;;
		esac
		cat >"$1/lib/pkgconfig/anyquic-$tls.pc" <<PC
prefix=\${pcfiledir}/../..
libdir=\${prefix}/lib
includedir=\${prefix}/include

Name: anyquic-$tls
Description: ngtcp2 and nghttp3 with $tls, static
Version: $(<"$cache/ngtcp2_$tls-${key[ngtcp2_$tls]}/.version")
Cflags: -I\${includedir} -DNGTCP2_STATICLIB -DNGHTTP3_STATICLIB
Libs: \${libdir}/libngtcp2_crypto_$crypto.a \${libdir}/libngtcp2.a \${libdir}/libnghttp3.a $libs
PC
	done
}

for part in $parts; do part_key "$part"; done
layout=$(declare -f assemble link_files | sha256sum)
layout=${layout:0:24}
if [ -n "$keys" ]; then
	for part in $parts; do printf '%s %s\n' "$part" "${key[$part]}"; done
	exit 0
fi

if [ -n "$force" ] || ! stamped; then
	lock
fi
if [ -n "$force" ] || ! stamped; then
	tmp=$(mktemp -d "$cache/.tmp.XXXXXX")
	trap 'rm -rf "$tmp" "${aptdir:-}" "$out"/.new.* "$out"/.old.*' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	if [ -n "${THIRD_PARTY_DIR:-}" ]; then
		THIRD_PARTY_DIR=$(cd "$THIRD_PARTY_DIR" 2>/dev/null && pwd) || die "THIRD_PARTY_DIR is no folder that can be read"
	fi
	start=$SECONDS missing=
	for part in $parts; do
		if [ ! -d "$cache/$part-${key[$part]}" ] || [ -n "$force" ]; then missing+=" $part"; fi
	done
	if [ -n "$missing" ]; then
		compiler_before=$compiler
		need_tools "$missing"
		compiler=$({ $CC -dumpmachine && $CC -dumpfullversion; } 2>/dev/null) || compiler=none
		if [ "$compiler" != "$compiler_before" ]; then # it was just installed
			key=()
			for part in $parts; do part_key "$part"; done
		fi
	fi
	for part in $parts; do build "$part"; done
	assemble
	if [ -n "$missing" ]; then
		say "built$missing in $((SECONDS - start)) s; kept in $cache"
	else
		say "copied from $cache"
	fi
	rm -rf "$tmp"
fi
exec 8>&- 9>&-
warn_versions

if [ -n "$check" ]; then
	# shellcheck source=build/deps-check.sh
	. "$here/deps-check.sh"
	for tls in ${what/all/openssl wolfssl}; do check_link "$tls"; done
fi
