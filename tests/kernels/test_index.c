/* op_index_select at every level of the machine: scores against double precision; the choice against a sort of the
 * scores that the operation itself reports; ties, NaN, few keys; the same bits for any number of threads. */
#include "attn_test.h"

typedef struct shape {
    int64_t n, T;
    int heads, dim, top_k, gap;
} shape;

typedef struct problem {
    shape s;
    dtype type;
    int64_t ldq, ldw, stride, ld_scores, keep_stride;
    float *q, *w, *keys, *scores;
    void *cache;
    const int32_t *pages;
    int32_t *keep, *keep_n;
} problem;

static problem make(shape s, dtype type) {
    problem p = {.s = s, .type = type};
    p.ldq = s.heads * s.dim + s.gap;
    p.ldw = s.heads + s.gap;
    p.stride = s.dim + s.gap;
    p.ld_scores = s.T + s.gap;
    p.keep_stride = s.top_k + s.gap;
    p.q = random_rows(1, s.n, s.heads * s.dim, p.ldq, 1);
    p.w = random_rows(2, s.n, s.heads, p.ldw, 0.1);
    p.keys = random_rows(3, s.T, s.dim, p.stride, 1);
    int64_t size = (s.T - 1) * p.stride + s.dim;
    for (int64_t i = 0; type == DT_BF16 && i < size; i++) p.keys[i] = bf16_to_f32(f32_to_bf16(p.keys[i]));
    p.cache = as_type(p.keys, size, type);
    p.scores = numbers((s.n - 1) * p.ld_scores + s.T);
    p.keep = malloc((size_t)(s.n * p.keep_stride) * sizeof *p.keep);
    p.keep_n = malloc((size_t)s.n * sizeof *p.keep_n);
    for (int64_t i = 0; i < s.n * p.keep_stride; i++) p.keep[i] = -7;
    return p;
}

static void drop(problem *p) {
    release(p->scores, (p->s.n - 1) * p->ld_scores + p->s.T);
    free(p->q);
    free(p->w);
    free(p->keys);
    free(p->cache);
    free(p->keep);
    free(p->keep_n);
}

static void run(queue *q, const problem *p, bool want_scores) {
    index_select a = {.q = p->q,
                      .ldq = p->ldq,
                      .w = p->w,
                      .ldw = p->ldw,
                      .keys = p->cache,
                      .pages = p->pages,
                      .key_type = p->type,
                      .key_stride = p->stride,
                      .n = p->s.n,
                      .T = p->s.T,
                      .heads = p->s.heads,
                      .dim = p->s.dim,
                      .top_k = p->s.top_k,
                      .keep = p->keep,
                      .keep_n = p->keep_n,
                      .keep_stride = p->keep_stride,
                      .scores = want_scores ? p->scores : NULL,
                      .ld_scores = p->ld_scores};
    op_index_select(q, &a, 1);
}

static int64_t visible(const problem *p, int64_t i) {
    return p->s.T - p->s.n + i + 1;
}

/* Is a chosen before b? NaN last, then the larger, then the earlier. */
static bool before(const float *score, int64_t a, int64_t b) {
    float x = isnan(score[a]) ? -INFINITY : score[a], y = isnan(score[b]) ? -INFINITY : score[b];
    if (isnan(score[a]) != isnan(score[b])) return isnan(score[b]);
    return x > y || (x == y && a < b);
}

/* The choice of query i must be the rank of its scores. */
static void check_choice(const problem *p, int64_t i, const float *score) {
    int64_t see = visible(p, i), count = 0;
    const int32_t *keep = p->keep + i * p->keep_stride;
    assert_int_equal(p->keep_n[i], see < p->s.top_k ? see : p->s.top_k);
    for (int64_t s = 0; s < see; s++) {
        int64_t rank = 0;
        for (int64_t t = 0; t < see; t++) rank += before(score, t, s);
        if (rank >= p->s.top_k) continue;
        assert_true(count < p->keep_n[i]);
        assert_int_equal(keep[count++], s);
    }
    assert_int_equal(count, p->keep_n[i]);
    for (int64_t g = p->s.top_k; g < p->keep_stride; g++) assert_int_equal(keep[g], -7);
}

/* u = 2^-24; dim products and heads sums: (dim + heads + 3) u of the sum of sizes. Operands are exact in `operand`. */
static void check_scores(const problem *p, compute c, worst *w) {
    double u = ldexp(1, -24);
    for (int64_t i = 0; i < p->s.n; i++) {
        for (int64_t s = 0; s < p->s.T; s++) {
            double want = 0, size = 0;
            for (int j = 0; j < p->s.heads && s < visible(p, i); j++) {
                double dot = 0, dot_size = 0, weight = p->w[i * p->ldw + j];
                for (int d = 0; d < p->s.dim; d++) {
                    double term =
                        operand(p->q[i * p->ldq + j * p->s.dim + d], c) * operand(p->keys[s * p->stride + d], c);
                    dot += term;
                    dot_size += fabs(term);
                }
                want += weight * fmax(dot, 0);
                size += fabs(weight) * dot_size;
            }
            compare(w, i * p->s.T + s, p->scores[i * p->ld_scores + s], want, (p->s.dim + p->s.heads + 3) * u * size);
        }
    }
}

static void test_scores_and_choice(void **state) {
    (void)state;
    static const shape shapes[] = {{1, 1, 16, 128, 4, 0},      {1, 300, 16, 128, 64, 0}, {3, 270, 5, 20, 100, 3},
                                   {20, 300, 7, 24, 33, 1},    {40, 40, 64, 56, 16, 0},  {9, 530, 14, 40, 512, 0},
                                   {12, 100, 32, 128, 200, 2}, {17, 290, 6, 28, 1, 0},   {141, 330, 5, 24, 210, 1}};
    for (int c = COMPUTE_F32; c <= COMPUTE_BF16; c++) {
        for (int l = 0; l < LENGTH(test_levels); l++) {
            queue *q = open_level(l, 2, c);
            if (!q) continue;
            worst w = {0};
            for (int i = 0; i < LENGTH(shapes); i++) {
                for (int type = DT_F32; type <= DT_BF16; type++) {
                    problem p = make(shapes[i], type), without = make(shapes[i], type);
                    run(q, &p, true);
                    check_scores(&p, c, &w);
                    for (int64_t r = 0; r < p.s.n; r++) check_choice(&p, r, p.scores + r * p.ld_scores);
                    run(q, &without, false);
                    assert_memory_equal(p.keep_n, without.keep_n, (size_t)p.s.n * sizeof(int32_t));
                    assert_memory_equal(p.keep, without.keep, (size_t)(p.s.n * p.keep_stride) * sizeof(int32_t));
                    drop(&p);
                    drop(&without);
                }
            }
            report(&w, "%s %s, %d shapes", test_levels[l], compute_names[c], LENGTH(shapes));
            queue_close(q);
        }
    }
}

/* Keys repeat, so scores tie; some are NaN or infinite; all scores 0 with both signs. */
static void test_ties_and_odd_numbers(void **state) {
    (void)state;
    for (int l = 0; l < LENGTH(test_levels); l++) {
        queue *q = open_level(l, 1, COMPUTE_BF16);
        if (!q) continue;
        for (int kind = 0; kind < 4; kind++) {
            problem p = make((shape){10, 300, 16, 32, 70, 0}, DT_F32);
            float *keys = p.cache;
            for (int64_t s = 0; s < p.s.T; s++) {
                for (int d = 0; d < p.s.dim; d++) {
                    if (kind == 0) keys[s * p.stride + d] = keys[s % 7 * p.stride + d];
                    if (kind == 1 && s % 3 != 0) keys[s * p.stride + d] = NAN;
                    if (kind == 2 && s % 5 == 0) keys[s * p.stride + d] = s % 2 ? INFINITY : -INFINITY;
                    if (kind == 3) keys[s * p.stride + d] = s % 2 ? -0.0f : 0.0f;
                }
            }
            run(q, &p, true);
            for (int64_t r = 0; r < p.s.n; r++) check_choice(&p, r, p.scores + r * p.ld_scores);
            drop(&p);
        }
        queue_close(q);
    }
}

static void test_threads(void **state) {
    (void)state;
    static const shape shapes[] = {{1, 1100, 16, 64, 100, 0}, {30, 400, 7, 24, 50, 0}};
    for (int l = 0; l < LENGTH(test_levels); l++) {
        for (int i = 0; i < LENGTH(shapes); i++) {
            queue *one = open_level(l, 1, COMPUTE_BF16), *three = open_level(l, 3, COMPUTE_BF16);
            if (!one) continue;
            problem a = make(shapes[i], DT_BF16), b = make(shapes[i], DT_BF16);
            run(one, &a, true);
            run(three, &b, true);
            assert_memory_equal(a.keep, b.keep, (size_t)(a.s.n * a.keep_stride) * sizeof(int32_t));
            assert_memory_equal(a.scores, b.scores, (size_t)(a.s.n * a.s.T) * sizeof(float));
            drop(&a);
            drop(&b);
            queue_close(one);
            queue_close(three);
        }
    }
}

/* Queries at once and in parts of any size. */
static void test_queries_as_alone(void **state) {
    (void)state;
    static const shape shapes[] = {
        {8, 700, 16, 64, 100, 0}, {60, 600, 7, 24, 50, 1}, {141, 330, 5, 20, 210, 0}, {33, 300, 64, 128, 64, 0}};
    for (int l = 0; l < LENGTH(test_levels); l++) {
        for (int c = COMPUTE_F32; c <= COMPUTE_BF16; c++) {
            queue *q = open_level(l, 2, c);
            if (!q) continue;
            for (int i = 0; i < LENGTH(shapes); i++) {
                problem all = make(shapes[i], DT_BF16), part = make(shapes[i], DT_BF16);
                run(q, &all, true);
                for (int64_t r = 0, n; r < all.s.n; r += n) {
                    problem p = part;
                    n = r % 3 == 0 ? 1 : 1 + (r * 7) % 20;
                    if (n > all.s.n - r) n = all.s.n - r;
                    p.s.n = n;
                    p.s.T = all.s.T - all.s.n + r + n;
                    p.q += r * p.ldq;
                    p.w += r * p.ldw;
                    p.keep += r * p.keep_stride;
                    p.keep_n += r;
                    p.scores += r * p.ld_scores;
                    run(q, &p, true);
                }
                assert_memory_equal(all.keep_n, part.keep_n, (size_t)all.s.n * sizeof(int32_t));
                assert_memory_equal(all.keep, part.keep, (size_t)(all.s.n * all.keep_stride) * sizeof(int32_t));
                for (int64_t r = 0; r < all.s.n; r++)
                    assert_memory_equal(all.scores + r * all.ld_scores, part.scores + r * all.ld_scores,
                                        (size_t)visible(&all, r) * sizeof(float));
                drop(&all);
                drop(&part);
            }
            queue_close(q);
        }
    }
}

/* Keys in pages give the scores that they give in order, bit by bit, and the same choice. */
static void test_pages(void **state) {
    (void)state;
    static const shape shapes[] = {{1, 1100, 16, 64, 100, 0}, {8, 700, 5, 20, 300, 3}, {60, 600, 7, 24, 50, 0}};
    for (int l = 0; l < LENGTH(test_levels); l++) {
        for (int c = COMPUTE_F32; c <= COMPUTE_BF16; c++) {
            queue *q = open_level(l, 2, c);
            if (!q) continue;
            for (int i = 0; i < LENGTH(shapes); i++) {
                for (int type = DT_F32; type <= DT_BF16; type++) {
                    problem a = make(shapes[i], type), b = make(shapes[i], type);
                    int32_t *pages = random_pages((uint64_t)i, b.s.T);
                    void *paged = in_pages(b.cache, type, (b.s.T - 1) * b.stride + b.s.dim, b.stride, b.s.T, pages);
                    free(b.cache);
                    b.cache = paged;
                    b.pages = pages;
                    run(q, &a, true);
                    run(q, &b, true);
                    assert_memory_equal(a.keep_n, b.keep_n, (size_t)a.s.n * sizeof(int32_t));
                    assert_memory_equal(a.keep, b.keep, (size_t)(a.s.n * a.keep_stride) * sizeof(int32_t));
                    assert_memory_equal(a.scores, b.scores, (size_t)((a.s.n - 1) * a.ld_scores + a.s.T) * 4);
                    free(pages);
                    drop(&a);
                    drop(&b);
                }
            }
            queue_close(q);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scores_and_choice),
        cmocka_unit_test(test_ties_and_odd_numbers),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_queries_as_alone),
        cmocka_unit_test(test_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
