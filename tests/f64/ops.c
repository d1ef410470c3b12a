/* Every operation that the parts of a model train with, in double precision: loops that say what is meant and nothing
 * else. A second specification of ops.h and train_ops.h beside kernels/cpu/ref. */
#include "ops.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "model/cache_rows.h"

/* --- queues: one thread ------------------------------------------------------------------------------------------- */

struct queue {
    uint64_t choices;
};

status queue_open(queue **out, int threads, const char *level, compute c, error *e) {
    (void)threads, (void)level, (void)c;
    *out = calloc(1, sizeof **out);
    return *out ? OK : fail(e, ERR_NOMEM, "memory is out");
}

void queue_close(queue *q) {
    free(q);
}

const char *queue_level(const queue *q) {
    (void)q;
    return "f64";
}

int queue_threads(const queue *q) {
    (void)q;
    return 1;
}

status queue_failed(queue *q, error *e) {
    (void)q, (void)e;
    return OK;
}

compute queue_compute(const queue *q) {
    (void)q;
    return COMPUTE_F32;
}

rows_way queue_rows(queue *q, rows_way way) {
    (void)q;
    return way;
}

void queue_run(queue *q, int64_t tasks, void (*f)(void *arg, int64_t task, int thread), void *arg) {
    (void)q;
    for (int64_t i = 0; i < tasks; i++) f(arg, i, 0);
}

uint64_t queue_choices(const queue *q) {
    return q->choices;
}

static void choose(queue *q, int64_t what) {
    q->choices = (q->choices ^ (uint64_t)what) * 0x100000001b3u; /* FNV-1a, by words */
}

/* --- products ----------------------------------------------------------------------------------------------------- */

static double weight(const tensor *w, int64_t o, int64_t i) {
    if (w->type == DT_F64) return ((const double *)w->data)[o * w->dim[1] + i];
    const char *row = (const char *)w->data + (size_t)(o * w->dim[1]) * dtype_size(w->type);
    const double scale = w->scale ? w->scale[(w->row0 + o) / FP8_BLOCK * w->scale_stride + i / FP8_BLOCK] : 1;
    return dtype_load(w->type, row, i) * scale;
}

void op_linear(queue *q, const product *list, int count) {
    (void)q;
    for (const product *p = list; p < list + count; p++) {
        const int64_t out = p->transposed ? p->w->dim[1] : p->w->dim[0], in = p->w->dim[p->transposed ? 0 : 1];
        for (int64_t t = 0; t < p->n; t++) {
            for (int64_t o = 0; o < out; o++) {
                double *y = (double *)p->y + t * p->ldy + o, sum = p->bias ? p->bias[o] : 0;
                for (int64_t i = 0; i < in; i++)
                    sum += p->x[t * p->ldx + i] * (p->transposed ? weight(p->w, i, o) : weight(p->w, o, i));
                *y = p->add ? *y + sum : sum;
            }
        }
    }
}

void op_linear_dx(queue *q, const product_dx *list, int count) {
    (void)q;
    for (const product_dx *p = list; p < list + count; p++) {
        for (int64_t t = 0; t < p->n; t++) {
            for (int64_t i = 0; i < p->w->dim[1]; i++) {
                double *dx = &p->dx[t * p->lddx + i], sum = 0;
                for (int64_t o = 0; o < p->w->dim[0]; o++) sum += p->dy[t * p->lddy + o] * weight(p->w, o, i);
                *dx = p->add || p->join ? *dx + sum : sum;
            }
        }
    }
}

void op_linear_dw(queue *q, const product_dw *list, int count) {
    (void)q;
    for (const product_dw *p = list; p < list + count; p++) {
        for (int64_t t = 0; t < p->n; t++) {
            for (int64_t o = 0; o < p->out; o++) {
                const double dy = p->dy[t * p->lddy + o];
                for (int64_t i = 0; i < p->in && p->dw; i++) p->dw[o * p->in + i] += dy * p->x[t * p->ldx + i];
                if (p->dbias) p->dbias[o] += dy;
            }
        }
    }
}

/* --- rows --------------------------------------------------------------------------------------------------------- */

static double mean(const double *x, int64_t dim) {
    double sum = 0;
    for (int64_t i = 0; i < dim; i++) sum += x[i];
    return sum / (double)dim;
}

/* 1 / sqrt(mean (x - center)^2 + eps) */
static double inverse_size(const double *x, double center, int64_t dim, double eps) {
    double sum = 0;
    for (int64_t i = 0; i < dim; i++) sum += (x[i] - center) * (x[i] - center);
    return 1 / sqrt(sum / (double)dim + eps);
}

void op_rmsnorm(queue *q, real *y, int64_t ldy, const real *x, int64_t ldx, const real *w, int64_t n, int64_t dim,
                real eps) {
    (void)q;
    for (int64_t t = 0; t < n; t++, x += ldx, y += ldy) {
        const double r = inverse_size(x, 0, dim, eps);
        for (int64_t i = 0; i < dim; i++) y[i] = x[i] * r * w[i];
    }
}

void op_rmsnorm_dx(queue *q, real *dx, int64_t lddx, real *dw, const real *dy, int64_t lddy, const real *x, int64_t ldx,
                   const real *w, int64_t n, int64_t dim, real eps, bool add) {
    (void)q;
    for (int64_t t = 0; t < n; t++, x += ldx, dy += lddy, dx += lddx) {
        const double r = inverse_size(x, 0, dim, eps);
        double dot = 0; /* mean(g x) */
        for (int64_t i = 0; i < dim; i++) dot += dy[i] * w[i] * x[i] / (double)dim;
        for (int64_t i = 0; i < dim; i++) {
            const double d = r * (dy[i] * w[i] - x[i] * r * r * dot);
            if (dw) dw[i] += dy[i] * x[i] * r;
            dx[i] = add ? dx[i] + d : d;
        }
    }
}

void op_layernorm(queue *q, real *y, int64_t ldy, const real *x, int64_t ldx, const real *w, const real *b, int64_t n,
                  int64_t dim, real eps) {
    (void)q;
    for (int64_t t = 0; t < n; t++, x += ldx, y += ldy) {
        const double m = mean(x, dim), r = inverse_size(x, m, dim, eps);
        for (int64_t i = 0; i < dim; i++) y[i] = (x[i] - m) * r * w[i] + b[i];
    }
}

void op_layernorm_dx(queue *q, real *dx, int64_t lddx, real *dw, real *db, const real *dy, int64_t lddy, const real *x,
                     int64_t ldx, const real *w, int64_t n, int64_t dim, real eps, bool add) {
    (void)q;
    for (int64_t t = 0; t < n; t++, x += ldx, dy += lddy, dx += lddx) {
        const double m = mean(x, dim), r = inverse_size(x, m, dim, eps);
        double g = 0, dot = 0; /* means of g and of g (x - m) r, with g = dy w */
        for (int64_t i = 0; i < dim; i++) {
            g += dy[i] * w[i] / (double)dim;
            dot += dy[i] * w[i] * (x[i] - m) * r / (double)dim;
        }
        for (int64_t i = 0; i < dim; i++) {
            const double y = (x[i] - m) * r, d = r * (dy[i] * w[i] - g - y * dot);
            if (dw) dw[i] += dy[i] * y;
            if (db) db[i] += dy[i];
            dx[i] = add ? dx[i] + d : d;
        }
    }
}

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

void op_swiglu(queue *q, real *y, int64_t ldy, const real *a, int64_t lda, const real *b, int64_t ldb, int64_t n,
               int64_t dim) {
    (void)q;
    for (int64_t t = 0; t < n; t++)
        for (int64_t i = 0; i < dim; i++) y[t * ldy + i] = a[t * lda + i] * sigmoid(a[t * lda + i]) * b[t * ldb + i];
}

void op_swiglu_dx(queue *q, real *da, int64_t ldda, real *db, int64_t lddb, const real *dy, int64_t lddy, const real *a,
                  int64_t lda, const real *b, int64_t ldb, int64_t n, int64_t dim) {
    (void)q;
    for (int64_t t = 0; t < n; t++) {
        for (int64_t i = 0; i < dim; i++) {
            const double ai = a[t * lda + i], bi = b[t * ldb + i], g = dy[t * lddy + i], s = sigmoid(ai);
            da[t * ldda + i] = g * bi * s * (1 + ai * (1 - s));
            db[t * lddb + i] = g * ai * s;
        }
    }
}

void op_add(queue *q, real *y, int64_t ldy, const real *x, int64_t ldx, int64_t n, int64_t dim) {
    (void)q;
    for (int64_t t = 0; t < n; t++)
        for (int64_t i = 0; i < dim; i++) y[t * ldy + i] += x[t * ldx + i];
}

/* Pairs times the matrix [c -s; s c], or its transpose. */
static void rotate(real *x, int64_t ldx, int64_t n, int64_t heads, int64_t head_stride, int64_t dim, const real *table,
                   const int32_t *pos, bool interleaved, bool transpose) {
    for (int64_t t = 0; t < n; t++) {
        for (int64_t h = 0; h < heads; h++) {
            for (int64_t i = 0; i < dim / 2; i++) {
                double *v = x + t * ldx + h * head_stride, *a = v + (interleaved ? 2 * i : i),
                       *b = interleaved ? a + 1 : a + dim / 2;
                const double c = table[pos[t] * dim + 2 * i], s = table[pos[t] * dim + 2 * i + 1];
                const double turn = transpose ? -s : s, a0 = *a, b0 = *b;
                *a = a0 * c - b0 * turn;
                *b = a0 * turn + b0 * c;
            }
        }
    }
}

void op_rope(queue *q, real *x, int64_t ldx, int64_t n, int64_t heads, int64_t head_stride, int64_t dim,
             const real *table, const int32_t *pos, bool interleaved) {
    (void)q;
    rotate(x, ldx, n, heads, head_stride, dim, table, pos, interleaved, false);
}

void op_rope_dx(queue *q, real *dx, int64_t lddx, int64_t n, int64_t heads, int64_t head_stride, int64_t dim,
                const real *table, const int32_t *pos, bool interleaved) {
    (void)q;
    rotate(dx, lddx, n, heads, head_stride, dim, table, pos, interleaved, true);
}

/* --- attention of whole documents --------------------------------------------------------------------------------- */

/* The rows that row i sees, and the j-th of them. */
static int64_t seen(const attention_train *a, int64_t i) {
    return a->keep ? a->keep_n[i] : i + 1;
}

static int64_t row_of(const attention_train *a, int64_t i, int64_t j) {
    return a->keep ? a->keep[i * a->keep_stride + j] : j;
}

/* Element e of the key of query head h at row s: its own part, then the tail that all heads share; and its gradient. */
static int64_t key_at(const attention_train *a, int64_t s, int64_t h, int64_t e) {
    return s * a->ldk + h / (a->heads / a->kv_heads) * a->k_head + e;
}

static double key(const attention_train *a, int64_t s, int64_t h, int64_t e) {
    const int64_t own = a->d_qk - a->d_tail;
    return e < own ? a->k[key_at(a, s, h, e)] : a->tail[s * a->ldtail + e - own];
}

static double *dkey(const attention_train *a, int64_t s, int64_t h, int64_t e) {
    const int64_t own = a->d_qk - a->d_tail;
    return e < own ? &a->dk[key_at(a, s, h, e)] : &a->dtail[s * a->ldtail + e - own];
}

static int64_t value_at(const attention_train *a, int64_t s, int64_t h) {
    return s * a->ldv + h / (a->heads / a->kv_heads) * a->v_head;
}

static double score(const attention_train *a, int64_t i, int64_t h, int64_t s) {
    double dot = 0;
    for (int64_t e = 0; e < a->d_qk; e++) dot += a->q[i * a->ldq + h * a->d_qk + e] * key(a, s, h, e);
    return a->scale * dot;
}

void op_attention_forward(queue *q, const attention_train *list, int count) {
    (void)q;
    for (const attention_train *a = list; a < list + count; a++) {
        for (int64_t i = 0; i < a->n; i++) {
            for (int64_t h = 0; h < a->heads; h++) {
                double max = -INFINITY, sum = 0, *o = a->o + i * a->ldo + h * a->d_v;
                for (int64_t j = 0; j < seen(a, i); j++) max = fmax(max, score(a, i, h, row_of(a, i, j)));
                for (int64_t j = 0; j < seen(a, i); j++) sum += exp(score(a, i, h, row_of(a, i, j)) - max);
                a->lse[i * a->heads + h] = max + log(sum);
                memset(o, 0, (size_t)a->d_v * sizeof *o);
                for (int64_t j = 0; j < seen(a, i); j++) {
                    const int64_t s = row_of(a, i, j);
                    const double p = exp(score(a, i, h, s) - max) / sum;
                    for (int64_t e = 0; e < a->d_v; e++) o[e] += p * a->v[value_at(a, s, h) + e];
                }
            }
        }
    }
}

/* One weight p of row i, head h on row s: its part in all gradients. dot: sum_e d_o o of that row and head. */
static void attention_pair(const attention_train *a, int64_t i, int64_t h, int64_t s, double dot) {
    const double *d_o = a->d_o + i * a->ldo + h * a->d_v, *qv = a->q + i * a->ldq + h * a->d_qk;
    const double p = exp(score(a, i, h, s) - a->lse[i * a->heads + h]);
    double dp = 0;
    for (int64_t e = 0; e < a->d_v; e++) {
        dp += d_o[e] * a->v[value_at(a, s, h) + e];
        a->dv[value_at(a, s, h) + e] += p * d_o[e];
    }
    const double ds = a->scale * p * (dp - dot);
    for (int64_t e = 0; e < a->d_qk; e++) {
        a->dq[i * a->ldq + h * a->d_qk + e] += ds * key(a, s, h, e);
        *dkey(a, s, h, e) += ds * qv[e];
    }
}

void op_attention_backward(queue *q, const attention_train *list, int count) {
    (void)q;
    for (const attention_train *a = list; a < list + count; a++) {
        const int64_t group = a->heads / a->kv_heads;
        for (int64_t i = 0; i < a->n; i++) {
            for (int64_t e = 0; e < a->heads * a->d_qk; e++) a->dq[i * a->ldq + e] = 0;
            for (int64_t h = 0; h < a->heads; h += group) {
                for (int64_t e = 0; e < a->d_qk; e++) *dkey(a, i, h, e) = 0;
                for (int64_t e = 0; e < a->d_v; e++) a->dv[value_at(a, i, h) + e] = 0;
            }
        }
        for (int64_t i = 0; i < a->n; i++) {
            for (int64_t h = 0; h < a->heads; h++) {
                const int64_t at = i * a->ldo + h * a->d_v;
                double dot = 0;
                for (int64_t e = 0; e < a->d_v; e++) dot += a->d_o[at + e] * a->o[at + e];
                for (int64_t j = 0; j < seen(a, i); j++) attention_pair(a, i, h, row_of(a, i, j), dot);
            }
        }
    }
}

/* --- the indexer -------------------------------------------------------------------------------------------------- */

/* q[i][j] . k[s] of index head j. */
static double index_dot(const real *qi, const real *ks, int64_t j, int64_t dim) {
    double dot = 0;
    for (int64_t e = 0; e < dim; e++) dot += qi[j * dim + e] * ks[e];
    return dot;
}

/* The first k positions by falling score, earlier ones first among equals; then in order of position. */
static void select_rows(int32_t *keep, const double *scores, int64_t T, int64_t k) {
    int64_t n = 0;
    for (int64_t s = 0; s < T; s++) {
        int64_t better = 0;
        for (int64_t r = 0; r < T; r++) better += scores[r] > scores[s] || (scores[r] == scores[s] && r < s);
        if (better < k) keep[n++] = (int32_t)s;
    }
}

void op_index_select(queue *q, const index_select *list, int count) {
    for (const index_select *a = list; a < list + count; a++) {
        double *scores = malloc((size_t)a->T * sizeof *scores);
        for (int64_t i = 0; scores && i < a->n; i++) {
            const int64_t visible = a->T - a->n + i + 1;
            for (int64_t s = 0; s < a->T; s++) {
                scores[s] = 0;
                for (int64_t j = 0; s < visible && j < a->heads; j++)
                    scores[s] +=
                        a->w[i * a->ldw + j] *
                        fmax(0, index_dot(a->q + i * a->ldq, (const real *)a->keys + s * a->key_stride, j, a->dim));
                if (a->scores) a->scores[i * a->ld_scores + s] = scores[s];
            }
            a->keep_n[i] = (int32_t)(visible < a->top_k ? visible : a->top_k);
            select_rows(a->keep + i * a->keep_stride, scores, visible, a->top_k);
            for (int64_t j = 0; j < a->keep_n[i]; j++) choose(q, a->keep[i * a->keep_stride + j]);
        }
        free(scores);
    }
}

/* One row: p and softmax(I) over its set, then the loss and its derivatives. */
static void index_loss_row(queue *q, const index_loss *l, int64_t i, double *p, double *index) {
    const attention_train *a = l->a;
    const real *qi = l->q + i * l->ldq, *wi = l->w + i * l->ldw;
    const int64_t n = seen(a, i);
    double total = 0, max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < n; j++) {
        const int64_t s = row_of(a, i, j);
        p[j] = index[j] = 0;
        for (int64_t h = 0; h < a->heads; h++) p[j] += exp(score(a, i, h, s) - a->lse[i * a->heads + h]);
        for (int64_t h = 0; h < l->heads; h++) index[j] += wi[h] * fmax(0, index_dot(qi, l->k + s * l->ldk, h, l->dim));
        total += p[j];
        max = fmax(max, index[j]);
    }
    for (int64_t j = 0; j < n; j++) sum += exp(index[j] - max);
    l->kl[i] = 0;
    for (int64_t j = 0; j < n; j++) {
        const int64_t s = row_of(a, i, j);
        const double pj = p[j] / total, log_soft = index[j] - max - log(sum), d = l->scale * (exp(log_soft) - pj);
        if (pj > 0) l->kl[i] += pj * (log(pj) - log_soft);
        for (int64_t h = 0; h < l->heads; h++) {
            const double z = index_dot(qi, l->k + s * l->ldk, h, l->dim);
            choose(q, z > 0);
            if (!(z > 0)) continue;
            l->dw[i * l->ldw + h] += d * z;
            for (int64_t e = 0; e < l->dim; e++) {
                l->dq[i * l->ldq + h * l->dim + e] += d * wi[h] * l->k[s * l->ldk + e];
                l->dk[s * l->ldk + e] += d * wi[h] * qi[h * l->dim + e];
            }
        }
    }
}

void op_index_loss(queue *q, const index_loss *list, int count) {
    for (const index_loss *l = list; l < list + count; l++) {
        const int64_t n = l->a->n;
        double *p = malloc((size_t)(2 * n) * sizeof *p);
        for (int64_t i = 0; i < n; i++) {
            memset(l->dq + i * l->ldq, 0, (size_t)(l->heads * l->dim) * sizeof *l->dq);
            memset(l->dk + i * l->ldk, 0, (size_t)l->dim * sizeof *l->dk);
            memset(l->dw + i * l->ldw, 0, (size_t)l->heads * sizeof *l->dw);
        }
        for (int64_t i = 0; p && i < n; i++) index_loss_row(q, l, i, p, p + n);
        free(p);
    }
}

/* --- decoding: parts link to these, and training never calls them --------------------------------------------------
 */

void op_attention(queue *q, const attention *list, int count) {
    (void)q, (void)list, (void)count;
    abort();
}

void op_latent_attention(queue *q, const latent_attention *list, int count) {
    (void)q, (void)list, (void)count;
    abort();
}

void cache_append(const part_call *c, cache_slot slot, const real *rows, int64_t ld) {
    (void)c, (void)slot, (void)rows, (void)ld;
    abort();
}

void cache_widen(const part_call *c, real *out, const cache_rows *cache, int64_t first, int64_t n, int64_t T) {
    (void)c, (void)out, (void)cache, (void)first, (void)n, (void)T;
    abort();
}
