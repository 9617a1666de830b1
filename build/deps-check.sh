# Proves build/out: a C program that includes the headers, is linked with what
# pkg-config says, and runs. Read by deps.sh for --check.
# shellcheck shell=bash disable=SC2154 # deps.sh sets them

# check_link TLS prints the versions of the libraries on standard output.
check_link() (
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' EXIT
	cat >"$dir/check.c" <<'C'
#ifdef USE_WOLFSSL
#include <wolfssl/options.h>
#include <wolfssl/ssl.h>
#include <ngtcp2/ngtcp2_crypto_wolfssl.h>
#else
#include <openssl/ssl.h>
#include <ngtcp2/ngtcp2_crypto_ossl.h>
#endif
#include <ngtcp2/ngtcp2.h>
#include <ngtcp2/ngtcp2_crypto.h>
#include <nghttp3/nghttp3.h>
#include <stdio.h>
#include <string.h>

static int same(const char *name, const char *header, const char *library) {
	printf("%s %s\n", name, library);
	if (strcmp(header, library) == 0) return 0;
	fprintf(stderr, "%s: the header says %s, the library %s\n", name, header, library);
	return 1;
}

int main(void) {
	int bad = same("ngtcp2", NGTCP2_VERSION, ngtcp2_version(0)->version_str);
	bad |= same("nghttp3", NGHTTP3_VERSION, nghttp3_version(0)->version_str);
#ifdef USE_WOLFSSL
	bad |= same("wolfssl", LIBWOLFSSL_VERSION_STRING, wolfSSL_lib_version());
	wolfSSL_Init();
	WOLFSSL_CTX *ctx = wolfSSL_CTX_new(wolfTLSv1_3_client_method());
	if (!ctx || ngtcp2_crypto_wolfssl_configure_client_context(ctx) != 0) bad = 1;
	WOLFSSL *ssl = ctx ? wolfSSL_new(ctx) : NULL;
	if (!ssl || wolfSSL_UseKeyShare(ssl, WOLFSSL_X25519MLKEM768) != WOLFSSL_SUCCESS) bad = 1;
#else
	bad |= same("openssl", OPENSSL_FULL_VERSION_STR, OpenSSL_version(OPENSSL_FULL_VERSION_STRING));
	if (ngtcp2_crypto_ossl_init() != 0) bad = 1;
	SSL_CTX *ctx = SSL_CTX_new(TLS_method());
	SSL *ssl = ctx ? SSL_new(ctx) : NULL;
	if (!ssl || SSL_set1_groups_list(ssl, "X25519MLKEM768") != 1) bad = 1;
	if (!ssl || ngtcp2_crypto_ossl_configure_client_session(ssl) != 0) bad = 1;
#endif
	if (bad) fprintf(stderr, "the TLS library lacks something that the engine needs\n");
	return bad;
}
C
	command -v pkg-config >/dev/null || die "pkg-config is missing; install it with: sudo apt-get install pkg-config"
	pc=$out/lib/pkgconfig/anyquic-$1.pc define=
	if [ "$1" = wolfssl ]; then define=-DUSE_WOLFSSL; fi
	# -rdynamic as Go's linker does it: what it exports is counted below.
	# shellcheck disable=SC2046,SC2086 # lists of words
	$CC -O2 -Wall -Werror -rdynamic $define -o "$dir/check" "$dir/check.c" "$here/assertions.c" $(pkg-config --static --cflags "$pc") $(pkg-config --static --libs "$pc") ||
		die "$1: the program does not compile and link"
	if ldd "$dir/check" | grep -E 'ssl|crypto|ngtcp2|nghttp3' >&2; then die "$1: a shared library was linked"; fi
	"$dir/check" || die "$1: the program does not run rightly"
	say "$1: the check program runs; it exports $(nm -D --defined-only "$dir/check" | wc -l) symbols"
)
