/* Preferences: the first step against logits and differences, the reference (a copy, or adapters switched off),
 * validation, going on. */
#include "runs.h"
#include "infer/session.h"
#include "post/dpo.h"
#include "text/tokenizer.h"
#include <cmocka.h>

#define MODEL "tests/data/models/llama/checkpoint"

enum { PAIRS = 4, VOCAB = 449 };

static const char *const texts[PAIRS][3] = {{"The deepest part", " of the sea", " of a"},
                                            {"2+2=", "4", "5, I think"},
                                            {"Say hi.", "Hi!", "No"},
                                            {"q", "a long answer of some words", "short"}};

static int open_place(void **state) {
    place *p = calloc(1, sizeof *p);
    str s = {0};
    for (int i = 0; i < PAIRS; i++)
        str_addf(&s, "{\"prompt\": \"%s\", \"chosen\": \"%s\", \"rejected\": \"%s\"}\n", texts[i][0], texts[i][1],
                 texts[i][2]);
    place_open(p, "pairs.jsonl", s.p, s.n);
    str_free(&s);
    *state = p;
    return 0;
}

static int close_place(void **state) {
    place_close(*state);
    free(*state);
    return 0;
}

static status start(const place *p, const char *name, told *t, error *e, ...) {
    static const char *const fixed[] = {"model.path=" MODEL, "data.seq_len=64",   "training.batch=4",
                                        "training.steps=1",  "optimizer.lr=1e-3", NULL};
    va_list more;
    va_start(more, e);
    const status s = run_with(dpo_run, p, name, t, e, fixed, more);
    va_end(more);
    return s;
}

/* --- the first step ----------------------------------------------------------------------------------------------- */

typedef struct likelihood { /* of an answer */
    double sum;
    int tokens;
} likelihood;

/* Of the answer and the end token behind the prompt. */
static likelihood answer_of(session *s, const tokenizer *tok, const char *asked, const char *said) {
    likelihood l = {0};
    error e = {0};
    int32_t *a, *b;
    size_t n_a, n_b;
    assert_int_equal(tokenizer_encode(tok, asked, strlen(asked), 0, &a, &n_a, &e), OK);
    assert_int_equal(tokenizer_encode(tok, said, strlen(said), 0, &b, &n_b, &e), OK);
    int64_t n = (int64_t)n_a;
    const int32_t *ids = a;
    session_truncate(s, 0);
    for (size_t i = 0; i <= n_b; i++) {
        const int32_t next = i < n_b ? b[i] : tokenizer_eos(tok);
        double most = -INFINITY, sum = 0;
        assert_int_equal(sessions_extend(&s, 1, &ids, &n, NULL, &e), OK);
        for (int v = 0; v < VOCAB; v++) most = fmax(most, s->logits[v]);
        for (int v = 0; v < VOCAB; v++) sum += exp(s->logits[v] - most);
        l.sum += s->logits[next] - most - log(sum);
        l.tokens++;
        ids = b + i;
        n = 1;
    }
    free(a);
    free(b);
    return l;
}

typedef struct setting {
    const char *keys[3];
    double beta, sft;
    bool average;
} setting;

/* What has the gradient of the first step's loss: there the margin is 0, so -log sigmoid has the slope -1/2. */
static double first_order(const char *folder, const setting *x) {
    model *m;
    engine *g;
    session *s;
    tokenizer *tok;
    error e = {0};
    double all = 0;
    assert_int_equal(model_open(&m, folder, &e), OK);
    assert_int_equal(engine_open(&g, m, 2, NULL, COMPUTE_F32, MLA_CHEAPER, &e), OK);
    assert_int_equal(session_open(&s, g, 64, &e), OK);
    assert_int_equal(tokenizer_open(&tok, folder, &e), OK);
    for (int i = 0; i < PAIRS; i++) {
        const likelihood w = answer_of(s, tok, texts[i][0], texts[i][1]),
                         l = answer_of(s, tok, texts[i][0], texts[i][2]);
        all -= x->beta / 2 * (x->average ? w.sum / w.tokens - l.sum / l.tokens : w.sum - l.sum);
        all -= x->sft * w.sum / w.tokens;
    }
    tokenizer_close(tok);
    session_close(s);
    engine_close(g);
    model_close(m);
    return all / PAIRS;
}

/* Central differences as in test_distill.c: a step of 0.02, 1e-3 of the gradient off, and rounding of sums of some ten
 * log-probabilities, 1e-5 over 0.04 times beta. */
static void check_gradient(const place *p, const char *run, const char *folder, const char *weight, const setting *x) {
    int64_t n, at = 0;
    double up, down;
    float *g = gradient(p, run, weight, &n);
    for (int64_t i = 0; i < n; i++) at = fabsf(g[i]) > fabsf(g[at]) ? i : at;
    uint16_t old = move_weight(folder, weight, at, 0.02, &up);
    const double higher = first_order(folder, x);
    restore_weight(folder, weight, at, old);
    old = move_weight(folder, weight, at, -0.02, &down);
    const double difference = (higher - first_order(folder, x)) / (up - down);
    restore_weight(folder, weight, at, old);
    assert_true(fabs(difference) > 0.01);
    if (!(fabs(difference - g[at]) < 0.01 * fabs(difference) + 3e-4 * x->beta))
        fail_msg("%s, %s[%d]: %.6g, by differences %.6g", run, weight, (int)at, (double)g[at], difference);
    free(g);
}

static void the_first_step(void **state) {
    static const char *const tensors[] = {"lm_head.weight", "model.layers.1.mlp.down_proj.weight",
                                          "model.layers.0.self_attn.k_proj.weight", "model.norm.weight"};
    static const setting settings[] = {
        {{"dpo.beta=0.5", NULL}, 0.5, 0, false},
        {{"dpo.beta=2", "dpo.average=true"}, 2, 0, true},
        {{"dpo.beta=0.5", "dpo.sft_weight=0.7"}, 0.5, 0.7, false},
    };
    const place *p = *state;
    char *moved = copy_model(p, MODEL, "moved"), path[100], name[16];
    snprintf(path, sizeof path, "model.path=%s", moved);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        const setting *x = &settings[i];
        told t = {0};
        snprintf(name, sizeof name, "first%d", (int)i);
        assert_run(p, name, &t, path, x->keys[0], x->keys[1]);
        /* policy and reference are the same weights in the same batches: nothing is preferred yet, exactly */
        assert_true(told_number(&t, 0, "margin") == 0 && told_number(&t, 0, "preferred") == 0);
        assert_true(told_number(&t, 0, "chosen_reward") == 0 && told_number(&t, 0, "rejected_reward") == 0);
        if (x->sft == 0) assert_true(fabs(t.loss[0] - log(2)) < 1e-12);
        else assert_true(t.loss[0] > log(2) + 0.1);
        for (size_t k = 0; k < sizeof tensors / sizeof *tensors; k++) check_gradient(p, name, moved, tensors[k], x);
    }
    free(moved);
}

/* --- training ----------------------------------------------------------------------------------------------------- */

static void check_rewards(const told *t, int step) {
    const double margin = told_number(t, step, "margin"),
                 rewards = told_number(t, step, "chosen_reward") - told_number(t, step, "rejected_reward");
    assert_true(fabs(margin - rewards) < 1e-9 * (1 + fabs(margin)));
}

/* What validation says behind a step on the same pairs is what the next step begins with. */
static void margins_grow(void **state) {
    const place *p = *state;
    told t = {0};
    char held[100];
    snprintf(held, sizeof held, "data.validation=%s", p->data);
    assert_run(p, "grow", &t, held, "training.steps=8", "training.validate_every=2", "dpo.beta=0.5");
    assert_true(t.loss[7] < 0.5 * t.loss[0] && told_number(&t, 7, "margin") > 0.5);
    assert_true(told_number(&t, 7, "preferred") == 1);
    assert_true(told_number(&t, 7, "chosen_reward") > told_number(&t, 7, "rejected_reward"));
    for (int i = 0; i < 8; i++) {
        assert_true(isnan(t.validation_loss[i]) == (i % 2 == 0));
        check_rewards(&t, i);
        if (i % 2 == 0 || i == 7) continue;
        assert_true(fabs(t.validation_loss[i] - t.loss[i + 1]) < 1e-9);
        assert_true(told_number(&t, i, "validation_preferred") == told_number(&t, i + 1, "preferred"));
    }
    told average = {0};
    assert_run(p, "average", &average, "training.steps=3", "dpo.average=true", "dpo.beta=2");
    assert_true(told_number(&average, 2, "margin") > 0);
    for (int i = 0; i < 3; i++) check_rewards(&average, i);
    /* one pair at once: -log sigmoid of its margin is its loss */
    told one = {0};
    assert_run(p, "one", &one, "training.steps=5", "training.batch=1");
    for (int i = 0; i < 5; i++) assert_true(fabs(one.loss[i] - log1p(exp(-told_number(&one, i, "margin")))) < 1e-9);
}

/* Micro-batches are the same step but for the order of sums; their reference is computed in the same pieces, so that
 * the first margin is 0 here, too. */
static void micro_batches(void **state) {
    const place *p = *state;
    told whole = {0}, pieces = {0};
    assert_run(p, "whole", &whole, "training.steps=3");
    assert_run(p, "pieces", &pieces, "training.steps=3", "training.micro_batch=1");
    assert_true(told_number(&pieces, 0, "margin") == 0);
    for (int i = 0; i < 3; i++) assert_true(fabs(whole.loss[i] - pieces.loss[i]) < 1e-4);
    assert_true(fabs(whole.grad_norm[0] - pieces.grad_norm[0]) < 1e-5 * whole.grad_norm[0]);
}

static void stopped_and_going_on_is_the_same_run(void **state) {
    const place *p = *state;
    told whole = {0}, parts = {0};
    assert_run(p, "unbroken", &whole, "training.steps=6", "training.batch=3", "optimizer.beta1=0.9");
    for (int i = 0; i < 3; i++) {
        parts.stop_at = parts.steps + 2;
        assert_run(p, "parts", &parts, "training.steps=6", "training.batch=3", "optimizer.beta1=0.9");
    }
    assert_int_equal(parts.steps, 6);
    for (int i = 0; i < 6; i++) {
        assert_true(whole.loss[i] == parts.loss[i] && whole.grad_norm[i] == parts.grad_norm[i]);
        assert_true(told_number(&whole, i, "margin") == told_number(&parts, i, "margin"));
    }
    int64_t n, m;
    float *a = checkpoint_tensor(p, "unbroken", 6, "lm_head.weight.reference", &n),
          *b = checkpoint_tensor(p, "parts", 6, "lm_head.weight.reference", &m);
    assert_true(n == m && memcmp(a, b, (size_t)n * sizeof *a) == 0);
    free(a);
    free(b);
}

/* With adapters the reference is the model without them: there is no copy, the first margin of new adapters (they are
 * 0) is 0, and that of adapters that have learned is not. */
static void adapters(void **state) {
#define LORA "lora.rank=8", "lora.target_modules=[q_proj, v_proj, down_proj]", "optimizer.lr=1e-2", "dpo.beta=0.5"
    const place *p = *state;
    told t = {0}, again = {0};
    char adapter[120];
    assert_run(p, "lora", &t, LORA, "training.steps=6");
    assert_true(told_number(&t, 0, "margin") == 0 && told_number(&t, 5, "margin") > 0.1);
    assert_true(fabs(t.loss[0] - log(2)) < 1e-12);
    snprintf(adapter, sizeof adapter, "lora.adapter=%s/lora/adapter", p->folder);
    assert_run(p, "again", &again, adapter, "optimizer.lr=1e-2", "dpo.beta=0.5");
    assert_true(told_number(&again, 0, "margin") > told_number(&t, 5, "margin"));
#undef LORA
}

static void refused(void **state) {
    static const struct {
        const char *key, *says;
        status code;
    } cases[] = {
        {"data.train=/nowhere/x.jsonl", "/nowhere/x.jsonl", ERR_FORMAT},
        {"data.validation=/nowhere/y.jsonl", "/nowhere/y.jsonl", ERR_FORMAT},
        {"data.seq_len=1", "no pairs that data.seq_len has room for", ERR_FORMAT},
        {"model.path=/nowhere", "/nowhere", ERR_FORMAT},
        {"training.ranks=2", "training.ranks", ERR_UNSUPPORTED},
        {"model.path=tests/data/models/v2_lite/checkpoint", "data.tokenizer", ERR_ARG},
    };
    const place *p = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        told t = {0};
        error e = {0};
        char none[80];
        const status s = start(p, "none", &t, &e, cases[i].key, NULL);
        if (s != cases[i].code || !strstr(e.text, cases[i].says)) fail_msg("%s: %d: %s", cases[i].key, (int)s, e.text);
        assert_int_equal(t.steps, 0);
        snprintf(none, sizeof none, "%s/none", p->folder);
        assert_false(is_directory(none));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_step), cmocka_unit_test(margins_grow),
        cmocka_unit_test(micro_batches),  cmocka_unit_test(stopped_and_going_on_is_the_same_run),
        cmocka_unit_test(adapters),       cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, open_place, close_place);
}
