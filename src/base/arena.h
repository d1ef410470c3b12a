/* Memory that belongs to a lifetime: everything taken from an arena dies with it.
 * Blocks are 64-byte aligned. Not thread-safe: one arena, one owner. */
#ifndef HADAL_BASE_ARENA_H
#define HADAL_BASE_ARENA_H

#include <stddef.h>

typedef struct arena arena;

arena *arena_open(size_t first_block);                 /* NULL when memory is out */
void *arena_take(arena *a, size_t bytes);              /* 64-byte aligned, uninitialised; NULL when memory is out */
void *arena_zero(arena *a, size_t count, size_t size); /* the same, zeroed, count * size checked for overflow */
char *arena_copy(arena *a, const char *s, size_t n);   /* a terminated copy */
void arena_reset(arena *a);                            /* forgets what was taken; keeps the memory, as one block */
size_t arena_bytes(const arena *a);                    /* memory held */
void arena_close(arena *a);                            /* accepts NULL */

#endif
