/* op_latent_attention at every level of the machine against double precision, with and without keep lists, and
 * against itself: any number of threads and of query rows must give the same bits. */
#include "attn_test.h"

typedef struct shape {
    int64_t n, T;
    int heads, rank, rope, gap;
    int64_t keep; /* rows that a query keeps at most; 0: no lists */
} shape;

typedef struct problem {
    shape s;
    dtype type;
    int64_t ldq, ldo, stride;
    float *q, *rows;
    void *cache;
    int32_t *keep, *keep_n;
} problem;

static problem make(shape s, dtype type) {
    problem p = {.s = s, .type = type};
    int64_t d = s.rank + s.rope;
    p.ldq = s.heads * d + s.gap;
    p.ldo = s.heads * s.rank + s.gap;
    p.stride = d + s.gap;
    p.q = random_rows(1, s.n, s.heads * d, p.ldq, 1.5);
    p.rows = random_rows(2, s.T, d, p.stride, 1);
    int64_t size = (s.T - 1) * p.stride + d;
    for (int64_t i = 0; type == DT_BF16 && i < size; i++) p.rows[i] = bf16_to_f32(f32_to_bf16(p.rows[i]));
    p.cache = as_type(p.rows, size, type);
    if (s.keep) {
        p.keep = malloc((size_t)(s.n * s.keep) * sizeof *p.keep);
        p.keep_n = malloc((size_t)s.n * sizeof *p.keep_n);
        for (int64_t i = 0; i < s.n; i++) {
            int64_t visible = s.T - s.n + i + 1, count = 0;
            for (int64_t t = 0; t < visible && count < s.keep; t++) /* some of them, ascending */
                if (rng_uniform(3, (uint64_t)i, (uint64_t)t) * (double)(visible - t) < (double)(s.keep - count))
                    p.keep[i * s.keep + count++] = (int32_t)t;
            p.keep_n[i] = (int32_t)count;
        }
    }
    return p;
}

static void drop(problem *p) {
    free(p->q);
    free(p->rows);
    free(p->cache);
    free(p->keep);
    free(p->keep_n);
}

static latent_attention call_of(const problem *p, float *o) {
    return (latent_attention){.o = o,
                              .ldo = p->ldo,
                              .q = p->q,
                              .ldq = p->ldq,
                              .n = p->s.n,
                              .T = p->s.T,
                              .rows = p->cache,
                              .row_type = p->type,
                              .row_stride = p->stride,
                              .heads = p->s.heads,
                              .rank = p->s.rank,
                              .rope = p->s.rope,
                              .scale = 0.15f,
                              .keep = p->keep,
                              .keep_n = p->keep_n,
                              .keep_stride = p->s.keep};
}

static int64_t o_size(const problem *p) {
    return (p->s.n - 1) * p->ldo + p->s.heads * p->s.rank;
}

static void reference(const problem *p, compute c, double *want, double *bound) {
    int64_t width = p->s.heads * p->s.rank, d = p->s.rank + p->s.rope;
    for (int64_t i = 0; i < p->s.n; i++)
        for (int h = 0; h < p->s.heads; h++)
            naive_attention(want + i * width + h * p->s.rank, bound + i * width + h * p->s.rank,
                            p->q + i * p->ldq + h * d, p->rows, p->stride, p->rows, p->stride,
                            p->keep ? p->keep + i * p->s.keep : NULL, p->keep ? p->keep_n[i] : p->s.T - p->s.n + i + 1,
                            (int)d, p->s.rank, (double)0.15f, c);
}

static void check(const problem *p, int l, compute c, const double *want, const double *bound, worst *w) {
    queue *q = open_level(l, 2, c);
    if (!q) return;
    float *o = numbers(o_size(p));
    latent_attention a = call_of(p, o);
    op_latent_attention(q, &a, 1);
    int64_t width = p->s.heads * p->s.rank;
    for (int64_t i = 0; i < p->s.n; i++) {
        for (int64_t j = 0; j < width; j++)
            compare(w, i * width + j, o[i * p->ldo + j], want[i * width + j], bound[i * width + j]);
        for (int64_t g = width; i + 1 < p->s.n && g < p->ldo; g++) assert_true(o[i * p->ldo + g] == canary);
    }
    release(o, o_size(p));
    queue_close(q);
}

static void test_against_double(void **state) {
    (void)state;
    static const shape shapes[] = {
        {1, 1, 5, 20, 4, 0, 0},       {1, 300, 16, 512, 64, 0, 0},   {3, 270, 7, 24, 8, 3, 0},
        {2, 1100, 16, 32, 8, 0, 0},   {12, 40, 6, 40, 16, 1, 0},     {9, 300, 64, 64, 32, 0, 0},
        {1, 600, 130, 32, 16, 0, 0},  {1, 300, 16, 512, 64, 0, 100}, {12, 300, 5, 20, 8, 3, 33},
        {2, 900, 16, 64, 32, 0, 600}, {10, 20, 32, 64, 32, 0, 64},   {3, 700, 130, 28, 4, 0, 520},
        {9, 400, 64, 64, 32, 0, 300}, {11, 420, 16, 96, 32, 3, 333}, {1, 21, 4, 64, 32, 0, 0},
        {20, 530, 4, 48, 16, 3, 0},   {1, 1, 3, 16, 16, 0, 0},       {8, 517, 3, 80, 32, 0, 0},
    };
    for (int c = COMPUTE_F32; c <= COMPUTE_BF16; c++) {
        worst w[LENGTH(test_levels)] = {{0}};
        for (int i = 0; i < LENGTH(shapes); i++) {
            for (int type = DT_F32; type <= DT_BF16; type++) {
                problem p = make(shapes[i], type);
                size_t count = (size_t)(p.s.n * p.s.heads * p.s.rank);
                double *want = malloc(count * sizeof *want), *bound = malloc(count * sizeof *bound);
                reference(&p, c, want, bound);
                for (int l = 0; l < LENGTH(test_levels); l++) check(&p, l, c, want, bound, &w[l]);
                free(want);
                free(bound);
                drop(&p);
            }
        }
        for (int l = 0; l < LENGTH(test_levels); l++)
            report(&w[l], "%s %s, %d shapes", test_levels[l], compute_names[c], LENGTH(shapes));
    }
}

/* One list of calls with 1, 2 and 3 threads. */
static void test_threads(void **state) {
    (void)state;
    static const shape shapes[] = {{2, 1100, 16, 64, 32, 0, 0},
                                   {40, 300, 7, 24, 8, 0, 50},
                                   {1, 1500, 5, 20, 4, 0, 1100},
                                   {40, 400, 16, 64, 32, 0, 290}};
    for (int l = 0; l < LENGTH(test_levels); l++) {
        for (int c = COMPUTE_F32; c <= COMPUTE_BF16; c++) {
            float *first[LENGTH(shapes)] = {0};
            for (int threads = 1; threads <= 3; threads++) {
                queue *q = open_level(l, threads, c);
                if (!q) break;
                problem p[LENGTH(shapes)];
                latent_attention list[LENGTH(shapes)];
                for (int i = 0; i < LENGTH(shapes); i++) {
                    p[i] = make(shapes[i], DT_BF16);
                    list[i] = call_of(&p[i], numbers(o_size(&p[i])));
                }
                op_latent_attention(q, list, LENGTH(shapes));
                for (int i = 0; i < LENGTH(shapes); i++) {
                    int64_t n = o_size(&p[i]);
                    if (first[i]) {
                        assert_memory_equal(first[i], list[i].o, (size_t)n * sizeof(float));
                        release(list[i].o, n);
                    } else {
                        first[i] = list[i].o;
                    }
                    if (threads == 3) release(first[i], n);
                    drop(&p[i]);
                }
                queue_close(q);
            }
        }
    }
}

/* Rows at once and one by one. */
static void test_rows_as_alone(void **state) {
    (void)state;
    static const shape shapes[] = {
        {8, 517, 16, 64, 32, 0, 0},      {5, 1027, 7, 28, 4, 2, 0},    {8, 260, 3, 512, 64, 0, 0},
        {3, 514, 70, 32, 16, 0, 0},      {8, 900, 16, 64, 32, 0, 600}, {6, 8, 16, 64, 32, 0, 0},
        {8, 516, 4, 64, 32, 0, 0},       {9, 1030, 16, 64, 32, 0, 0},  {60, 540, 7, 24, 8, 0, 0},
        {20, 1100, 16, 64, 32, 0, 1050}, {9, 900, 70, 32, 16, 0, 600}, {40, 700, 5, 20, 4, 2, 550},
        {10, 600, 128, 64, 32, 0, 520}};
    for (int l = 0; l < LENGTH(test_levels); l++) {
        for (int c = COMPUTE_F32; c <= COMPUTE_BF16; c++) {
            queue *q = open_level(l, 2, c);
            if (!q) continue;
            for (int i = 0; i < LENGTH(shapes); i++) {
                for (int type = DT_F32; type <= DT_BF16; type++) {
                    problem p = make(shapes[i], type);
                    float *o = numbers(o_size(&p)), *alone = numbers(o_size(&p));
                    latent_attention a = call_of(&p, o);
                    op_latent_attention(q, &a, 1);
                    for (int64_t r = 0; r < p.s.n; r++) {
                        latent_attention one = call_of(&p, alone + r * p.ldo);
                        one.q += r * p.ldq;
                        one.n = 1;
                        one.T = p.s.T - p.s.n + r + 1;
                        if (one.keep) one.keep += r * p.s.keep, one.keep_n += r;
                        op_latent_attention(q, &one, 1);
                    }
                    assert_memory_equal(o, alone, (size_t)o_size(&p) * sizeof(float));
                    release(o, o_size(&p));
                    release(alone, o_size(&p));
                    drop(&p);
                }
            }
            queue_close(q);
        }
    }
}

/* Rows in pages give the bits that they give in order, with lists and without. */
static void test_pages(void **state) {
    (void)state;
    static const shape shapes[] = {{1, 700, 16, 64, 32, 0, 0},     {8, 1300, 7, 28, 4, 2, 0},
                                   {60, 600, 5, 24, 8, 0, 0},      {4, 900, 16, 64, 32, 0, 600},
                                   {40, 700, 16, 64, 32, 0, 290},  {20, 520, 70, 20, 4, 3, 100},
                                   {1, 1500, 128, 64, 32, 0, 1100}};
    for (int l = 0; l < LENGTH(test_levels); l++) {
        for (int c = COMPUTE_F32; c <= COMPUTE_BF16; c++) {
            queue *q = open_level(l, 2, c);
            if (!q) continue;
            for (int i = 0; i < LENGTH(shapes); i++) {
                for (int type = DT_F32; type <= DT_BF16; type++) {
                    problem p = make(shapes[i], type);
                    const int64_t T = p.s.T, size = (T - 1) * p.stride + p.s.rank + p.s.rope;
                    float *o = numbers(o_size(&p)), *paged = numbers(o_size(&p));
                    int32_t *pages = random_pages((uint64_t)i, T);
                    void *rows = in_pages(p.cache, type, size, p.stride, T, pages);
                    latent_attention a[2] = {call_of(&p, o), call_of(&p, paged)};
                    a[1].rows = rows;
                    a[1].pages = pages;
                    op_latent_attention(q, a, 2);
                    assert_memory_equal(o, paged, (size_t)o_size(&p) * sizeof(float));
                    release(o, o_size(&p));
                    release(paged, o_size(&p));
                    free(pages);
                    free(rows);
                    drop(&p);
                }
            }
            queue_close(q);
        }
    }
}

/* A list that keeps every visible row gives what no list gives. */
static void test_keep_all(void **state) {
    (void)state;
    for (int l = 0; l < LENGTH(test_levels); l++) {
        queue *q = open_level(l, 1, COMPUTE_BF16);
        if (!q) continue;
        problem p = make((shape){4, 700, 16, 64, 32, 0, 700}, DT_BF16);
        float *o = numbers(o_size(&p)), *all = numbers(o_size(&p));
        latent_attention a = call_of(&p, o);
        op_latent_attention(q, &a, 1);
        a.o = all;
        a.keep = NULL;
        op_latent_attention(q, &a, 1);
        assert_memory_equal(o, all, (size_t)o_size(&p) * sizeof(float));
        release(o, o_size(&p));
        release(all, o_size(&p));
        drop(&p);
        queue_close(q);
    }
}

/* A query that keeps nothing gets zeros; the others do not notice. */
static void test_keep_none(void **state) {
    (void)state;
    for (int l = 0; l < LENGTH(test_levels); l++) {
        queue *q = open_level(l, 1, COMPUTE_BF16);
        if (!q) continue;
        for (int64_t n = 3; n <= 12; n += 9) {
            problem p = make((shape){n, 60, 16, 64, 32, 0, 20}, DT_BF16);
            int64_t row = p.s.heads * p.s.rank;
            float *o = numbers(o_size(&p)), *without = numbers(o_size(&p));
            latent_attention a = call_of(&p, o);
            op_latent_attention(q, &a, 1);
            p.keep_n[1] = 0;
            a.o = without;
            op_latent_attention(q, &a, 1);
            for (int64_t i = 0; i < row; i++) assert_true(without[row + i] == 0);
            memcpy(o + row, without + row, (size_t)row * sizeof *o);
            assert_memory_equal(o, without, (size_t)o_size(&p) * sizeof(float));
            release(o, o_size(&p));
            release(without, o_size(&p));
            drop(&p);
        }
        queue_close(q);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_double), cmocka_unit_test(test_threads),   cmocka_unit_test(test_rows_as_alone),
        cmocka_unit_test(test_keep_all),       cmocka_unit_test(test_keep_none), cmocka_unit_test(test_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
