#include "model/cache_rows.h"

#include <string.h>

typedef struct widen_call {
    real *out;
    const cache_rows *cache;
    int64_t first, n, T;
} widen_call;

enum { ROWS = 64 };

static void widen(void *arg, int64_t task, int thread) {
    (void)thread;
    const widen_call *w = arg;
    for (int64_t t = task * ROWS; t < w->T && t < (task + 1) * ROWS; t++) {
        real *out = w->out + t * w->n;
        int64_t from = cache_row(w->cache, t) * w->cache->width + w->first;
        if (w->cache->type == DT_F32) memcpy(out, (const real *)w->cache->rows + from, (size_t)w->n * sizeof *out);
        else
            for (int64_t i = 0; i < w->n; i++) out[i] = bf16_to_f32(((const uint16_t *)w->cache->rows)[from + i]);
    }
}

void cache_widen(const part_call *c, real *out, const cache_rows *cache, int64_t first, int64_t n, int64_t T) {
    queue_run(c->q, (T + ROWS - 1) / ROWS, widen, &(widen_call){out, cache, first, n, T});
}

void cache_append(const part_call *c, cache_slot slot, const real *rows, int64_t ld) {
    for (int s = 0; s < c->x->n_seq; s++) {
        const sequence *seq = &c->x->seq[s];
        const cache_rows *cache = &seq->cache[c->layer][slot];
        for (int64_t t = 0; t < seq->n; t++) {
            const real *from = rows + (seq->first + t) * ld;
            int64_t to = cache_row(cache, seq->pos + t) * cache->width;
            if (cache->type == DT_F32) memcpy((real *)cache->rows + to, from, (size_t)cache->width * sizeof *from);
            else
                for (int64_t i = 0; i < cache->width; i++) ((uint16_t *)cache->rows)[to + i] = f32_to_bf16(from[i]);
        }
    }
}
