# How each library is built. Read by deps.sh; recipe_PART runs in the unpacked
# source and installs into $1. The text of a recipe is part of its cache key.
# shellcheck shell=bash disable=SC2154 # deps.sh sets them

# flags are for every library: PIC for Go's linker; hidden symbols, because Go
# links programs with -rdynamic and a system library that the process loads later
# must not find our OpenSSL; and no path of this machine.
flags() { printf '%s' "-O2 -fPIC -fvisibility=hidden -ffile-prefix-map=$PWD=."; }

# install_pc FOLDER makes pkg-config files follow the folder when it is copied.
install_pc() {
	local pc
	for pc in "$1"/lib/pkgconfig/*.pc; do
		# shellcheck disable=SC2016 # pkg-config expands it, not the shell
		sed -i -e 's|^prefix=.*|prefix=${pcfiledir}/../..|' -e 's|^exec_prefix=.*|exec_prefix=${prefix}|' \
			-e 's|^libdir=.*|libdir=${prefix}/lib|' -e 's|^includedir=.*|includedir=${prefix}/include|' "$pc"
	done
}

# apply_patches SECTION applies the manifest's patches, without fuzz. Of a newer
# upstream version they may be part already, and then they do not apply.
apply_patches() {
	local name cve
	while read -r name cve; do
		if ! [ -r "$tmp/patches/$name" ]; then
			[ "$version" != "$(field "$1" version)" ] || die "$1: patch $name ($cve) is not in $patches_file"
			say "warning: $1 $version: no patch $name ($cve) comes with it"
		elif patch --dry-run -R -p1 -s -f <"$tmp/patches/$name" >/dev/null 2>&1; then
			say "$1 $version has $cve already"
		else
			run "patch $name" patch -p1 -f -F0 -i "$tmp/patches/$name"
		fi
	done < <(field "$1" patch)
}

# notices FOLDER... prints the licence of the source, those of parts of it in the
# folders, and the comments there in which others than the projects' contributors
# have their copyright.
notices() {
	find COPYING "$@" -type f \( -name 'COPYING*' -o -name 'LICENSE*' -o -name 'NOTICE*' \) -print0 | LC_ALL=C sort -z | xargs -0 cat
	# shellcheck disable=SC2016 # awk expands it, not the shell
	find "$@" -type f -name '*.[ch]' -print0 | LC_ALL=C sort -z | xargs -0 awk '
		/\/\*/ { text = ""; inside = 1 }
		inside { text = text $0 "\n" }
		inside && /Copyright/ && !/ng(tcp2|http2|http3) contributors/ { others = 1 }
		/\*\// { if (others) printf "\n%s:\n%s", FILENAME, text; inside = others = 0 }'
}

# Left in on purpose: http (OCSP) and ct, for stapled OCSP responses and SCTs.
# Left out: OpenSSL's own QUIC (its TLS interface for other QUICs stays), every
# version below TLS 1.3, and reading the system's openssl.cnf. The prefix goes
# into libcrypto as text, so it is no folder of this machine.
recipe_openssl() {
	apply_patches openssl
	SOURCE_DATE_EPOCH=0 run "configure openssl" ./Configure --prefix=/usr --libdir=lib --openssldir=/etc/ssl \
		no-shared no-tests no-docs no-apps no-module no-dso no-engine no-legacy no-autoload-config \
		no-quic no-dtls no-tls1 no-tls1_1 no-tls1_2 no-comp no-srp no-srtp no-ssl-trace no-nextprotoneg \
		no-ts no-cms no-cmp no-rfc3779 no-async no-ui-console no-slh-dsa no-gost \
		no-aria no-bf no-blake2 no-camellia no-cast no-des no-dsa no-ec2m no-idea no-md4 no-mdc2 no-ocb \
		no-rc2 no-rc4 no-rmd160 no-scrypt no-seed no-siphash no-siv no-sm2 no-sm3 no-sm4 no-whirlpool no-dh \
		no-multiblock no-tls-deprecated-ec -fvisibility=hidden
	SOURCE_DATE_EPOCH=0 run "make openssl" make -j"$JOBS" build_libs
	run "install openssl" make DESTDIR="$tmp/dest" install_dev
	mv "$tmp/dest/usr/include" "$tmp/dest/usr/lib" "$1/"
	rm -rf "$tmp/dest"
	install_pc "$1"
	cp LICENSE.txt "$1/licences/openssl"
}

# keylog-export is left out: it would write the secrets of every connection to
# sslkeylog.log. HAVE_SECRET_CALLBACK is the part of it that asks. The others are
# for a verification that is Go's, for sessions that Go keeps, for keys that only
# Go has (WOLF_PRIVATE_KEY_ID), for the names in a CertificateRequest, which
# wolfSSL keeps for nginx and a few others only, and for tickets with room for
# a client's certificates.
#
# visibility.m4 is answered "no" so that the API is hidden as well: the header
# would mark it for export otherwise.
recipe_wolfssl() {
	local asm=()
	# shellcheck disable=SC2054 # the comma is for configure
	case $(uname -m) in
	x86_64) asm=(--enable-intelasm --enable-aesni --enable-sp=yes,asm) ;;
	*) asm=(--enable-sp=yes) ;;
	esac
	run "autogen wolfssl" ./autogen.sh
	run "configure wolfssl" env gl_cv_cc_visibility=no ./configure --prefix=/usr --libdir=/usr/lib \
		--disable-shared --enable-static --with-pic --disable-examples --disable-crypttests --disable-benchmark \
		--enable-quic --enable-aesecb --enable-session-ticket --enable-earlydata --enable-pkcallbacks --enable-certgen \
		"${asm[@]}" --enable-rpk --enable-alpn --enable-sni --enable-mlkem \
		--enable-curve25519 --enable-ed25519 --enable-harden --enable-altcertchains --disable-oldtls --disable-tlsv12 --disable-dtls \
		CFLAGS="$(flags) -DHAVE_SECRET_CALLBACK -DWOLFSSL_ALWAYS_VERIFY_CB -DHAVE_EXT_CACHE \
			-DWOLF_PRIVATE_KEY_ID -DWOLFSSL_NGINX -DWOLFSSL_TICKET_EXTRA_PADDING_SZ=4096"
	run "make wolfssl" make -j"$JOBS"
	run "install wolfssl" make DESTDIR="$tmp/dest" install
	mv "$tmp/dest/usr/include" "$tmp/dest/usr/lib" "$1/"
	rm -rf "$tmp/dest"
	install_pc "$1"
	cat LICENSING COPYING >"$1/licences/wolfssl"
}

# Assertions stay on, because what follows a false one is not defined; but they,
# and abort, must not end the process. They become functions that the program
# has to define: the engine's are in ngtcp2/internal/capi/guard.c. glibc's assert
# and musl's both call __assert_fail.
recipe_ngtcp2() {
	run "configure ngtcp2" cmake -S . -B b -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX="$1" -DCMAKE_INSTALL_LIBDIR=lib \
		-DCMAKE_C_FLAGS="$(flags)" -DCMAKE_C_FLAGS_RELEASE="-D__assert_fail=aq_assert_fail -Dabort=aq_abort" \
		-DCMAKE_POSITION_INDEPENDENT_CODE=ON \
		-DENABLE_LIB_ONLY=ON -DENABLE_SHARED_LIB=OFF -DENABLE_STATIC_LIB=ON -DBUILD_TESTING=OFF "${@:2}"
	run "make ngtcp2" make -C b -j"$JOBS" install
	local undefined
	undefined=$(nm -u "$1"/lib/*.a)
	[[ $undefined = *" aq_assert_fail"* ]] || die "ngtcp2: its assertions are not on, or this C library's assert calls another function"
	if grep -E ' (__assert.*|abort)$' <<<"$undefined" >&2; then die "ngtcp2 calls functions that end the process"; fi
	install_pc "$1"
	notices lib crypto >"$1/licences/ngtcp2"
}
recipe_ngtcp2_openssl() {
	local tls=$cache/openssl-${key[openssl]}
	recipe_ngtcp2 "$1" -DENABLE_OPENSSL=ON -DENABLE_WOLFSSL=OFF -DOPENSSL_ROOT_DIR="$tls" -DOPENSSL_USE_STATIC_LIBS=ON \
		-DOPENSSL_INCLUDE_DIR="$tls/include" -DOPENSSL_SSL_LIBRARY="$tls/lib/libssl.a" -DOPENSSL_CRYPTO_LIBRARY="$tls/lib/libcrypto.a" "${@:2}"
	[ -f "$1/lib/libngtcp2_crypto_ossl.a" ] || die "ngtcp2 did not accept OpenSSL: no libngtcp2_crypto_ossl.a"
}
# For tests only: AddressSanitizer sees into it.
recipe_ngtcp2_asan() {
	recipe_ngtcp2_openssl "$1" -DCMAKE_C_FLAGS="$(flags) -g -fno-omit-frame-pointer -fsanitize=address"
}
recipe_ngtcp2_wolfssl() {
	local tls=$cache/wolfssl-${key[wolfssl]}
	recipe_ngtcp2 "$1" -DENABLE_OPENSSL=OFF -DENABLE_WOLFSSL=ON -DWOLFSSL_INCLUDE_DIR="$tls/include" -DWOLFSSL_LIBRARY="$tls/lib/libwolfssl.a"
	[ -f "$1/lib/libngtcp2_crypto_wolfssl.a" ] || die "ngtcp2 did not accept wolfSSL: no libngtcp2_crypto_wolfssl.a"
}

# Where only Debian's binary package could be had, its library is taken as it is,
# but for assertions and abort: as with ngtcp2, they become functions that the program
# has to define. The package's are in nghttp3/guard.c.
recipe_nghttp3() {
	if [ -d usr ]; then
		mkdir -p "$1/lib/pkgconfig"
		cp -R usr/include "$1/"
		find usr/lib -name libnghttp3.a -exec cp {} "$1/lib/" \;
		find usr/lib -name libnghttp3.pc -exec cp {} "$1/lib/pkgconfig/" \;
		cp usr/share/doc/libnghttp3-dev/copyright "$1/licences/nghttp3"
	else
		run "configure nghttp3" cmake -S . -B b -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX="$1" -DCMAKE_INSTALL_LIBDIR=lib \
			-DCMAKE_C_FLAGS="$(flags)" -DCMAKE_C_FLAGS_RELEASE= -DCMAKE_POSITION_INDEPENDENT_CODE=ON \
			-DENABLE_LIB_ONLY=ON -DENABLE_SHARED_LIB=OFF -DENABLE_STATIC_LIB=ON -DBUILD_TESTING=OFF
		run "make nghttp3" make -C b -j"$JOBS" install
		cp COPYING "$1/licences/nghttp3"
	fi
	[ -f "$1/lib/libnghttp3.a" ] || die "nghttp3: no libnghttp3.a came out"
	run "objcopy nghttp3" objcopy --redefine-sym __assert_fail=aq_h3_assert_fail --redefine-sym abort=aq_h3_abort "$1/lib/libnghttp3.a"
	local undefined
	undefined=$(nm -u "$1/lib/libnghttp3.a")
	[[ $undefined = *" aq_h3_assert_fail"* ]] || die "nghttp3: its assertions are not on, or this C library's assert calls another function"
	if grep -E ' (__assert.*|abort)$' <<<"$undefined" >&2; then die "nghttp3 calls functions that end the process"; fi
	install_pc "$1"
}
