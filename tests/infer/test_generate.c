/* Generation on a small random model with a real tokenizer: what is shown and when, where answers end, and that nothing
 * but the seed decides them. Random weights make random text: bytes that are no character, special tokens, everything.
 */
#define _GNU_SOURCE /* memmem */
#include <setjmp.h>
#include <stdarg.h>
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
#include "text/unicode.h"
#include <cmocka.h>

#define TOKENIZER "examples/demo/model"
#define CONFIG(vocab)                                                                                            \
    "{\"model_type\":\"deepseek_v3\",\"num_hidden_layers\":2,\"hidden_size\":64,\"intermediate_size\":96,"       \
    "\"num_attention_heads\":4,\"initializer_range\":0.15,\"max_position_embeddings\":512,\"kv_lora_rank\":24,"  \
    "\"qk_nope_head_dim\":12,\"qk_rope_head_dim\":8,\"v_head_dim\":10,\"n_routed_experts\":8,"                   \
    "\"moe_intermediate_size\":24,\"num_experts_per_tok\":3,\"n_shared_experts\":1,\"first_k_dense_replace\":1," \
    "\"q_lora_rank\":32,\"n_group\":4,\"topk_group\":2,\"num_nextn_predict_layers\":1,\"vocab_size\":" #vocab "}"

enum { VOCAB = 768, CAPACITY = 256, N_PROMPT = 7 };

/* The second has a vocabulary of 5: every fifth draft is right by chance. */
static const char *const configs[] = {CONFIG(768), CONFIG(5)};
static char folder[64];
static model *models[2];
static engine *main_engine, *small_engine;
static tokenizer *words;
static const int32_t prompt[N_PROMPT] = {0, 300, 400, 77, 512, 90, 700}, small_prompt[N_PROMPT] = {0, 3, 4, 1, 2, 2, 0};

static engine *engine_of(const model *m, int threads, compute c) {
    engine *g;
    error e;
    if (engine_open(&g, m, threads, NULL, c, MLA_CHEAPER, &e) != OK) fail_msg("%s", e.text);
    return g;
}

static int set_up(void **state) {
    (void)state;
    error e = {0};
    snprintf(folder, sizeof folder, "build/test_generate.%d", (int)getpid());
    for (int i = 0; i < 2; i++) {
        char in[128], out[128];
        snprintf(in, sizeof in, "%s/in%d", folder, i);
        snprintf(out, sizeof out, "%s/out%d", folder, i);
        if (make_directory(in, &e) != OK) return -1;
        snprintf(in, sizeof in, "%s/in%d/config.json", folder, i);
        if (file_save(in, configs[i], strlen(configs[i]), &e) != OK ||
            init_run(&(init_options){.config = in, .out = out, .seed = 7}, &(init_result){0}, &e) != OK ||
            model_open(&models[i], out, &e) != OK || tokenizer_open(&words, TOKENIZER, &e) != OK) {
            printf("%s\n", e.text);
            return -1;
        }
        if (i == 0) tokenizer_close(words);
    }
    main_engine = engine_of(models[0], 2, COMPUTE_BF16);
    small_engine = engine_of(models[1], 2, COMPUTE_F32);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    char command[128];
    engine_close(main_engine);
    engine_close(small_engine);
    for (int i = 0; i < 2; i++) model_close(models[i]);
    tokenizer_close(words);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static session *session_of(engine *g, int64_t capacity) {
    session *s;
    error e;
    if (session_open(&s, g, capacity, &e) != OK) fail_msg("%s", e.text);
    return s;
}

static generation hot(uint64_t seed, int64_t max_tokens) {
    return (generation){.sampling = {.temperature = 1.5f, .top_p = 1, .repetition_penalty = 1, .seed = seed},
                        .max_tokens = max_tokens,
                        .tokenizer = words};
}

/* --- what a callback sees ---------------------------------------------------------------------------------------- */

typedef struct witness {
    str shown; /* all pieces so far */
    int32_t ids[CAPACITY];
    size_t ends[CAPACITY]; /* bytes shown after each token */
    int n, cancel_after;   /* 0: never */
    const generation *o;
    size_t longest; /* bytes held back */
    tokenizer_decoding d;
    str decoded; /* whole characters of all tokens so far */
} witness;

static void witness_clear(witness *w) {
    str_free(&w->shown);
    str_free(&w->decoded);
}

/* The length of the longest end of the text that may begin a stop text. */
static size_t held_back(const generation *o, const char *p, size_t n) {
    for (size_t held = n; held > 0; held--)
        for (int k = 0; k < o->n_stop; k++)
            if (strlen(o->stop[k]) > held && memcmp(p + n - held, o->stop[k], held) == 0) return held;
    return 0;
}

static bool see(void *arg, const generated_token *t) {
    witness *w = arg;
    if (utf8_valid(t->text, t->n) != t->n) fail_msg("token %d: a piece of %zu bytes cuts a character", w->n, t->n);
    str_add(&w->shown, t->text, t->n);
    w->ids[w->n] = t->id;
    w->ends[w->n++] = w->shown.n;
    tokenizer_decode_next(words, &w->d, t->id, true, &w->decoded);
    return w->n != w->cancel_after;
}

static generated run(const generation *o, witness *w) {
    session *s = session_of(main_engine, CAPACITY);
    const int32_t *p = prompt;
    int64_t n = N_PROMPT;
    generate_hooks hooks = {.token = see, .arg = w};
    generated a;
    error e;
    if (w) w->o = o;
    if (generate(&s, 1, &p, &n, o, w ? &hooks : NULL, &a, &e) != OK) fail_msg("%s", e.text);
    /* The session holds the prompt and all of the answer but its last token, which nothing needed yet. */
    assert_int_equal(s->length, N_PROMPT + a.n_ids - 1);
    assert_memory_equal(s->tokens, prompt, sizeof prompt);
    assert_memory_equal(s->tokens + N_PROMPT, a.ids, (size_t)(a.n_ids - 1) * sizeof *a.ids);
    assert_int_equal(a.prompt_tokens, N_PROMPT);
    session_close(s);
    return a;
}

static void same_text(const str *a, const str *b) {
    if (a->n != b->n || (a->n && memcmp(a->p, b->p, a->n) != 0))
        fail_msg("\"%.*s\" is not \"%.*s\"", (int)a->n, a->p ? a->p : "", (int)b->n, b->p ? b->p : "");
}

/* The text is the decoded ids, the pieces joined, and valid UTF-8 even when the last token ends amid a character. */
static void text_is_its_pieces(void **state) {
    (void)state;
    int cut = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        generation o = hot(seed, 1 + (int64_t)seed % 20);
        witness w = {0};
        str whole = {0};
        generated a = run(&o, &w);
        assert_int_equal(a.n_ids, o.max_tokens);
        assert_int_equal(a.finish, FINISH_LENGTH);
        assert_int_equal(w.n, a.n_ids);
        assert_memory_equal(w.ids, a.ids, (size_t)a.n_ids * sizeof *a.ids);
        tokenizer_decode(words, a.ids, (size_t)a.n_ids, true, &whole);
        same_text(&a.text, &whole);
        same_text(&a.text, &w.shown);
        assert_int_equal(utf8_valid(a.text.p, a.text.n), a.text.n);
        cut += w.decoded.n < a.text.n;
        str_free(&whole);
        witness_clear(&w);
        generated_clear(&a);
    }
    printf("%d of 60 answers ended amid a character\n", cut);
    assert_true(cut > 0);
}

/* --- stop texts -------------------------------------------------------------------------------------------------- */

static bool between_characters(const str *s, size_t at) {
    return at >= s->n || ((unsigned char)s->p[at] & 0xc0) != 0x80;
}

/* Any piece of the text, over the borders of tokens, as a stop text: the answer is what stands before its first
 * occurrence, nothing of it was shown, and no token more than needed was made. */
static void stop_texts_are_never_shown(void **state) {
    (void)state;
    enum { TOKENS = 40 };
    int over_borders = 0, tried = 0;
    for (uint64_t seed = 0; seed < 3; seed++) {
        generation plain = hot(seed, TOKENS);
        witness all = {0};
        generated whole = run(&plain, &all);
        for (size_t from = 0; from < whole.text.n; from += 3)
            for (size_t length = 1; length <= 16 && from + length <= whole.text.n; length += 5) {
                char stop[32];
                if (!between_characters(&whole.text, from) || !between_characters(&whole.text, from + length) ||
                    memchr(whole.text.p + from, 0, length))
                    continue;
                memcpy(stop, whole.text.p + from, length);
                stop[length] = 0;
                const char *stops[] = {"never to be found", stop, ""};
                generation o = plain;
                o.stop = stops, o.n_stop = 3;
                witness w = {0};
                generated a = run(&o, &w);
                const char *first = memmem(whole.text.p, whole.text.n, stop, length);
                str before = {.p = whole.text.p, .n = (size_t)(first - whole.text.p)};
                assert_int_equal(a.finish, FINISH_STOP);
                same_text(&a.text, &before);
                same_text(&w.shown, &before);
                assert_int_equal(a.text.p[a.text.n], 0);
                assert_memory_equal(a.ids, whole.ids, (size_t)a.n_ids * sizeof *a.ids);
                if (a.n_ids > 1) { /* without the last token the stop text was not complete */
                    str shorter = {0};
                    tokenizer_decoding d = {0};
                    str_puts(&shorter, "");
                    for (int64_t i = 0; i + 1 < a.n_ids; i++)
                        tokenizer_decode_next(words, &d, a.ids[i], true, &shorter);
                    assert_null(memmem(shorter.p, shorter.n, stop, length));
                    over_borders += shorter.n > before.n;
                    str_free(&shorter);
                }
                tried++;
                witness_clear(&w);
                generated_clear(&a);
            }
        witness_clear(&all);
        generated_clear(&whole);
    }
    printf("%d stop texts, %d over the borders of tokens\n", tried, over_borders);
    assert_true(tried > 50 && over_borders > 10);
}

static bool see_held(void *arg, const generated_token *t) {
    witness *w = arg;
    bool go_on = see(arg, t);
    if (w->n == w->o->max_tokens) return go_on; /* the end: nothing is held back any more */
    size_t held = held_back(w->o, w->decoded.p, w->decoded.n);
    if (w->shown.n != w->decoded.n - held)
        fail_msg("token %d: %zu of %zu bytes shown, %zu should be held back", w->n, w->shown.n, w->decoded.n, held);
    if (held > w->longest) w->longest = held;
    return true;
}

/* Texts that only begin like a stop text are held back as long as they do, no longer, and are not lost. */
static void beginnings_are_held_back(void **state) {
    (void)state;
    size_t longest = 0;
    for (uint64_t seed = 0; seed < 6; seed++) {
        generation plain = hot(seed, 40);
        generated whole = run(&plain, NULL);
        for (size_t from = 0; from + 30 < whole.text.n; from += 7) {
            char stops[3][40] = {"", "", "e\n\x01"};
            size_t lengths[2] = {25, 6};
            for (int k = 0; k < 2; k++) { /* the text goes on otherwise than they do */
                size_t first = from, end;
                while (!between_characters(&whole.text, first)) first++;
                for (end = first + lengths[k]; !between_characters(&whole.text, end);) end--;
                memcpy(stops[k], whole.text.p + first, end - first);
                memcpy(stops[k] + (end - first), "\x01\x02", 3);
            }
            const char *list[] = {stops[0], stops[1], stops[2]};
            generation o = plain;
            o.stop = list, o.n_stop = 3;
            session *s = session_of(main_engine, CAPACITY);
            witness w = {.o = &o};
            const int32_t *p = prompt;
            int64_t n = N_PROMPT;
            generate_hooks hooks = {.token = see_held, .arg = &w};
            generated a;
            error e;
            if (generate(&s, 1, &p, &n, &o, &hooks, &a, &e) != OK) fail_msg("%s", e.text);
            if (!memmem(whole.text.p, whole.text.n, "\x01", 1)) {
                same_text(&a.text, &whole.text);
                same_text(&w.shown, &whole.text);
                assert_int_equal(a.finish, FINISH_LENGTH);
            }
            longest = w.longest > longest ? w.longest : longest;
            witness_clear(&w);
            generated_clear(&a);
            session_close(s);
        }
        generated_clear(&whole);
    }
    printf("at most %zu bytes held back\n", longest);
    assert_true(longest >= 20);
}

/* --- ends -------------------------------------------------------------------------------------------------------- */

static void end_of_sequence(void **state) {
    (void)state;
    generation o = hot(2, 30);
    generated whole = run(&o, NULL);
    for (int64_t at = 0; at < 30; at += 7) {
        int64_t first = 0; /* where this id comes for the first time */
        while (whole.ids[first] != whole.ids[at]) first++;
        const int32_t eos[] = {-1, VOCAB + 5, whole.ids[at]};
        o.eos = eos, o.n_eos = 3;
        witness w = {0};
        generated a = run(&o, &w);
        assert_int_equal(a.finish, FINISH_EOS);
        assert_int_equal(a.n_ids, first + 1); /* the end itself is among the ids */
        assert_memory_equal(a.ids, whole.ids, (size_t)a.n_ids * sizeof *a.ids);
        same_text(&a.text, &w.shown);
        witness_clear(&w);
        generated_clear(&a);
        o.n_eos = 2; /* ids that do not come end nothing */
        a = run(&o, NULL);
        assert_int_equal(a.n_ids, 30);
        assert_int_equal(a.finish, FINISH_LENGTH);
        generated_clear(&a);
        o.n_eos = 0; /* ignored */
        a = run(&o, NULL);
        assert_int_equal(a.n_ids, 30);
        generated_clear(&a);
    }
    const int32_t last = whole.ids[29];
    o.eos = &last, o.n_eos = 1;
    generated a = run(&o, NULL); /* both at once: the end counts */
    assert_int_equal(a.finish, FINISH_EOS);
    generated_clear(&a);
    generated_clear(&whole);
}

static void a_full_context(void **state) {
    (void)state;
    enum { ROOM = 24 };
    error e;
    for (int64_t n = 1; n <= ROOM; n++)
        for (int drafts = 0; drafts < 3; drafts++) {
            session *s = session_of(main_engine, ROOM);
            int32_t long_prompt[ROOM];
            const int32_t *p = long_prompt;
            for (int i = 0; i < ROOM; i++) long_prompt[i] = prompt[i % N_PROMPT];
            generation o = hot(n, 0);
            o.drafts = drafts;
            generated a;
            if (generate(&s, 1, &p, &n, &o, NULL, &a, &e) != OK) fail_msg("%s", e.text);
            /* With a prompt that fills the context the token after it is known all the same. */
            assert_int_equal(a.n_ids, n < ROOM ? ROOM - n : 1);
            assert_int_equal(a.finish, FINISH_LENGTH);
            generated_clear(&a);
            session_close(s);
        }
    session *s = session_of(main_engine, N_PROMPT - 1);
    const int32_t *p = prompt;
    int64_t n = N_PROMPT;
    generation o = hot(0, 0);
    generated a;
    assert_int_equal(generate(&s, 1, &p, &n, &o, NULL, &a, &e), ERR_ARG);
    assert_string_equal(e.text, "the prompt has 7 tokens, but the context holds 6");
    generated_clear(&a);
    session_close(s);
}

/* --- cancelling -------------------------------------------------------------------------------------------------- */

typedef struct batch_witness {
    int cancel_sequence, cancel_after, n[3];
    str shown[3];
} batch_witness;

static bool see_batch(void *arg, const generated_token *t) {
    batch_witness *w = arg;
    str_add(&w->shown[t->sequence], t->text, t->n);
    w->n[t->sequence]++;
    return t->sequence != w->cancel_sequence || w->n[t->sequence] != w->cancel_after;
}

static void run_batch_of_three(batch_witness *w, generated answers[3]) {
    static const char *const stops[] = {"never to be found", "a b c"};
    session *s[3];
    const int32_t *prompts[3] = {prompt, prompt + 1, prompt + 2};
    const int64_t n[3] = {7, 5, 2};
    generation o = hot(4, 20);
    o.stop = stops, o.n_stop = 2;
    generate_hooks hooks = {.token = see_batch, .arg = w};
    error e;
    for (int i = 0; i < 3; i++) s[i] = session_of(main_engine, CAPACITY);
    if (generate(s, 3, prompts, n, &o, &hooks, answers, &e) != OK) fail_msg("%s", e.text);
    for (int i = 0; i < 3; i++) session_close(s[i]);
}

static void one_of_a_batch_is_cancelled(void **state) {
    (void)state;
    batch_witness none = {.cancel_sequence = -1};
    generated all[3], some[3];
    run_batch_of_three(&none, all);
    for (int who = 0; who < 3; who++)
        for (int after = 1; after < 20; after += 6) {
            batch_witness w = {.cancel_sequence = who, .cancel_after = after};
            run_batch_of_three(&w, some);
            for (int i = 0; i < 3; i++) {
                int64_t want = i == who ? after : 20;
                assert_int_equal(some[i].n_ids, want);
                assert_int_equal(w.n[i], want); /* and no call after it said no */
                assert_int_equal(some[i].finish, i == who ? FINISH_CANCELLED : FINISH_LENGTH);
                assert_memory_equal(some[i].ids, all[i].ids, (size_t)want * sizeof *all[i].ids);
                same_text(&some[i].text, &w.shown[i]);
                str_free(&w.shown[i]);
                generated_clear(&some[i]);
            }
        }
    for (int i = 0; i < 3; i++) {
        str_free(&none.shown[i]);
        generated_clear(&all[i]);
    }
}

/* Cancelled while a beginning of a stop text is held back: the text is what was shown. */
static void cancelled_amid_a_stop_text(void **state) {
    (void)state;
    generation o = hot(1, 30);
    witness all = {0};
    generated whole = run(&o, &all);
    int held = 0;
    for (int after = 5; after < 25; after++) {
        char stop[80] = {0};
        size_t from = all.ends[after - 3], n = all.ends[after - 1] - from;
        if (n < 1 || n > 60) continue;
        memcpy(stop, whole.text.p + from, n);
        memcpy(stop + n, "\x01\x02", 2);
        const char *list[] = {stop};
        generation with = o;
        with.stop = list, with.n_stop = 1;
        witness w = {.cancel_after = after};
        generated a = run(&with, &w);
        assert_int_equal(a.finish, FINISH_CANCELLED);
        assert_int_equal(a.n_ids, after);
        same_text(&a.text, &w.shown);
        held += w.shown.n < w.decoded.n;
        witness_clear(&w);
        generated_clear(&a);
    }
    assert_true(held > 5);
    witness_clear(&all);
    generated_clear(&whole);
}

static bool no_prompt(void *arg, int64_t done, int64_t total) {
    (void)arg, (void)done, (void)total;
    return false;
}

static void refusals(void **state) {
    (void)state;
    static const char *const stops[] = {"x"};
    session *s = session_of(main_engine, CAPACITY);
    const int32_t *p = prompt;
    int64_t n = N_PROMPT, none = 0;
    generated a;
    error e;
    generation o = hot(0, 4);
    generate_hooks hooks = {.prompt = no_prompt};
    assert_int_equal(generate(&s, 1, &p, &n, &o, &hooks, &a, &e), ERR_CANCELLED);
    generated_clear(&a);
    assert_int_equal(generate(&s, 1, &p, &none, &o, NULL, &a, &e), ERR_ARG);
    generated_clear(&a);
    o.logprobs = MAX_TOP_LOGPROBS + 1;
    assert_int_equal(generate(&s, 1, &p, &n, &o, NULL, &a, &e), ERR_ARG);
    generated_clear(&a);
    o = hot(0, 4), o.stop = stops, o.n_stop = 1, o.tokenizer = NULL;
    assert_int_equal(generate(&s, 1, &p, &n, &o, NULL, &a, &e), ERR_ARG);
    generated_clear(&a);
    o = hot(0, 4), o.tokenizer = NULL; /* ids only */
    assert_int_equal(generate(&s, 1, &p, &n, &o, NULL, &a, &e), OK);
    assert_int_equal(a.n_ids, 4);
    assert_int_equal(a.text.n, 0);
    generated_clear(&a);
    session_close(s);
}

/* --- numbers ----------------------------------------------------------------------------------------------------- */

typedef struct number_witness {
    const session *s;
    int n_top;
    double worst;
    int n;
} number_witness;

/* At the time of the call the session still holds the logits that the token was chosen from. */
static bool see_numbers(void *arg, const generated_token *t) {
    number_witness *w = arg;
    const float *x = w->s->logits;
    double max = x[0], sum = 0;
    for (int i = 1; i < VOCAB; i++) max = fmax(max, (double)x[i]);
    for (int i = 0; i < VOCAB; i++) sum += exp((double)x[i] - max);
    const double base = max + log(sum);
    w->worst = fmax(w->worst, fabs((double)t->logprob - ((double)x[t->id] - base)));
    assert_int_equal(t->n_top, w->n_top);
    for (int k = 0; k < t->n_top; k++) {
        int32_t id = t->top_ids[k];
        int above = 0;
        for (int i = 0; i < VOCAB; i++) above += x[i] > x[id] || (x[i] == x[id] && i < id);
        assert_int_equal(above, k);
        w->worst = fmax(w->worst, fabs((double)t->top_logprobs[k] - ((double)x[id] - base)));
    }
    w->n++;
    return true;
}

static void logprobs_are_log_softmax(void **state) {
    (void)state;
    static const int asked[] = {-1, 1, 5, MAX_TOP_LOGPROBS};
    for (int k = 0; k < 4; k++) {
        session *s = session_of(main_engine, CAPACITY);
        const int32_t *p = prompt;
        int64_t n = N_PROMPT;
        generation o = hot(3, 25);
        o.logprobs = asked[k];
        o.sampling.top_k = 3; /* filters change nothing here */
        number_witness w = {.s = s, .n_top = asked[k] > 0 ? asked[k] : 0};
        generate_hooks hooks = {.token = see_numbers, .arg = &w};
        generated a;
        error e;
        if (generate(&s, 1, &p, &n, &o, &hooks, &a, &e) != OK) fail_msg("%s", e.text);
        printf("%d most likely: off by %.1e\n", asked[k], w.worst);
        assert_int_equal(w.n, 25);
        assert_true(w.worst <= 1e-5);
        generated_clear(&a);
        session_close(s);
    }
}

static void the_seed_decides(void **state) {
    (void)state;
    engine *one = engine_of(models[0], 1, COMPUTE_BF16), *three = engine_of(models[0], 3, COMPUTE_BF16),
           *which[3] = {one, three, one};
    str text[3] = {{0}};
    for (int k = 0; k < 3; k++) {
        session *s = session_of(which[k], CAPACITY);
        const int32_t *p = prompt;
        int64_t n = N_PROMPT;
        generation o = hot(k == 2 ? 6 : 5, 60);
        generated a;
        error e;
        if (generate(&s, 1, &p, &n, &o, NULL, &a, &e) != OK) fail_msg("%s", e.text);
        str_add(&text[k], (const char *)a.ids, (size_t)a.n_ids * sizeof *a.ids);
        str_add(&text[k], a.text.p, a.text.n);
        generated_clear(&a);
        session_close(s);
    }
    assert_int_equal(text[0].n, text[1].n);
    assert_memory_equal(text[0].p, text[1].p, text[0].n);
    assert_true(text[0].n != text[2].n || memcmp(text[0].p, text[2].p, text[0].n) != 0);
    for (int k = 0; k < 3; k++) str_free(&text[k]);
    engine_close(one);
    engine_close(three);
}

/* A session that just ended with accepted drafts, asked to go on from exactly what it holds, gives what a new one
 * does. */
static void going_on_after_drafts(void **state) {
    (void)state;
    int accepted = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        session *s = session_of(small_engine, CAPACITY), *fresh = session_of(small_engine, CAPACITY);
        const int32_t *p = small_prompt;
        int64_t n = N_PROMPT;
        generation o = hot(seed, 5 + (int64_t)seed % 3);
        o.tokenizer = NULL, o.drafts = 3;
        generated a, b, c;
        error e;
        if (generate(&s, 1, &p, &n, &o, NULL, &a, &e) != OK) fail_msg("%s", e.text);
        accepted += s->rows > 1;
        int32_t held[CAPACITY];
        const int32_t *q = held;
        int64_t n_held = s->length;
        memcpy(held, s->tokens, (size_t)n_held * sizeof *held);
        if (generate(&s, 1, &q, &n_held, &o, NULL, &b, &e) != OK) fail_msg("%s", e.text);
        if (generate(&fresh, 1, &q, &n_held, &o, NULL, &c, &e) != OK) fail_msg("%s", e.text);
        assert_int_equal(b.n_ids, c.n_ids);
        assert_memory_equal(b.ids, c.ids, (size_t)c.n_ids * sizeof *c.ids);
        generated_clear(&a);
        generated_clear(&b);
        generated_clear(&c);
        session_close(s);
        session_close(fresh);
    }
    printf("%d of 40 answers ended with accepted drafts\n", accepted);
    assert_true(accepted > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(text_is_its_pieces),
                                       cmocka_unit_test(stop_texts_are_never_shown),
                                       cmocka_unit_test(beginnings_are_held_back),
                                       cmocka_unit_test(end_of_sequence),
                                       cmocka_unit_test(a_full_context),
                                       cmocka_unit_test(one_of_a_batch_is_cancelled),
                                       cmocka_unit_test(cancelled_amid_a_stop_text),
                                       cmocka_unit_test(refusals),
                                       cmocka_unit_test(logprobs_are_log_softmax),
                                       cmocka_unit_test(the_seed_decides),
                                       cmocka_unit_test(going_on_after_drafts)};
    return cmocka_run_group_tests_name("infer/generate", tests, set_up, tear_down);
}
