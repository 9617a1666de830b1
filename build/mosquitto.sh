#!/usr/bin/env bash
# Prints a folder with mosquitto_pub, mosquitto_sub and mosquitto_rr that speak WebSocket
# (mosquitto 2.1 or newer), for the tests with foreign clients.
#
# An installed one that is new enough is taken as it is. Otherwise, on Debian and
# as root, the clients are unpacked, not installed, from Debian's sid into a
# cache outside the tree, and what they need of the distribution is installed. The
# mirror is the one that apt is configured for, and apt verifies the archive's
# signature. What is done goes to standard error; on failure, why, and status 1.
set -euo pipefail

say() { printf '%s\n' "$*" >&2; }
# shellcheck source=build/again.sh
. "$(dirname "${BASH_SOURCE[0]}")/again.sh"
speaks_ws() { [[ $("$1/mosquitto_pub" --help 2>/dev/null) == *--ws* ]] && [ -x "$1/mosquitto_rr" ]; }

if installed=$(command -v mosquitto_pub) && speaks_ws "$(dirname "$installed")"; then
	dirname "$installed"
	exit 0
fi

cache=${XDG_CACHE_HOME:-$HOME/.cache}/anyquic/mosquitto
if speaks_ws "$cache/bin"; then
	printf '%s\n' "$cache/bin"
	exit 0
fi

if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
	say "mosquitto_pub 2.1 or newer, with --ws, is not installed, and this is not root on Debian: install mosquitto-clients 2.1"
	exit 1
fi

mkdir -p "$(dirname "$cache")"
exec 9>"$cache.lock"
if ! flock -n 9; then
	say "waiting for another run that unpacks mosquitto-clients"
	flock 9
fi
if speaks_ws "$cache/bin"; then
	printf '%s\n' "$cache/bin"
	exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work" # apt fetches as a user of its own
quietly() { "$@" >"$work/log" 2>&1 || { tail -n 5 "$work/log" >&2; return 1; }; }

say "installing mosquitto-clients from the distribution, for the libraries it needs"
again quietly apt-get "${apt_root[@]}" update
again quietly env DEBIAN_FRONTEND=noninteractive apt-get "${apt_root[@]}" install -y --no-install-recommends mosquitto-clients

# shellcheck disable=SC2016 # apt expands the format, not the shell
mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(CODENAME)' 'Created-By: Packages' |
	awk '$1 == "Debian" && $3 !~ /-/ { print $2; exit }')
if [ -z "$mirror" ]; then
	say "apt knows no Debian mirror"
	exit 1
fi
say "unpacking mosquitto-clients of sid into $cache"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/files" "$work/deb"
chmod 777 "$work/deb" "$work/lists/partial" "$work/cache/archives/partial"
printf 'deb %s sid main\n' "$mirror" >"$work/sources.list"
sid=(apt-get -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o Acquire::Retries=3)
again quietly "${sid[@]}" -o APT::Update::Error-Mode=any update
(cd "$work/deb" && again quietly "${sid[@]}" download mosquitto-clients libmosquitto1 libcjson1 libpicohttpparser1)
for deb in "$work"/deb/*.deb; do dpkg -x "$deb" "$work/files"; done
libs=$(dirname "$(find "$work/files" -name 'libmosquitto.so.1' -print -quit)")
/sbin/ldconfig -n "$libs"

mkdir -p "$work/bin"
for program in mosquitto_pub mosquitto_sub mosquitto_rr; do
	printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s" "$@"\n' "$cache/files${libs#"$work/files"}" "$cache/files/usr/bin/$program" >"$work/bin/$program"
	chmod 755 "$work/bin/$program"
done
# All of it or nothing: the cache may be on another file system.
rm -rf "$cache" "$cache".new
mkdir "$cache".new
mv "$work/files" "$work/bin" "$cache".new/
mv "$cache".new "$cache"
if ! speaks_ws "$cache/bin"; then
	say "mosquitto_pub of sid does not run here: $("$cache/bin/mosquitto_pub" --help 2>&1 | head -n 1)"
	rm -rf "$cache"
	exit 1
fi
printf '%s\n' "$cache/bin"
