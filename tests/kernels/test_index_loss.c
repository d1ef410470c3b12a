/* op_index_loss at every level of the machine against plain loops in double precision, which central differences prove;
 * with and without kept rows; the same bits for any number of threads and whatever else is in the list. */
#include "attn_test.h"

#include "kernels/train_ops.h"

enum { KL, DQ, DK, DW, OUTPUTS };

typedef struct shape {
    int64_t n;
    int a_heads, kv_heads, d_qk, d_tail, heads, dim, gap, keep; /* keep: rows kept at most; 0: all */
} shape;

static const shape shapes[] = {
    {1, 1, 1, 3, 0, 1, 2, 0, 0},    {6, 2, 1, 5, 2, 3, 4, 1, 0},      {33, 6, 6, 48, 16, 4, 32, 0, 0},
    {70, 4, 2, 17, 5, 5, 20, 2, 0}, {300, 2, 2, 24, 8, 4, 16, 1, 0},  {1100, 1, 1, 8, 0, 2, 8, 0, 0},
    {60, 3, 3, 12, 4, 3, 33, 1, 7}, {330, 2, 2, 24, 8, 4, 16, 0, 40}, {40, 2, 2, 96, 32, 64, 128, 0, 40},
    {50, 1, 1, 6, 2, 2, 5, 0, 1},   {262, 1, 1, 6, 2, 2, 5, 0, 1},
};

/* --- problems ----------------------------------------------------------------------------------------------------- */

typedef struct problem {
    shape s;
    attention_train a;
    index_loss l;
    int64_t size[OUTPUTS];
    float *out[OUTPUTS], *lse;
    int32_t *keep, *keep_n;
} problem;

static void choose(problem *p, uint64_t seed) {
    shape s = p->s;
    p->a.keep_stride = s.keep + s.gap;
    p->a.keep = p->keep = malloc((size_t)(s.n * p->a.keep_stride) * sizeof *p->keep);
    p->a.keep_n = p->keep_n = calloc((size_t)s.n, sizeof *p->keep_n);
    for (int64_t i = 0; i < s.n * p->a.keep_stride; i++) p->keep[i] = -7;
    for (int64_t i = 0; i < s.n; i++)
        for (int64_t t = 0; t <= i && p->keep_n[i] < s.keep; t++)
            if (t == i || rng_uniform(seed, (uint64_t)i, (uint64_t)t) * (double)(i + 1) < s.keep)
                p->keep[i * p->a.keep_stride + p->keep_n[i]++] = (int32_t)t;
}

static problem make(shape s, uint64_t seed) {
    problem p = {.s = s};
    int64_t own = s.d_qk - s.d_tail;
    p.a = (attention_train){.ldq = s.a_heads * s.d_qk + s.gap,
                            .ldk = s.kv_heads * (own + s.gap),
                            .k_head = own + s.gap,
                            .ldtail = s.d_tail + s.gap,
                            .n = s.n,
                            .heads = s.a_heads,
                            .kv_heads = s.kv_heads,
                            .d_qk = s.d_qk,
                            .d_tail = s.d_tail,
                            .d_v = 4,
                            .scale = (float)(2 / sqrt(s.d_qk))};
    p.a.q = random_rows(seed + 1, s.n, s.a_heads * s.d_qk, p.a.ldq, 1);
    p.a.k = random_rows(seed + 2, s.n * s.kv_heads, own, p.a.k_head, 1);
    p.a.tail = random_rows(seed + 3, s.n, s.d_tail, p.a.ldtail, 1);
    p.a.lse = p.lse = malloc((size_t)(s.n * s.a_heads) * sizeof *p.lse);
    if (s.keep) choose(&p, seed);
    p.l = (index_loss){.ldq = s.heads * s.dim + s.gap,
                       .ldk = s.dim + s.gap,
                       .ldw = s.heads + s.gap,
                       .heads = s.heads,
                       .dim = s.dim,
                       .scale = 0.7f};
    p.l.q = random_rows(seed + 4, s.n, s.heads * s.dim, p.l.ldq, 1);
    p.l.k = random_rows(seed + 5, s.n, s.dim, p.l.ldk, 1);
    p.l.w = random_rows(seed + 6, s.n, s.heads, p.l.ldw, 1 / sqrt(s.heads * s.dim));
    int64_t size[OUTPUTS] = {s.n, s.n * p.l.ldq, s.n * p.l.ldk, s.n * p.l.ldw};
    for (int i = 0; i < OUTPUTS; i++) {
        p.size[i] = size[i];
        p.out[i] = numbers(size[i]);
    }
    p.l.kl = p.out[KL];
    p.l.dq = p.out[DQ];
    p.l.dk = p.out[DK];
    p.l.dw = p.out[DW];
    return p;
}

static void drop(problem *p) {
    const float *in[] = {p->a.q, p->a.k, p->a.tail, p->l.q, p->l.k, p->l.w, p->lse};
    for (int i = 0; i < LENGTH(in); i++) free((void *)(uintptr_t)in[i]);
    for (int i = 0; i < OUTPUTS; i++) release(p->out[i], p->size[i]);
    free(p->keep);
    free(p->keep_n);
}

/* --- the reference ------------------------------------------------------------------------------------------------ */

typedef struct reference {
    const problem *p;
    compute c;
    double *q, *k, *w; /* packed, as products see them */
    double *want[OUTPUTS], *bound[OUTPUTS];
    int64_t size[OUTPUTS];
} reference;

static double *packed(const float *x, int64_t rows, int64_t dim, int64_t ld, compute c) {
    double *p = malloc((size_t)(rows * dim) * sizeof *p);
    for (int64_t i = 0; i < rows * dim; i++) p[i] = operand(x[i / dim * ld + i % dim], c);
    return p;
}

static reference refer(const problem *p, compute c) {
    shape s = p->s;
    reference r = {.p = p, .c = c};
    r.q = packed(p->l.q, s.n, s.heads * s.dim, p->l.ldq, c);
    r.k = packed(p->l.k, s.n, s.dim, p->l.ldk, c);
    r.w = packed(p->l.w, s.n, s.heads, p->l.ldw, COMPUTE_F32);
    int64_t size[OUTPUTS] = {s.n, s.n * s.heads * s.dim, s.n * s.dim, s.n * s.heads};
    for (int i = 0; i < OUTPUTS; i++) {
        r.size[i] = size[i];
        r.want[i] = malloc((size_t)size[i] * sizeof(double));
        r.bound[i] = malloc((size_t)size[i] * sizeof(double));
    }
    return r;
}

static void forget(reference *r) {
    free(r->q);
    free(r->k);
    free(r->w);
    for (int i = 0; i < OUTPUTS; i++) {
        free(r->want[i]);
        free(r->bound[i]);
    }
}

/* One row: its set and what is computed of it. */
typedef struct row {
    int64_t count, *at;
    double *p, *p_off, *i, *r, *r_off; /* weights and softmax of I with their relative errors, and I */
} row;

static double key_number(const problem *p, int64_t s, int64_t g, int64_t j, compute c) {
    int64_t own = p->s.d_qk - p->s.d_tail;
    return operand(j < own ? p->a.k[s * p->a.ldk + g * p->a.k_head + j] : p->a.tail[s * p->a.ldtail + j - own], c);
}

/* p, and lse for the operation. With u = 2^-24: scores are off by (d + 3) u A, A = scale sum |q k|; scores and lse, of
 * the size A + |lse|, are rounded a few times; the sums over heads and keys add (count + heads + 16) u. A weight below
 * 2^-126 counts as 0. */
static void weights(const reference *r, int64_t i, row *x) {
    const problem *p = r->p;
    shape s = p->s;
    double u = ldexp(1, -24), sum = 0, total_off = 0;
    double *dot = malloc((size_t)s.n * sizeof *dot), *size = malloc((size_t)s.n * sizeof *size);
    for (int64_t t = 0; t < x->count; t++) x->p[t] = x->p_off[t] = 0;
    for (int64_t h = 0; h < s.a_heads; h++) {
        double max = -INFINITY, lse = 0, A = 0;
        for (int64_t t = 0; t < x->count; t++) {
            dot[t] = size[t] = 0;
            for (int64_t j = 0; j < s.d_qk; j++) {
                double term = operand(p->a.q[i * p->a.ldq + h * s.d_qk + j], r->c) *
                              key_number(p, x->at[t], h / (s.a_heads / s.kv_heads), j, r->c) * p->a.scale;
                dot[t] += term;
                size[t] += fabs(term);
            }
            max = fmax(max, dot[t]);
            A = fmax(A, size[t]);
        }
        for (int64_t t = 0; t < x->count; t++) lse += exp(dot[t] - max);
        lse = max + log(lse);
        p->lse[i * s.a_heads + h] = (float)lse;
        for (int64_t t = 0; t < x->count; t++) {
            x->p[t] += exp(dot[t] - lse);
            x->p_off[t] += exp(dot[t] - lse) * ((s.d_qk + 3) * u * A + 8 * u * (1 + A + fabs(lse)));
        }
    }
    for (int64_t t = 0; t < x->count; t++) {
        sum += x->p[t];
        total_off += x->p_off[t];
    }
    for (int64_t t = 0; t < x->count; t++) {
        x->p_off[t] = x->p_off[t] / x->p[t] + total_off / sum + 2 * (double)(x->count + s.a_heads + 16) * u;
        x->p[t] /= sum;
    }
    free(dot);
    free(size);
}

/* z of head j, and its error: dim + 2 roundings of the sum of sizes. */
static double relu_input(const reference *r, int64_t i, int64_t j, int64_t t, double *off) {
    shape s = r->p->s;
    double z = 0, size = 0;
    for (int64_t d = 0; d < s.dim; d++) {
        double term = r->q[(i * s.heads + j) * s.dim + d] * r->k[t * s.dim + d];
        z += term;
        size += fabs(term);
    }
    *off = (s.dim + 2) * ldexp(1, -24) * size;
    return z;
}

/* softmax(I): I is off by the errors of z and heads + 3 roundings; the largest such error counts twice. */
static void softmax(const reference *r, int64_t i, row *x) {
    shape s = r->p->s;
    double u = ldexp(1, -24), max = -INFINITY, least = INFINITY, sum = 0, off = 0;
    for (int64_t t = 0; t < x->count; t++) {
        double one = 0;
        x->i[t] = 0;
        for (int64_t j = 0; j < s.heads; j++) {
            double z_off, z = relu_input(r, i, j, x->at[t], &z_off), w = r->w[i * s.heads + j];
            x->i[t] += w * fmax(z, 0);
            one += fabs(w) * (z_off + (s.heads + 3) * u * fmax(z, 0));
        }
        off = fmax(off, one);
        max = fmax(max, x->i[t]);
        least = fmin(least, x->i[t]);
    }
    for (int64_t t = 0; t < x->count; t++) sum += exp(x->i[t] - max);
    for (int64_t t = 0; t < x->count; t++) {
        x->r[t] = exp(x->i[t] - max) / sum;
        x->r_off[t] = 2 * off + 2 * (double)(x->count + 16) * u + 8 * u * (1 + (max - least));
    }
}

static void add(reference *r, int output, int64_t at, double value, double bound) {
    r->want[output][at] += value;
    r->bound[output][at] += bound;
}

/* The derivatives of one row; a z so close to 0 that its sign is open may bring all of its term. Numbers that products
 * round to BF16 are off by 2^-8; sums of m terms add (m + 16) u. */
static void derive(reference *r, int64_t i, const row *x) {
    shape s = r->p->s;
    double u = ldexp(1, -24), half = r->c == COMPUTE_BF16 ? ldexp(1, -8) : 0;
    double sums = (double)(s.n * s.heads + 16) * u, kl = 0, kl_off = 0, scale = r->p->l.scale;
    for (int64_t t = 0; t < x->count; t++) {
        double p = x->p[t], ratio = log(p / x->r[t]);
        kl += p * ratio;
        kl_off += p * (x->p_off[t] * (1 + fabs(ratio)) + x->r_off[t] + sums * fabs(ratio) +
                       8 * u * (1 + fabs(log(p)) + fabs(log(x->r[t]))));
        double di = scale * (x->r[t] - p);
        double di_off = scale * ((x->r_off[t] + 4 * u) * x->r[t] + (x->p_off[t] + 4 * u) * p);
        for (int64_t j = 0; j < s.heads; j++) {
            double z_off, z = relu_input(r, i, j, x->at[t], &z_off), w = r->w[i * s.heads + j];
            double g = z > 0 ? di * w : 0, g_off = fabs(w) * (di_off + (half + sums) * fabs(di));
            if (fabs(z) <= z_off) g_off += fabs(di * w);
            else if (z < 0) g_off = 0;
            add(r, DW, i * s.heads + j, di * fmax(z, 0),
                di_off * fmax(z, 0) + fabs(di) * (z_off + sums * fabs(z)) + 1e-37);
            for (int64_t d = 0; d < s.dim; d++) {
                int64_t q = (i * s.heads + j) * s.dim + d, k = x->at[t] * s.dim + d;
                add(r, DQ, q, g * r->k[k], g_off * fabs(r->k[k]) + 1e-37);
                add(r, DK, k, g * r->q[q], g_off * fabs(r->q[q]) + 1e-37);
            }
        }
    }
    add(r, KL, i, kl, kl_off + 1e-37);
}

static void solve(reference *r) {
    const problem *p = r->p;
    size_t n = (size_t)p->s.n * sizeof(double);
    row x = {.at = malloc((size_t)p->s.n * sizeof *x.at), .p = malloc(n), .p_off = malloc(n), .i = malloc(n)};
    x.r = malloc(n);
    x.r_off = malloc(n);
    for (int i = 0; i < OUTPUTS; i++) {
        memset(r->want[i], 0, (size_t)r->size[i] * sizeof(double));
        memset(r->bound[i], 0, (size_t)r->size[i] * sizeof(double));
    }
    for (int64_t i = 0; i < p->s.n; i++) {
        x.count = p->keep ? p->keep_n[i] : i + 1;
        for (int64_t t = 0; t < x.count; t++) x.at[t] = p->keep ? p->keep[i * p->a.keep_stride + t] : t;
        weights(r, i, &x);
        softmax(r, i, &x);
        derive(r, i, &x);
    }
    free(x.at);
    free(x.p);
    free(x.p_off);
    free(x.i);
    free(x.r);
    free(x.r_off);
}

/* Steps of 1e-5: 1e-10 of the third derivative, 1e-11 of rounding, all of order 1. A z within the step of 0 would be no
 * fair question; the seed has none. */
static void test_reference(void **state) {
    (void)state;
    static const shape small[] = {{6, 2, 1, 5, 2, 3, 4, 0, 0}, {8, 2, 2, 4, 0, 2, 3, 0, 3}};
    for (int n = 0; n < LENGTH(small); n++) {
        problem p = make(small[n], 7);
        reference r = refer(&p, COMPUTE_F32);
        double *in[] = {r.q, r.k, r.w};
        int result[] = {DQ, DK, DW};
        for (int x = 0; x < LENGTH(in); x++) {
            for (int64_t i = 0; i < r.size[result[x]]; i++) {
                double at = in[x][i], loss[2] = {0}, h = 1e-5;
                for (int side = 0; side < 2; side++) {
                    in[x][i] = side ? at + h : at - h;
                    solve(&r);
                    for (int64_t t = 0; t < p.s.n; t++) loss[side] += p.l.scale * r.want[KL][t];
                }
                in[x][i] = at;
                solve(&r);
                assert_true(fabs((loss[1] - loss[0]) / (2 * h) - r.want[result[x]][i]) < 1e-8);
            }
        }
        forget(&r);
        drop(&p);
    }
}

/* --- the operation ------------------------------------------------------------------------------------------------ */

static void run(queue *q, problem *list, int count) {
    index_loss l[LENGTH(shapes)];
    for (int i = 0; i < count; i++) {
        for (int o = 0; o < OUTPUTS; o++)
            for (int64_t j = 0; j < list[i].size[o]; j++) list[i].out[o][j] = canary;
        l[i] = list[i].l;
        l[i].a = &list[i].a;
    }
    op_index_loss(q, l, count);
}

static void check(const problem *p, const reference *r, int output, worst *w) {
    const int64_t dim[OUTPUTS] = {1, p->s.heads * p->s.dim, p->s.dim, p->s.heads};
    const int64_t ld[OUTPUTS] = {1, p->l.ldq, p->l.ldk, p->l.ldw};
    for (int64_t i = 0; i < p->size[output]; i++) {
        int64_t at = i / ld[output] * dim[output] + i % ld[output];
        if (i % ld[output] < dim[output]) compare(w, i, p->out[output][i], r->want[output][at], r->bound[output][at]);
        else assert_true(p->out[output][i] == canary);
    }
}

static void test_results(void **state) {
    (void)state;
    static const char *const names[] = {"kl", "dq", "dk", "dw"};
    problem list[LENGTH(shapes)];
    for (int i = 0; i < LENGTH(shapes); i++) list[i] = make(shapes[i], 100 * (uint64_t)i);
    for (int c = COMPUTE_F32; c <= COMPUTE_BF16; c++) {
        reference r[LENGTH(shapes)];
        for (int i = 0; i < LENGTH(shapes); i++) {
            r[i] = refer(&list[i], c);
            solve(&r[i]);
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

static void assert_same(const problem *a, const problem *b) {
    for (int o = 0; o < OUTPUTS; o++) assert_memory_equal(a->out[o], b->out[o], (size_t)a->size[o] * sizeof(float));
}

/* The reference fills lse; then 1, 2 and 3 threads, and each document alone. */
static void test_same_bits(void **state) {
    (void)state;
    problem list[LENGTH(shapes)], other[LENGTH(shapes)];
    for (int i = 0; i < LENGTH(shapes); i++) {
        list[i] = make(shapes[i], 100 * (uint64_t)i);
        other[i] = make(shapes[i], 100 * (uint64_t)i);
        reference r = refer(&list[i], COMPUTE_F32);
        solve(&r);
        forget(&r);
        memcpy(other[i].lse, list[i].lse, (size_t)(shapes[i].n * shapes[i].a_heads) * sizeof(float));
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
        }
    }
    for (int i = 0; i < LENGTH(shapes); i++) {
        drop(&list[i]);
        drop(&other[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_results),
        cmocka_unit_test(test_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
