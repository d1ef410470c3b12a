/* What stands between the products of attention in training, in plain C: the specification of the other levels. */
#include "kernels/attn_micro.h"

#include <float.h>
#include <math.h>

/* Where key r and query c of a group g lie in tiles. */
static int64_t tile_at(const train_tiles *t, int64_t r, int64_t c) {
    return ((r / PANEL * t->groups + c / PANEL) * PANEL + r % PANEL) * PANEL + c % PANEL;
}

static bool sees(const train_tiles *t, int64_t r, int64_t c) {
    return !t->mask || (t->mask[r * t->groups + c / PANEL] >> c % PANEL & 1);
}

static void put_x(const train_tiles *t, void *x, int64_t r, int64_t c, float value) {
    int64_t group = c / PANEL * t->keys * PANEL;
    if (t->bf16) ((uint16_t *)x)[group + (r / 2 * PANEL + c % PANEL) * 2 + r % 2] = f32_to_bf16(value);
    else ((float *)x)[group + r * PANEL + c % PANEL] = value;
}

static void put_row(const train_tiles *t, void *rows, int64_t r, int64_t c, float value) {
    int64_t at = r * t->groups * PANEL + c;
    if (t->bf16) ((uint16_t *)rows)[at] = f32_to_bf16(value);
    else ((float *)rows)[at] = value;
}

static float dot(const float *a, const float *b, int64_t n) {
    float sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static void multiply(float *tiles, int64_t count, int64_t groups, const float *factor) {
    for (int64_t i = 0; i < count * groups; i++) { /* lines of 16 queries */
        const float *by = factor + i / PANEL % groups * PANEL;
        for (int c = 0; c < PANEL; c++) tiles[i * PANEL + c] *= by[c];
    }
}

static void softmax(const train_softmax *a) {
    const train_tiles *t = &a->t;
    for (int64_t c = 0; c < t->groups * PANEL; c++) {
        float max = a->max[c], sum = 0;
        for (int64_t r = 0; r < t->keys; r++) {
            float y = t->s[tile_at(t, r, c)] * a->scale;
            if (sees(t, r, c) && y > max) max = y;
        }
        float base = max == -INFINITY ? 0 : max; /* nothing seen yet */
        for (int64_t r = 0; r < t->keys; r++) {
            float p = sees(t, r, c) ? exp2f(t->s[tile_at(t, r, c)] * a->scale - base) : 0;
            sum += p;
            put_x(t, a->x, r, c, p);
        }
        a->correction[c] = exp2f(a->max[c] - base);
        a->sum[c] = a->sum[c] * a->correction[c] + sum;
        a->max[c] = max;
    }
}

static void gradient(const train_gradient *a) {
    const train_tiles *t = &a->t;
    for (int64_t c = 0; c < t->groups * PANEL; c++) {
        for (int64_t r = 0; r < t->keys; r++) {
            int64_t at = tile_at(t, r, c);
            float p = 0, ds = 0;
            if (sees(t, r, c)) {
                p = exp2f(t->s[at] * a->scale - a->lse[c]);
                ds = p * (a->dp[at] - a->delta[c]) * a->factor;
            }
            put_row(t, a->p_rows, r, c, p);
            put_row(t, a->ds_rows, r, c, ds);
            put_x(t, a->ds_x, r, c, ds);
        }
    }
}

static void weights(const train_tiles *t, float scale, const float *lse, float *total) {
    for (int64_t c = 0; c < t->groups * PANEL; c++) {
        for (int64_t r = 0; r < t->keys; r++) {
            int64_t at = tile_at(t, r, c);
            if (sees(t, r, c)) total[at] += exp2f(t->s[at] * scale - lse[c]);
        }
    }
}

static void relu_sum(const train_tiles *t, const float *w, float *total) {
    for (int64_t c = 0; c < t->groups * PANEL; c++) {
        for (int64_t r = 0; r < t->keys; r++) {
            int64_t at = tile_at(t, r, c);
            total[at] += w[c] * (t->s[at] < 0 ? 0 : t->s[at]);
        }
    }
}

static void divergence(const train_tiles *t, float *i, float scale, float *kl) {
    for (int64_t c = 0; c < t->groups * PANEL; c++) {
        float total = 0, max = -INFINITY, sum = 0, loss = 0;
        for (int64_t r = 0; r < t->keys; r++) {
            if (!sees(t, r, c)) continue;
            total += t->s[tile_at(t, r, c)];
            if (i[tile_at(t, r, c)] > max) max = i[tile_at(t, r, c)];
        }
        for (int64_t r = 0; r < t->keys; r++)
            if (sees(t, r, c)) sum += expf(i[tile_at(t, r, c)] - max);
        float lse = logf(sum);
        for (int64_t r = 0; r < t->keys; r++) {
            int64_t at = tile_at(t, r, c);
            float d = 0;
            if (sees(t, r, c)) {
                float p = t->s[at] / total, score = i[at] - max - lse;
                if (!(p < FLT_MIN)) loss += p * (logf(p) - score);
                d = scale * (expf(score) - p);
            }
            i[at] = d;
        }
        kl[c] = loss;
    }
}

static void relu_gradient(const train_relu *a) {
    const train_tiles *t = &a->t;
    for (int64_t c = 0; c < t->groups * PANEL; c++) {
        float sum = 0;
        for (int64_t r = 0; r < t->keys; r++) {
            int64_t at = tile_at(t, r, c);
            float z = t->s[at], g = z > 0 ? a->di[at] * a->w[c] : 0;
            sum += a->di[at] * (z < 0 ? 0 : z);
            put_row(t, a->rows, r, c, g);
            put_x(t, a->x, r, c, g);
        }
        a->dw[c] += sum;
    }
}

void ref_attn_train(attn_micro *m) {
    m->train = (attn_train_micro){.dot = dot,
                                  .multiply = multiply,
                                  .softmax = softmax,
                                  .gradient = gradient,
                                  .weights = weights,
                                  .relu_sum = relu_sum,
                                  .divergence = divergence,
                                  .relu_gradient = relu_gradient};
}
