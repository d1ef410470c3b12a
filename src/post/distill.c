#include "post/distill.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/arena.h"
#include "infer/session.h"
#include "post/loss.h"
#include "train/job.h"

enum { TEACHER_BYTES = 64 << 20, LEAST_ROWS = 64, MOST_ROWS = 1024, SESSIONS = 64 }; /* of logits held at once */

typedef struct teacher { /* for a batch: its most likely tokens at each row that has a target */
    const train_config *c;
    model *m;
    engine *g;
    session *s[SESSIONS]; /* documents that are read together */
    int64_t rows;         /* whose logits are held at once */
    arena *mem;
    int k;        /* of them */
    int32_t *ids; /* [rows][k] */
    float *logp;  /* [rows][k] */
} teacher;

/* --- the teacher's distribution ---------------------------------------------------------------------------------- */

/* The k largest of n numbers, falling, by a heap whose root is the least of them. */
static void top_of(const float *x, int64_t n, int k, int32_t *ids) {
    int held = 0;
    for (int64_t j = 0; j < n; j++) {
        if (held == k && !(x[j] > x[ids[0]])) continue;
        int at = held < k ? held++ : 0;
        ids[at] = (int32_t)j;
        while (at && x[ids[at]] < x[ids[(at - 1) / 2]]) { /* up, while the heap grows */
            const int32_t t = ids[at];
            ids[at] = ids[(at - 1) / 2];
            ids[at = (at - 1) / 2] = t;
        }
        for (int child; held == k && (child = 2 * at + 1) < k; at = child) { /* down, when the root was replaced */
            if (child + 1 < k && x[ids[child + 1]] < x[ids[child]]) child++;
            if (!(x[ids[child]] < x[ids[at]])) break;
            const int32_t t = ids[at];
            ids[at] = ids[child];
            ids[child] = t;
        }
    }
}

static void keep_row(const teacher *t, const float *logits, int64_t row) {
    const int64_t vocab = t->m->cfg.vocab_size;
    const double scale = 1 / t->c->distill.temperature;
    int32_t *ids = t->ids + row * t->k;
    float best = logits[0];
    double sum = 0;
    for (int64_t j = 1; j < vocab; j++) best = logits[j] > best ? logits[j] : best;
    for (int64_t j = 0; j < vocab; j++) sum += exp(scale * ((double)logits[j] - (double)best));
    top_of(logits, vocab, t->k, ids);
    for (int i = 0; i < t->k; i++)
        t->logp[row * t->k + i] = (float)(scale * ((double)logits[ids[i]] - (double)best) - log(sum));
}

static bool any_target(const token_batch *b, int64_t first, int64_t end) {
    for (int64_t i = first; i < end; i++)
        if (b->target[i] >= 0) return true;
    return false;
}

static void keep_rows(const teacher *t, const token_batch *b, const session *s, int64_t first, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (b->target[first + i] >= 0) keep_row(t, s->logits + i * t->m->cfg.vocab_size, first + i);
}

/* A document that is longer than what is held at once: piece by piece. */
static status read_long(teacher *t, const token_batch *b, int64_t first, int64_t end, error *e) {
    session_truncate(t->s[0], 0);
    for (int64_t at = first; at < end;) {
        const int64_t left = end - at, n = left < t->rows ? left : t->rows, want = any_target(b, at, at + n) ? n : 1;
        const int32_t *ids = b->ids + at;
        TRY(sessions_extend(&t->s[0], 1, &ids, &n, &want, e));
        if (want == n) keep_rows(t, b, t->s[0], at, n);
        at += n;
    }
    return OK;
}

/* Short documents together, as many as fit. *d: the next one. */
static status read_short(teacher *t, const token_batch *b, int64_t *d, error *e) {
    const int32_t *ids[SESSIONS];
    int64_t n[SESSIONS], first[SESSIONS], rows = 0;
    int count = 0;
    for (; *d < b->n_docs && count < SESSIONS; ++*d) {
        const int64_t at = b->doc[*d], length = b->doc[*d + 1] - at;
        if (rows + length > t->rows) break;
        if (!any_target(b, at, at + length)) continue;
        session_truncate(t->s[count], 0);
        first[count] = at;
        ids[count] = b->ids + at;
        n[count++] = length;
        rows += length;
    }
    if (!count) return OK;
    TRY(sessions_extend(t->s, count, ids, n, n, e));
    for (int i = 0; i < count; i++) keep_rows(t, b, t->s[i], first[i], n[i]);
    return OK;
}

static status begin(void *arg, const token_batch *b, error *e) {
    teacher *t = arg;
    arena_reset(t->mem);
    t->ids = arena_take(t->mem, (size_t)(b->n * t->k) * sizeof *t->ids);
    t->logp = arena_take(t->mem, (size_t)(b->n * t->k) * sizeof *t->logp);
    if (!t->ids || !t->logp) return fail(e, ERR_NOMEM, "memory is out");
    for (int64_t d = 0; d < b->n_docs;) {
        const int64_t first = b->doc[d], end = b->doc[d + 1];
        if (end - first <= t->rows) TRY(read_short(t, b, &d, e));
        else {
            if (any_target(b, first, end)) TRY(read_long(t, b, first, end, e));
            d++;
        }
    }
    return OK;
}

/* --- the loss ---------------------------------------------------------------------------------------------------- */

static void wanted(void *arg, const token_batch *b, int64_t row, int32_t *ids) {
    const teacher *t = arg;
    memcpy(ids, t->ids + row * t->k, (size_t)t->k * sizeof *ids);
    ids[t->k] = b->target[row];
}

static status apply(void *arg, const token_batch *b, int64_t n, const int64_t *row, const real *logp,
                    const real *entropy, real *d, double *loss, error *e) {
    const teacher *t = arg;
    const train_config *c = t->c;
    const int w = t->k + 1;
    /* the gradient of softened distributions is 1 / T^2 of hard ones (Hinton et al. 2015, 2.1) */
    const double square = c->distill.temperature * c->distill.temperature, sft = c->distill.sft_weight;
    real *unused = arena_take(t->mem, (size_t)w * sizeof *unused);
    (void)b, (void)entropy;
    if (!unused) return fail(e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; i < n; i++) {
        real *di = d ? d + i * w : unused;
        *loss += square * distill_loss(c->distill.kind, c->distill.mixed_weight, c->distill.rest,
                                       t->logp + row[i] * t->k, logp + i * w, t->k, di);
        for (int k = 0; k < t->k; k++) di[k] *= (real)square;
        *loss -= sft * (double)logp[i * w + t->k];
        di[t->k] = (real)-sft;
    }
    return OK;
}

/* --- opening ----------------------------------------------------------------------------------------------------- */

static status open_judge(void *arg, job *j, token_loss *out, error *e) {
    teacher *t = arg;
    const train_config *c = t->c;
    const char *path = c->distill.teacher;
    TRY(model_open(&t->m, path, e));
    if (t->m->cfg.vocab_size != j->t.model.vocab_size)
        return fail(e, ERR_FORMAT,
                    "distill.teacher %s has a vocabulary of %lld, the student of %lld: they must be the same", path,
                    (long long)t->m->cfg.vocab_size, (long long)j->t.model.vocab_size);
    if (c->distill.sft_weight > 0 && c->distill.temperature != 1)
        return fail(e, ERR_ARG, "distill.sft_weight wants distill.temperature 1: both use the same log-probabilities");
    TRY(engine_borrow(&t->g, t->m, j->t.q, MLA_CHEAPER, e));
    for (int i = 0; i < SESSIONS; i++) TRY(session_open(&t->s[i], t->g, c->data.options.seq_len, e));
    t->rows = TEACHER_BYTES / (t->m->cfg.vocab_size * (int64_t)sizeof(float));
    t->rows = t->rows < LEAST_ROWS ? LEAST_ROWS : t->rows > MOST_ROWS ? MOST_ROWS : t->rows;
    if (!(t->mem = arena_open(1 << 16))) return fail(e, ERR_NOMEM, "memory is out");
    t->k = c->distill.top_k < t->m->cfg.vocab_size ? c->distill.top_k : (int)t->m->cfg.vocab_size;
    *out = (token_loss){.temperature = (real)c->distill.temperature,
                        .mean = true,
                        .k = t->k + 1,
                        .begin = begin,
                        .wanted = wanted,
                        .apply = apply,
                        .arg = t};
    return OK;
}

status distill_run(const train_config *c, const run_hooks *hooks, run_result *out, error *e) {
    teacher t = {.c = c};
    if (c->distill.kind == DISTILL_SFT) return train_run(c, hooks, out, e);
    *out = (run_result){.loss = NAN, .validation_loss = NAN};
    if (!c->distill.teacher)
        return fail(e, ERR_ARG, "distill.teacher is missing: whose distribution is to be learned?");
    if (c->training.ranks > 1)
        return fail(e, ERR_UNSUPPORTED, "training.ranks: distillation of logits runs on one rank");
    status s = train_run_judged(c, &(run_judge){open_judge, &t}, hooks, out, e);
    for (int i = 0; i < SESSIONS; i++) session_close(t.s[i]);
    engine_close(t.g);
    model_close(t.m);
    arena_close(t.mem);
    return s;
}
