/* What became of assert and abort in ngtcp2 and nghttp3 (see deps-recipes.sh), for programs
 * that are not the engine: they end. */
#include <stdio.h>
#include <stdlib.h>

_Noreturn void aq_assert_fail(const char *expr, const char *file, unsigned line, const char *func);
_Noreturn void aq_abort(void);

_Noreturn void aq_assert_fail(const char *expr, const char *file, unsigned line, const char *func) {
	fprintf(stderr, "%s:%u: %s: assertion failed: %s\n", file, line, func, expr);
	abort();
}
_Noreturn void aq_abort(void) { abort(); }

_Noreturn void aq_h3_assert_fail(const char *expr, const char *file, unsigned line, const char *func);
_Noreturn void aq_h3_abort(void);

_Noreturn void aq_h3_assert_fail(const char *expr, const char *file, unsigned line, const char *func) {
	aq_assert_fail(expr, file, line, func);
}
_Noreturn void aq_h3_abort(void) { abort(); }
