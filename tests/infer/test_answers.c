/* Continuous batching on small random models of every family. With ROWS_MANY a row of F32 products does not
 * depend on what else is in the batch, so answers must be the same bits whatever the number of slots, the order of the
 * requests and the drafts; without it a test bounds what rounding may do to log-probabilities. */
#include "../model/small_models.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "infer/answers.h"
#include <cmocka.h>

#define COMMON                                                                                       \
    "\"num_hidden_layers\":3,\"hidden_size\":64,\"intermediate_size\":96,\"num_attention_heads\":4," \
    "\"initializer_range\":0.15,\"max_position_embeddings\":512,"
#define MLA                                                                                                        \
    COMMON                                                                                                         \
    "\"kv_lora_rank\":24,\"qk_nope_head_dim\":12,\"qk_rope_head_dim\":8,\"v_head_dim\":10,\"n_routed_experts\":8," \
    "\"moe_intermediate_size\":24,\"num_experts_per_tok\":3,\"n_shared_experts\":1,\"first_k_dense_replace\":1,"
#define V3 "\"q_lora_rank\":32,\"n_group\":4,\"topk_group\":2,\"routed_scaling_factor\":2.5,"

static const char *const configs[] = {
    "{\"model_type\":\"deepseek_v2\"," MLA "\"vocab_size\":211,\"q_lora_rank\":null}",
    "{\"model_type\":\"deepseek_v32\"," MLA V3 "\"vocab_size\":211,\"index_n_heads\":3,\"index_head_dim\":16,"
    "\"index_topk\":20}",
    "{\"model_type\":\"qwen2\"," COMMON "\"vocab_size\":211,\"num_key_value_heads\":2}",
    "{\"model_type\":\"llama\"," COMMON "\"vocab_size\":211,\"num_key_value_heads\":1,\"tie_word_embeddings\":true}",
    /* the vocabulary of the tokenizer */
    "{\"model_type\":\"deepseek_v3\"," MLA V3 "\"vocab_size\":768}",
    /* a vocabulary of 5: every fifth draft is right by chance */
    "{\"model_type\":\"deepseek_v3\"," MLA V3 "\"vocab_size\":5,\"num_nextn_predict_layers\":1}",
};
enum { MODELS = sizeof configs / sizeof *configs, FAMILIES = 5, WORDS = 4, MTP = 5 };
enum { REQUESTS = 300, SAMPLES = 8, LONGEST = 40, CAPACITY = 64 };

static model *models[MODELS];
static tokenizer *words;
static int32_t text[REQUESTS + LONGEST]; /* prompts are pieces of it */

static int set_up(void **state) {
    (void)state;
    error e = {0};
    for (int i = 0; i < REQUESTS + LONGEST; i++) text[i] = (i * 37 + i * i) % 211;
    for (int f = 0; f < MODELS; f++)
        if (small_model_open(&models[f], configs[f], "f32", &e) != OK) {
            printf("%s\n", e.text);
            return -1;
        }
    return tokenizer_open(&words, "examples/demo/model", &e) == OK ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    for (int f = 0; f < MODELS; f++) model_close(models[f]);
    tokenizer_close(words);
    return 0;
}

static engine *engine_of(int f, int threads, mla_form form, bool alike) {
    engine *g;
    error e;
    if (engine_open(&g, models[f], threads, NULL, COMPUTE_F32, form, &e) != OK) fail_msg("%s", e.text);
    if (alike) queue_rows(g->ws.q, ROWS_MANY);
    return g;
}

/* --- answers, recorded ------------------------------------------------------------------------------------------- */

typedef struct record {
    answer a[REQUESTS][SAMPLES];
    int64_t n, tokens, steps, stop_after; /* steps; 0: never */
    int64_t fail_after;                   /* answers; 0: never */
    int64_t seen, total;                  /* by progress */
} record;

static status keep(void *arg, int64_t request, int sample, answer *a, error *e) {
    record *r = arg;
    assert_null(r->a[request][sample].ids);
    if (r->fail_after && r->n == r->fail_after) return (fail)(e, ERR_IO, "the disk is full"); /* not the macro */
    r->a[request][sample] = *a;
    r->n++;
    r->tokens += a->n;
    a->ids = NULL;
    a->logprobs = NULL;
    return OK;
}

static bool follow(void *arg, int64_t answers, int64_t total, int64_t tokens) {
    record *r = arg;
    assert_int_equal(answers, r->n);
    assert_true(tokens >= r->tokens && answers <= total);
    r->seen = tokens;
    r->total = total;
    return ++r->steps != r->stop_after;
}

static record *new_record(void) {
    record *r = calloc(1, sizeof *r);
    assert_non_null(r);
    return r;
}

static void free_record(record *r) {
    for (int i = 0; i < REQUESTS; i++)
        for (int k = 0; k < SAMPLES; k++) {
            free(r->a[i][k].ids);
            free(r->a[i][k].logprobs);
        }
    free(r);
}

static record *run(engine *g, const answer_request *list, int64_t n, answer_options o) {
    record *r = new_record();
    error e;
    o.done = keep;
    o.progress = follow;
    o.arg = r;
    if (answers_run(g, list, n, &o, &e) != OK) fail_msg("%s", e.text);
    assert_int_equal(r->n, r->total);
    assert_int_equal(r->seen, r->tokens);
    return r;
}

static void same_answer(const answer *a, const answer *b) {
    assert_non_null(a->ids);
    assert_non_null(b->ids);
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->finish, b->finish);
    assert_memory_equal(a->ids, b->ids, (size_t)a->n * sizeof *a->ids);
    assert_memory_equal(a->logprobs, b->logprobs, (size_t)a->n * sizeof *a->logprobs);
}

static answer_options options(float temperature, int sequences) {
    return (answer_options){.sampling = {.temperature = temperature, .top_p = 1, .repetition_penalty = 1},
                            .capacity = CAPACITY,
                            .sequences = sequences};
}

/* Request i: between 1 and LONGEST tokens of prompt; max_tokens 1 .. 17. */
static answer_request request(int64_t i, int longest) {
    return (answer_request){.prompt = text + i,
                            .n = 1 + (i * 7 + 3) % longest,
                            .samples = 1 + (int)(i * 5 % SAMPLES),
                            .max_tokens = 1 + (i * 11 + 13) % 17,
                            .seed = 100 + (uint64_t)i};
}

static const sampling all_filters = {.temperature = 0.8f,
                                     .top_k = 30,
                                     .top_p = 0.9f,
                                     .min_p = 0.01f,
                                     .repetition_penalty = 1.3f,
                                     .presence_penalty = 0.4f,
                                     .frequency_penalty = 0.2f};

/* --- the same as generate ---------------------------------------------------------------------------------------- */

/* Samples of one request, each with a prompt computed for itself, all in one batch. */
static void same_as_generate(engine *g, const answer_request *r, const answer_options *o, const answer *a) {
    session *s[SAMPLES];
    const int32_t *prompts[SAMPLES];
    int64_t n[SAMPLES];
    generated x[SAMPLES];
    generation want = {.sampling = o->sampling, .max_tokens = r->max_tokens, .stop = o->stop, .n_stop = o->n_stop};
    error e;
    want.sampling.seed = r->seed;
    want.eos = o->eos, want.n_eos = o->n_eos, want.tokenizer = o->tokenizer, want.drafts = o->drafts;
    for (int k = 0; k < r->samples; k++) {
        assert_int_equal(session_open(&s[k], g, o->capacity, &e), OK);
        prompts[k] = r->prompt, n[k] = r->n;
    }
    if (generate(s, r->samples, prompts, n, &want, NULL, x, &e) != OK) fail_msg("%s", e.text);
    for (int k = 0; k < r->samples; k++) {
        assert_int_equal(a[k].n, x[k].n_ids);
        assert_memory_equal(a[k].ids, x[k].ids, (size_t)a[k].n * sizeof *a[k].ids);
        assert_int_equal(a[k].finish, x[k].finish);
        generated_clear(&x[k]);
        session_close(s[k]);
    }
}

static void answers_are_those_of_generate(void **state) {
    (void)state;
    const sampling ways[] = {options(0, 1).sampling, options(0.9f, 1).sampling, all_filters};
    for (int f = 0; f < FAMILIES; f++)
        for (int way = 0; way < 3; way++) {
            engine *g = engine_of(f, 2, MLA_CHEAPER, true);
            answer_request list[6];
            answer_options o = options(0, 5);
            o.sampling = ways[way];
            for (int i = 0; i < 6; i++) list[i] = request(i, LONGEST);
            record *r = run(g, list, 6, o);
            for (int i = 0; i < 6; i++) same_as_generate(g, &list[i], &o, r->a[i]);
            free_record(r);
            engine_close(g);
        }
}

/* --- nothing else in the batch matters --------------------------------------------------------------------------- */

static void slots_order_and_threads_change_nothing(void **state) {
    (void)state;
    enum { N = 20 };
    static const int sequences[] = {1, 2, 7, 64, 1000};
    answer_request list[N], back[N];
    for (int i = 0; i < N; i++) back[N - 1 - i] = list[i] = request(i, LONGEST);
    for (int f = 0; f < MODELS; f++) {
        engine *g = engine_of(f, 1, MLA_ABSORBED, true), *three = engine_of(f, 3, MLA_ABSORBED, true);
        for (int i = 0; f == MTP && i < REQUESTS + LONGEST; i++) text[i] %= 5;
        record *first = NULL;
        for (size_t k = 0; k < sizeof sequences / sizeof *sequences; k++) {
            record *r = run(k % 2 ? three : g, k == 2 ? back : list, N, options(1, sequences[k]));
            for (int i = 0; first && i < N; i++)
                for (int j = 0; j < list[i].samples; j++)
                    same_answer(&first->a[i][j], &r->a[k == 2 ? N - 1 - i : i][j]);
            if (first) free_record(r);
            else first = r;
        }
        free_record(first);
        engine_close(g);
        engine_close(three);
    }
    for (int i = 0; i < REQUESTS + LONGEST; i++) text[i] = (i * 37 + i * i) % 211;
}

/* More rows of prompts than one batch takes, and more requests than slots. */
static void many_requests(void **state) {
    (void)state;
    answer_request list[REQUESTS];
    engine *g = engine_of(0, 2, MLA_ABSORBED, true);
    int64_t answers = 0, rows = 0;
    for (int i = 0; i < REQUESTS; i++) {
        list[i] = request(i, LONGEST);
        answers += list[i].samples;
        rows += list[i].n;
    }
    assert_true(rows > 2 * g->chunk);
    record *few = run(g, list, REQUESTS, options(1, 7)), *all = run(g, list, REQUESTS, options(1, 100000));
    assert_int_equal(few->n, answers);
    assert_true(few->steps > 5 * all->steps);
    for (int i = 0; i < REQUESTS; i++)
        for (int k = 0; k < list[i].samples; k++) {
            assert_true(few->a[i][k].n <= list[i].max_tokens);
            same_answer(&few->a[i][k], &all->a[i][k]);
        }
    free_record(few);
    free_record(all);
    engine_close(g);
}

/* Prompts with a common beginning that is computed once: the same answers, fewer rows; also with drafts. */
static void shared_beginnings(void **state) {
    (void)state;
    enum { N = 9, SHARED = 12 };
    int32_t prompts[N][LONGEST];
    answer_request list[N];
    for (int f = 0; f < MODELS; f++) {
        engine *g = engine_of(f, 2, MLA_ABSORBED, true);
        for (int i = 0; i < N; i++) {
            list[i] = request(i, LONGEST - SHARED);
            memcpy(prompts[i], text, SHARED * sizeof *text);
            memcpy(prompts[i] + SHARED, list[i].prompt, (size_t)list[i].n * sizeof *text);
            for (int k = 0; f == MTP && k < SHARED + list[i].n; k++) prompts[i][k] %= 5;
            list[i].prompt = prompts[i];
            list[i].n += SHARED;
        }
        answer_options o = options(1, 4);
        o.drafts = f == MTP ? 3 : 0;
        record *together = run(g, list, N, o);
        for (int i = 0; i < N; i++) {
            record *alone = run(g, &list[i], 1, o);
            for (int k = 0; k < list[i].samples; k++) same_answer(&alone->a[0][k], &together->a[i][k]);
            free_record(alone);
        }
        free_record(together);
        engine_close(g);
    }
}

/* Samples of a group differ, and seeds do. */
static void samples_differ(void **state) {
    (void)state;
    engine *g = engine_of(0, 1, MLA_CHEAPER, true);
    answer_request list[2] = {{.prompt = text, .n = 9, .samples = SAMPLES, .max_tokens = 12, .seed = 1}};
    list[1] = list[0];
    list[1].seed = 2;
    record *r = run(g, list, 2, options(1, 3));
    for (int i = 0; i < 2 * SAMPLES; i++)
        for (int k = 0; k < i; k++)
            assert_memory_not_equal(r->a[i / SAMPLES][i % SAMPLES].ids, r->a[k / SAMPLES][k % SAMPLES].ids,
                                    12 * sizeof(int32_t));
    free_record(r);
    engine_close(g);
}

/* --- log-probabilities ------------------------------------------------------------------------------------------- */

/* Logits of a fresh pass over prompt and answer at once. Sums in F32 in another order: as in test_session they agree to
 * CLOSE of the largest logit; the logarithm of a softmax of logits / T changes by at most 2 / T times as much, and its
 * own sums and results are rounded at 2^-24 of numbers below 32 (2e-6). */
static const double CLOSE = 2e-5;

static void log_probabilities_are_those_of_a_fresh_pass(void **state) {
    (void)state;
    static const float temperatures[] = {1, 0, 0.7f};
    for (int f = 0; f < FAMILIES; f++)
        for (int t = 0; t < 4; t++) {
            enum { N = 8 };
            engine *g = engine_of(f, 2, MLA_CHEAPER, false);
            const int64_t vocab = g->m->cfg.vocab_size;
            answer_options o = options(temperatures[t % 3], 30);
            answer_request list[N];
            double worst = 0, T;
            if (t == 3) o.sampling = all_filters; /* they choose, but do not change what is reported */
            T = o.sampling.temperature == 0 ? 1 : o.sampling.temperature;
            for (int i = 0; i < N; i++) list[i] = request(i, LONGEST);
            record *r = run(g, list, N, o);
            for (int i = 0; i < N; i++)
                for (int k = 0; k < list[i].samples; k++) {
                    const answer *a = &r->a[i][k];
                    const int64_t n = list[i].n + a->n - 1, want = a->n;
                    int32_t ids[2 * CAPACITY];
                    const int32_t *from = ids;
                    session *s;
                    error e;
                    memcpy(ids, list[i].prompt, (size_t)list[i].n * sizeof *ids);
                    memcpy(ids + list[i].n, a->ids, (size_t)a->n * sizeof *ids);
                    assert_int_equal(session_open(&s, g, CAPACITY, &e), OK);
                    if (sessions_extend(&s, 1, &from, &n, &want, &e) != OK) fail_msg("%s", e.text);
                    for (int64_t j = 0; j < a->n; j++) {
                        const float *x = s->logits + j * vocab;
                        double max = 0, most = x[0], sum = 0;
                        for (int64_t v = 0; v < vocab; v++) max = fmax(max, fabs(x[v])), most = fmax(most, x[v]);
                        for (int64_t v = 0; v < vocab; v++) sum += exp((x[v] - most) / T);
                        double d = fabs((x[a->ids[j]] - most) / T - log(sum) - a->logprobs[j]);
                        double bound = 2 / T * CLOSE * max + 2e-6;
                        if (d > bound) fail_msg("model %d, answer %d.%d, token %d: %g > %g", f, i, k, (int)j, d, bound);
                        worst = fmax(worst, d);
                    }
                    session_close(s);
                }
            printf("%s at temperature %g: %.1e\n", g->m->cfg.arch->model_type, T, worst);
            free_record(r);
            engine_close(g);
        }
}

/* --- drafts ------------------------------------------------------------------------------------------------------ */

static void drafts_change_nothing(void **state) {
    (void)state;
    enum { N = 12 };
    engine *g = engine_of(MTP, 2, MLA_CHEAPER, true);
    int32_t small[N + LONGEST];
    answer_request list[N];
    for (int i = 0; i < N + LONGEST; i++) small[i] = text[i] % 5;
    for (int i = 0; i < N; i++) {
        list[i] = request(i, LONGEST);
        list[i].prompt = small + i;
        list[i].max_tokens = i % 3 ? 18 : 0;
    }
    for (int sampled = 0; sampled < 2; sampled++) {
        record *plain = run(g, list, N, options(sampled ? 0.7f : 0, 9));
        for (int drafts = 1; drafts <= 3; drafts++) {
            answer_options o = options(sampled ? 0.7f : 0, 9);
            int64_t accepted = 0;
            o.drafts = drafts;
            record *r = run(g, list, N, o);
            for (int i = 0; i < N; i++) {
                for (int k = 0; k < list[i].samples; k++) {
                    same_answer(&plain->a[i][k], &r->a[i][k]);
                    accepted += r->a[i][k].draft_accepted;
                }
                same_as_generate(g, &list[i], &o, r->a[i]);
            }
            printf("%d drafts: %lld accepted, %lld steps instead of %lld\n", drafts, (long long)accepted,
                   (long long)r->steps, (long long)plain->steps);
            assert_true(accepted > 50);
            free_record(r);
        }
        free_record(plain);
    }
    engine_close(g);
}

/* --- ends -------------------------------------------------------------------------------------------------------- */

static void stop_texts_and_end_tokens(void **state) {
    (void)state;
    engine *g = engine_of(WORDS, 2, MLA_CHEAPER, true);
    answer_request r = {.prompt = text, .n = 9, .samples = SAMPLES, .max_tokens = 30, .seed = 3};
    record *whole = run(g, &r, 1, options(1.2f, 3));
    int stopped = 0, ended = 0;
    for (int k = 0; k < SAMPLES; k++) {
        /* Text and token of the middle of one answer; others may hold them, too. */
        str piece = {0};
        const int32_t *ids = whole->a[0][k].ids, eos = ids[20];
        tokenizer_decode(words, ids + 9, 4, true, &piece);
        const char *stop[] = {"never to be found", piece.p};
        if (!piece.p || !*piece.p) {
            str_free(&piece);
            continue;
        }
        answer_options o = options(1.2f, 3);
        o.stop = stop, o.n_stop = 2, o.tokenizer = words, o.eos = &eos, o.n_eos = 1;
        record *x = run(g, &r, 1, o);
        same_as_generate(g, &r, &o, x->a[0]);
        for (int i = 0; i < SAMPLES; i++) {
            assert_memory_equal(x->a[0][i].ids, whole->a[0][i].ids, (size_t)x->a[0][i].n * sizeof *ids);
            stopped += x->a[0][i].finish == FINISH_STOP;
            ended += x->a[0][i].finish == FINISH_EOS;
            if (x->a[0][i].finish == FINISH_EOS) assert_int_equal(x->a[0][i].ids[x->a[0][i].n - 1], eos);
        }
        free_record(x);
        o.n_stop = 0;
        x = run(g, &r, 1, o);
        same_as_generate(g, &r, &o, x->a[0]);
        assert_int_equal(x->a[0][k].finish, FINISH_EOS);
        free_record(x);
        str_free(&piece);
    }
    printf("%d stop texts, %d end tokens\n", stopped, ended);
    assert_true(stopped >= 4);
    free_record(whole);
    engine_close(g);
}

static void a_full_context(void **state) {
    (void)state;
    engine *g = engine_of(0, 1, MLA_CHEAPER, true);
    for (int64_t n = 1; n <= 12; n++) {
        answer_request r = {.prompt = text, .n = n, .samples = 3};
        answer_options o = options(1, 2);
        o.capacity = 12;
        record *x = run(g, &r, 1, o);
        for (int k = 0; k < 3; k++) { /* the token after a prompt that fills the context is known all the same */
            assert_int_equal(x->a[0][k].n, n < 12 ? 12 - n : 1);
            assert_int_equal(x->a[0][k].finish, FINISH_LENGTH);
        }
        same_as_generate(g, &r, &o, x->a[0]);
        free_record(x);
    }
    engine_close(g);
}

/* Cancelled or refused at any moment, the next run on the same engine is as good as the first; nothing leaks. */
static void cancelling(void **state) {
    (void)state;
    enum { N = 6 };
    engine *g = engine_of(0, 2, MLA_CHEAPER, true);
    answer_request list[N];
    answer_options o = options(1, 4);
    error e;
    for (int i = 0; i < N; i++) list[i] = request(i, LONGEST);
    record *whole = run(g, list, N, o);
    o.done = keep;
    o.progress = follow;
    for (int64_t after = 1; after < whole->steps; after += 3) {
        record *r = new_record();
        o.arg = r;
        r->stop_after = after;
        assert_int_equal(answers_run(g, list, N, &o, &e), ERR_CANCELLED);
        assert_int_equal(r->steps, after);
        free_record(r);
    }
    for (int64_t after = 1; after < whole->n; after += 4) {
        record *r = new_record();
        o.arg = r;
        r->fail_after = after;
        assert_int_equal(answers_run(g, list, N, &o, &e), ERR_IO);
        assert_string_equal(e.text, "the disk is full");
        assert_int_equal(r->n, after);
        free_record(r);
    }
    record *again = run(g, list, N, options(1, 4));
    for (int i = 0; i < N; i++)
        for (int k = 0; k < list[i].samples; k++) same_answer(&whole->a[i][k], &again->a[i][k]);
    free_record(whole);
    free_record(again);
    engine_close(g);
}

static void refused(engine *g, answer_request r, answer_options o, const char *words_of_it) {
    error e;
    answer_request list[] = {{.prompt = text, .n = 3, .samples = 2, .max_tokens = 2}, r};
    record *x = new_record();
    o.done = keep;
    o.arg = x;
    assert_int_equal(answers_run(g, list, 2, &o, &e), ERR_ARG);
    if (!strstr(e.text, words_of_it)) fail_msg("\"%s\" does not say \"%s\"", e.text, words_of_it);
    assert_int_equal(x->n, 0); /* before anything was computed */
    free_record(x);
}

static void refusals(void **state) {
    (void)state;
    static const char *const stop[] = {"x"};
    static const int32_t bad[] = {1, 211}, negative[] = {-1};
    engine *g = engine_of(0, 1, MLA_CHEAPER, true);
    answer_options o = options(1, 4), other;
    answer_request r = {.prompt = text, .n = 3, .samples = 2, .max_tokens = 2}, x;
    error e;
    o.capacity = 20;
    x = r, x.n = 21, refused(g, x, o, "prompt 2 has 21 tokens, but the context holds 20");
    x = r, x.n = 0, refused(g, x, o, "prompt 2 is empty");
    x = r, x.samples = 0, refused(g, x, o, "prompt 2");
    x = r, x.max_tokens = -1, refused(g, x, o, "prompt 2");
    x = r, x.prompt = bad, x.n = 2, refused(g, x, o, "token id 211 at 1");
    x = r, x.prompt = negative, x.n = 1, refused(g, x, o, "token id -1 at 0");
    other = o, other.sequences = 0, refused(g, r, other, "sequences");
    other = o, other.sampling.top_p = 0, refused(g, r, other, "top-p");
    other = o, other.stop = stop, other.n_stop = 1, refused(g, r, other, "tokenizer");
    assert_int_equal(answers_run(g, NULL, 0, &o, &e), OK);
    engine_close(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(answers_are_those_of_generate),
                                       cmocka_unit_test(slots_order_and_threads_change_nothing),
                                       cmocka_unit_test(many_requests),
                                       cmocka_unit_test(shared_beginnings),
                                       cmocka_unit_test(samples_differ),
                                       cmocka_unit_test(log_probabilities_are_those_of_a_fresh_pass),
                                       cmocka_unit_test(drafts_change_nothing),
                                       cmocka_unit_test(stop_texts_and_end_tokens),
                                       cmocka_unit_test(a_full_context),
                                       cmocka_unit_test(cancelling),
                                       cmocka_unit_test(refusals)};
    return cmocka_run_group_tests_name("infer/answers", tests, set_up, tear_down);
}
