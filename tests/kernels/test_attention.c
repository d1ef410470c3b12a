/* op_attention at every level of the machine against double precision, and against itself: any number of threads and
 * of query rows must give the same bits. */
#include "attn_test.h"

typedef struct shape {
    int64_t n, T;
    int heads, kv_heads, d_qk, d_v;
    int gap; /* elements between heads and between rows */
} shape;

/* Inputs of one shape. */
typedef struct problem {
    shape s;
    dtype type;
    int64_t ldq, ldo, k_stride, v_stride, k_head, v_head;
    float *q, *k, *v; /* k and v as the cache holds them, in F32 */
    void *k_cache, *v_cache;
} problem;

static problem make(shape s, dtype type) {
    problem p = {.s = s, .type = type};
    p.ldq = s.heads * s.d_qk + s.gap;
    p.ldo = s.heads * s.d_v + s.gap;
    p.k_head = s.d_qk + s.gap;
    p.v_head = s.d_v + s.gap;
    p.k_stride = s.kv_heads * p.k_head;
    p.v_stride = s.kv_heads * p.v_head;
    p.q = random_rows(1, s.n, s.heads * s.d_qk, p.ldq, 1.5);
    p.k = random_rows(2, s.T * s.kv_heads, s.d_qk, p.k_head, 1);
    p.v = random_rows(3, s.T * s.kv_heads, s.d_v, p.v_head, 1);
    int64_t k_n = (s.T * s.kv_heads - 1) * p.k_head + s.d_qk, v_n = (s.T * s.kv_heads - 1) * p.v_head + s.d_v;
    for (int64_t i = 0; type == DT_BF16 && i < k_n; i++) p.k[i] = bf16_to_f32(f32_to_bf16(p.k[i]));
    for (int64_t i = 0; type == DT_BF16 && i < v_n; i++) p.v[i] = bf16_to_f32(f32_to_bf16(p.v[i]));
    p.k_cache = as_type(p.k, k_n, type);
    p.v_cache = as_type(p.v, v_n, type);
    return p;
}

static void drop(problem *p) {
    free(p->q);
    free(p->k);
    free(p->v);
    free(p->k_cache);
    free(p->v_cache);
}

static attention call_of(const problem *p, float *o) {
    bool dense = p->s.gap == 0;
    return (attention){.o = o,
                       .ldo = p->ldo,
                       .q = p->q,
                       .ldq = p->ldq,
                       .n = p->s.n,
                       .T = p->s.T,
                       .k = p->k_cache,
                       .v = p->v_cache,
                       .kv_type = p->type,
                       .k_stride = p->k_stride,
                       .v_stride = p->v_stride,
                       .k_head_stride = dense ? 0 : p->k_head,
                       .v_head_stride = dense ? 0 : p->v_head,
                       .heads = p->s.heads,
                       .kv_heads = p->s.kv_heads,
                       .d_qk = p->s.d_qk,
                       .d_v = p->s.d_v,
                       .scale = 1 / sqrtf((float)p->s.d_qk)};
}

static int64_t o_size(const problem *p) {
    return (p->s.n - 1) * p->ldo + p->s.heads * p->s.d_v;
}

static void check(const problem *p, int l, compute c, const double *want, const double *bound, worst *w) {
    queue *q = open_level(l, 2, c);
    if (!q) return;
    float *o = numbers(o_size(p));
    attention a = call_of(p, o);
    op_attention(q, &a, 1);
    int64_t width = p->s.heads * p->s.d_v;
    for (int64_t i = 0; i < p->s.n; i++) {
        for (int64_t c2 = 0; c2 < width; c2++)
            compare(w, i * width + c2, o[i * p->ldo + c2], want[i * width + c2], bound[i * width + c2]);
        for (int64_t g = width; i + 1 < p->s.n && g < p->ldo; g++) assert_true(o[i * p->ldo + g] == canary);
    }
    release(o, o_size(p));
    queue_close(q);
}

static void test_against_double(void **state) {
    (void)state;
    static const shape shapes[] = {
        {1, 1, 1, 1, 20, 20, 0},       {1, 300, 5, 5, 24, 20, 0},      {3, 40, 6, 2, 28, 28, 3},
        {9, 9, 7, 7, 40, 24, 0},       {33, 100, 14, 2, 56, 56, 5},    {8, 300, 12, 2, 128, 128, 0},
        {40, 300, 3, 3, 192, 128, 0},  {129, 280, 2, 2, 192, 128, 16}, {2, 700, 7, 1, 32, 16, 0},
        {1, 1200, 12, 2, 128, 128, 0}, {64, 64, 2, 1, 64, 64, 0},      {17, 533, 5, 1, 33, 17, 1},
        {300, 300, 1, 1, 40, 40, 0},   {12, 257, 4, 4, 96, 48, 32},    {1, 19, 8, 2, 64, 64, 0},
        {30, 520, 6, 2, 32, 48, 5},    {1, 600, 4, 1, 128, 128, 0},
    };
    for (int c = COMPUTE_F32; c <= COMPUTE_BF16; c++) {
        worst w[LENGTH(test_levels)] = {{0}};
        for (int i = 0; i < LENGTH(shapes); i++) {
            for (int type = DT_F32; type <= DT_BF16; type++) {
                shape s = shapes[i];
                problem p = make(s, type);
                int64_t width = s.heads * s.d_v;
                double *want = malloc((size_t)(s.n * width) * sizeof *want);
                double *bound = malloc((size_t)(s.n * width) * sizeof *bound);
                for (int64_t r = 0; r < s.n; r++) {
                    for (int h = 0; h < s.heads; h++) {
                        int kv = h / (s.heads / s.kv_heads);
                        naive_attention(want + r * width + h * s.d_v, bound + r * width + h * s.d_v,
                                        p.q + r * p.ldq + h * s.d_qk, p.k + kv * p.k_head, p.k_stride,
                                        p.v + kv * p.v_head, p.v_stride, NULL, s.T - s.n + r + 1, s.d_qk, s.d_v,
                                        (double)(1 / sqrtf((float)s.d_qk)), c);
                    }
                }
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

/* The same list of calls with 1, 2 and 3 threads. */
static void test_threads(void **state) {
    (void)state;
    static const shape shapes[] = {{2, 1100, 6, 2, 40, 24, 0}, {150, 300, 3, 3, 24, 20, 0}, {1, 30, 4, 4, 28, 28, 2}};
    for (int l = 0; l < LENGTH(test_levels); l++) {
        for (int c = COMPUTE_F32; c <= COMPUTE_BF16; c++) {
            float *first[LENGTH(shapes)] = {0};
            for (int threads = 1; threads <= 3; threads++) {
                queue *q = open_level(l, threads, c);
                if (!q) break;
                problem p[LENGTH(shapes)];
                attention list[LENGTH(shapes)];
                for (int i = 0; i < LENGTH(shapes); i++) {
                    p[i] = make(shapes[i], DT_BF16);
                    list[i] = call_of(&p[i], numbers(o_size(&p[i])));
                }
                op_attention(q, list, LENGTH(shapes));
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

/* Rows at once and one by one; the chunks of keys must depend neither on where the sequence ends nor on how many rows
 * there are. */
static void test_rows_as_alone(void **state) {
    (void)state;
    static const shape shapes[] = {
        {8, 517, 6, 2, 40, 24, 0},   {5, 1027, 14, 1, 28, 28, 2}, {8, 260, 3, 3, 192, 128, 0},
        {8, 1028, 12, 2, 64, 64, 0}, {2, 2, 5, 5, 24, 20, 0},     {7, 530, 70, 2, 20, 20, 0},
        {8, 515, 8, 2, 64, 48, 0},   {6, 40, 3, 1, 32, 16, 3},    {9, 1030, 6, 2, 40, 24, 0},
        {40, 530, 14, 2, 64, 64, 0}, {130, 600, 5, 5, 24, 20, 1}, {300, 540, 4, 1, 32, 16, 0},
        {11, 260, 3, 3, 192, 128, 0}};
    for (int l = 0; l < LENGTH(test_levels); l++) {
        for (int c = COMPUTE_F32; c <= COMPUTE_BF16; c++) {
            queue *q = open_level(l, 2, c);
            if (!q) continue;
            for (int i = 0; i < LENGTH(shapes); i++) {
                for (int type = DT_F32; type <= DT_BF16; type++) {
                    problem p = make(shapes[i], type);
                    float *o = numbers(o_size(&p)), *alone = numbers(o_size(&p));
                    attention a = call_of(&p, o);
                    op_attention(q, &a, 1);
                    for (int64_t r = 0; r < p.s.n; r++) {
                        attention one = call_of(&p, alone + r * p.ldo);
                        one.q += r * p.ldq;
                        one.n = 1;
                        one.T = p.s.T - p.s.n + r + 1;
                        op_attention(q, &one, 1);
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

/* Keys and values in pages give the bits that they give in order. */
static void test_pages(void **state) {
    (void)state;
    static const shape shapes[] = {{1, 700, 6, 2, 40, 24, 0},    {3, 257, 14, 2, 64, 64, 5},
                                   {8, 1300, 3, 3, 192, 128, 0}, {300, 600, 4, 1, 64, 64, 0},
                                   {40, 40, 6, 2, 32, 48, 5},    {30, 520, 5, 1, 33, 17, 1},
                                   {2, 256, 4, 1, 128, 128, 0},  {70, 300, 3, 1, 32, 16, 3}};
    for (int l = 0; l < LENGTH(test_levels); l++) {
        for (int c = COMPUTE_F32; c <= COMPUTE_BF16; c++) {
            queue *q = open_level(l, 2, c);
            if (!q) continue;
            for (int i = 0; i < LENGTH(shapes); i++) {
                for (int type = DT_F32; type <= DT_BF16; type++) {
                    problem p = make(shapes[i], type);
                    const int64_t T = p.s.T, k_n = (T * p.s.kv_heads - 1) * p.k_head + p.s.d_qk,
                                  v_n = (T * p.s.kv_heads - 1) * p.v_head + p.s.d_v;
                    float *o = numbers(o_size(&p)), *paged = numbers(o_size(&p));
                    int32_t *pages = random_pages((uint64_t)i, T);
                    void *k = in_pages(p.k_cache, type, k_n, p.k_stride, T, pages);
                    void *v = in_pages(p.v_cache, type, v_n, p.v_stride, T, pages);
                    attention a[2] = {call_of(&p, o), call_of(&p, paged)};
                    a[1].k = k;
                    a[1].v = v;
                    a[1].pages = pages;
                    op_attention(q, a, 2);
                    assert_memory_equal(o, paged, (size_t)o_size(&p) * sizeof(float));
                    release(o, o_size(&p));
                    release(paged, o_size(&p));
                    free(pages);
                    free(k);
                    free(v);
                    drop(&p);
                }
            }
            queue_close(q);
        }
    }
}

/* NaN, infinities and huge numbers come out as something, and in time. */
static void test_odd_numbers(void **state) {
    (void)state;
    static const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-42f};
    for (int l = 0; l < LENGTH(test_levels); l++) {
        for (int c = COMPUTE_F32; c <= COMPUTE_BF16; c++) {
            queue *q = open_level(l, 1, c);
            if (!q) continue;
            for (int i = 0; i < LENGTH(odd); i++) {
                problem p = make((shape){4, 40, 2, 1, 24, 20, 0}, DT_F32);
                float *o = numbers(o_size(&p));
                p.q[30] = odd[i];
                ((float *)p.k_cache)[24 * 20 + 3] = odd[i];
                attention a = call_of(&p, o);
                op_attention(q, &a, 1);
                if (odd[i] != odd[i]) assert_true(o[0] != o[0]);
                release(o, o_size(&p));
                drop(&p);
            }
            queue_close(q);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_double), cmocka_unit_test(test_threads), cmocka_unit_test(test_rows_as_alone),
        cmocka_unit_test(test_odd_numbers),    cmocka_unit_test(test_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
