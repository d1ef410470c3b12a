/* Walks over caches in pages: two sequences whose pages lie among each other, in any order, in one pool give the bits
 * that they give with rows in order; every family, level, number type and form of MLA. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../kernels/attn_test.h"
#include "small_models.h"

enum { A = 700, B = 330, PAGES = 4, STEPS = 6 };

/* Rows of each step of the two sequences. */
static const int64_t steps[STEPS][2] = {{300, 40}, {1, 1}, {150, 250}, {7, 1}, {1, 30}, {241, 8}};

static model *models[SMALL_MODELS];
static int32_t text[A];

static int set_up(void **state) {
    (void)state;
    error e = {0};
    for (int i = 0; i < A; i++) text[i] = (i * 37 + i * i) % SMALL_VOCAB;
    if (small_models_open(models, &e) == OK) return 0;
    printf("%s\n", e.text);
    return -1;
}

static int tear_down(void **state) {
    (void)state;
    small_models_close(models);
    return 0;
}

typedef struct caches {
    cache_rows rows[2][2][CACHE_SLOTS]; /* [sequence][layer][slot] */
    void *pool[2][CACHE_SLOTS];
} caches;

/* One pool a layer and slot; pages: [2][PAGES], or NULL for sequences that lie in order. */
static caches make(const model *m, dtype type, const int32_t *pages) {
    caches c = {0};
    for (int64_t l = 0; l < m->cfg.num_hidden_layers; l++) {
        for (const part *const *p = m->layers[l].parts; *p; p++) {
            if ((*p)->cache == CACHE_NONE) continue;
            const int64_t width = (*p)->cache_width(&m->cfg);
            const size_t half = (size_t)(PAGES * CACHE_PAGE * width) * dtype_size(type);
            char *memory = malloc(2 * half);
            assert_non_null(memory);
            memset(memory, 0xff, 2 * half); /* NaN */
            c.pool[l][(*p)->cache] = memory;
            for (int s = 0; s < 2; s++)
                c.rows[s][l][(*p)->cache] = (cache_rows){.rows = pages || s == 0 ? memory : memory + half,
                                                         .pages = pages ? pages + s * PAGES : NULL,
                                                         .type = type,
                                                         .width = width};
        }
    }
    return c;
}

static void drop(caches *c) {
    for (int l = 0; l < 2; l++)
        for (int s = 0; s < CACHE_SLOTS; s++) free(c->pool[l][s]);
}

/* The next step; logits of every row. */
static void walk(const model *m, workspace *ws, caches *c, int step, const int64_t *pos, mla_form form, float *logits) {
    const int64_t n = steps[step][0] + steps[step][1];
    int32_t ids[A];
    int64_t out[A];
    sequence seq[2];
    error e = {0};
    for (int64_t s = 0, at = 0; s < 2; at += steps[step][s++]) {
        seq[s] = (sequence){.first = at, .n = steps[step][s], .pos = pos[s], .cache = c->rows[s]};
        memcpy(ids + at, text + pos[s], (size_t)steps[step][s] * sizeof *ids);
    }
    for (int64_t i = 0; i < n; i++) out[i] = i;
    batch b = {.n = n, .ids = ids, .seq = seq, .n_seq = 2, .n_out = n, .out = out, .logits = logits, .form = form};
    if (model_forward(m, ws, &b, &e) != OK) fail_msg("%s", e.text);
}

static void compare_walks(const model *m, queue *q, mla_form form) {
    static const int32_t pages[2 * PAGES] = {6, 0, 3, 7, 5, 1, 2, 4};
    const dtype type = queue_compute(q) == COMPUTE_BF16 ? DT_BF16 : DT_F32;
    workspace ws = {.q = q, .step = arena_open(1 << 16), .block = arena_open(1 << 16)};
    caches plain = make(m, type, NULL), paged = make(m, type, pages);
    int64_t pos[2] = {0, 0};
    for (int step = 0; step < STEPS; step++) {
        const int64_t count = (steps[step][0] + steps[step][1]) * SMALL_VOCAB;
        float *want = numbers(count), *got = numbers(count);
        walk(m, &ws, &plain, step, pos, form, want);
        walk(m, &ws, &paged, step, pos, form, got);
        assert_memory_equal(want, got, (size_t)count * sizeof(float));
        release(want, count);
        release(got, count);
        for (int s = 0; s < 2; s++) pos[s] += steps[step][s];
    }
    assert_int_equal(pos[0], A);
    assert_int_equal(pos[1], B);
    drop(&plain);
    drop(&paged);
    arena_close(ws.step);
    arena_close(ws.block);
}

static void test_walks(void **state) {
    (void)state;
    for (int l = 0; l < LENGTH(test_levels); l++) {
        for (int c = COMPUTE_F32; c <= COMPUTE_BF16; c++) {
            queue *q = open_level(l, 2, c);
            if (!q) continue;
            for (int f = 0; f < SMALL_MODELS; f++) {
                const bool mla = f != SMALL_QWEN2 && f != SMALL_LLAMA;
                compare_walks(models[f], q, MLA_CHEAPER);
                if (mla) compare_walks(models[f], q, MLA_EXPANDED);
                if (mla) compare_walks(models[f], q, MLA_ABSORBED);
            }
            queue_close(q);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_walks)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
