#!/usr/bin/env bash
# Prints a folder with foreign QUIC programs.
#
#   peers.sh         for make test: aioquic-python, a Python that has aioquic, and
#                    Debian's gtlsserver and gtlsclient, which are ngtcp2's, and
#                    the web-... programs of peers-web.sh, and mqttjs-node, a
#                    Node.js that has mqtt.js
#   peers.sh bench   for make bench: osslserver and osslclient, ngtcp2's own examples
#                    on the very libraries in build/out
#
# They are kept in a cache outside the tree; nothing is installed on the machine
# but, as root on Debian, Python and Node.js. Packages come by pip, npm and apt as those are
# configured, which verify them; they are unpacked, not installed. What is done goes
# to standard error. What cannot be had is named, with the reason, and the status is
# 1; the folder is printed if anything is in it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/anyquic
aioquic=1.3.0
ngtcp2=1.11.0 # Debian's

say() { printf '%s\n' "$*" >&2; }
die() { say "$@"; exit 1; }
# shellcheck source=build/again.sh
. "$here/again.sh"
# shellcheck source=build/deps-fetch.sh
. "$here/deps-fetch.sh"
# shellcheck source=build/peers-web.sh
. "$here/peers-web.sh"

tmp=$(mktemp -d)
trap 'rm -rf "$tmp" ${aptdir:+"$aptdir"}' EXIT
chmod 755 "$tmp" # apt fetches as a user of its own

# One run at a time changes the cache. Where there is no flock there is little to unpack.
mkdir -p "$cache"
if command -v flock >/dev/null; then
	exec 9>"$cache/peers.lock"
	if ! flock -n 9; then
		say "waiting for another run that has the cache of foreign programs"
		flock 9
	fi
fi

# quietly COMMAND... shows the end of what it prints if it fails.
quietly() { "$@" >"$tmp/log" 2>&1 || { tail -n 5 "$tmp/log" >&2; return 1; }; }

on_debian() { command -v apt-get >/dev/null && grep -qx 'ID=debian' /etc/os-release; }

# mirror prints the address of Debian's archive, as apt is configured.
mirror() { mirrors | awk '$1 == "main" { sub(/\/$/, "", $2); print $2 }'; }

# apt_of SUITE... makes the array apt an apt-get that knows these suites only.
apt_of() {
	local uri suite
	uri=$(mirror)
	[ -n "$uri" ] || { say "apt knows no Debian mirror"; return 1; }
	mkdir -p "$tmp/lists/partial" "$tmp/cache/archives/partial" "$tmp/deb"
	chmod 777 "$tmp/lists/partial" "$tmp/cache/archives/partial" "$tmp/deb"
	for suite; do printf 'deb %s %s main\n' "$uri" "$suite"; done >"$tmp/sources.list"
	apt=(apt-get -o "Dir::Etc::SourceList=$tmp/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$tmp/lists"
		-o "Dir::Cache=$tmp/cache" -o Acquire::Languages=none -o Acquire::Retries=3)
	again quietly "${apt[@]}" -o APT::Update::Error-Mode=any update || { say "the Debian mirror $uri cannot be read"; return 1; }
}

# publish NAME moves the finished $tmp/NAME into the cache, all of it or nothing: the cache
# may be on another file system.
publish() {
	rm -rf "${cache:?}/$1" "$cache/$1.new"
	mv "$tmp/$1" "$cache/$1.new"
	mv "$cache/$1.new" "$cache/$1"
}

# provide NAME moves the script $tmp/program into the folder that is printed. The tests of
# another run may be starting the one that is there.
provide() {
	chmod 755 "$tmp/program"
	if cmp -s "$tmp/program" "$cache/peers/$1"; then return; fi
	mkdir -p "$cache/peers"
	mv "$tmp/program" "$cache/peers/.$1.new"
	mv "$cache/peers/.$1.new" "$cache/peers/$1"
}

# It comes with other packages, which an installation that was ended may lack.
has_aioquic() { [ "$("$1" -c 'import aioquic, aioquic.asyncio, aioquic.h3.connection; print(aioquic.__version__)' 2>/dev/null)" = "$aioquic" ]; }

get_aioquic() {
	local dir=$cache/aioquic-$aioquic
	if ! has_aioquic "$dir/bin/python"; then
		if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
			if ! on_debian || [ "$(id -u)" != 0 ]; then
				say "left out: aioquic needs Python with venv and pip: apt-get install python3-venv"
				return 1
			fi
			say "installing python3-venv, for aioquic"
			again quietly apt-get "${apt_root[@]}" update &&
				again quietly env DEBIAN_FRONTEND=noninteractive apt-get "${apt_root[@]}" install -y --no-install-recommends python3-venv || return 1
		fi
		say "installing aioquic $aioquic into $dir"
		rm -rf "$dir" # a virtual environment cannot be moved
		if ! quietly python3 -m venv "$dir" || ! again quietly "$dir/bin/python" -m pip install --only-binary :all: "aioquic==$aioquic" ||
			! has_aioquic "$dir/bin/python"; then
			rm -rf "$dir"
			say "left out: aioquic $aioquic could not be installed with pip"
			return 1
		fi
	fi
	printf '#!/bin/sh\nexec "%s/bin/python" "$@"\n' "$dir" >"$tmp/program"
	provide aioquic-python
}

# get_mqttjs installs what tests/interop/testdata/mqttjs/package-lock.json has, which
# npm verifies.
get_mqttjs() {
	local lock=$here/../tests/interop/testdata/mqttjs name
	name=mqttjs-$(cat "$lock"/package*.json | sha256sum | cut -c 1-16)
	if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
		if ! on_debian || [ "$(id -u)" != 0 ]; then
			say "left out: mqtt.js needs Node.js 18 or newer with npm: apt-get install nodejs npm"
			return 1
		fi
		say "installing nodejs and npm, for mqtt.js"
		again quietly apt-get "${apt_root[@]}" update &&
			again quietly env DEBIAN_FRONTEND=noninteractive apt-get "${apt_root[@]}" install -y --no-install-recommends nodejs npm || return 1
	fi
	if [ ! -d "$cache/$name/node_modules/mqtt" ]; then
		say "installing mqtt.js into $cache/$name"
		mkdir "$tmp/$name"
		cp "$lock"/package.json "$lock"/package-lock.json "$tmp/$name/"
		if ! (cd "$tmp/$name" && again quietly npm ci --ignore-scripts --no-audit --no-fund); then
			say "left out: mqtt.js could not be installed with npm"
			return 1
		fi
		publish "$name"
	fi
	printf '#!/bin/sh\nNODE_PATH="%s" exec node "$@"\n' "$cache/$name/node_modules" >"$tmp/program"
	provide mqttjs-node
}

# runs PROGRAM reports whether a program of ngtcp2's starts here.
runs() { "$1" --help >/dev/null 2>&1; }

get_gtls() {
	local peers=$cache/peers files=ngtcp2-$ngtcp2 suite codename libs program
	runs "$peers/gtlsserver" && runs "$peers/gtlsclient" && return
	if ! on_debian; then
		say "left out: Debian's ngtcp2-server and ngtcp2-client can be had on Debian only"
		return 1
	fi
	codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
	suite=$codename
	[ "$codename" != bookworm ] || suite=bookworm-backports
	say "unpacking Debian's ngtcp2-server and ngtcp2-client $ngtcp2 of $suite into $cache/$files"
	apt_of "$codename" "$suite" || { say "left out: ngtcp2 $ngtcp2"; return 1; }
	if ! (
		cd "$tmp/deb"
		for package in ngtcp2-server ngtcp2-client libngtcp2-16 libngtcp2-crypto-gnutls8 libnghttp3-9; do
			again quietly "${apt[@]}" -t "$suite" download "$package" || exit 1
		done
		libev() { quietly "${apt[@]}" download libev4 || quietly "${apt[@]}" download libev4t64; }
		again libev
	); then
		say "left out: the packages of ngtcp2 $ngtcp2 are not on the mirror"
		return 1
	fi
	mkdir -p "$tmp/$files"
	for deb in "$tmp"/deb/*.deb; do dpkg -x "$deb" "$tmp/$files"; done
	libs=$(dirname "$(find "$tmp/$files" -name 'libngtcp2.so.16' -print -quit)")
	libs=${libs#"$tmp"/}
	publish "$files"
	for program in usr/sbin/gtlsserver usr/bin/gtlsclient; do
		printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s" "$@"\n' "$cache/$libs" "$cache/$files/$program" >"$tmp/program"
		provide "${program##*/}"
		if ! runs "$peers/${program##*/}"; then
			say "left out: ${program##*/} does not run here: $("$peers/${program##*/}" --help 2>&1 | head -n 1)"
			rm "$peers/${program##*/}"
			return 1
		fi
	done
}

# get_ossl builds ngtcp2's examples. They are C++23, for GCC 15 or newer: as root on
# Debian it is unpacked with the rest of a small sid, which is thrown away after.
get_ossl() {
	local source sum orig url version root program key
	field() { awk -v section="[$1]" -v key="$2" '/^\[/ { on = $0 == section } on && $1 == key { sub(/^[^ ]+ /, ""); print }' "$here/../third_party/manifest"; }
	version=$(field ngtcp2 version) sum=$(field ngtcp2 sha256) url=$(field ngtcp2 url)
	read -r source _ orig <<<"$(field ngtcp2 debian)"

	"$here/deps.sh" openssl || return 1
	key=$({
		printf '%s\n' "$sum"
		examples
		cat "$here/assertions.c" "$here/out/lib/"{libngtcp2,libngtcp2_crypto_ossl,libnghttp3,libssl,libcrypto}.a
	} | sha256sum)
	ossl=$cache/ngtcp2-examples-${key:0:24}
	runs "$ossl/osslserver" && runs "$ossl/osslclient" && return
	if ! on_debian || [ "$(id -u)" != 0 ]; then
		say "ngtcp2's examples need GCC 15: this builds them as root on Debian only"
		return 1
	fi
	only_local='' cache=$cache/deps
	obtain "$orig" "$sum" "$source" "$url" || { say "$orig could not be had${tried}"; return 1; }
	cache=${cache%/deps}

	say "unpacking a small Debian sid with its GCC into a temporary folder: half a minute, 700 MB"
	apt_of "$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)" || return 1
	(cd "$tmp/deb" && again quietly "${apt[@]}" download debootstrap) || return 1
	dpkg -x "$tmp"/deb/debootstrap_*.deb "$tmp/debootstrap"
	root=$tmp/sid
	quietly env DEBOOTSTRAP_DIR="$tmp/debootstrap/usr/share/debootstrap" "$tmp/debootstrap/usr/sbin/debootstrap" \
		--variant=minbase --include=g++,libev-dev sid "$root" "$(mirror)" || return 1

	say "building ngtcp2 $version's examples: some two minutes"
	mkdir -p "$root/build"
	tar -xf "$got" -C "$root/build" --strip-components 1
	cp -RL "$here/out" "$root/build/out"
	cp "$here/assertions.c" "$root/build/"
	examples >"$root/build/examples.sh"
	quietly env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" sh -e /build/examples.sh || return 1
	mkdir -p "$ossl"
	mv "$root/build/osslserver" "$root/build/osslclient" "$ossl/"
	for program in osslserver osslclient; do
		runs "$ossl/$program" || { say "$program does not run here"; return 1; }
	done
}

# examples prints how they are compiled and linked, statically, so that they run
# outside of the sid that they were built in. The definitions are what ngtcp2's
# configure finds there.
examples() {
	cat <<'SCRIPT'
cd /build/examples
both="debug util shared tls_session_base_ossl util_openssl"
client="client client_base http3_client_proto_codec tls_client_context_ossl tls_client_session_ossl"
server="server server_base http3_server_proto_codec http siphash tls_server_context_ossl tls_server_session_ossl"
has="ARPA_INET_H NETINET_IN_H NETINET_IP_H NETINET_UDP_H UNISTD_H ENDIAN_H BYTESWAP_H ASM_TYPES_H LINUX_NETLINK_H LINUX_RTNETLINK_H EXPLICIT_BZERO"
flags="-std=c++23 -O2 -w -DNDEBUG -DWITH_EXAMPLE_OSSL -DWITH_EXAMPLE_HTTP3_PROTO_CODEC -DHAVE_DECL_BE64TOH=1 -DHAVE_DECL_BSWAP_64=1"
for h in $has; do flags="$flags -DHAVE_$h"; done
flags="$flags -I../out/include -I.. -I../third-party -I../third-party/urlparse -I../crypto/includes"
printf '%s\n' $both $client $server | xargs -P "$(nproc)" -I '{}' g++ $flags -c '{}.cc' -o '{}.o'
gcc -O2 -I../third-party/http-parser -c ../third-party/urlparse/urlparse.c -o urlparse.o
gcc -O2 -c ../assertions.c -o assertions.o
link() {
	out=$1
	shift
	objects=
	for o in "$@" $both urlparse assertions; do objects="$objects $o.o"; done
	g++ -static -o "../$out" $objects -L../out/lib -lngtcp2_crypto_ossl -lngtcp2 -lnghttp3 -lssl -lcrypto -lev -ldl -pthread -lm
}
link osslclient $client
link osslserver $server
SCRIPT
}

case ${1:-test} in
test)
	status=0
	get_aioquic || status=1
	get_gtls || status=1
	get_web || status=1
	get_mqttjs || status=1
	[ ! -d "$cache/peers" ] || printf '%s\n' "$cache/peers"
	exit $status
	;;
bench)
	get_ossl || exit 1
	printf '%s\n' "$ossl"
	;;
*)
	say "usage: build/peers.sh [test|bench]"
	exit 2
	;;
esac
