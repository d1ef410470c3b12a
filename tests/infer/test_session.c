/* Sessions and generation on small random models of every family: two ways to one result, and refusals. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "convert/init.h"
#include "infer/generate.h"
#include <cmocka.h> /* last: it defines fail() */

#define DENSE                                                                                      \
    "\"num_hidden_layers\":3,\"hidden_size\":64,\"intermediate_size\":96,\"num_attention_heads\":" \
    "4,"                                                                                           \
    "\"initializer_range\":0.15,\"max_position_embeddings\":256,"
#define VOCAB "\"vocab_size\":211,"
#define MLA                                                                                                        \
    DENSE                                                                                                          \
    "\"kv_lora_rank\":24,\"qk_nope_head_dim\":12,\"qk_rope_head_dim\":8,\"v_head_dim\":10,\"n_routed_experts\":8," \
    "\"moe_intermediate_size\":24,\"num_experts_per_tok\":3,\"n_shared_experts\":1,\"first_k_dense_replace\":1,"

static const char *const configs[] = {
    "{\"model_type\":\"deepseek_v2\"," MLA VOCAB "\"q_lora_rank\":null}",
    "{\"model_type\":\"deepseek_v3\"," MLA VOCAB
    "\"q_lora_rank\":32,\"n_group\":4,\"topk_group\":2,\"num_nextn_predict_layers\":1,"
    "\"routed_scaling_factor\":2.5}",
    "{\"model_type\":\"deepseek_v32\"," MLA VOCAB
    "\"q_lora_rank\":32,\"n_group\":4,\"topk_group\":2,\"index_n_heads\":3,"
    "\"index_head_dim\":16,\"index_topk\":20}",
    "{\"model_type\":\"qwen2\"," DENSE VOCAB "\"num_key_value_heads\":2}",
    "{\"model_type\":\"llama\"," DENSE VOCAB "\"num_key_value_heads\":1,\"tie_word_embeddings\":true}",
    /* A vocabulary of 5: every fifth draft is right by chance. */
    "{\"model_type\":\"deepseek_v3\"," MLA "\"vocab_size\":5,\"q_lora_rank\":32,\"n_group\":4,\"topk_group\":2,"
    "\"num_nextn_predict_layers\":1}",
};
enum { MODELS = sizeof configs / sizeof *configs, FAMILIES = 5, V3 = 1, SMALL = 5, N = 70 };

static model *models[MODELS];
static char folder[64];
static int32_t prompt[N];

static int set_up(void **state) {
    (void)state;
    error e;
    snprintf(folder, sizeof folder, "build/test_session.%d", (int)getpid());
    for (int i = 0; i < N; i++) prompt[i] = (i * 37 + i * i) % 211;
    for (int f = 0; f < MODELS; f++) {
        char in[128], out[128];
        snprintf(in, sizeof in, "%s/in%d", folder, f);
        snprintf(out, sizeof out, "%s/out%d", folder, f);
        if (make_directory(in, &e) != OK) return -1;
        snprintf(in, sizeof in, "%s/in%d/config.json", folder, f);
        if (file_save(in, configs[f], strlen(configs[f]), &e) != OK ||
            init_run(&(init_options){.config = in, .out = out, .seed = 7}, &(init_result){0}, &e) != OK ||
            model_open(&models[f], out, &e) != OK) {
            printf("%s\n", e.text);
            return -1;
        }
    }
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    char command[128];
    for (int f = 0; f < MODELS; f++) model_close(models[f]);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static engine *engine_of(int family, int threads, compute c, mla_form form) {
    engine *g;
    error e;
    if (engine_open(&g, models[family], threads, NULL, c, form, &e) != OK) fail_msg("%s", e.text);
    return g;
}

static session *session_of(engine *g, int64_t capacity) {
    session *s;
    error e;
    if (session_open(&s, g, capacity, &e) != OK) fail_msg("%s", e.text);
    return s;
}

static void take(session *s, const int32_t *tokens, int64_t n, int64_t want) {
    error e;
    if (sessions_extend(&s, 1, &tokens, &n, &want, &e) != OK) fail_msg("%s", e.text);
}

/* Largest difference over the largest number. */
static double distance(const float *a, const float *b, int64_t n) {
    double d = 0, max = 0;
    for (int64_t i = 0; i < n; i++) d = fmax(d, fabs((double)a[i] - b[i])), max = fmax(max, fabs(b[i]));
    return d / max;
}

/* F32 sums of some hundred terms in another order, through three layers: a few 1e-6; 1e-4 is the reference's tolerance.
 */
static const double CLOSE = 2e-5;

static float *all_logits(engine *g, int64_t *vocab) {
    session *s = session_of(g, 128);
    take(s, prompt, N, N);
    *vocab = g->m->cfg.vocab_size;
    float *x = malloc((size_t)(N * *vocab) * sizeof *x);
    memcpy(x, s->logits, (size_t)(N * *vocab) * sizeof *x);
    session_close(s);
    return x;
}

static void step_by_step_is_the_whole_prompt(void **state) {
    (void)state;
    for (int f = 0; f < FAMILIES; f++) {
        engine *g = engine_of(f, 1, COMPUTE_F32, MLA_CHEAPER);
        int64_t vocab;
        float *whole = all_logits(g, &vocab);
        session *s = session_of(g, 128);
        double worst = 0;
        for (int64_t i = 0; i < N; i++) {
            take(s, prompt + i, 1, 1);
            worst = fmax(worst, distance(s->logits, whole + i * vocab, vocab));
        }
        printf("%s: %g\n", g->m->cfg.arch->model_type, worst);
        assert_true(worst <= CLOSE);
        session_close(s);
        free(whole);
        engine_close(g);
    }
}

/* An engine on a queue that is somebody else's gives the same bits, and leaves the queue open. */
static void borrowed_queue(void **state) {
    (void)state;
    error e;
    queue *q;
    engine *own = engine_of(V3, 1, COMPUTE_F32, MLA_CHEAPER), *g;
    int64_t vocab;
    float *x = all_logits(own, &vocab);
    assert_int_equal(queue_open(&q, 1, NULL, COMPUTE_F32, &e), OK);
    for (int turn = 0; turn < 2; turn++) {
        assert_int_equal(engine_borrow(&g, models[V3], q, MLA_CHEAPER, &e), OK);
        float *y = all_logits(g, &vocab);
        assert_memory_equal(x, y, (size_t)(N * vocab) * sizeof *x);
        free(y);
        engine_close(g);
    }
    queue_close(q);
    engine_close(own);
    free(x);
}

static void expanded_is_absorbed(void **state) {
    (void)state;
    for (int f = 0; f < 3; f++) {
        engine *a = engine_of(f, 1, COMPUTE_F32, MLA_EXPANDED), *b = engine_of(f, 1, COMPUTE_F32, MLA_ABSORBED);
        int64_t vocab;
        float *x = all_logits(a, &vocab), *y = all_logits(b, &vocab);
        double d = distance(x, y, N * vocab);
        printf("%s: %g\n", a->m->cfg.arch->model_type, d);
        assert_true(d <= CLOSE);
        free(x);
        free(y);
        engine_close(a);
        engine_close(b);
    }
}

static void threads_do_not_change_a_bit(void **state) {
    (void)state;
    for (int f = 0; f < FAMILIES; f++)
        for (int c = 0; c < 2; c++) {
            engine *a = engine_of(f, 1, (compute)c, MLA_CHEAPER), *b = engine_of(f, 3, (compute)c, MLA_CHEAPER);
            int64_t vocab;
            float *x = all_logits(a, &vocab), *y = all_logits(b, &vocab);
            assert_memory_equal(x, y, (size_t)(N * vocab) * sizeof *x);
            free(x);
            free(y);
            engine_close(a);
            engine_close(b);
        }
}

/* Up to OP_FEW_ROWS rows in one step are bit by bit what they are alone: speculative decoding rests on it. */
static void few_rows_are_single_rows(void **state) {
    (void)state;
    for (int f = 0; f < FAMILIES; f++)
        for (int c = 0; c < 2; c++) {
            engine *g = engine_of(f, 2, (compute)c, MLA_CHEAPER);
            const int64_t vocab = g->m->cfg.vocab_size;
            session *one = session_of(g, 128), *few = session_of(g, 128);
            take(one, prompt, 40, 1);
            take(few, prompt, 40, 1);
            take(few, prompt + 40, OP_FEW_ROWS, OP_FEW_ROWS);
            for (int64_t i = 0; i < OP_FEW_ROWS; i++) {
                take(one, prompt + 40 + i, 1, 1);
                if (memcmp(one->logits, few->logits + i * vocab, (size_t)vocab * sizeof(float)) != 0)
                    fail_msg("%s, compute %d, row %lld", g->m->cfg.arch->model_type, c, (long long)i);
            }
            session_close(one);
            session_close(few);
            engine_close(g);
        }
}

static generation greedy(int64_t n) {
    return (generation){.sampling = {.top_p = 1, .repetition_penalty = 1}, .max_tokens = n};
}

static void answer(session *s, int64_t n, const generation *o, generated *out) {
    error e;
    int32_t small[N];
    const int32_t *p = small;
    for (int i = 0; i < N; i++) small[i] = prompt[i] % (int32_t)s->g->m->cfg.vocab_size;
    if (generate(&s, 1, &p, &n, o, NULL, out, &e) != OK) fail_msg("%s", e.text);
}

static void drafts_change_nothing(void **state) {
    (void)state;
    engine *g = engine_of(SMALL, 2, COMPUTE_BF16, MLA_CHEAPER);
    int64_t accepted = 0;
    for (int sampled = 0; sampled < 2; sampled++)
        for (int drafts = 1; drafts <= MAX_DRAFTS; drafts += 2) {
            session *a = session_of(g, 128), *b = session_of(g, 128);
            generated x, y;
            generation o = greedy(50);
            if (sampled) o.sampling.temperature = 0.3f, o.sampling.seed = 5;
            answer(a, 30, &o, &x);
            o.drafts = drafts;
            answer(b, 30, &o, &y);
            printf("%d drafts: %lld of %lld accepted\n", drafts, (long long)y.draft_accepted,
                   (long long)y.draft_proposed);
            accepted += y.draft_accepted;
            assert_int_equal(x.n_ids, y.n_ids);
            assert_memory_equal(x.ids, y.ids, (size_t)x.n_ids * sizeof *x.ids);
            assert_int_equal(a->length, b->length);
            generated_clear(&x);
            generated_clear(&y);
            session_close(a);
            session_close(b);
        }
    assert_true(accepted > 20);
    engine_close(g);
}

static void a_batch_gives_what_singles_give(void **state) {
    (void)state;
    for (int f = 0; f < FAMILIES; f++) {
        engine *g = engine_of(f, 2, COMPUTE_F32, MLA_CHEAPER);
        session *s[3];
        const int32_t *prompts[3] = {prompt, prompt + 10, prompt + 3};
        const int64_t n[3] = {5, 17, 33};
        generated together[3], alone;
        generation o = greedy(24);
        error e;
        for (int i = 0; i < 3; i++) s[i] = session_of(g, 128);
        assert_int_equal(generate(s, 3, prompts, n, &o, NULL, together, &e), OK);
        for (int i = 0; i < 3; i++) {
            session *single = session_of(g, 128);
            assert_int_equal(generate(&single, 1, &prompts[i], &n[i], &o, NULL, &alone, &e), OK);
            assert_int_equal(together[i].n_ids, alone.n_ids);
            assert_memory_equal(together[i].ids, alone.ids, (size_t)alone.n_ids * sizeof *alone.ids);
            generated_clear(&alone);
            generated_clear(&together[i]);
            session_close(single);
            session_close(s[i]);
        }
        engine_close(g);
    }
}

/* A longer conversation keeps the common prefix, and a changed one gives what a new session gives. */
static void sync_keeps_the_prefix(void **state) {
    (void)state;
    engine *g = engine_of(V3, 1, COMPUTE_F32, MLA_CHEAPER);
    const int64_t vocab = g->m->cfg.vocab_size;
    session *s = session_of(g, 128), *fresh = session_of(g, 128);
    int64_t kept;
    error e;
    assert_int_equal(session_sync(s, prompt, 40, &kept, NULL, NULL, &e), OK);
    assert_int_equal(kept, 0);
    assert_int_equal(session_sync(s, prompt, 60, &kept, NULL, NULL, &e), OK);
    assert_int_equal(kept, 40);
    assert_int_equal(session_sync(s, prompt, 60, &kept, NULL, NULL, &e), OK);
    assert_int_equal(kept, 60);
    int32_t changed[50];
    memcpy(changed, prompt, sizeof changed);
    changed[20] = (changed[20] + 1) % 211;
    assert_int_equal(session_sync(s, changed, 50, &kept, NULL, NULL, &e), OK);
    assert_int_equal(kept, 20);
    assert_int_equal(session_sync(fresh, changed, 50, &kept, NULL, NULL, &e), OK);
    assert_true(distance(s->logits, fresh->logits, vocab) <= CLOSE);
    assert_int_equal(session_cache_bytes(s), 50 * 3 * (24 + 8) * 4);
    session_close(s);
    session_close(fresh);
    engine_close(g);
}

/* A fork goes on as its origin does, drafts included, and neither notices the other. */
static void forks(void **state) {
    (void)state;
    for (int f = 0; f < FAMILIES; f++) {
        engine *g = engine_of(f, 1, COMPUTE_BF16, MLA_CHEAPER);
        const int64_t vocab = g->m->cfg.vocab_size;
        session *a = session_of(g, 128), *b = session_of(g, 100), *small = session_of(g, 30);
        int32_t x[2], y[2];
        int drafts[2];
        error e;
        session_set_drafting(a, true);
        take(b, prompt + 9, 50, 1); /* is forgotten */
        take(a, prompt, 31, 2);
        assert_int_equal(session_fork(b, a, &e), OK);
        assert_int_equal(b->length, 31);
        assert_int_equal(session_cache_bytes(b), session_cache_bytes(a));
        assert_memory_equal(b->logits, a->logits + vocab, (size_t)vocab * sizeof *b->logits);
        assert_int_equal(session_draft(a, prompt[31], 2, x, &drafts[0], &e), OK);
        assert_int_equal(session_draft(b, prompt[31], 2, y, &drafts[1], &e), OK);
        assert_int_equal(drafts[0], f == V3 ? 2 : 0);
        assert_int_equal(drafts[1], drafts[0]);
        for (int i = 0; i < drafts[0]; i++) assert_int_equal(x[i], y[i]);
        take(b, prompt + 50, 5, 1); /* does not touch the origin */
        take(a, prompt + 31, 9, 1);
        assert_int_equal(session_fork(b, a, &e), OK);
        take(a, prompt + 40, 3, 1);
        take(b, prompt + 40, 3, 1);
        assert_memory_equal(b->logits, a->logits, (size_t)vocab * sizeof *b->logits);
        assert_memory_equal(b->tokens, prompt, 43 * sizeof *prompt);
        assert_int_equal(session_fork(small, a, &e), ERR_ARG);
        assert_non_null(strstr(e.text, "43 tokens"));
        session_close(a);
        session_close(b);
        session_close(small);
        engine_close(g);
    }
}

static void refusals(void **state) {
    (void)state;
    engine *g = engine_of(0, 1, COMPUTE_F32, MLA_CHEAPER);
    session *s = session_of(g, 20);
    const int32_t bad[] = {1, 211}, negative[] = {-1};
    error e;
    assert_int_equal(session_sync(s, prompt, 0, NULL, NULL, NULL, &e), ERR_ARG);
    assert_int_equal(session_sync(s, prompt, 21, NULL, NULL, NULL, &e), ERR_ARG);
    assert_non_null(strstr(e.text, "21 tokens"));
    assert_int_equal(session_sync(s, bad, 2, NULL, NULL, NULL, &e), ERR_ARG);
    assert_non_null(strstr(e.text, "211"));
    assert_int_equal(session_sync(s, negative, 1, NULL, NULL, NULL, &e), ERR_ARG);
    generated a;
    generation o = greedy(0);
    answer(s, 15, &o, &a); /* until the context is full: 20 tokens, and one more that needs no place */
    assert_int_equal(a.n_ids, 5);
    assert_int_equal(a.finish, FINISH_LENGTH);
    generated_clear(&a);
    session_close(s);
    engine_close(g);
    assert_int_equal(engine_open(&g, models[0], 1, "sse9", COMPUTE_F32, MLA_CHEAPER, &e), ERR_ARG);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(step_by_step_is_the_whole_prompt),
                                       cmocka_unit_test(borrowed_queue),
                                       cmocka_unit_test(expanded_is_absorbed),
                                       cmocka_unit_test(threads_do_not_change_a_bit),
                                       cmocka_unit_test(few_rows_are_single_rows),
                                       cmocka_unit_test(drafts_change_nothing),
                                       cmocka_unit_test(a_batch_gives_what_singles_give),
                                       cmocka_unit_test(sync_keeps_the_prefix),
                                       cmocka_unit_test(forks),
                                       cmocka_unit_test(refusals)};
    return cmocka_run_group_tests_name("infer/session", tests, set_up, tear_down);
}
