/* op_attention_forward and op_attention_backward at every level of the machine against plain loops in double precision,
 * which central differences prove; odd sizes, groups of heads, tails, strides, kept rows, trees; the same bits for any
 * number of threads and whatever else is in the list. */
#include "attn_test.h"

#include "kernels/train_ops.h"

enum { O, LSE, DQ, DK, DTAIL, DV, OUTPUTS };

typedef struct shape {
    int64_t n;
    int heads, kv_heads, d_qk, d_tail, d_v, gap, keep; /* keep: rows that are kept at most; 0: all; -n: the first n */
    int trunk, branch;                                 /* of a tree; rows of its longest branch */
} shape;

static const shape shapes[] = {
    {1, 1, 1, 1, 0, 1, 0, 0, 0, 0},
    {5, 4, 2, 5, 2, 3, 1, 0, 0, 0},
    {33, 6, 6, 48, 16, 32, 0, 0, 0, 0},
    {64, 2, 2, 96, 32, 64, 0, 0, 0, 0},
    {97, 3, 1, 33, 0, 17, 3, 0, 0, 0},
    {150, 6, 3, 50, 7, 36, 2, 0, 0, 0},
    {257, 2, 1, 20, 20, 40, 1, 0, 0, 0},
    {300, 2, 2, 96, 32, 64, 5, 0, 0, 0},
    {530, 2, 2, 24, 8, 16, 0, 0, 0, 0},
    {70, 17, 17, 10, 3, 5, 1, 0, 0, 0},
    {130, 36, 36, 6, 2, 4, 0, 0, 0, 0},
    {60, 4, 2, 12, 5, 7, 1, 9, 0, 0},
    {300, 3, 3, 24, 8, 16, 0, 20, 0, 0},
    {530, 2, 1, 17, 3, 9, 2, 100, 0, 0},
    {40, 2, 2, 192, 64, 128, 0, 40, 0, 0},
    {290, 1, 1, 128, 0, 128, 0, 1, 0, 0},
    {530, 2, 2, 12, 4, 8, 0, -3, 0, 0},
    {.n = 131, .heads = 4, .kv_heads = 4, .d_qk = 48, .d_tail = 32, .d_v = 32, .trunk = 11, .branch = 25},
    {.n = 800, .heads = 2, .kv_heads = 1, .d_qk = 17, .d_tail = 3, .d_v = 9, .gap = 1, .trunk = 40, .branch = 130},
    {.n = 700, .heads = 2, .kv_heads = 2, .d_qk = 12, .d_tail = 0, .d_v = 20, .trunk = 290, .branch = 90},
    {.n = 900, .heads = 2, .kv_heads = 2, .d_qk = 8, .d_tail = 4, .d_v = 8, .trunk = 33, .branch = 600},
    {.n = 90, .heads = 1, .kv_heads = 1, .d_qk = 8, .d_tail = 0, .d_v = 8, .trunk = 1, .branch = 1},
};

/* --- documents ---------------------------------------------------------------------------------------------------- */

typedef struct document {
    shape s;
    attention_train a;
    int64_t size[OUTPUTS]; /* numbers between the canaries of each result */
    float *out[OUTPUTS];
    int32_t *keep, *keep_n, *from; /* those of a tree are for the reference alone */
} document;

/* At most `most` of the rows 0 .. i, ascending; never none. */
static int32_t choose(int32_t *keep, uint64_t seed, int64_t i, int most) {
    int32_t n = 0;
    for (int64_t s = 0; s <= i && n < abs(most); s++)
        if (most < 0 || rng_uniform(seed, (uint64_t)i, (uint64_t)s) * (double)(i + 1) < most || s == i)
            keep[n++] = (int32_t)s;
    return n;
}

/* Branches of 1 to s.branch rows, and what every row sees. */
static void grow(document *d, uint64_t seed) {
    const shape s = d->s;
    attention_train *a = &d->a;
    a->trunk = s.trunk;
    a->keep_stride = s.n;
    a->from = d->from = malloc((size_t)s.n * sizeof *d->from);
    d->keep = malloc((size_t)(s.n * s.n) * sizeof *d->keep);
    d->keep_n = calloc((size_t)s.n, sizeof *d->keep_n);
    int64_t end = s.trunk;
    for (int64_t i = 0; i < s.n; i++) {
        d->from[i] = i < s.trunk ? 0 : i < end ? d->from[i - 1] : (int32_t)i;
        if (i == end) end += 1 + (int64_t)(rng_uniform(seed, 7, (uint64_t)i) * s.branch);
        for (int64_t t = 0; t <= i; t++)
            if (t < s.trunk || t >= d->from[i]) d->keep[i * s.n + d->keep_n[i]++] = (int32_t)t;
    }
}

static document make(shape s, uint64_t seed) {
    document d = {.s = s};
    int64_t own = s.d_qk - s.d_tail, k_head = own + s.gap, v_head = s.d_v + s.gap;
    attention_train *a = &d.a;
    *a = (attention_train){.ldq = s.heads * s.d_qk + s.gap,
                           .ldo = s.heads * s.d_v + s.gap,
                           .ldk = s.kv_heads * k_head,
                           .k_head = k_head,
                           .ldv = s.kv_heads * v_head,
                           .v_head = v_head,
                           .ldtail = s.d_tail + s.gap,
                           .n = s.n,
                           .heads = s.heads,
                           .kv_heads = s.kv_heads,
                           .d_qk = s.d_qk,
                           .d_tail = s.d_tail,
                           .d_v = s.d_v,
                           .scale = (float)(1.5 / sqrt(s.d_qk))};
    a->q = random_rows(seed + 1, s.n, s.heads * s.d_qk, a->ldq, 1);
    a->k = random_rows(seed + 2, s.n * s.kv_heads, own, k_head, 1);
    a->tail = random_rows(seed + 3, s.n, s.d_tail, a->ldtail, 1);
    a->v = random_rows(seed + 4, s.n * s.kv_heads, s.d_v, v_head, 1);
    a->d_o = random_rows(seed + 5, s.n, s.heads * s.d_v, a->ldo, 1);
    int64_t size[OUTPUTS] = {s.n * a->ldo, s.n * s.heads, s.n * a->ldq, s.n * a->ldk, s.n * a->ldtail, s.n * a->ldv};
    for (int i = 0; i < OUTPUTS; i++) {
        d.size[i] = size[i];
        d.out[i] = numbers(size[i]);
    }
    a->o = d.out[O];
    a->lse = d.out[LSE];
    a->dq = d.out[DQ];
    a->dk = d.out[DK];
    a->dtail = s.d_tail ? d.out[DTAIL] : NULL;
    a->dv = d.out[DV];
    if (s.keep) {
        a->keep_stride = abs(s.keep) + s.gap;
        a->keep = d.keep = malloc((size_t)(s.n * a->keep_stride) * sizeof *d.keep);
        a->keep_n = d.keep_n = malloc((size_t)s.n * sizeof *d.keep_n);
        for (int64_t i = 0; i < s.n * a->keep_stride; i++) d.keep[i] = -7;
        for (int64_t i = 0; i < s.n; i++) d.keep_n[i] = choose(d.keep + i * a->keep_stride, seed, i, s.keep);
    }
    if (s.trunk) grow(&d, seed);
    return d;
}

static void drop(document *d) {
    const float *in[] = {d->a.q, d->a.k, d->a.tail, d->a.v, d->a.d_o};
    for (int i = 0; i < LENGTH(in); i++) free((void *)(uintptr_t)in[i]);
    for (int i = 0; i < OUTPUTS; i++) release(d->out[i], d->size[i]);
    free(d->keep);
    free(d->keep_n);
    free(d->from);
}

/* --- the reference ------------------------------------------------------------------------------------------------ */

/* Everything packed: q [n][heads][d_qk], k [n][kv_heads][d_qk - d_tail], ... */
typedef struct reference {
    shape s;
    double scale;
    const document *d;                     /* for its kept rows */
    double *q, *k, *tail, *v, *d_o, *full; /* full: d_o before it is rounded */
    double *want[OUTPUTS], *bound[OUTPUTS];
    int64_t size[OUTPUTS];
} reference;

static double *packed(const float *x, int64_t rows, int64_t dim, int64_t ld, compute c) {
    double *p = calloc((size_t)(rows * dim + 1), sizeof *p);
    for (int64_t i = 0; i < rows * dim; i++) p[i] = operand(x[i / dim * ld + i % dim], c);
    return p;
}

static reference refer(const document *d, compute c) {
    const attention_train *a = &d->a;
    shape s = d->s;
    int64_t own = s.d_qk - s.d_tail, kv = s.n * s.kv_heads;
    reference r = {.s = s, .scale = a->scale, .d = d};
    r.q = packed(a->q, s.n, s.heads * s.d_qk, a->ldq, c);
    r.k = packed(a->k, kv, own, a->k_head, c);
    r.tail = packed(a->tail, s.n, s.d_tail, a->ldtail, c);
    r.v = packed(a->v, kv, s.d_v, a->v_head, c);
    r.d_o = packed(a->d_o, s.n, s.heads * s.d_v, a->ldo, c);
    r.full = packed(a->d_o, s.n, s.heads * s.d_v, a->ldo, COMPUTE_F32);
    int64_t size[OUTPUTS] = {s.n * s.heads * s.d_v, s.n * s.heads, s.n * s.heads * s.d_qk, kv * own,
                             s.n * s.d_tail,        kv * s.d_v};
    for (int i = 0; i < OUTPUTS; i++) {
        r.size[i] = size[i];
        r.want[i] = calloc((size_t)size[i] + 1, sizeof(double));
        r.bound[i] = calloc((size_t)size[i] + 1, sizeof(double));
    }
    return r;
}

static void forget(reference *r) {
    double *in[] = {r->q, r->k, r->tail, r->v, r->d_o, r->full};
    for (int i = 0; i < LENGTH(in); i++) free(in[i]);
    for (int i = 0; i < OUTPUTS; i++) {
        free(r->want[i]);
        free(r->bound[i]);
    }
}

/* Number j of the key of head h at row s, and where its derivative goes. */
static double *key_number(const reference *r, int output, int64_t s, int h, int j, double *const *results) {
    int own = r->s.d_qk - r->s.d_tail, g = h / (r->s.heads / r->s.kv_heads);
    if (j < own) return (output ? results[DK] : r->k) + (s * r->s.kv_heads + g) * own + j;
    return (output ? results[DTAIL] : r->tail) + s * r->s.d_tail + j - own;
}

static void add(const reference *r, int output, int64_t at, double value, double bound) {
    r->want[output][at] += value;
    r->bound[output][at] += bound;
}

/* One query of one head, forward and backward. Bounds, with u = 2^-24: a score is off by (d + 3) u A with
 * A = scale sum |q k|, lse by as much and (count + 16) u for the sum; scores and lse as numbers of the size A + |lse|
 * are rounded a few times. So weights are off by e = 2 (d + 3) u A + 2 (count + 16) u + 8 u (1 + A + |lse|), relative;
 * as operands of BF16 products by 2^-8 more, and so are ds. Sums of m terms add (m + 16) u. */
static void attend(const reference *r, int64_t i, int h, compute c) {
    shape z = r->s;
    int g = h / (z.heads / z.kv_heads);
    int64_t count = r->d->keep ? r->d->keep_n[i] : i + 1;
    const int32_t *keep = r->d->keep ? r->d->keep + i * r->d->a.keep_stride : NULL;
    const double *q = r->q + (i * z.heads + h) * z.d_qk, *d_o = r->d_o + (i * z.heads + h) * z.d_v;
    const double *full = r->full + (i * z.heads + h) * z.d_v;
    double *p = malloc((size_t)count * sizeof *p), max = -INFINITY, sum = 0, A = 0, u = ldexp(1, -24);
    for (int64_t t = 0; t < count; t++) {
        int64_t s = keep ? keep[t] : t;
        double size = 0;
        p[t] = 0;
        for (int j = 0; j < z.d_qk; j++) {
            double term = q[j] * *key_number(r, 0, s, h, j, NULL) * r->scale;
            p[t] += term;
            size += fabs(term);
        }
        max = fmax(max, p[t]);
        A = fmax(A, size);
    }
    for (int64_t t = 0; t < count; t++) sum += exp(p[t] - max);
    double lse = max + log(sum), delta = 0, delta_bound = 0;
    double sums = (double)(count + 16) * u;
    double e = 2 * (z.d_qk + 3) * u * A + 2 * sums + 8 * u * (1 + A + fabs(lse)),
           half = c == COMPUTE_BF16 ? ldexp(1, -8) : 0;
    add(r, LSE, i * z.heads + h, lse, e);
    for (int j = 0; j < z.d_v; j++) {
        double o = 0, bound = 1e-37;
        for (int64_t t = 0; t < count; t++) {
            double term = exp(p[t] - lse) * r->v[((keep ? keep[t] : t) * z.kv_heads + g) * z.d_v + j];
            o += term;
            bound += (e + half + sums) * fabs(term);
        }
        add(r, O, (i * z.heads + h) * z.d_v + j, o, bound);
        delta += full[j] * o;
        delta_bound += fabs(full[j]) * (bound + (z.d_v + 2) * u * fabs(o));
    }
    double all = (double)(z.n * z.heads / z.kv_heads + 16) * u; /* of the longest sum: dk, dv */
    for (int64_t t = 0; t < count; t++) {
        int64_t s = keep ? keep[t] : t;
        double weight = exp(p[t] - lse), dp = 0, dp_bound = 0;
        for (int j = 0; j < z.d_v; j++) {
            int64_t at = (s * z.kv_heads + g) * z.d_v + j;
            dp += d_o[j] * r->v[at];
            dp_bound += (z.d_v + 2) * u * fabs(d_o[j] * r->v[at]);
            add(r, DV, at, weight * d_o[j], (e + half + all) * weight * fabs(d_o[j]) + 1e-37);
        }
        double ds = r->scale * weight * (dp - delta);
        double ds_bound = (e + half + all + 4 * u) * fabs(ds) +
                          r->scale * weight * (dp_bound + delta_bound + 2 * u * (fabs(dp) + fabs(delta))) + 1e-37;
        for (int j = 0; j < z.d_qk; j++) {
            double k = *key_number(r, 0, s, h, j, NULL);
            add(r, DQ, (i * z.heads + h) * z.d_qk + j, ds * k, ds_bound * fabs(k));
            *key_number(r, 1, s, h, j, r->want) += ds * q[j];
            *key_number(r, 1, s, h, j, r->bound) += ds_bound * fabs(q[j]);
        }
    }
    free(p);
}

static void attend_all(reference *r, compute c) {
    for (int i = 0; i < OUTPUTS; i++) {
        memset(r->want[i], 0, (size_t)r->size[i] * sizeof(double));
        memset(r->bound[i], 0, (size_t)r->size[i] * sizeof(double));
    }
    for (int64_t i = 0; i < r->s.n; i++)
        for (int h = 0; h < r->s.heads; h++) attend(r, i, h, c);
}

/* --- the reference against central differences ---------------------------------------------------------------------
 */

static double loss(reference *r) { /* sum of d_o o */
    double sum = 0;
    attend_all(r, COMPUTE_F32);
    for (int64_t i = 0; i < r->size[O]; i++) sum += r->d_o[i] * r->want[O][i];
    return sum;
}

/* Steps of 1e-4 in double precision: 1e-8 of the third derivative and 1e-12 of rounding; both are of order 1. */
static void test_reference(void **state) {
    (void)state;
    static const shape small[] = {
        {6, 4, 2, 5, 2, 3, 1, 0, 0, 0}, {7, 2, 2, 4, 1, 2, 0, 3, 0, 0}, {5, 2, 1, 3, 0, 2, 0, 0, 0, 0}};
    for (int n = 0; n < LENGTH(small); n++) {
        document d = make(small[n], 40);
        reference r = refer(&d, COMPUTE_F32);
        double *in[] = {r.q, r.k, r.tail, r.v};
        int result[] = {DQ, DK, DTAIL, DV};
        for (int x = 0; x < LENGTH(in); x++) {
            for (int64_t i = 0; i < r.size[result[x]]; i++) {
                double at = in[x][i], h = 1e-4;
                in[x][i] = at + h;
                double high = loss(&r);
                in[x][i] = at - h;
                double low = loss(&r);
                in[x][i] = at;
                attend_all(&r, COMPUTE_F32);
                assert_true(fabs((high - low) / (2 * h) - r.want[result[x]][i]) < 1e-6);
            }
        }
        forget(&r);
        drop(&d);
    }
}

/* --- the operations ----------------------------------------------------------------------------------------------- */

/* How a result lies in memory: rows of `count` pieces of dim numbers, step apart, rows ld apart. */
typedef struct layout {
    int64_t count, dim, step, ld;
} layout;

static layout layout_of(const document *d, int output) {
    const attention_train *a = &d->a;
    switch (output) {
    case O: return (layout){1, a->heads * a->d_v, 0, a->ldo};
    case LSE: return (layout){1, a->heads, 0, a->heads};
    case DQ: return (layout){1, a->heads * a->d_qk, 0, a->ldq};
    case DK: return (layout){a->kv_heads, a->d_qk - a->d_tail, a->k_head, a->ldk};
    case DTAIL: return (layout){1, a->d_tail, 0, a->ldtail};
    default: return (layout){a->kv_heads, a->d_v, a->v_head, a->ldv};
    }
}

/* Every number of a result against the reference; what lies between is as it was. */
static void check(const document *d, const reference *r, int output, worst *w) {
    layout l = layout_of(d, output);
    int64_t next = 0;
    for (int64_t i = 0; i < d->size[output]; i++) {
        int64_t in_row = i % l.ld, head = l.step ? in_row / l.step : 0, j = in_row - head * l.step;
        if (head < l.count && j < l.dim) {
            compare(w, i, d->out[output][i], r->want[output][next], r->bound[output][next]);
            next++;
        } else {
            assert_true(d->out[output][i] == canary);
        }
    }
    assert_int_equal(next, r->size[output]);
}

static void run(queue *q, document *list, int count) {
    attention_train a[LENGTH(shapes)];
    for (int i = 0; i < count; i++) {
        for (int o = 0; o < OUTPUTS; o++)
            for (int64_t j = 0; j < list[i].size[o]; j++) list[i].out[o][j] = canary;
        a[i] = list[i].a;
    }
    op_attention_forward(q, a, count);
    op_attention_backward(q, a, count);
}

static void test_results(void **state) {
    (void)state;
    static const char *const names[] = {"o", "lse", "dq", "dk", "dtail", "dv"};
    document list[LENGTH(shapes)];
    for (int i = 0; i < LENGTH(shapes); i++) list[i] = make(shapes[i], 100 * (uint64_t)i);
    for (int c = COMPUTE_F32; c <= COMPUTE_BF16; c++) {
        reference r[LENGTH(shapes)];
        for (int i = 0; i < LENGTH(shapes); i++) {
            r[i] = refer(&list[i], c);
            attend_all(&r[i], c);
        }
        for (int l = 0; l < LENGTH(test_levels); l++) {
            queue *q = open_level(l, 2, c);
            if (!q) continue;
            run(q, list, LENGTH(shapes));
            for (int o = 0; o < OUTPUTS; o++) {
                worst w = {0};
                for (int i = 0; i < LENGTH(shapes); i++) check(&list[i], &r[i], o, &w);
                report(&w, "%s %s, %s of %d documents", test_levels[l], compute_names[c], names[o], LENGTH(shapes));
            }
            queue_close(q);
        }
        for (int i = 0; i < LENGTH(shapes); i++) forget(&r[i]);
    }
    for (int i = 0; i < LENGTH(shapes); i++) drop(&list[i]);
}

static void assert_same(const document *a, const document *b) {
    for (int o = 0; o < OUTPUTS; o++) assert_memory_equal(a->out[o], b->out[o], (size_t)a->size[o] * sizeof(float));
}

/* 1, 2 and 3 threads; each document alone; FP8 computes as F32 does. */
static void test_same_bits(void **state) {
    (void)state;
    document list[LENGTH(shapes)], other[LENGTH(shapes)];
    for (int i = 0; i < LENGTH(shapes); i++) {
        list[i] = make(shapes[i], 100 * (uint64_t)i);
        other[i] = make(shapes[i], 100 * (uint64_t)i);
    }
    for (int c = COMPUTE_F32; c <= COMPUTE_BF16; c++) {
        for (int l = 0; l < LENGTH(test_levels); l++) {
            queue *q = open_level(l, 1, c);
            if (!q) continue;
            run(q, list, LENGTH(shapes));
            for (int i = 0; i < LENGTH(shapes); i++) {
                run(q, &other[i], 1);
                assert_same(&list[i], &other[i]);
            }
            queue_close(q);
            for (int threads = 2; threads <= 3; threads++) {
                q = open_level(l, threads, c);
                run(q, other, LENGTH(shapes));
                for (int i = 0; i < LENGTH(shapes); i++) assert_same(&list[i], &other[i]);
                queue_close(q);
            }
            if (c != COMPUTE_F32) continue;
            q = open_level(l, 2, COMPUTE_FP8);
            run(q, other, LENGTH(shapes));
            for (int i = 0; i < LENGTH(shapes); i++) assert_same(&list[i], &other[i]);
            queue_close(q);
        }
    }
    for (int i = 0; i < LENGTH(shapes); i++) {
        drop(&list[i]);
        drop(&other[i]);
    }
}

/* Rows that keep nothing: zeros everywhere. */
static void test_nothing_kept(void **state) {
    (void)state;
    document d = make((shape){70, 2, 2, 12, 4, 8, 0, 3, 0, 0}, 9);
    memset(d.keep_n, 0, (size_t)d.s.n * sizeof *d.keep_n);
    for (int l = 0; l < LENGTH(test_levels); l++) {
        queue *q = open_level(l, 2, COMPUTE_F32);
        if (!q) continue;
        run(q, &d, 1);
        for (int o = 0; o < OUTPUTS; o++)
            for (int64_t i = 0; i < d.size[o]; i++) assert_true(d.out[o][i] == (o == LSE ? -INFINITY : 0));
        queue_close(q);
    }
    drop(&d);
}

static void test_nothing(void **state) {
    (void)state;
    queue *q = open_level(0, 1, COMPUTE_F32);
    attention_train a = {.heads = 1, .kv_heads = 1, .d_qk = 4, .d_v = 4};
    op_attention_forward(q, &a, 0);
    op_attention_backward(q, &a, 1);
    op_attention_forward(q, &a, 1);
    error e = {0};
    assert_int_equal(queue_failed(q, &e), OK);
    queue_close(q);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),    cmocka_unit_test(test_results), cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_nothing_kept), cmocka_unit_test(test_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
