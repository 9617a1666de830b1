#ifndef AQ_TLS_MEMORY_H
#define AQ_TLS_MEMORY_H

#include <stdint.h>

/* All of this is for tests. aq_tls_watch_memory comes before the first use of the
 * library: 0, or -1 if that is too late. From then on aq_tls_blocks is how many
 * pieces of memory the library has. */
int aq_tls_watch_memory(void);
int64_t aq_tls_blocks(void);

/* aq_tls_refuse lets the n-th allocation from now on fail, once; 0: none. */
void aq_tls_refuse(int64_t n);
int64_t aq_tls_countdown(void); /* what is left of n */

#endif
