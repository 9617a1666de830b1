# Foreign peers of HTTP/3 from Debian's sid: curl and nginx with HTTP/3, Chromium and
# Firefox. Read by peers.sh.
#
# The packages are unpacked, with all that they depend on, into a small root of their
# own in the cache. The programs there are scripts that enter it, with namespaces of
# their own for processes and mounts: when the script is killed, whatever it started
# ends and nothing stays mounted. What a program is to read or write must be below
# /tmp or TMPDIR.
# shellcheck shell=bash disable=SC2154 # peers.sh sets them

# web_packages are the packages, web_recipe what is made of them: when one changes, it
# is made anew.
web_packages="curl nginx chromium-headless-shell firefox fonts-dejavu-core"
web_recipe=2

# web_program PROGRAM prints the script that runs a program of the root. With
# WEB_SIGNALS set it reads names of signals for the program from standard input, or
# WAIT, and kills it when that ends.
web_program() {
	cat <<SCRIPT
#!/bin/sh
[ "\$(id -u)" = 0 ] || user="--user --map-root-user"
root='$web'
for folder in /tmp "\${TMPDIR:-/tmp}"; do mkdir -p "\$root\$folder"; done
exec unshare \$user --mount --pid --fork --kill-child=KILL sh -c '
	root=\$1
	shift
	mount -t proc proc "\$root/proc" && mount --rbind /dev "\$root/dev" || exit 125
	for folder in /tmp "\${TMPDIR:-/tmp}"; do mount --rbind "\$folder" "\$root\$folder" || exit 125; done
	set -- env -i PATH=/usr/sbin:/usr/bin "HOME=\${WEB_HOME:-/tmp}" MOZ_HEADLESS=1 chroot "\$root" "\$@"
	[ -n "\$WEB_SIGNALS" ] || exec "\$@"
	"\$@" </dev/null &
	while read -r signal; do
		[ "\$signal" != WAIT ] || { wait \$!; exit; }
		kill -s "\$signal" \$!
	done
' sh "\$root" '$1' "\$@"
SCRIPT
}

# web_versions prints what the root has.
web_versions() { awk '$1 == "curl" || $1 == "nginx" || $1 == "chromium-headless-shell" || $1 == "firefox" { printf "%s%s %s", sep, $1, $2; sep = ", " }' "$web/packages"; }

get_web() {
	local name=web-$web_recipe key path deb size begin=$SECONDS
	key=$(printf '%s\n' "$web_packages" | sha256sum)
	name+=-${key:0:12}
	web=$cache/$name
	if [ ! -e "$web/packages" ]; then
		if ! on_debian; then
			say "left out: curl, nginx and browsers of Debian's sid can be had on Debian only"
			return 1
		fi
		say "unpacking $web_packages of Debian's sid into $web: 310 MB to fetch"
		apt_of sid || { say "left out: curl, nginx and browsers"; return 1; }
		: >"$tmp/status" # nothing is installed in the root
		# shellcheck disable=SC2086 # package names are words
		if ! again quietly "${apt[@]}" -o "Dir::State::status=$tmp/status" install --download-only -y --no-install-recommends $web_packages; then
			say "left out: curl, nginx and browsers: the packages could not be had from the Debian mirror $(mirror)"
			return 1
		fi
		size=$(du -sm "$tmp/cache/archives" | cut -f 1)
		mkdir -p "$tmp/$name"/{usr/{bin,sbin,lib,lib64},proc,dev,tmp,etc,run,var/log/nginx,var/lib/nginx}
		for path in bin sbin lib lib64; do ln -s "usr/$path" "$tmp/$name/$path"; done
		if ! printf '%s\0' "$tmp"/cache/archives/*.deb | quietly xargs -0 -P "$(nproc)" -I '{}' dpkg-deb -x '{}' "$tmp/$name"; then
			say "left out: curl, nginx and browsers: the packages cannot be unpacked"
			return 1
		fi
		for deb in "$tmp"/cache/archives/*.deb; do
			# shellcheck disable=SC2016 # dpkg-deb expands the format, not the shell
			dpkg-deb -W --showformat '${Package} ${Version}\n' "$deb"
			rm "$deb"
		done >"$tmp/packages"
		printf 'root:x:0:0:root:/root:/bin/sh\n' >"$tmp/$name/etc/passwd"
		printf 'root:x:0:\n' >"$tmp/$name/etc/group"
		printf '127.0.0.1 localhost\n' >"$tmp/$name/etc/hosts"
		mv "$tmp/packages" "$tmp/$name/"
		publish "$name"
		say "$(web_versions): $size MB fetched, in $((SECONDS - begin))s"
	fi
	while read -r name path version; do
		web_program "$path" >"$tmp/program"
		provide "$name"
		if ! path=$("$cache/peers/$name" "$version" 2>&1 9>&-); then
			say "left out: $name does not run here: $(printf '%s\n' "$path" | head -n 1)"
			rm "$cache/peers/$name"
			return 1
		fi
	done <<'PROGRAMS'
web-curl /usr/bin/curl --version
web-nginx /usr/sbin/nginx -v
web-chromium /usr/lib/chromium/chromium-headless-shell --version
web-firefox /usr/lib/firefox/firefox --version
PROGRAMS
}
