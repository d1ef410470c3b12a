/* The scheduler on small random models of every family: an answer is the same bits alone, among others that come and
 * go, with prompts cut into chunks, with little memory (answers are dropped and computed again), with drafts, and from
 * cached prefixes of prompts. */
#include "../format/scratch.h"
#include "../model/small_models.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "infer/scheduler.h"
#include <cmocka.h>

#define COMMON                                                                                       \
    "\"num_hidden_layers\":3,\"hidden_size\":64,\"intermediate_size\":96,\"num_attention_heads\":4," \
    "\"initializer_range\":0.15,\"max_position_embeddings\":4096,\"vocab_size\":211,"
#define MLA                                                                                                        \
    COMMON                                                                                                         \
    "\"kv_lora_rank\":24,\"qk_nope_head_dim\":12,\"qk_rope_head_dim\":8,\"v_head_dim\":10,\"n_routed_experts\":8," \
    "\"moe_intermediate_size\":24,\"num_experts_per_tok\":3,\"n_shared_experts\":1,\"first_k_dense_replace\":1,"
#define V3 "\"q_lora_rank\":32,\"n_group\":4,\"topk_group\":2,\"routed_scaling_factor\":2.5"

static const char *const configs[] = {
    "{\"model_type\":\"deepseek_v2\"," MLA "\"q_lora_rank\":null}",
    "{\"model_type\":\"deepseek_v3\"," MLA V3 ",\"num_nextn_predict_layers\":1}",
    "{\"model_type\":\"deepseek_v32\"," MLA V3 ",\"index_n_heads\":3,\"index_head_dim\":16,\"index_topk\":20}",
    "{\"model_type\":\"qwen2\"," COMMON "\"num_key_value_heads\":2}",
    "{\"model_type\":\"llama\"," COMMON "\"num_key_value_heads\":1,\"tie_word_embeddings\":true}",
};
enum { MODELS = sizeof configs / sizeof *configs, V3_MTP = 1, REQUESTS = 24, LONGEST = 700, ANSWER = 60 };

static model *models[MODELS];

static int set_up(void **state) {
    (void)state;
    error e = {0};
    for (int f = 0; f < MODELS; f++)
        if (small_model_open(&models[f], configs[f], "f32", &e) != OK) {
            printf("%s\n", e.text);
            return -1;
        }
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    for (int f = 0; f < MODELS; f++) model_close(models[f]);
    return 0;
}

/* --- requests and what came of them ------------------------------------------------------------------------------ */

typedef struct wish {
    int32_t prompt[LONGEST];
    int64_t n;
    request r;
    /* what came */
    int32_t ids[4][ANSWER];
    int64_t n_ids[4], cached, shown;
    finish finish[4];
    int done, over, prompts;
    float prompt_logprobs[LONGEST];
    char why[512];
} wish;

static void on_token(void *arg, const generated_token *t) {
    wish *w = arg;
    (void)t;
    w->shown++;
}

static void on_prompt(void *arg, int64_t at, const generated_token *t) {
    wish *w = arg;
    assert_int_equal(at, w->prompts + 1);
    assert_int_equal(t->id, w->prompt[at]);
    w->prompts++;
    w->prompt_logprobs[at] = t->logprob;
}

static void on_done(void *arg, int sample, generated *a, const error *e) {
    wish *w = arg;
    w->n_ids[sample] = a->n_ids;
    if (a->n_ids) memcpy(w->ids[sample], a->ids, (size_t)a->n_ids * sizeof *a->ids);
    w->finish[sample] = a->finish;
    w->cached += a->cached_tokens;
    w->done++;
    if (e) snprintf(w->why, sizeof w->why, "%s", e->text);
}

static void on_over(void *arg) {
    wish *w = arg;
    w->over++;
    assert_int_equal(w->done, w->r.samples);
}

/* Request number i: prompts of many lengths, of which some begin alike. */
static void make_wish(wish *w, int i) {
    memset(w, 0, sizeof *w);
    const int64_t shared = i % 3 ? 300 : 0;
    w->n = 1 + (i * 97) % LONGEST;
    for (int64_t t = 0; t < w->n; t++)
        w->prompt[t] = (int32_t)((t < shared ? t * 31 + 5 : t * (i + 3) + i * i * 7 + t * t) % 211);
    w->r = (request){
        .prompt = w->prompt,
        .n = w->n,
        .samples = 1 + i % 3,
        .max_tokens = 5 + (i * 13) % (ANSWER - 5),
        .sampling = {.temperature = i % 2 ? 1.0f : 0, .top_p = 1, .repetition_penalty = 1, .seed = 11 + (uint64_t)i},
        .events = {.token = on_token, .done = on_done, .over = on_over, .prompt = on_prompt, .arg = w}};
}

static engine *engine_of(int f, compute c) {
    engine *g;
    error e;
    if (engine_open(&g, models[f], 2, NULL, c, MLA_CHEAPER, &e) != OK) fail_msg("%s", e.text);
    return g;
}

static scheduler *scheduler_of(engine *g, scheduler_options o) {
    scheduler *s;
    error e;
    o.alike = true;
    if (!o.cache_bytes) o.cache_bytes = 1 << 28;
    if (!o.sequences) o.sequences = 16;
    if (!o.capacity) o.capacity = 1024;
    if (!o.chunk) o.chunk = 512;
    if (scheduler_open(&s, g, &o, &e) != OK) fail_msg("%s", e.text);
    return s;
}

static void add(scheduler *s, wish *w) {
    error e;
    if (scheduler_check(s, &w->r, &e) != OK || scheduler_add(s, &w->r, 1, &e) != OK) fail_msg("%s", e.text);
}

static wish *alone(engine *g, int count) {
    wish *w = calloc((size_t)count, sizeof *w);
    assert_non_null(w);
    for (int i = 0; i < count; i++) {
        scheduler *s = scheduler_of(g, (scheduler_options){0});
        make_wish(&w[i], i);
        add(s, &w[i]);
        while (scheduler_step(s)) {}
        assert_int_equal(w[i].over, 1);
        scheduler_close(s);
    }
    return w;
}

static void same(const wish *a, const wish *b, int i) {
    for (int k = 0; k < a->r.samples; k++) {
        if (b->why[0]) fail_msg("request %d: %s", i, b->why);
        assert_int_equal(a->finish[k], b->finish[k]);
        assert_int_equal(a->n_ids[k], b->n_ids[k]);
        for (int64_t t = 0; t < a->n_ids[k]; t++)
            if (a->ids[k][t] != b->ids[k][t])
                fail_msg("request %d, sample %d: token %lld is %d, alone it was %d", i, k, (long long)t, b->ids[k][t],
                         a->ids[k][t]);
    }
    assert_int_equal(b->over, 1);
    assert_int_equal(a->shown, b->shown);
}

/* All requests, one more of them each `every` steps. */
static scheduler_stats together(engine *g, const wish *expect, int count, scheduler_options o, int every) {
    wish *w = calloc((size_t)count, sizeof *w);
    scheduler_stats stats;
    assert_non_null(w);
    scheduler *s = scheduler_of(g, o);
    int begun = 0;
    for (int step = 0; scheduler_step(s) || begun < count; step++)
        if (begun < count && step % every == 0) {
            make_wish(&w[begun], begun);
            add(s, &w[begun++]);
        }
    for (int i = 0; i < count; i++) same(&expect[i], &w[i], i);
    scheduler_get_stats(s, &stats);
    assert_int_equal(stats.pages_running, 0);
    scheduler_close(s);
    free(w);
    return stats;
}

static void test_same_in_any_batch(void **state) {
    (void)state;
    for (int f = 0; f < MODELS; f++)
        for (int c = COMPUTE_F32; c <= COMPUTE_BF16; c++) {
            engine *g = engine_of(f, (compute)c);
            wish *expect = alone(g, REQUESTS);
            together(g, expect, REQUESTS, (scheduler_options){0}, 1);
            together(g, expect, REQUESTS, (scheduler_options){.sequences = 5, .chunk = 70}, 3);
            together(g, expect, REQUESTS, (scheduler_options){.sequences = 64, .chunk = 33}, 7);
            free(expect);
            engine_close(g);
        }
}

static void test_little_memory(void **state) {
    (void)state;
    for (int f = 0; f < MODELS; f++) {
        engine *g = engine_of(f, COMPUTE_BF16);
        wish *expect = alone(g, REQUESTS);
        scheduler *s = scheduler_of(g, (scheduler_options){0});
        scheduler_stats stats;
        scheduler_get_stats(s, &stats);
        scheduler_close(s);
        stats = together(g, expect, REQUESTS,
                         (scheduler_options){.cache_bytes = 9 * stats.page_bytes, .sequences = 12, .chunk = 100}, 1);
        assert_true(stats.preemptions > 0);
        free(expect);
        engine_close(g);
    }
}

static void test_drafts(void **state) {
    (void)state;
    engine *g = engine_of(V3_MTP, COMPUTE_BF16);
    wish *expect = alone(g, REQUESTS);
    scheduler_stats stats = together(g, expect, REQUESTS, (scheduler_options){.drafts = 3}, 1);
    assert_true(stats.draft_proposed > 0);
    free(expect);
    engine_close(g);
}

static void test_prefixes(void **state) {
    (void)state;
    engine *g = engine_of(0, COMPUTE_BF16);
    wish first, again, longer;
    scheduler *s = scheduler_of(g, (scheduler_options){0});
    make_wish(&first, 5);
    first.r.samples = 1;
    assert_true(first.n > CACHE_PAGE);
    again = first;
    again.r.prompt = again.prompt;
    again.r.events.arg = &again;
    add(s, &first);
    while (scheduler_step(s)) {}
    assert_int_equal(first.cached, 0);
    add(s, &again);
    while (scheduler_step(s)) {}
    assert_int_equal(again.cached, again.n - 1); /* the last token's row gives the logits */
    same(&first, &again, 0);
    /* A conversation goes on: prompt, answer, and something new. */
    longer = first;
    memcpy(longer.prompt + longer.n, first.ids[0], (size_t)first.n_ids[0] * sizeof *first.ids[0]);
    longer.n += first.n_ids[0] + 1;
    longer.prompt[longer.n - 1] = 5;
    longer.r.prompt = longer.prompt;
    longer.r.n = longer.n;
    longer.r.events.arg = &longer;
    longer.cached = longer.done = longer.over = 0;
    add(s, &longer);
    while (scheduler_step(s)) {}
    assert_true(longer.cached >= first.n + first.n_ids[0] - 1);
    scheduler_close(s);
    engine_close(g);
}

static void test_disk(void **state) {
    (void)state;
    engine *g = engine_of(2, COMPUTE_BF16);
    scratch d = scratch_open();
    wish first, again;
    for (int round = 0; round < 3; round++) {
        scheduler *s =
            scheduler_of(g, (scheduler_options){.folder = d.dir, .model_name = "m", .folder_bytes = 1 << 30});
        wish *w = round ? &again : &first;
        make_wish(w, 5);
        w->r.samples = 1;
        add(s, w);
        while (scheduler_step(s)) {}
        assert_int_equal(w->cached, round ? w->n - 1 : 0);
        if (round) same(&first, &again, round);
        if (round == 1) {
            scheduler_stats stats;
            scheduler_get_stats(s, &stats);
            assert_true(stats.folder_bytes > 0);
        }
        scheduler_close(s);
    }
    scratch_close(&d);
    engine_close(g);
}

static void test_prompt_logprobs(void **state) {
    (void)state;
    engine *g = engine_of(3, COMPUTE_F32);
    wish w[2];
    scheduler *s = scheduler_of(g, (scheduler_options){.chunk = 50});
    for (int k = 0; k < 2; k++) { /* the second one finds everything cached, and wants all rows nevertheless */
        make_wish(&w[k], 7);
        w[k].r.samples = 1;
        w[k].r.prompt_logprobs = 3;
        w[k].r.max_tokens = k ? -1 : 4;
        add(s, &w[k]);
        while (scheduler_step(s)) {}
        assert_int_equal(w[k].prompts, w[k].n - 1);
        assert_int_equal(w[k].n_ids[0], k ? 0 : 4);
        assert_int_equal(w[k].finish[0], FINISH_LENGTH);
    }
    for (int64_t t = 1; t < w[0].n; t++) {
        assert_true(w[0].prompt_logprobs[t] < 0);
        assert_memory_equal(&w[0].prompt_logprobs[t], &w[1].prompt_logprobs[t], sizeof(float));
    }
    scheduler_close(s);
    engine_close(g);
}

static void test_bias_and_cancel(void **state) {
    (void)state;
    engine *g = engine_of(4, COMPUTE_BF16);
    wish w, other;
    token_bias bias[] = {{17, 100}};
    error e;
    scheduler *s = scheduler_of(g, (scheduler_options){0});
    make_wish(&w, 2);
    w.r.bias = bias;
    w.r.n_bias = 1;
    add(s, &w);
    make_wish(&other, 5);
    other.r.max_tokens = 0;
    assert_int_equal(scheduler_add(s, &other.r, 77, &e), OK);
    for (int i = 0; i < 20; i++) scheduler_step(s);
    assert_int_equal(other.done, 0);
    scheduler_cancel(s, 77);
    while (scheduler_step(s)) {}
    for (int64_t t = 0; t < w.n_ids[0]; t++) assert_int_equal(w.ids[0][t], 17);
    assert_int_equal(other.over, 1);
    assert_int_equal(other.finish[0], FINISH_CANCELLED);
    make_wish(&other, 4); /* closing ends what runs */
    add(s, &other);
    scheduler_step(s);
    scheduler_close(s);
    assert_int_equal(other.over, 1);
    engine_close(g);
}

static void test_refusals(void **state) {
    (void)state;
    engine *g = engine_of(0, COMPUTE_BF16);
    scheduler *s = scheduler_of(g, (scheduler_options){.capacity = 100});
    wish w;
    error e;
    make_wish(&w, 3);
    assert_int_equal(scheduler_check(s, &w.r, &e), ERR_ARG); /* longer than the context */
    w.r.n = 100;
    assert_int_equal(scheduler_check(s, &w.r, &e), OK);
    w.prompt[4] = 211;
    assert_int_equal(scheduler_check(s, &w.r, &e), ERR_ARG);
    w.prompt[4] = 1;
    w.r.n = 0;
    assert_int_equal(scheduler_check(s, &w.r, &e), ERR_ARG);
    w.r.n = 9;
    w.r.sampling.temperature = NAN;
    assert_int_equal(scheduler_check(s, &w.r, &e), ERR_ARG);
    scheduler_close(s);
    assert_int_equal(
        scheduler_open(&s, g, &(scheduler_options){.cache_bytes = 10, .sequences = 1, .capacity = 9, .chunk = 9}, &e),
        ERR_ARG);
    engine_close(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_in_any_batch),
        cmocka_unit_test(test_little_memory),
        cmocka_unit_test(test_drafts),
        cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_disk),
        cmocka_unit_test(test_prompt_logprobs),
        cmocka_unit_test(test_bias_and_cancel),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
