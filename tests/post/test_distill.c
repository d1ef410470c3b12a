/* Distillation of a dense student of Llama's shape from a mixture of experts of V3's shape, both of random weights and
 * one vocabulary: every divergence against both models' logits, its gradient against differences, what is refused. */
#include "runs.h"
#include "base/rng.h"
#include "infer/session.h"
#include "post/distill.h"
#include <cmocka.h>

#define STUDENT "tests/data/models/llama/checkpoint"
#define TEACHER "tests/data/models/v3_mtp/checkpoint"

enum { VOCAB = 449, EOS = 1, ROWS = 2, LENGTH = 24, LONG = 1200, MOST_IDS = 2 * LONG + 1 };

/* Two rows; the first ends a document in its middle. Long: one document longer than the logits that are held at once
 * (1024 rows). */
static void make_ids(int32_t *ids, int n) {
    for (int i = 0; i < n; i++) {
        uint32_t w[4];
        rng_words(5, 0, (uint64_t)i, w);
        ids[i] = 3 + (int32_t)(w[0] % (VOCAB - 10));
    }
    ids[9] = EOS;
}

static int open_place(void **state) {
    place *p = calloc(1, sizeof *p);
    int32_t ids[ROWS * LENGTH + 1];
    make_ids(ids, ROWS * LENGTH + 1);
    place_open(p, "rows.bin", ids, sizeof ids);
    *state = p;
    return 0;
}

static int close_place(void **state) {
    place_close(*state);
    free(*state);
    return 0;
}

static status start(const place *p, const char *name, told *t, error *e, ...) {
    static const char *const fixed[] = {
        "model.path=" STUDENT, "distill.teacher=" TEACHER, "data.seq_len=24",      "training.batch=2",
        "training.steps=1",    "distill.top_k=449",        "distill.kind=forward", NULL};
    va_list more;
    va_start(more, e);
    const status s = run_with(distill_run, p, name, t, e, fixed, more);
    va_end(more);
    return s;
}

/* --- from the logits ---------------------------------------------------------------------------------------------- */

/* Logits behind every token of a row of `length`; documents begin anew behind EOS. */
static float *logits_of(const char *folder, const int32_t *ids, int length) {
    model *m;
    engine *g;
    session *s;
    error e = {0};
    float *all = malloc((size_t)length * VOCAB * sizeof *all);
    assert_int_equal(model_open(&m, folder, &e), OK);
    assert_int_equal(engine_open(&g, m, 2, NULL, COMPUTE_F32, MLA_CHEAPER, &e), OK);
    assert_int_equal(session_open(&s, g, length, &e), OK);
    for (int at = 0; at < length; at++) {
        const int64_t n = 1;
        const int32_t *next = ids + at;
        if (at && ids[at - 1] == EOS) session_truncate(s, 0);
        assert_int_equal(sessions_extend(&s, 1, &next, &n, NULL, &e), OK);
        memcpy(all + (size_t)at * VOCAB, s->logits, VOCAB * sizeof *all);
    }
    session_close(s);
    engine_close(g);
    model_close(m);
    return all;
}

typedef struct setting {
    double ahead, temperature; /* 1: forward, 0: reverse */
    int k;
    bool rest;
    double sft;
} setting;

static void soften(const float *z, double temperature, double *p) {
    double most = -INFINITY, sum = 0;
    for (int v = 0; v < VOCAB; v++) most = fmax(most, z[v] / temperature);
    for (int v = 0; v < VOCAB; v++) sum += p[v] = exp(z[v] / temperature - most);
    for (int v = 0; v < VOCAB; v++) p[v] /= sum;
}

static double divergence(const setting *s, const float *zt, const float *zs, int32_t target) {
    double p[VOCAB], q[VOCAB], q1[VOCAB], P = 0, Q = 0, forward = 0, reverse = 0;
    bool counts[VOCAB] = {false};
    soften(zt, s->temperature, p);
    soften(zs, s->temperature, q);
    soften(zs, 1, q1);
    for (int i = 0; i < s->k; i++) {
        int best = -1;
        for (int v = 0; v < VOCAB; v++)
            if (!counts[v] && (best < 0 || p[v] > p[best])) best = v;
        counts[best] = true;
        P += p[best];
        Q += q[best];
    }
    if (s->rest && s->k < VOCAB) {
        forward = (1 - P) * log((1 - P) / (1 - Q));
        reverse = (1 - Q) * log((1 - Q) / (1 - P));
    }
    if (s->rest) P = Q = 1;
    for (int v = 0; v < VOCAB; v++) {
        if (!counts[v]) continue;
        forward += p[v] / P * log(p[v] / P * Q / q[v]);
        reverse += q[v] / Q * log(q[v] / Q * P / p[v]);
    }
    return s->temperature * s->temperature * (s->ahead * forward + (1 - s->ahead) * reverse) - s->sft * log(q1[target]);
}

/* The mean over all targets of rows of `length`. */
static double from_logits(const setting *s, const int32_t *ids, int rows, int length) {
    double sum = 0;
    int n = 0;
    for (int r = 0; r < rows; r++) {
        const int32_t *row = ids + r * length;
        float *t = logits_of(TEACHER, row, length), *q = logits_of(STUDENT, row, length);
        for (int i = 0; i < length; i++) {
            if (row[i] == EOS) continue; /* nothing follows in its document */
            sum += divergence(s, t + (size_t)i * VOCAB, q + (size_t)i * VOCAB, row[i + 1]);
            n++;
        }
        free(t);
        free(q);
    }
    return sum / n;
}

/* Log-probabilities of both models are off by some 1e-6 of their size (6), as tests of sampler and trainer measure; a
 * divergence is a mean of their differences: 1e-5 of a loss around 1. With temperature 2 it is multiplied by 4. */
static void divergences(void **state) {
    static const struct {
        const char *kind, *k, *temperature, *more;
        setting s;
    } cases[] = {
        {"forward", "449", "1", NULL, {1, 1, 449, true, 0}},
        {"forward", "100000", "1", NULL, {1, 1, 449, true, 0}}, /* more than there are */
        {"forward", "449", "1", "distill.rest=false", {1, 1, 449, false, 0}},
        {"reverse", "449", "1", NULL, {0, 1, 449, true, 0}},
        {"mixed", "449", "2", "distill.mixed_weight=0.3", {0.3, 2, 449, true, 0}},
        {"forward", "8", "1", NULL, {1, 1, 8, true, 0}},
        {"forward", "8", "1", "distill.rest=false", {1, 1, 8, false, 0}},
        {"reverse", "30", "2", NULL, {0, 2, 30, true, 0}},
        {"reverse", "1", "1", NULL, {0, 1, 1, true, 0}},
        {"mixed", "30", "1", "distill.sft_weight=0.25", {0.5, 1, 30, true, 0.25}},
    };
    const place *p = *state;
    int32_t ids[ROWS * LENGTH + 1];
    make_ids(ids, ROWS * LENGTH + 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        told t = {0};
        char name[16], kind[40], k[40], temperature[40];
        snprintf(name, sizeof name, "kl%d", (int)i);
        snprintf(kind, sizeof kind, "distill.kind=%s", cases[i].kind);
        snprintf(k, sizeof k, "distill.top_k=%s", strcmp(cases[i].k, "100000") == 0 ? "65536" : cases[i].k);
        snprintf(temperature, sizeof temperature, "distill.temperature=%s", cases[i].temperature);
        assert_run(p, name, &t, kind, k, temperature, cases[i].more);
        const double want = from_logits(&cases[i].s, ids, ROWS, LENGTH);
        if (!(fabs(t.loss[0] - want) < 4e-5 * (1 + fabs(want))))
            fail_msg("%s, %s, %s: %.9g, wanted %.9g", kind, k, temperature, t.loss[0], want);
        assert_true(want > 1e-3);
    }
}

/* Documents longer than what is held at once are read piece by piece; micro-batches change nothing. */
static void long_documents(void **state) {
    const place *p = *state;
    int32_t ids[LONG + 1];
    char path[80], key[100];
    told t = {0};
    error e;
    make_ids(ids, LONG + 1);
    ids[9] = 17; /* one document */
    snprintf(path, sizeof path, "%s/long.bin", p->folder);
    snprintf(key, sizeof key, "data.train=%s", path);
    assert_int_equal(file_save(path, ids, sizeof ids, &e), OK);
    assert_run(p, "long", &t, key, "data.seq_len=1200", "training.batch=1");
    const double want = from_logits(&(setting){1, 1, VOCAB, true, 0}, ids, 1, LONG);
    assert_true(fabs(t.loss[0] - want) < 4e-5 * (1 + want));
    /* a trained model, of which every token knows what stands before it, and its own teacher */
    told same = {0};
    for (int i = 0; i <= LONG; i++) ids[i] = 9 + ids[i] % 40;
    assert_int_equal(file_save(path, ids, sizeof ids, &e), OK);
    assert_run(p, "same", &same, key, "data.seq_len=1200", "training.batch=1", "model.path=models/tiny",
               "distill.teacher=models/tiny", "distill.top_k=64", "objective.balance_alpha=0");
    assert_true(fabs(same.loss[0]) < 1e-5);
    told whole = {0}, pieces = {0};
    assert_run(p, "two", &whole, "distill.top_k=8");
    assert_run(p, "one", &pieces, "distill.top_k=8", "training.micro_batch=1");
    assert_true(fabs(whole.loss[0] - pieces.loss[0]) < 1e-6 * whole.loss[0]); /* sums in another order */
    assert_true(fabs(whole.grad_norm[0] - pieces.grad_norm[0]) < 1e-5 * whole.grad_norm[0]);
}

/* --- gradients ---------------------------------------------------------------------------------------------------- */

static double loss_of(const place *p, const char *folder, const char *const *keys) {
    char path[100], name[24], command[120];
    told t = {0};
    snprintf(path, sizeof path, "model.path=%s", folder);
    strcpy(name, "difference");
    assert_run(p, name, &t, path, keys[0], keys[1], keys[2]);
    snprintf(command, sizeof command, "rm -r '%s/%s'", p->folder, name);
    assert_int_equal(system(command), 0);
    return t.loss[0];
}

/* The largest of a tensor's gradient. A weight is moved by about 0.02 to both sides, to BF16 numbers, in a folder whose
 * weights are of size 0.1: the third derivative gives (0.02)^2 / 6 of some tens, 1e-3 of the gradient; a loss's
 * rounding error of 1e-7 over 0.04 is 3e-6. */
static void check_gradient(const place *p, const char *run, const char *folder, const char *weight,
                           const char *const *keys) {
    int64_t n, at = 0;
    double up, down;
    float *g = gradient(p, run, weight, &n);
    for (int64_t i = 0; i < n; i++) at = fabsf(g[i]) > fabsf(g[at]) ? i : at;
    uint16_t old = move_weight(folder, weight, at, 0.02, &up);
    const double higher = loss_of(p, folder, keys);
    restore_weight(folder, weight, at, old);
    old = move_weight(folder, weight, at, -0.02, &down);
    const double lower = loss_of(p, folder, keys), difference = (higher - lower) / (up - down);
    restore_weight(folder, weight, at, old);
    assert_true(fabs(difference) > 1e-3); /* there is something to compare */
    if (!(fabs(difference - g[at]) < 0.01 * fabs(difference) + 1e-5))
        fail_msg("%s, %s[%d]: %.6g, by differences %.6g", keys[0], weight, (int)at, (double)g[at], difference);
    free(g);
}

static void gradients(void **state) {
    static const char *const tensors[] = {"lm_head.weight", "model.layers.1.mlp.down_proj.weight",
                                          "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"};
    static const char *const settings[][3] = {
        {"distill.kind=forward", NULL},
        {"distill.kind=forward", "distill.top_k=8", NULL},
        {"distill.kind=mixed", "distill.top_k=8", "distill.sft_weight=0.5"},
        {"distill.kind=reverse", "distill.top_k=30", "distill.temperature=2"},
    };
    const place *p = *state;
    char *moved = copy_model(p, STUDENT, "moved"), path[100], name[16];
    snprintf(path, sizeof path, "model.path=%s", moved);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        told t = {0};
        snprintf(name, sizeof name, "gradient%d", (int)i);
        assert_run(p, name, &t, path, settings[i][0], settings[i][1], settings[i][2]);
        for (size_t k = 0; k < sizeof tensors / sizeof *tensors; k++)
            check_gradient(p, name, moved, tensors[k], settings[i]);
    }
    free(moved);
}

/* The student is the teacher: no divergence, and next to no gradient. A log-probability is off by 1e-6 of its size; a
 * derivative p - q of a token by as much of p, while that of a student that has something to learn is of size p. */
static void nothing_to_learn_from_oneself(void **state) {
    static const char *const kinds[] = {"distill.kind=forward", "distill.kind=reverse", "distill.kind=mixed"};
    const place *p = *state;
    for (int i = 0; i < 3; i++) {
        told same = {0}, other = {0};
        char name[16];
        snprintf(name, sizeof name, "self%d", i);
        assert_run(p, name, &same, kinds[i], "model.path=" TEACHER, "objective.mtp_weight=0",
                   "objective.balance_alpha=0");
        snprintf(name, sizeof name, "other%d", i);
        assert_run(p, name, &other, kinds[i]);
        assert_true(fabs(same.loss[0]) < 1e-5 && other.loss[0] > 0.01);
        assert_true(same.grad_norm[0] < 1e-4 * other.grad_norm[0]);
    }
}

/* --- runs --------------------------------------------------------------------------------------------------------- */

static void the_divergence_falls(void **state) {
    const place *p = *state;
    told t = {0}, whole = {0}, parts = {.stop_at = 3};
    assert_run(p, "falls", &t, "training.steps=40", "optimizer.lr=3e-3", "optimizer.beta1=0.9", "optimizer.clip=1");
    assert_true(t.loss[39] < 0.5 * t.loss[0]);
    /* stopped and going on is the same */
    assert_run(p, "whole", &whole, "training.steps=6");
    assert_run(p, "parts", &parts, "training.steps=6");
    parts.stop_at = 0;
    assert_run(p, "parts", &parts, "training.steps=6");
    assert_int_equal(parts.steps, 6);
    for (int i = 0; i < 6; i++) assert_true(whole.loss[i] == parts.loss[i] && whole.grad_norm[i] == parts.grad_norm[i]);
}

/* The other direction, an adapter, a teacher with sparse attention. */
static void families(void **state) {
    const place *p = *state;
    told t = {0};
    assert_run(p, "reversed", &t, "model.path=" TEACHER, "distill.teacher=" STUDENT, "objective.mtp_weight=0",
               "objective.balance_alpha=0", "training.steps=20", "optimizer.lr=3e-3");
    assert_true(t.loss[19] < 0.8 * t.loss[0]);
    assert_run(p, "sparse", &t, "distill.teacher=tests/data/models/v32/checkpoint", "distill.top_k=16");
    assert_true(isfinite(t.loss[0]) && t.loss[0] > 0);
    assert_run(p, "adapter", &t, "lora.rank=8", "lora.target_modules=[q_proj, v_proj, gate_proj, down_proj]",
               "training.steps=20", "optimizer.lr=1e-2", "optimizer.beta1=0.9");
    assert_true(t.loss[19] < 0.9 * t.loss[0]);
}

/* kind sft needs no teacher and is a plain training on the data. */
static status train_plainly(const place *p, const char *name, told *t, error *e, ...) {
    static const char *const fixed[] = {"model.path=" STUDENT, "data.seq_len=24", "training.batch=2",
                                        "training.steps=3", NULL};
    va_list more;
    va_start(more, e);
    const status s = run_with(train_run, p, name, t, e, fixed, more);
    va_end(more);
    return s;
}

static void traces_alone(void **state) {
    const place *p = *state;
    told sft = {0}, plain = {0};
    error e = {0};
    assert_run(p, "sft", &sft, "distill.kind=sft", "distill.teacher=null", "training.steps=3");
    assert_int_equal(train_plainly(p, "plain", &plain, &e, NULL), OK);
    for (int i = 0; i < 3; i++) assert_true(sft.loss[i] == plain.loss[i] && sft.grad_norm[i] == plain.grad_norm[i]);
}

static void refused(void **state) {
    static const struct {
        const char *key, *more, *says;
        status code;
    } cases[] = {
        {"distill.teacher=null", NULL, "distill.teacher is missing", ERR_ARG},
        {"distill.teacher=tests/data/models/v2_lite/checkpoint", NULL,
         "has a vocabulary of 509, the student of 449: they must be the same", ERR_FORMAT},
        {"distill.teacher=/nowhere", NULL, "/nowhere", ERR_FORMAT},
        {"training.ranks=2", NULL, "training.ranks", ERR_UNSUPPORTED},
        {"distill.sft_weight=0.5", "distill.temperature=2", "distill.temperature 1", ERR_ARG},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        told t = {0};
        error e = {0};
        const status s = start(*state, "none", &t, &e, cases[i].key, cases[i].more, NULL);
        if (s != cases[i].code || !strstr(e.text, cases[i].says)) fail_msg("%s: %d: %s", cases[i].key, (int)s, e.text);
        assert_int_equal(t.steps, 0);
        char none[80];
        snprintf(none, sizeof none, "%s/none", ((place *)*state)->folder);
        assert_false(is_directory(none));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(divergences),
        cmocka_unit_test(long_documents),
        cmocka_unit_test(gradients),
        cmocka_unit_test(nothing_to_learn_from_oneself),
        cmocka_unit_test(the_divergence_falls),
        cmocka_unit_test(families),
        cmocka_unit_test(traces_alone),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, open_place, close_place);
}
