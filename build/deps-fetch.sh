# Where the sources come from, and the tools that building them needs. Read by
# deps.sh.
#
# The places, in this order: THIRD_PARTY_DIR, the sources that an earlier run kept,
# the Debian mirror that apt is configured for, the upstream release; each time
# the pinned version by the manifest's SHA-256. Only when none has it, the mirror's
# newest of the same series, by the checksum that the archive has signed.
# shellcheck shell=bash disable=SC2154 # deps.sh sets them

sum() { local s; s=$(sha256sum <"$1") && printf '%s' "${s%% *}"; }

# verify FILE SHA256 PLACE ends the program when they differ.
verify() {
	local got
	got=$(sum "$1")
	[ "$got" = "$2" ] || die "checksum of ${1##*/} from $3 differs: SHA-256 $got, and the manifest says $2; nothing of it is used"
}

# prepare_apt makes a folder that apt's own user may write to.
prepare_apt() {
	[ -z "${aptdir:-}" ] || return 0
	aptdir=$(mktemp -d)
	chmod 755 "$aptdir"
	mkdir "$aptdir/files"
	if [ "$(id -u)" = 0 ] && id _apt >/dev/null 2>&1; then chown _apt "$aptdir/files"; fi
}

# mirrors prints "main ADDRESS" and "security ADDRESS" from apt's configuration.
# Before the first apt-get update apt names no archive's origin, only addresses;
# on Debian those are Debian's.
mirrors() {
	command -v apt-get >/dev/null || return 0
	{
		# shellcheck disable=SC2016 # apt expands the format, not the shell
		apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(ORIGIN)' 'Created-By: Packages' |
			awk '$3 == "Debian" { print $1, $2 }'
		if grep -qx 'ID=debian' /etc/os-release; then
			apt-get update --print-uris | sed -n "s|^'\(.*/\)dists/\([^/]*\)/InRelease'.*|\1 \2|p"
		fi
	} 2>/dev/null | awk '
		$2 ~ /-security$/ { if (!s++) print "security", $1; next }
		$2 !~ /-/ { if (!m++) print "main", $1 }'
}

# apt_get URI FILE [SHA256] is a download as apt does them, proxy and all.
apt_get() {
	prepare_apt
	local got=$aptdir/files/${2##*/}
	rm -f "$got"
	if ! /usr/lib/apt/apt-helper -o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 \
		download-file "$1" "$got" ${3:+"SHA256:$3"} >"$tmp/apt.log" 2>&1 9>&-; then
		why=$(grep -E '^E: |^W: ' "$tmp/apt.log" | head -n 1) || true
		why=${why#?: }
		return 1
	fi
	cp "$got" "$2" && rm -f "$got"
}

# from_mirror SOURCE FILE DEST tries the pool of each archive.
from_mirror() {
	local kind uri pool list
	list=$(mirrors)
	if [ -z "$list" ]; then
		why="apt knows no Debian mirror"
		return 1
	fi
	while read -r kind uri; do
		case $kind in
		main) pool=pool/main ;;
		security) pool=pool/updates/main ;;
		esac
		if apt_get "${uri%/}/$pool/${1:0:1}/$1/$2" "$3"; then return 0; fi
	done <<<"$list"
	return 1
}

# from_upstream URL DEST
from_upstream() {
	if command -v curl >/dev/null; then
		curl -fsSL --connect-timeout 15 --retry 1 -o "$2" "$1" 2>"$tmp/curl.log" 9>&- || { why=$(tail -n 1 "$tmp/curl.log"); return 1; }
	elif command -v wget >/dev/null; then
		wget -q --timeout=15 --tries=2 -O "$2" "$1" 2>"$tmp/curl.log" 9>&- || { why="wget: ${1##*/} could not be had"; return 1; }
	else
		why="neither curl nor wget is installed"
		return 1
	fi
}

# download FILE SOURCE URL DEST asks both for a file: place is who had it. Returns 1, with
# the reasons in tried.
download() {
	tried='' why=''
	if from_mirror "$2" "$1" "$4"; then
		place="the Debian mirror"
		return
	fi
	tried="; mirror: $why"
	[ -n "$3" ] || return 1
	why=
	if ! from_upstream "$3" "$4"; then
		tried+="; upstream: $why"
		return 1
	fi
	place=$3
}

# obtain FILE SHA256 SOURCE [URL] finds one pinned file: got is its path.
# Returns 1, with the reasons in tried, when no place has it.
obtain() {
	local file=$1 want=$2 name kept=$cache/sources/$2-$1 place part=$tmp/download/$1
	tried=
	for name in "$file" ${4:+"${4##*/}"}; do
		if [ -n "${THIRD_PARTY_DIR:-}" ] && [ -r "$THIRD_PARTY_DIR/$name" ]; then
			verify "$THIRD_PARTY_DIR/$name" "$want" THIRD_PARTY_DIR
			got=$THIRD_PARTY_DIR/$name
			say "$file: from THIRD_PARTY_DIR, checksum right"
			return
		fi
	done
	if [ -n "$only_local" ]; then return 1; fi
	if [ -r "$kept" ] && [ "$(sum "$kept")" = "$want" ]; then
		got=$kept
		return
	fi
	mkdir -p "$tmp/download" "$cache/sources"
	again download "$file" "$3" "${4:-}" "$part" || return 1
	verify "$part" "$want" "$place"
	say "$file: from $place, checksum right"
	mv "$part" "$kept"
	got=$kept
}

# read_archive has archive's lists come.
read_archive() { apt-get "${archive_options[@]}" -o APT::Update::Error-Mode=any update >"$tmp/apt.log" 2>&1 9>&-; }

# archive reads the signed lists of sid and trixie, once a run.
archive() {
	[ -n "${archive_options:-}" ] && return
	local list kind uri
	list=$(mirrors)
	[ -n "$list" ] || return 1
	prepare_apt
	mkdir -p "$aptdir/lists/partial" "$aptdir/cache/archives/partial"
	while read -r kind uri; do
		case $kind in
		main) printf 'deb-src %s sid main\ndeb-src %s trixie main\n' "$uri" "$uri" ;;
		security) printf 'deb-src %s trixie-security main\n' "$uri" ;;
		esac
	done <<<"$list" >"$aptdir/sources.list"
	archive_options=(-o "Dir::Etc::SourceList=$aptdir/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$aptdir/lists"
		-o "Dir::Cache=$aptdir/cache" -o Acquire::Languages=none)
	say "reading the archive's signed lists of sid and trixie"
	if ! again read_archive; then
		why=$(grep -E '^E: |^W: ' "$tmp/apt.log" | head -n 1) || true
		archive_options=()
		return 1
	fi
}

# from_archive SOURCE UPSTREAM-PATTERN FILE-PATTERN [NOT-BELOW] takes the file of the
# newest source version that matches and can be had: got, got_version (Debian's).
from_archive() {
	local candidate uri file check
	archive || return 1
	mkdir -p "$tmp/download"
	while read -r candidate; do
		# shellcheck disable=SC2053 # a pattern is meant
		[[ ${candidate%-*} == $2 ]] || continue
		if [ -n "${4:-}" ] && ! dpkg --compare-versions "${candidate%-*}" gt "$4"; then continue; fi
		while read -r uri file _ check; do
			# shellcheck disable=SC2053
			[[ $file == $3 && $check == SHA256:* ]] || continue
			uri=${uri#\'}
			if apt_get "${uri%\'}" "$tmp/download/$file" "${check#SHA256:}"; then
				got=$tmp/download/$file got_version=$candidate
				return 0
			fi
		done < <(apt-get "${archive_options[@]}" --print-uris --download-only source "$1=$candidate" 2>/dev/null)
	done < <(apt-cache "${archive_options[@]}" showsrc "$1" 2>/dev/null | sed -n 's/^Version: //p' | sort -uVr)
	return 1
}

# fetch SECTION DIR unpacks its source into DIR; version is what was taken.
fetch() {
	local source suite orig url want series arch deb deb_sum reasons tried="" only_local="" got="" got_version=""
	read -r source suite orig <<<"$(field "$1" debian)"
	url=$(field "$1" url) want=$(field "$1" sha256) series=$(field "$1" series)
	version=$(field "$1" version)
	arch=$(dpkg --print-architecture 2>/dev/null) || arch=$(uname -m | sed -e s/x86_64/amd64/ -e s/aarch64/arm64/)
	deb=$(field "$1" deb | awk -v arch="$arch" '$1 == arch { print $2, $3 }')
	deb_sum=${deb#* } deb=${deb% *}

	# A folder that has only the binary package is asked before the network.
	if [ -n "$deb" ] && [ -n "${THIRD_PARTY_DIR:-}" ]; then
		only_local=1
		obtain "$orig" "$want" "$source" "$url" || obtain "$deb" "$deb_sum" "$source" || true
		only_local=
	fi
	if [ -z "$got" ] && ! obtain "$orig" "$want" "$source" "$url"; then
		reasons=${tried#; }
		if [ -n "$deb" ] && obtain "$deb" "$deb_sum" "$source"; then
			say "$1: the source could not be had ($reasons); taking the library of Debian's package"
		elif from_archive "$source" "$series.*" "*.orig.tar.*" "$version"; then
			say "warning: $1 $version has left the mirror; $1 ${got_version%-*} ($suite's series $series, checksum signed by the archive) stands in for it"
			version=${got_version%-*}
		else
			die "$1 $version could not be had ($reasons). Connect this machine to a network, or put $orig into a folder and set THIRD_PARTY_DIR to it"
		fi
	fi
	case $got in
	*.deb)
		if command -v dpkg-deb >/dev/null; then
			dpkg-deb -x "$got" "$2"
		else
			(cd "$2" && ar p "$got" data.tar.xz | tar xJ)
		fi
		;;
	*) tar -x -f "$got" -C "$2" --strip-components=1 --no-same-owner 9>&- ;;
	esac
	fetch_patches "$1" "$source"
}

# fetch_patches SECTION SOURCE unpacks Debian's patches for version into $tmp/patches.
fetch_patches() {
	local file want
	rm -rf "$tmp/patches"
	patches_file=
	read -r file want <<<"$(field "$1" patches)"
	[ -n "$file" ] || return 0
	if [ "$version" = "$(field "$1" version)" ] && obtain "$file" "$want" "$2"; then
		patches_file=$file
	elif from_archive "$2" "$version" "*.debian.tar.*"; then
		patches_file=${got##*/}
		say "warning: $file has left the mirror; $patches_file (checksum signed by the archive) stands in for it"
	else
		die "$1: the security patches $file could not be had (${tried#; }). Connect this machine to a network with a Debian mirror, or put the file into a folder and set THIRD_PARTY_DIR to it"
	fi
	mkdir -p "$tmp/patches"
	tar -x -f "$got" -C "$tmp/patches" --strip-components=2 --no-same-owner debian/patches 9>&-
}

# need_tools PARTS installs, or asks for, what building them needs.
need_tools() {
	local tool tools="$CC:gcc make:make tar:tar xz:xz-utils pkg-config:pkg-config" absent="" packages=""
	case $1 in *openssl*) tools+=" perl:perl patch:patch" ;; esac
	case $1 in *ngtcp2* | *nghttp3*) tools+=" cmake:cmake" ;; esac
	case $1 in *" wolfssl"*) tools+=" autoconf:autoconf automake:automake libtoolize:libtool" ;; esac
	for tool in $tools; do
		if ! command -v "${tool%%:*}" >/dev/null; then
			absent+=" ${tool%%:*}" packages+=" ${tool##*:}"
		fi
	done
	if [[ $packages != *" gcc"* ]] && ! printf '#include <stdio.h>\nint main(void){return 0;}\n' | $CC -x c -o "$tmp/probe" - >/dev/null 2>&1; then
		absent+=" the C library's headers" packages+=" libc6-dev"
	fi
	[ -n "$packages" ] || return 0
	packages=${packages/ gcc/ gcc libc6-dev}
	if ! command -v apt-get >/dev/null; then
		die "to build the native engine this machine lacks:$absent; install them with its package manager (Debian's names:$packages)"
	elif [ "$(id -u)" != 0 ]; then
		die "to build the native engine this machine lacks:$absent; install them with: sudo apt-get install$packages"
	fi
	say "installing$packages from the distribution, to build with"
	again run "apt-get update" apt-get "${apt_root[@]}" update || true
	# shellcheck disable=SC2086 # a list of words
	again run "apt-get install" env DEBIAN_FRONTEND=noninteractive apt-get "${apt_root[@]}" install -y --no-install-recommends $packages ||
		die "this machine lacks:$absent; the command that installs them failed: apt-get install$packages"
}
