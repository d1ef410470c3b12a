#define _GNU_SOURCE
#include "infer/pages.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

int64_t cached_layers(const model *m) {
    return m->cfg.num_hidden_layers + m->n_mtp;
}

size_t cached_token_bytes(const model *m, dtype type) {
    size_t bytes = 0;
    for (int64_t l = 0; l < cached_layers(m); l++)
        for (int i = 0; m->layers[l].parts[i]; i++) {
            const part *x = m->layers[l].parts[i];
            if (x->cache != CACHE_NONE) bytes += (size_t)x->cache_width(&m->cfg) * dtype_size(type);
        }
    return bytes;
}

/* Lays the pages of all layers and slots one after the other; sets the pointers when there is memory. */
static size_t lay_out(page_pool *p, dtype type) {
    size_t at = 0;
    for (int64_t l = 0; l < cached_layers(p->m); l++) {
        const part *const *parts = p->m->layers[l].parts;
        for (int i = 0; parts[i]; i++) {
            if (parts[i]->cache == CACHE_NONE) continue;
            const int64_t width = parts[i]->cache_width(&p->m->cfg);
            const size_t row = (size_t)width * dtype_size(type);
            p->slots[l][parts[i]->cache] =
                (cache_rows){.rows = p->memory ? (char *)p->memory + at : NULL, .type = type, .width = width};
            at += (row * CACHE_PAGE * (size_t)p->count + 4095) / 4096 * 4096;
        }
    }
    return at;
}

status pages_open(page_pool **out, const model *m, dtype type, int64_t count, error *e) {
    *out = NULL;
    page_pool *p = calloc(1, sizeof *p);
    if (!p) return fail(e, ERR_NOMEM, "memory is out");
    p->m = m;
    p->count = p->free = count;
    p->token_bytes = cached_token_bytes(m, type);
    p->slots = calloc((size_t)cached_layers(m), sizeof *p->slots);
    p->holders = calloc((size_t)count, sizeof *p->holders);
    p->stack = malloc((size_t)count * sizeof *p->stack);
    if (p->slots && p->holders && p->stack) {
        p->memory_bytes = lay_out(p, type);
        p->memory =
            mmap(NULL, p->memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p->memory == MAP_FAILED) p->memory = NULL;
    }
    if (!p->memory) {
        const size_t bytes = p->memory_bytes;
        pages_close(p);
        return fail(e, ERR_NOMEM, "no memory for a cache of %lld tokens (%zu MB): ask for a shorter context",
                    (long long)(count * CACHE_PAGE), bytes >> 20);
    }
    lay_out(p, type);
    for (int64_t i = 0; i < count; i++) p->stack[i] = (int32_t)(count - 1 - i); /* the first ones are taken first */
    *out = p;
    return OK;
}

void pages_close(page_pool *p) {
    if (!p) return;
    if (p->memory) munmap(p->memory, p->memory_bytes);
    free(p->slots);
    free(p->holders);
    free(p->stack);
    free(p);
}

int32_t pages_take(page_pool *p) {
    if (p->free == 0) return -1;
    const int32_t page = p->stack[--p->free];
    p->holders[page] = 1;
    return page;
}

void pages_hold(page_pool *p, int32_t page) {
    p->holders[page]++;
}

void pages_drop(page_pool *p, int32_t page) {
    if (--p->holders[page] == 0) p->stack[p->free++] = page;
}

/* --- contents ---------------------------------------------------------------------------------------------------- */

typedef void piece(void *arg, char *rows, size_t bytes);

/* Calls f with the first n rows of a page in every layer and slot. */
static void each_piece(const page_pool *p, int32_t page, int64_t n, piece *f, void *arg) {
    for (int64_t l = 0; l < cached_layers(p->m); l++)
        for (int i = 0; i < CACHE_SLOTS; i++) {
            const cache_rows *c = &p->slots[l][i];
            const size_t row = (size_t)c->width * dtype_size(c->type);
            if (c->rows) f(arg, (char *)c->rows + (size_t)page * CACHE_PAGE * row, (size_t)n * row);
        }
}

static void take_out(void *arg, char *rows, size_t bytes) {
    char **to = arg;
    memcpy(*to, rows, bytes);
    *to += bytes;
}

static void put_in(void *arg, char *rows, size_t bytes) {
    const char **from = arg;
    memcpy(rows, *from, bytes);
    *from += bytes;
}

void pages_save(const page_pool *p, int32_t page, int64_t n, void *out) {
    each_piece(p, page, n, take_out, &out);
}

void pages_load(page_pool *p, int32_t page, int64_t n, const void *from) {
    each_piece(p, page, n, put_in, &from);
}

void pages_copy(page_pool *to, int32_t to_page, const page_pool *from, int32_t from_page, int64_t n) {
    for (int64_t l = 0; l < cached_layers(to->m); l++)
        for (int i = 0; i < CACHE_SLOTS; i++) {
            const cache_rows *a = &to->slots[l][i], *b = &from->slots[l][i];
            const size_t row = (size_t)a->width * dtype_size(a->type);
            if (a->rows)
                memcpy((char *)a->rows + (size_t)to_page * CACHE_PAGE * row,
                       (const char *)b->rows + (size_t)from_page * CACHE_PAGE * row, (size_t)n * row);
        }
}
