/* Memory of the connections, counted. */
#ifndef AQ_MEMORY_H
#define AQ_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* As in the standard library: NULL when there is none. calloc checks its
 * product. What these give must be given back with aq_free. */
void *aq_malloc(size_t size);
void *aq_calloc(size_t n, size_t size);
void *aq_realloc(void *p, size_t size);
void aq_free(void *p);

/* aq_memory returns the bytes of what was given and not taken back. */
int64_t aq_memory(void);

/* aq_memory_trim returns to the system what is free in the whole process: the C
 * library does so by itself only at the end of its heap. 1 if there was something. */
int aq_memory_trim(void);

/* aq_memory_fail_after makes the n-th allocation from now on fail, and those
 * behind it; negative: none. Tests use it. */
void aq_memory_fail_after(int64_t n);

/* aq_rand fills dst from the TLS library's generator: 0, or -1. */
int aq_rand(uint8_t *dst, size_t len);

#endif
