/* LoRA: W' and the gradients of A and B against loops in F64 and finite differences; which weights a target means;
 * PEFT's folder written and read. */
#include "../format/scratch.h"
#include <math.h>
#include <stdbool.h>
#include "base/json.h"
#include "base/rng.h"
#include "format/weights_file.h"
#include "train/lora.h"

enum { WEIGHTS = 12 };

/* A toy list of weights with the names of a real one; sizes that fill no vector. */
typedef struct toy {
    params p;
    param list[WEIGHTS];
    train_config c;
} toy;

static const struct {
    const char *name;
    int64_t rows, cols; /* cols 0: a vector */
    int64_t expert;
    bool buffer;
} weights[WEIGHTS] = {{"model.embed_tokens.weight", 50, 20, -1, false},
                      {"model.layers.0.input_layernorm.weight", 20, 0, -1, false},
                      {"model.layers.0.self_attn.q_proj.weight", 37, 20, -1, false},
                      {"model.layers.0.self_attn.q_proj.bias", 37, 0, -1, false},
                      {"model.layers.0.self_attn.o_proj.weight", 20, 37, -1, false},
                      {"model.layers.1.self_attn.q_proj.weight", 37, 20, -1, false},
                      {"model.layers.1.mlp.gate.weight", 5, 20, -1, false},
                      {"model.layers.1.mlp.gate.e_score_correction_bias", 5, 0, -1, true},
                      {"lm_head.weight", 50, 20, -1, false},
                      {"model.layers.0.mlp.down_proj.weight", 20, 23, -1, false},
                      {"model.layers.1.mlp.experts.0.up_proj.weight", 19, 20, 0, false},
                      {"model.layers.1.mlp.experts.1.up_proj.weight", 19, 20, 1, false}};

static toy *toy_open(int n_targets, const char *const *targets) {
    toy *t = calloc(1, sizeof *t);
    assert_non_null(t);
    t->p.list = t->list;
    for (int i = 0; i < WEIGHTS; i++) {
        param *x = &t->list[t->p.count++];
        int64_t n = weights[i].rows * (weights[i].cols ? weights[i].cols : 1);
        *x = (param){.first = t->p.total,
                     .n = n,
                     .ndim = weights[i].cols ? 2 : 1,
                     .dim = {weights[i].rows, weights[i].cols},
                     .layer = 1,
                     .expert = weights[i].expert,
                     .buffer = weights[i].buffer,
                     .trainable = !weights[i].buffer,
                     .decay = i % 2,
                     .lr_scale = i + 1};
        snprintf(x->name, sizeof x->name, "%s", weights[i].name);
        t->p.total += (n + 15) / 16 * 16;
        if (x->expert < 0) t->p.shared = t->p.count;
    }
    t->p.w = malloc((size_t)t->p.total * sizeof *t->p.w);
    t->p.g = malloc((size_t)t->p.total * sizeof *t->p.g);
    assert_non_null(t->p.w);
    assert_non_null(t->p.g);
    for (int64_t i = 0; i < t->p.total; i++) {
        t->p.w[i] = i % 11 ? (float)rng_normal(1, 1, (uint64_t)i) : -0.0f;
        t->p.g[i] = (float)rng_normal(1, 2, (uint64_t)i);
    }
    t->c.lora.rank = 3;
    t->c.lora.alpha = 7;
    t->c.training.expert_parallel = 1;
    t->c.lora.target_modules.n = n_targets;
    for (int i = 0; i < n_targets; i++) t->c.lora.target_modules.item[i] = targets[i];
    return t;
}

static void toy_close(toy *t) {
    free(t->p.w);
    free(t->p.g);
    free(t);
}

static lora *open_lora(toy *t) {
    lora *l;
    error e = {0};
    if (lora_open(&l, &t->c, &t->p, 5, &e) != OK) fail_msg("%s", e.text);
    return l;
}

static queue *open_queue(void) {
    queue *q;
    error e = {0};
    /* LoRA's products are F32 in every queue. */
    if (queue_open(&q, 2, NULL, COMPUTE_BF16, &e) != OK) fail_msg("%s", e.text);
    return q;
}

static void fill_b(lora *l) {
    params *own = lora_params(l);
    for (int64_t i = 1; i < own->count; i += 2)
        for (int64_t k = 0; k < own->list[i].n; k++)
            own->w[own->list[i].first + k] = (float)rng_normal(2, (uint64_t)i, (uint64_t)k);
}

static const char *const some[] = {"q_proj", "experts.1.up_proj"};

/* --- which weights ------------------------------------------------------------------------------------------------ */

static void targets(void **state) {
    (void)state;
    static const struct {
        const char *target;
        unsigned chosen; /* bits of the numbers in `weights` */
    } cases[] = {{"q_proj", 1 << 2 | 1 << 5},
                 {"self_attn.q_proj", 1 << 2 | 1 << 5},
                 {"proj", 0}, /* no module's last part is that */
                 {"_proj", 0},
                 {".*_proj", 1 << 2 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 10 | 1 << 11},
                 {"[qo]_proj", 1 << 2 | 1 << 4 | 1 << 5},
                 {"q_proj|o_proj", 1 << 2 | 1 << 4 | 1 << 5},
                 {"model\\.layers\\.1\\..*", 1 << 5 | 1 << 6 | 1 << 10 | 1 << 11},
                 {"layers.0.self_attn", 0},
                 {"embed_tokens", 0},
                 {"input_layernorm", 0},
                 {"lm_head", 1 << 8},
                 {"gate", 1 << 6},
                 {"experts\\.\\d+\\.up_proj", 1 << 10 | 1 << 11}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        toy *t = toy_open(1, &cases[i].target);
        lora *l = NULL;
        error e = {0};
        status s = lora_open(&l, &t->c, &t->p, 5, &e);
        if (!cases[i].chosen) {
            assert_int_equal(s, ERR_FORMAT);
            assert_non_null(strstr(e.text, cases[i].target));
            for (int k = 0; k < WEIGHTS; k++) assert_true(t->list[k].trainable == !t->list[k].buffer);
        } else {
            if (s != OK) fail_msg("%s", e.text);
            for (int k = 0; k < WEIGHTS; k++) {
                if (t->list[k].adapted != (cases[i].chosen >> k & 1))
                    fail_msg("\"%s\": %s", cases[i].target, t->list[k].name);
                assert_false(t->list[k].trainable);
            }
        }
        lora_close(l);
        toy_close(t);
    }
}

static void senseless_settings(void **state) {
    (void)state;
    lora *l;
    error e = {0};
    toy *t = toy_open(0, NULL);
    assert_int_equal(lora_open(&l, &t->c, &t->p, 5, &e), ERR_FORMAT);
    toy_close(t);
    static const char *const bad[] = {"q_proj", "q_porj"};
    t = toy_open(2, bad);
    assert_int_equal(lora_open(&l, &t->c, &t->p, 5, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "q_porj"));
    t->c.lora.target_modules.item[1] = "(";
    assert_int_equal(lora_open(&l, &t->c, &t->p, 5, &e), ERR_FORMAT);
    t->c.lora.target_modules.n = 1;
    t->c.lora.rank = 0;
    assert_int_equal(lora_open(&l, &t->c, &t->p, 5, &e), ERR_ARG);
    assert_null(l);
    toy_close(t);
    t = toy_open(2, some);
    t->c.training.expert_parallel = 2;
    assert_int_equal(lora_open(&l, &t->c, &t->p, 5, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.text, "experts.1.up_proj"));
    toy_close(t);
}

/* The adapter's own list is one that optimizer and checkpoints can take. */
static void own_list(void **state) {
    (void)state;
    toy *t = toy_open(2, some);
    lora *l = open_lora(t);
    const params *own = lora_params(l);
    static const struct {
        const char *name;
        int64_t rows, cols;
        int of;
    } wanted[] = {{"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", 3, 20, 2},
                  {"base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", 37, 3, 2},
                  {"base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight", 3, 20, 5},
                  {"base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight", 37, 3, 5},
                  {"base_model.model.model.layers.1.mlp.experts.1.up_proj.lora_A.weight", 3, 20, 11},
                  {"base_model.model.model.layers.1.mlp.experts.1.up_proj.lora_B.weight", 19, 3, 11}};
    assert_int_equal(own->count, 6);
    assert_int_equal(own->shared, 4);
    int64_t at = 0;
    for (int i = 0; i < 6; i++) {
        const param *x = &own->list[i];
        assert_string_equal(x->name, wanted[i].name);
        assert_int_equal(x->dim[0], wanted[i].rows);
        assert_int_equal(x->dim[1], wanted[i].cols);
        assert_int_equal(x->n, wanted[i].rows * wanted[i].cols);
        assert_int_equal(x->first, at);
        assert_true(x->trainable && !x->adapted && !x->buffer);
        assert_true(x->decay == t->list[wanted[i].of].decay && x->lr_scale == t->list[wanted[i].of].lr_scale);
        at += (x->n + 15) / 16 * 16;
    }
    assert_int_equal(own->total, at);
    assert_non_null(strstr(lora_note(l), "experts.1.up_proj.weight is adapted, other"));
    lora_close(l);
    toy_close(t);
    t = toy_open(1, some);
    l = open_lora(t);
    assert_null(lora_note(l));
    lora_close(l);
    toy_close(t);
}

/* A is uniform in +-1/sqrt(in); the same whatever else is adapted; another for another seed or weight. */
static void first_values(void **state) {
    (void)state;
    static const char *const all[] = {".*"};
    toy *t = toy_open(2, some), *u = toy_open(1, all);
    lora *l = open_lora(t), *m = open_lora(u);
    const params *a = lora_params(l), *b = lora_params(m);
    double most = 0, sum = 0;
    int64_t n = 0, compared = 0;
    for (int64_t i = 0; i < a->count; i++) {
        const param *x = &a->list[i];
        for (int64_t k = 0; k < b->count; k++) {
            bool same = memcmp(a->w + x->first, b->w + b->list[k].first, 60 * sizeof *a->w) == 0;
            if (i % 2 == 0 && k % 2 == 0) assert_true(same == (strcmp(x->name, b->list[k].name) == 0));
            compared += i % 2 == 0 && same;
        }
        for (int64_t k = 0; k < x->n; k++) {
            double v = a->w[x->first + k];
            if (i % 2) assert_true(v == 0);
            else most = fmax(most, fabs(v)), sum += v * v, n++;
        }
    }
    assert_int_equal(compared, 3);
    /* n = 180 squares of a uniform number: mean bound^2 / 3, deviation of their mean 0.9 / sqrt(180) of that: 5 of
     * them are a third. */
    assert_true(most <= 1 / sqrt(20) && most > 0.9 / sqrt(20));
    assert_true(fabs(sum / (double)n * 3 * 20 - 1) < 1.0 / 3);
    lora_close(m);
    error e = {0};
    assert_int_equal(lora_open(&m, &t->c, &t->p, 6, &e), OK);
    assert_memory_not_equal(a->w, lora_params(m)->w, 60 * sizeof *a->w);
    lora_close(m);
    lora_close(l);
    toy_close(t);
    toy_close(u);
}

/* --- computing -----------------------------------------------------------------------------------------------------
 */

static void zero_b_changes_no_bit(void **state) {
    (void)state;
    static const char *const all[] = {".*"};
    toy *t = toy_open(1, all);
    const size_t bytes = (size_t)t->p.total * sizeof *t->p.w;
    float *before = malloc(bytes);
    assert_non_null(before);
    memcpy(before, t->p.w, bytes);
    lora *l = open_lora(t);
    queue *q = open_queue();
    lora_apply(l, q, &t->p);
    assert_memory_equal(t->p.w, before, bytes);
    fill_b(l); /* and back from a change */
    lora_apply(l, q, &t->p);
    assert_memory_not_equal(t->p.w, before, bytes);
    params *own = lora_params(l);
    for (int64_t i = 1; i < own->count; i += 2)
        memset(own->w + own->list[i].first, 0, (size_t)own->list[i].n * sizeof *own->w);
    lora_apply(l, q, &t->p);
    assert_memory_equal(t->p.w, before, bytes);
    queue_close(q);
    lora_close(l);
    free(before);
    toy_close(t);
}

/* W0 + s B A in F64 with entry `moved` of A and B (as they lie in own->w) moved by h. */
static double change_at(const params *own, int64_t i, int64_t row, int64_t col, int64_t moved, double h) {
    const param *a = &own->list[2 * i], *b = &own->list[2 * i + 1];
    const int64_t rank = a->dim[0];
    double sum = 0;
    for (int64_t k = 0; k < rank; k++) {
        int64_t at_a = a->first + k * a->dim[1] + col, at_b = b->first + row * rank + k;
        sum += (own->w[at_a] + (at_a == moved ? h : 0)) * (own->w[at_b] + (at_b == moved ? h : 0));
    }
    return 7.0 / 3.0 * sum;
}

/* L = 1/2 |W' - T|^2 of one weight. */
static double loss(const params *own, int64_t i, const float *w0, const float *goal, int64_t moved, double h) {
    const int64_t rows = own->list[2 * i + 1].dim[0], cols = own->list[2 * i].dim[1];
    double sum = 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            double d = w0[r * cols + c] + change_at(own, i, r, c, moved, h) - goal[r * cols + c];
            sum += d * d / 2;
        }
    return sum;
}

static void gradients_by_finite_differences(void **state) {
    (void)state;
    toy *t = toy_open(2, some);
    const size_t bytes = (size_t)t->p.total * sizeof *t->p.w;
    float *w0 = malloc(bytes), *goal = malloc(bytes);
    assert_non_null(w0);
    assert_non_null(goal);
    memcpy(w0, t->p.w, bytes);
    for (int64_t i = 0; i < t->p.total; i++) goal[i] = (float)rng_normal(9, 9, (uint64_t)i);
    lora *l = open_lora(t);
    params *own = lora_params(l);
    fill_b(l);
    queue *q = open_queue();
    lora_apply(l, q, &t->p);
    for (int64_t i = 0; i < t->p.total; i++) t->p.g[i] = t->p.w[i] - goal[i]; /* dL/dW' */
    for (int twice = 0; twice < 2; twice++) lora_gradients(l, q, &t->p);      /* set, not added */
    static const int of[] = {2, 5, 11};
    double worst = 0;
    for (int64_t i = 0; i < 3; i++) {
        const param *x = &t->list[of[i]];
        for (int64_t r = 0; r < x->dim[0]; r++)
            for (int64_t c = 0; c < x->dim[1]; c++) {
                double wanted = w0[x->first + r * x->dim[1] + c] + change_at(own, i, r, c, -1, 0);
                /* Three products, a factor and a sum of numbers below 32, each rounded once: 6 x 32 x 2^-24. */
                assert_true(fabs(t->p.w[x->first + r * x->dim[1] + c] - wanted) < 6 * 32 * 0x1p-24);
            }
        for (int which = 0; which < 2; which++) {
            const param *y = &own->list[2 * i + which];
            for (int64_t k = y->first; k < y->first + y->n; k++) {
                /* L is quadratic in one entry, so the central difference is exact with any step but for F64's rounding
                 * of L (below 1e4): 1e4 x 2^-53 x terms. */
                const double h = 0.5, wanted = (loss(own, i, w0 + x->first, goal + x->first, k, h) -
                                                loss(own, i, w0 + x->first, goal + x->first, k, -h)) /
                                               (2 * h);
                worst = fmax(worst, fabs(own->g[k] - wanted));
            }
        }
    }
    /* Sums of at most 37 F32 terms below 7/3 x 4 x 32 < 300, rounded 37 + 3 times, terms themselves off by 6 roundings
     * of dW': (40 + 6) x 37 x 300 x 2^-24 bounds it; rounding errors are random, so a tenth of that is still wide. */
    if (!(worst < 46 * 37 * 300 * 0x1p-24 / 10)) fail_msg("gradients are off by %g", worst);
    for (int64_t i = own->list[0].n; i < own->list[1].first; i++) assert_true(own->g[i] == 0);
    queue_close(q);
    lora_close(l);
    free(w0);
    free(goal);
    toy_close(t);
}

/* --- PEFT's folder --------------------------------------------------------------------------------------------------
 */

static void saved_and_loaded(void **state) {
    (void)state;
    scratch dir = scratch_open();
    char *folder = scratch_path(&dir, "adapter");
    toy *t = toy_open(2, some), *u = toy_open(1, some);
    lora *l = open_lora(t), *m;
    queue *q = open_queue();
    error e = {0};
    fill_b(l);
    if (lora_save(l, folder, "a/base model", &e) != OK) fail_msg("%s", e.text);
    if (lora_load(&m, folder, &u->p, &e) != OK) fail_msg("%s", e.text);
    const params *a = lora_params(l), *b = lora_params(m);
    assert_int_equal(a->total, b->total);
    assert_memory_equal(a->w, b->w, (size_t)a->total * sizeof *a->w);
    for (int64_t i = 0; i < a->count; i++) assert_string_equal(a->list[i].name, b->list[i].name);
    for (int i = 0; i < WEIGHTS; i++) {
        assert_true(t->list[i].adapted == u->list[i].adapted);
        assert_false(u->list[i].trainable);
    }
    lora_apply(l, q, &t->p); /* merged: the same weights to the last bit, rank and alpha included */
    lora_apply(m, q, &u->p);
    assert_memory_equal(t->p.w, u->p.w, (size_t)t->p.total * sizeof *t->p.w);

    char *path = scratch_path(&dir, "adapter/adapter_config.json");
    json_t *c;
    assert_int_equal(json_read(&c, path, 1 << 20, &e), OK);
    assert_string_equal(json_string_value(json_object_get(c, "peft_type")), "LORA");
    assert_string_equal(json_string_value(json_object_get(c, "task_type")), "CAUSAL_LM");
    assert_string_equal(json_string_value(json_object_get(c, "bias")), "none");
    assert_string_equal(json_string_value(json_object_get(c, "base_model_name_or_path")), "a/base model");
    assert_int_equal(json_integer_value(json_object_get(c, "r")), 3);
    assert_int_equal(json_integer_value(json_object_get(c, "lora_alpha")), 7);
    assert_int_equal(json_integer_value(json_object_get(c, "lora_dropout")), 0);
    json_t *names = json_object_get(c, "target_modules");
    assert_int_equal(json_array_size(names), 3);
    assert_string_equal(json_string_value(json_array_get(names, 0)), "model.layers.0.self_attn.q_proj");
    json_decref(c);
    free(path);
    queue_close(q);
    lora_close(l);
    lora_close(m);
    toy_close(t);
    toy_close(u);
    free(folder);
    scratch_close(&dir);
}

static void check_targets(toy *t, const char *const *modules, const char *const *parameters) {
    scratch dir = scratch_open();
    char *path = scratch_path(&dir, "adapter_config.json");
    lora *l = open_lora(t);
    json_t *c;
    error e = {0};
    assert_null(lora_note(l));
    if (lora_save(l, dir.dir, "base", &e) != OK || json_read(&c, path, 1 << 20, &e) != OK) fail_msg("%s", e.text);
    const json_t *m = json_object_get(c, "target_modules"), *p = json_object_get(c, "target_parameters");
    for (size_t i = 0; i < json_array_size(m) || modules[i]; i++)
        assert_string_equal(json_string_value(json_array_get(m, i)), modules[i]);
    for (size_t i = 0; i < json_array_size(p) || parameters[i]; i++)
        assert_string_equal(json_string_value(json_array_get(p, i)), parameters[i]);
    if (!parameters[0]) assert_true(json_is_null(p));
    json_decref(c);
    lora_close(l);
    free(path);
    scratch_close(&dir);
}

/* In a model with routed experts PEFT takes modules that end in down_proj for experts: see lora.c. */
static void names_in_models_with_experts(void **state) {
    (void)state;
    static const char *const targets[] = {"down_proj", "o_proj", "experts.*"};
    static const char *const dense[] = {"model.layers.0.self_attn.o_proj", "model.layers.0.mlp.down_proj", NULL};
    static const char *const rest[] = {"model.layers.0.self_attn.o_proj", "model.layers.1.mlp.experts.0.up_proj",
                                       "model.layers.1.mlp.experts.1.up_proj", NULL};
    static const char *const parameters[] = {"model.layers.0.mlp.down_proj.weight", NULL}, *const none[] = {NULL};
    toy *t = toy_open(3, targets);
    check_targets(t, rest, parameters);
    toy_close(t);
    t = toy_open(2, targets);
    t->p.count = t->p.shared; /* no experts */
    check_targets(t, dense, none);
    toy_close(t);
}

static const char a_name[] = "base_model.model.lm_head.lora_A.weight";
static const char b_name[] = "base_model.model.lm_head.lora_B.weight";

static void save_tensors(const scratch *dir, const char *one, int64_t rows, const char *two, dtype type) {
    char header[600];
    size_t unit = dtype_size(type), n = (size_t)rows * 20 * unit, m = 50 * 2 * unit;
    snprintf(header, sizeof header,
             "{\"%s\":{\"dtype\":\"%s\",\"shape\":[%d,20],\"data_offsets\":[0,%zu]},"
             "\"%s\":{\"dtype\":\"%s\",\"shape\":[50,2],\"data_offsets\":[%zu,%zu]}}",
             one, dtype_name(type), (int)rows, n, two, dtype_name(type), n, n + m);
    scratch_raw(dir, "adapter_model.safetensors", header, n + m);
}

static void expect(const scratch *dir, const char *config, status wanted, const char *text) {
    static const char *const none[] = {"x"};
    toy *t = toy_open(1, none);
    lora *l = NULL;
    error e = {0};
    scratch_write(dir, "adapter_config.json", config, strlen(config));
    status s = lora_load(&l, dir->dir, &t->p, &e);
    if (s != wanted || (text && !strstr(e.text, text))) fail_msg("%d \"%s\", not %d \"%s\"", s, e.text, wanted, text);
    if (s != OK) assert_true(!l && t->list[2].trainable && !t->list[8].adapted);
    else assert_true(l && t->list[8].adapted);
    lora_close(l);
    toy_close(t);
}

static void foreign_folders(void **state) {
    (void)state;
    static const char good[] = "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 1.5, \"bias\": \"none\", "
                               "\"rank_pattern\": {}, \"use_dora\": false, \"modules_to_save\": null}";
    scratch dir = scratch_open();
    expect(&dir, good, ERR_FORMAT, "adapter_model.safetensors");
    save_tensors(&dir, a_name, 2, b_name, DT_F32);
    expect(&dir, good, OK, NULL);
    save_tensors(&dir, a_name, 2, b_name, DT_BF16);
    expect(&dir, good, OK, NULL);
    expect(&dir, "{\"peft_type\": \"IA3\", \"r\": 2, \"lora_alpha\": 1}", ERR_UNSUPPORTED, "IA3");
    expect(&dir, "{\"peft_type\": \"LORA\", \"r\": 2}", ERR_FORMAT, "lora_alpha");
    expect(&dir, "{\"peft_type\": \"LORA\", \"r\": 0, \"lora_alpha\": 1}", ERR_FORMAT, "\"r\"");
    expect(&dir, "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 1, \"use_dora\": true}", ERR_UNSUPPORTED,
           "use_dora");
    expect(&dir, "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 1, \"bias\": \"all\"}", ERR_UNSUPPORTED, "bias");
    expect(&dir, "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 1, \"alpha_pattern\": {\"a\": 1}}",
           ERR_UNSUPPORTED, "alpha_pattern");
    expect(&dir, "{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 1}", ERR_FORMAT, "2 x 20, 3 x 20 was wanted");
    expect(&dir, "[]", ERR_FORMAT, "peft_type");
    save_tensors(&dir, a_name, 4, b_name, DT_F32);
    expect(&dir, good, ERR_FORMAT, "4 x 20, 2 x 20 was wanted");
    save_tensors(&dir, a_name, 2, b_name, DT_E4M3);
    expect(&dir, good, ERR_UNSUPPORTED, "F8_E4M3");
    save_tensors(&dir, a_name, 2, "base_model.model.lm_head.lora_C.weight", DT_F32);
    expect(&dir, good, ERR_FORMAT, b_name);
    save_tensors(&dir, "base_model.model.no_head.lora_A.weight", 2, "base_model.model.no_head.lora_B.weight", DT_F32);
    expect(&dir, good, ERR_FORMAT, "nothing in it adapts");
    scratch_close(&dir);

    dir = scratch_open(); /* one tensor too many */
    char header[600];
    snprintf(
        header, sizeof header,
        "{\"%s\":{\"dtype\":\"F32\",\"shape\":[2,20],\"data_offsets\":[0,160]},"
        "\"%s\":{\"dtype\":\"F32\",\"shape\":[50,2],\"data_offsets\":[160,560]},"
        "\"base_model.model.lm_head.lora_magnitude\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[560,564]}}",
        a_name, b_name);
    scratch_raw(&dir, "adapter_model.safetensors", header, 564);
    expect(&dir, good, ERR_FORMAT, "lora_magnitude");
    scratch_close(&dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(targets),
                                       cmocka_unit_test(senseless_settings),
                                       cmocka_unit_test(own_list),
                                       cmocka_unit_test(first_values),
                                       cmocka_unit_test(zero_b_changes_no_bit),
                                       cmocka_unit_test(gradients_by_finite_differences),
                                       cmocka_unit_test(saved_and_loaded),
                                       cmocka_unit_test(names_in_models_with_experts),
                                       cmocka_unit_test(foreign_folders)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
