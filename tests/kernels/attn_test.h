/* What the tests of rows, attention, latent attention and index selection share: levels, random numbers with canaries
 * around them, cache rows of either type, and a report of the largest error in units of its bound. */
#ifndef TESTS_KERNELS_ATTN_TEST_H
#define TESTS_KERNELS_ATTN_TEST_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "kernels/ops.h"
#include "kernels/queue.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h> /* after the headers of the program: it makes a macro of `fail` */

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

static const char *const test_levels[] = {"portable", "avx2", "avx512", "avx512bf16", "amx"};
static const char *const compute_names[] = {"F32", "BF16"};

/* A queue of that level, or NULL when the machine lacks it. */
static inline queue *open_level(int l, int threads, compute c) {
    queue *q = NULL;
    error e = {0};
    status s = queue_open(&q, threads, test_levels[l], c, &e);
    if (s == ERR_UNSUPPORTED) return NULL;
    if (s != OK) fail_msg("%s", e.text);
    return q;
}

/* n numbers between canaries; release() looks whether those still live. */
enum { CANARIES = 32 };
static const float canary = -12345.5f;

static inline float *numbers(int64_t n) {
    float *p = malloc((size_t)(n + 2 * CANARIES) * sizeof *p);
    assert_non_null(p);
    for (int64_t i = 0; i < n + 2 * CANARIES; i++) p[i] = canary;
    return p + CANARIES;
}

static inline void release(float *p, int64_t n) {
    for (int i = 0; i < CANARIES; i++) {
        assert_true(p[-1 - i] == canary);
        assert_true(p[n + i] == canary);
    }
    free(p - CANARIES);
}

/* `rows` rows of dim normal numbers, ld apart; what lies between them is NaN and must not be read. */
static inline float *random_rows(uint64_t seed, int64_t rows, int64_t dim, int64_t ld, double scale) {
    int64_t n = rows > 0 ? (rows - 1) * ld + dim : 0;
    float *p = malloc((size_t)(n + 1) * sizeof *p);
    assert_non_null(p);
    for (int64_t i = 0; i < n; i++) p[i] = i % ld < dim ? (float)(scale * rng_normal(seed, 0, (uint64_t)i)) : NAN;
    return p;
}

/* The same numbers as a cache of the type; the allocation ends with the last number. */
static inline void *as_type(const float *x, int64_t n, dtype type) {
    size_t size = dtype_size(type);
    void *out = malloc((size_t)n * size);
    assert_non_null(out);
    for (int64_t i = 0; i < n; i++) {
        if (type == DT_F32) ((float *)out)[i] = x[i];
        if (type == DT_BF16) ((uint16_t *)out)[i] = f32_to_bf16(x[i]);
    }
    return out;
}

/* The pages of T rows: any of a pool that has more of them, in any order. */
static inline int64_t pool_pages(int64_t T) {
    return 2 * (T / CACHE_PAGE + 1);
}

static inline int32_t *random_pages(uint64_t seed, int64_t T) {
    int64_t n = pool_pages(T);
    int32_t *pages = malloc((size_t)n * sizeof *pages);
    assert_non_null(pages);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = (int64_t)(rng_uniform(seed, 0, (uint64_t)i) * (double)(i + 1));
        pages[i] = pages[at];
        pages[at] = (int32_t)i;
    }
    return pages;
}

/* `size` elements, rows `stride` apart, as T rows of a pool; what is nobody's is NaN. */
static inline void *in_pages(const void *rows, dtype type, int64_t size, int64_t stride, int64_t T,
                             const int32_t *pages) {
    size_t element = dtype_size(type), bytes = (size_t)(pool_pages(T) * CACHE_PAGE * stride) * element;
    char *out = malloc(bytes);
    assert_non_null(out);
    memset(out, 0xff, bytes);
    for (int64_t t = 0; t < T; t++) {
        int64_t row = pages[t / CACHE_PAGE] * CACHE_PAGE + t % CACHE_PAGE, left = size - t * stride;
        memcpy(out + (size_t)(row * stride) * element, (const char *)rows + (size_t)(t * stride) * element,
               (size_t)(left < stride ? left : stride) * element);
    }
    return out;
}

/* A number as a product sees it. */
static inline double operand(double x, compute c) {
    return c == COMPUTE_BF16 ? (double)bf16_to_f32(f32_to_bf16((float)x)) : x;
}

typedef struct worst {
    double ratio, off, bound;
    int64_t at;
} worst;

static inline void compare(worst *w, int64_t at, double got, double want, double bound) {
    double off = fabs(got - want);
    if (isnan(w->ratio)) return;
    if (!(off <= bound * w->ratio) && !(off == 0)) /* a NaN comes in here, and stays */
        *w = (worst){.ratio = bound > 0 ? off / bound : INFINITY, .off = off, .bound = bound, .at = at};
}

static inline void report(const worst *w, const char *format, ...) {
    va_list list;
    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    printf(": largest error %.3g of a bound of %.3g at %lld\n", w->off, w->bound, (long long)w->at);
    assert_true(w->ratio <= 1); /* false for NaN */
}

/* Softmax attention of one query in double precision over `count` rows of F32 numbers, and for each result a bound of
 * the error of the operation. u = 2^-24. A score is a sum of d products and a scaling: off by (d + 3) u A with
 * A = scale sum |q k|; the exponential multiplies that difference in, once in the numerator and once in the
 * denominator, with 4 u of its own; sums of `count` weights and of rescaled blocks add (count + 16) u each. BF16
 * weights are off by 2^-8 relative. All errors multiply sum p |v|. */
static inline void naive_attention(double *out, double *bound, const float *q, const float *k, int64_t k_stride,
                                   const float *v, int64_t v_stride, const int32_t *index, int64_t count, int d_qk,
                                   int d_v, double scale, compute c) {
    double *p = malloc((size_t)(count + 1) * sizeof *p), max = -INFINITY, sum = 0, largest = 0;
    assert_non_null(p);
    for (int64_t s = 0; s < count; s++) {
        const float *row = k + (index ? index[s] : s) * k_stride;
        double dot = 0, size = 0;
        for (int i = 0; i < d_qk; i++) {
            double term = operand(q[i], c) * operand(row[i], c);
            dot += term;
            size += fabs(term);
        }
        p[s] = dot * scale;
        if (p[s] > max) max = p[s];
        if (size * scale > largest) largest = size * scale;
    }
    for (int64_t s = 0; s < count; s++) sum += p[s] = exp(p[s] - max);
    double u = ldexp(1, -24);
    double relative = 2 * ((d_qk + 3) * u * largest + 4 * u) + 2 * (double)(count + 16) * u;
    if (c == COMPUTE_BF16) relative += ldexp(1, -8);
    for (int i = 0; i < d_v; i++) {
        double o = 0, size = 0;
        for (int64_t s = 0; s < count; s++) {
            double x = p[s] / sum * operand(v[(index ? index[s] : s) * v_stride + i], c);
            o += x;
            size += fabs(x);
        }
        out[i] = o;
        bound[i] = relative * size + 1e-37;
    }
    free(p);
}

#endif
