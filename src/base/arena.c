#include "base/arena.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct block {
    struct block *next;
    size_t size, used; /* payload bytes after the header */
} block;

enum { ALIGN = 64, HEADER = 64, HUGE_PAGE = 2 << 20 };

struct arena {
    block *head; /* the block that is being filled */
    size_t first_block;
};

static block *block_new(size_t size) {
    if (size > SIZE_MAX - HEADER - HUGE_PAGE) return NULL;
    size = (size + ALIGN - 1) / ALIGN * ALIGN;
    const bool huge = HEADER + size >= 2 * HUGE_PAGE;
    if (huge) size = (HEADER + size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE - HEADER;
    block *b = aligned_alloc(huge ? HUGE_PAGE : ALIGN, HEADER + size);
    if (b && huge) madvise(b, HEADER + size, MADV_HUGEPAGE); /* a hint: fine when refused */
    if (b) *b = (block){.size = size};
    return b;
}

arena *arena_open(size_t first_block) {
    arena *a = calloc(1, sizeof *a);
    if (a) a->first_block = first_block < 256 ? 256 : first_block;
    return a;
}

void *arena_take(arena *a, size_t bytes) {
    if (bytes > SIZE_MAX - ALIGN) return NULL;
    bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (!a->head || a->head->size - a->head->used < bytes) {
        size_t size = a->head ? a->head->size * 2 : a->first_block;
        if (size > (size_t)64 << 20) size = (size_t)64 << 20;
        block *b = block_new(bytes > size ? bytes : size);
        if (!b) return NULL;
        b->next = a->head;
        a->head = b;
    }
    void *p = (char *)a->head + HEADER + a->head->used;
    a->head->used += bytes;
    return p;
}

void *arena_zero(arena *a, size_t count, size_t size) {
    if (size && count > SIZE_MAX / size) return NULL;
    void *p = arena_take(a, count * size);
    if (p) memset(p, 0, count * size);
    return p;
}

char *arena_copy(arena *a, const char *s, size_t n) {
    char *p = n < SIZE_MAX ? arena_take(a, n + 1) : NULL;
    if (!p) return NULL;
    memcpy(p, s, n);
    p[n] = 0;
    return p;
}

size_t arena_bytes(const arena *a) {
    size_t sum = 0;
    for (const block *b = a->head; b; b = b->next) sum += b->size;
    return sum;
}

static void free_blocks(arena *a) {
    for (block *b = a->head, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    a->head = NULL;
}

void arena_reset(arena *a) {
    if (a->head && a->head->next) { /* several blocks: next time one block that holds all of them */
        size_t all = arena_bytes(a);
        free_blocks(a);
        a->head = block_new(all); /* when memory is out, arena_take tries again */
    }
    if (a->head) a->head->used = 0;
}

void arena_close(arena *a) {
    if (!a) return;
    free_blocks(a);
    free(a);
}
