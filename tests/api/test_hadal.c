/* The library as its callers see it: hadal.h alone, on the demonstration model with random weights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "hadal.h"
#include <cmocka.h>

#define DEMO "examples/demo/model"

static char folder[64], fp8[80];
static hadal_model *model;

static char *in_folder(char path[160], const char *name) {
    snprintf(path, 160, "%s/%s", folder, name);
    return path;
}

static void save(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int set_up(void **state) {
    (void)state;
    hadal_error e = {0};
    snprintf(folder, sizeof folder, "build/test_hadal.XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(fp8, sizeof fp8, "%s/fp8", folder);
    hadal_model_options o = {.size = sizeof o, .threads = 2};
    if (hadal_init(DEMO, fp8, 1, NULL, NULL, &e) == HADAL_OK && hadal_model_open(&model, fp8, &o, &e) == HADAL_OK)
        return 0;
    printf("%s\n", e.text);
    return -1;
}

static int tear_down(void **state) {
    (void)state;
    char command[128];
    hadal_model_close(model);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

/* An error is a code and one line that names the thing. */
static void refused(int got, int want, const hadal_error *e, const char *what) {
    printf("%d: %s\n", got, e->text);
    assert_int_equal(got, want);
    assert_int_equal(e->code, want);
    assert_true(strlen(e->text) > 0);
    for (const char *p = e->text; *p; p++) assert_true((unsigned char)*p >= 0x20);
    if (!strstr(e->text, what)) fail_msg("\"%s\" does not speak of \"%s\"", e->text, what);
}

static void succeeds(int got, const hadal_error *e) {
    if (got != HADAL_OK) fail_msg("%d: %s", got, e->text);
}

static void has(const char *json, const char *part) {
    if (!strstr(json, part)) fail_msg("%s is not in %s", part, json);
}

/* --- models ------------------------------------------------------------------------------------------------------ */

static void models(void **state) {
    (void)state;
    assert_string_equal(hadal_version(), HADAL_VERSION);
    assert_int_equal(hadal_model_vocab(model), 768);
    assert_int_equal(hadal_model_max_context(model), 4096);
    assert_int_equal(hadal_model_mtp_layers(model), 1);
    assert_true(strlen(hadal_model_kernels(model)) > 0);
    assert_non_null(hadal_model_tokenizer(model));
    hadal_model_close(NULL);
    hadal_session_close(NULL);
    hadal_tokenizer_close(NULL);
    hadal_free(NULL);
    hadal_model *m;
    hadal_error e;
    succeeds(hadal_model_open(&m, fp8, NULL, &e), &e); /* no options: defaults */
    hadal_model_close(m);
    hadal_model_options o = {.size = sizeof o, .threads = 1, .kernels = "portable", .compute = "f32"};
    succeeds(hadal_model_open(&m, fp8, &o, NULL), &e);
    assert_string_equal(hadal_model_kernels(m), "portable");
    hadal_model_close(m);
}

static int cancel(void *arg, uint64_t done, uint64_t total, const char *what) {
    assert_true(done <= total);
    assert_non_null(what);
    ++*(int *)arg;
    return 1;
}

static void models_that_do_not_open(void **state) {
    (void)state;
    char path[160];
    int calls = 0;
    hadal_error e;
    hadal_model *m = (hadal_model *)1;
    refused(hadal_model_open(&m, in_folder(path, "no such"), NULL, &e), HADAL_ERR_FORMAT, &e, "no such");
    assert_null(m);
    refused(hadal_model_open(&m, DEMO, NULL, &e), HADAL_ERR_FORMAT, &e, DEMO); /* a configuration without weights */
    refused(hadal_model_open(&m, in_folder(path, "bad\nname\033[2J"), NULL, &e), HADAL_ERR_FORMAT, &e, "bad?name?[2J");
    assert_int_equal(hadal_model_open(&m, path, NULL, NULL), HADAL_ERR_FORMAT); /* nobody listens */
    refused(hadal_model_open(NULL, fp8, NULL, &e), HADAL_ERR_ARG, &e, "hadal_model_open");
    refused(hadal_model_open(&m, NULL, NULL, &e), HADAL_ERR_ARG, &e, "hadal_model_open");
    hadal_model_options o = {.size = sizeof o, .compute = "f16"};
    refused(hadal_model_open(&m, fp8, &o, &e), HADAL_ERR_ARG, &e, "f16");
    o = (hadal_model_options){.size = sizeof o, .kernels = "sse9"};
    refused(hadal_model_open(&m, fp8, &o, &e), HADAL_ERR_ARG, &e, "sse9");
    o = (hadal_model_options){.size = sizeof o, .attention = "flash"};
    refused(hadal_model_open(&m, fp8, &o, &e), HADAL_ERR_ARG, &e, "flash");
    o = (hadal_model_options){.size = sizeof o, .threads = -3};
    refused(hadal_model_open(&m, fp8, &o, &e), HADAL_ERR_ARG, &e, "-3");
    o = (hadal_model_options){.size = sizeof o, .progress = cancel, .progress_arg = &calls};
    refused(hadal_model_open(&m, fp8, &o, &e), HADAL_ERR_CANCELLED, &e, "cancelled");
    assert_int_equal(calls, 1);
    assert_null(m);
}

/* A caller compiled with an older header gives a smaller struct: what lies behind it is not read. */
static void smaller_option_structs(void **state) {
    (void)state;
    char path[160], *json;
    hadal_error e;
    hadal_model *m;
    hadal_model_options o = {.size = offsetof(hadal_model_options, compute), .threads = 1, .compute = "nonsense"};
    o.kernels = o.attention = "nonsense";
    succeeds(hadal_model_open(&m, fp8, &o, &e), &e);
    hadal_session *s;
    succeeds(hadal_session_open(&s, m, 32, &e), &e);
    const int32_t prompt[] = {0, 300, 400};
    hadal_sampling sampling = {.size = offsetof(hadal_sampling, stop), .max_tokens = 3, .n_stop = 7, .drafts = -4};
    hadal_result r;
    succeeds(hadal_generate(s, prompt, 3, &sampling, NULL, NULL, &r, &e), &e);
    assert_true(r.n_ids >= 1 && r.n_ids <= 3);
    hadal_result_clear(&r);
    hadal_session_close(s);
    hadal_bench_options b = {.size = offsetof(hadal_bench_options, repeat), .prompt = -1, .repeat = -1};
    refused(hadal_bench(m, &b, &json, &e), HADAL_ERR_ARG, &e, "bench");
    hadal_convert_options c = {.size = offsetof(hadal_convert_options, mtp), .to = "f16", .mtp = "nonsense"};
    refused(hadal_convert(fp8, in_folder(path, "none"), &c, NULL, &e), HADAL_ERR_ARG, &e, "f16");
    hadal_model_close(m);
}

/* --- text -------------------------------------------------------------------------------------------------------- */

static void round_trip(const hadal_tokenizer *t, const char *text, size_t n, unsigned flags) {
    int32_t *ids;
    size_t count, length;
    char *back;
    hadal_error e;
    succeeds(hadal_tokenize(t, text, n, flags, &ids, &count, &e), &e);
    assert_true(count <= n);
    for (size_t i = 0; i < count; i++) assert_true(ids[i] >= 0 && ids[i] < hadal_tokenizer_size(t));
    succeeds(hadal_detokenize(t, ids, count, 0, &back, &length, &e), &e);
    assert_int_equal(length, n);
    assert_memory_equal(back, text, n);
    assert_int_equal(back[n], 0);
    hadal_free(ids);
    hadal_free(back);
}

static void tokenizers(void **state) {
    (void)state;
    static const char text[] =
        "int main(void) { return 0; }\n\tGr\xc3\xbc\xc3\x9f \xf0\x9f\x90\x9f\0 <\xef\xbd\x9cUser\xef\xbd\x9c>";
    hadal_tokenizer *t;
    hadal_error e;
    succeeds(hadal_tokenizer_open(&t, DEMO, &e), &e);
    assert_int_equal(hadal_tokenizer_size(t), 768);
    assert_int_equal(hadal_tokenizer_eos(t), 1);
    round_trip(t, text, sizeof text - 1, 0);
    round_trip(t, text, sizeof text - 1, HADAL_PARSE_SPECIAL);
    round_trip(t, "", 0, 0);
    int32_t *ids;
    size_t n, plain, length;
    char *shown;
    succeeds(hadal_tokenize(t, "hello", 5, 0, &ids, &plain, &e), &e);
    hadal_free(ids);
    succeeds(hadal_tokenize(t, "hello", 5, HADAL_ADD_SPECIAL, &ids, &n, &e), &e);
    assert_int_equal(n, plain + 1);
    assert_int_equal(ids[0], 0); /* BOS */
    succeeds(hadal_detokenize(t, ids, n, 1, &shown, NULL, &e), &e);
    assert_string_equal(shown, "hello"); /* without it */
    hadal_free(shown);
    hadal_free(ids);
    succeeds(hadal_tokenize(t, "<\xef\xbd\x9cUser\xef\xbd\x9c>", 12, HADAL_PARSE_SPECIAL, &ids, &n, &e), &e);
    assert_int_equal(n, 1);
    assert_int_equal(ids[0], 764);
    hadal_free(ids);
    refused(hadal_tokenize(t, "ab\xff", 3, 0, &ids, &n, &e), HADAL_ERR_FORMAT, &e, "byte 2");
    assert_null(ids);
    succeeds(hadal_detokenize(t, (const int32_t[]){-1, 100000, INT32_MAX}, 3, 0, &shown, &length, &e), &e);
    assert_string_equal(shown, ""); /* ids that no token has add nothing */
    hadal_free(shown);
    succeeds(hadal_detokenize(t, NULL, 0, 0, &shown, &length, &e), &e);
    assert_int_equal(length, 0);
    hadal_free(shown);
    for (int32_t id = 0; id < 768; id++) { /* what a list shows is one clean line */
        succeeds(hadal_token_text(t, id, &shown, &e), &e);
        for (const char *p = shown; *p; p++) assert_true((unsigned char)*p >= 0x20 && *p != 0x7f);
        hadal_free(shown);
    }
    refused(hadal_token_text(t, 768, &shown, &e), HADAL_ERR_ARG, &e, "768");
    refused(hadal_token_text(t, -1, &shown, &e), HADAL_ERR_ARG, &e, "-1");
    assert_null(shown);
    hadal_tokenizer_close(t);
    char path[160];
    refused(hadal_tokenizer_open(&t, in_folder(path, "none"), &e), HADAL_ERR_FORMAT, &e, "tokenizer.json");
    assert_null(t);
}

#define USER "<\xef\xbd\x9cUser\xef\xbd\x9c>"
#define ASSISTANT   \
    "<\xef\xbd\x9c" \
    "Assistant\xef\xbd\x9c>"
#define BOS         \
    "<\xef\xbd\x9c" \
    "begin\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>"

static void chats(void **state) {
    (void)state;
    static const char messages[] = "[{\"role\": \"user\", \"content\": \"Hello\"}]";
    char *a, *b;
    hadal_error e;
    succeeds(hadal_chat_render(model, messages, NULL, &a, &e), &e);
    assert_string_equal(a, BOS USER "Hello" ASSISTANT "</think>");
    succeeds(hadal_chat_render_folder(DEMO, messages, "{}", &b, &e), &e);
    assert_string_equal(a, b);
    assert_false(hadal_chat_is_thinking(a));
    hadal_free(a);
    hadal_free(b);
    succeeds(hadal_chat_render(model, messages, "{\"thinking\": true}", &a, &e), &e);
    assert_string_equal(a, BOS USER "Hello" ASSISTANT "<think>");
    assert_true(hadal_chat_is_thinking(a));
    hadal_free(a);
    succeeds(hadal_chat_render(model, messages, "{\"add_generation_prompt\": false}", &a, &e), &e);
    assert_string_equal(a, BOS USER "Hello");
    hadal_free(a);
    assert_true(hadal_chat_is_thinking("x<think>\n"));
    assert_false(hadal_chat_is_thinking("<think>x"));
    assert_false(hadal_chat_is_thinking(""));
    refused(hadal_chat_render(model, "[{", NULL, &a, &e), HADAL_ERR_FORMAT, &e, "messages");
    assert_null(a);
    refused(hadal_chat_render(model, "{}", NULL, &a, &e), HADAL_ERR_ARG, &e, "messages");
    refused(hadal_chat_render(model, messages, "[]", &a, &e), HADAL_ERR_ARG, &e, "options");
    refused(hadal_chat_render(model, messages, "{", &a, &e), HADAL_ERR_FORMAT, &e, "options");
    char path[160];
    assert_int_not_equal(hadal_chat_render_folder(in_folder(path, "none"), messages, NULL, &a, &e), HADAL_OK);
    assert_null(a);
}

static void answers_taken_apart(void **state) {
    (void)state;
    char *json;
    hadal_error e;
    succeeds(hadal_chat_parse(model, "Let me see.</think>It is 4.", 1, &json, &e), &e);
    has(json, "\"reasoning\": \"Let me see.\"");
    has(json, "\"content\": \"It is 4.\"");
    has(json, "\"tool_calls\": []");
    hadal_free(json);
    succeeds(hadal_chat_parse(model, "It is 4.", 0, &json, &e), &e);
    has(json, "\"reasoning\": null");
    has(json, "\"content\": \"It is 4.\"");
    hadal_free(json);
    succeeds(hadal_chat_parse(model, "still thinking", 1, &json, &e), &e);
    has(json, "\"reasoning\": \"still thinking\"");
    hadal_free(json);
    succeeds(hadal_chat_parse(model, "", 0, &json, &e), &e);
    hadal_free(json);
}

/* --- information ------------------------------------------------------------------------------------------------- */

static void information(void **state) {
    (void)state;
    static const char *const both[] = {"\"path\"",
                                       "\"model_type\": \"deepseek_v3\"",
                                       "\"kind\"",
                                       "\"layers\": 4",
                                       "\"hidden_size\": 256",
                                       "\"vocab_size\": 768",
                                       "\"parameters\"",
                                       "\"parameters_active\"",
                                       "\"parameters_mtp\"",
                                       "\"mtp_layers\": 1",
                                       "\"max_context\": 4096",
                                       "\"quantization\"",
                                       "\"attention\"",
                                       "\"experts\"",
                                       "\"rope\"",
                                       "\"cache_bytes_per_token\": 640",
                                       "\"context\": 100",
                                       "\"memory\""},
                             *const folders[] = {"\"bytes\"", "\"bytes_by_type\"", "\"tensors\"",
                                                 "\"files\"", "\"tokenizer\"",     "\"chat_template\""};
    char *json, path[160];
    hadal_error e;
    for (int k = 0; k < 2; k++) {
        succeeds(hadal_info(k ? fp8 : DEMO "/config.json", 100, &json, &e), &e);
        for (size_t i = 0; i < sizeof both / sizeof *both; i++) has(json, both[i]);
        for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
            assert_int_equal(strstr(json, folders[i]) != NULL, k);
        hadal_free(json);
    }
    succeeds(hadal_info(DEMO "/config.json", 0, &json, &e), &e);
    has(json, "\"context\": 4096");
    hadal_free(json);
    refused(hadal_info(in_folder(path, "none"), 0, &json, &e), HADAL_ERR_FORMAT, &e, "none");
    assert_null(json);
    refused(hadal_info(DEMO "/config.json", -1, &json, &e), HADAL_ERR_ARG, &e, "context");
    refused(hadal_info(DEMO "/config.json", INT64_MAX, &json, &e), HADAL_ERR_ARG, &e, "context");
    save(in_folder(path, "odd.json"), "{\"model_type\": \"gpt9\"}");
    refused(hadal_info(path, 0, &json, &e), HADAL_ERR_UNSUPPORTED, &e, "gpt9");
}

/* --- sessions and generation ------------------------------------------------------------------------------------- */

static const int32_t prompt[] = {0, 300, 400, 77, 512, 90, 700};
enum { N_PROMPT = 7 };

static void sessions(void **state) {
    (void)state;
    static const int32_t bad[] = {0, 768}, negative[] = {-1};
    hadal_session *s;
    hadal_error e;
    succeeds(hadal_session_open(&s, model, 16, &e), &e);
    assert_null(hadal_session_logits(s));
    assert_int_equal(hadal_session_length(s), 0);
    assert_int_equal(hadal_session_cache_bytes(s), 0);
    succeeds(hadal_session_sync(s, prompt, N_PROMPT, &e), &e);
    assert_int_equal(hadal_session_length(s), N_PROMPT);
    assert_true(hadal_session_cache_bytes(s) > 0);
    const float *logits = hadal_session_logits(s);
    for (int i = 0; i < 768; i++) assert_true(isfinite(logits[i]));
    succeeds(hadal_session_sync(s, prompt, 3, &e), &e); /* shorter */
    assert_int_equal(hadal_session_length(s), 3);
    refused(hadal_session_sync(s, prompt, 0, &e), HADAL_ERR_ARG, &e, "empty");
    refused(hadal_session_sync(s, prompt, -1, &e), HADAL_ERR_ARG, &e, "empty");
    refused(hadal_session_sync(s, NULL, 1, &e), HADAL_ERR_ARG, &e, "tokens");
    refused(hadal_session_sync(s, bad, 2, &e), HADAL_ERR_ARG, &e, "768");
    refused(hadal_session_sync(s, negative, 1, &e), HADAL_ERR_ARG, &e, "-1");
    int32_t many[17] = {0};
    refused(hadal_session_sync(s, many, 17, &e), HADAL_ERR_ARG, &e, "17");
    hadal_session_close(s);
    refused(hadal_session_open(&s, model, -1, &e), HADAL_ERR_ARG, &e, "max_tokens");
    refused(hadal_session_open(&s, NULL, 16, &e), HADAL_ERR_ARG, &e, "model");
    succeeds(hadal_session_open(&s, model, 0, &e), &e); /* as many as the model's */
    hadal_session_close(s);
}

typedef struct pieces {
    char text[4096];
    size_t n;
    int tokens, stop_after;
} pieces;

static int collect(void *arg, const hadal_token *t) {
    pieces *p = arg;
    assert_true(p->n + t->n < sizeof p->text);
    if (t->n) memcpy(p->text + p->n, t->text, t->n);
    p->n += t->n;
    return ++p->tokens == p->stop_after;
}

static void generation(void **state) {
    (void)state;
    hadal_session *s;
    hadal_error e;
    hadal_sampling o;
    hadal_result r;
    hadal_sampling_defaults(model, &o);
    assert_int_equal(o.size, sizeof o);
    assert_true(o.temperature == 0.6f && o.top_p == 0.95f); /* generation_config.json */
    succeeds(hadal_session_open(&s, model, 64, &e), &e);
    o.max_tokens = 20, o.ignore_eos = 1, o.seed = 3;
    pieces p = {.stop_after = 0};
    succeeds(hadal_generate(s, prompt, N_PROMPT, &o, collect, &p, &r, &e), &e);
    char *text;
    size_t n;
    succeeds(hadal_detokenize(hadal_model_tokenizer(model), r.ids, (size_t)r.n_ids, 1, &text, &n, &e), &e);
    assert_int_equal(r.n_ids, 20);
    assert_string_equal(r.finish, "length");
    assert_int_equal(r.prompt_tokens, N_PROMPT);
    assert_int_equal(r.cached_tokens, 0);
    assert_int_equal(r.n, n);
    assert_memory_equal(r.text, text, n + 1);
    assert_int_equal(p.n, n);
    assert_memory_equal(p.text, text, n);
    hadal_free(text);
    hadal_result_clear(&r);
    hadal_result_clear(&r);
    p = (pieces){.stop_after = 5};
    succeeds(hadal_generate(s, prompt, N_PROMPT, &o, collect, &p, &r, &e), &e);
    assert_string_equal(r.finish, "cancelled");
    assert_int_equal(r.n_ids, 5);
    hadal_result_clear(&r);
    succeeds(hadal_generate(s, prompt, N_PROMPT, NULL, NULL, NULL, &r, &e), &e); /* defaults, until the context ends */
    assert_true(r.n_ids >= 1 && r.n_ids <= 64 - N_PROMPT);
    hadal_result_clear(&r);
    o.drafts = 2, o.temperature = 0;
    succeeds(hadal_generate(s, prompt, N_PROMPT, &o, NULL, NULL, &r, &e), &e);
    assert_true(r.draft_proposed > 0 && r.draft_accepted <= r.draft_proposed);
    hadal_result_clear(&r);
    hadal_session_close(s);
}

/* A refusal leaves a result that may be cleared. */
static void generation_refused(void **state) {
    (void)state;
    int calls = 0;
    hadal_session *s[2];
    hadal_error e;
    hadal_result r[2];
    for (int i = 0; i < 2; i++) succeeds(hadal_session_open(&s[i], model, 16, &e), &e);
    const hadal_sampling wrong[] = {
        {.size = sizeof *wrong, .temperature = -1}, {.size = sizeof *wrong, .temperature = NAN},
        {.size = sizeof *wrong, .top_p = 2},        {.size = sizeof *wrong, .max_tokens = -1},
        {.size = sizeof *wrong, .drafts = -1},      {.size = sizeof *wrong, .logprobs = 21}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        memset(r, 0xee, sizeof r);
        refused(hadal_generate(s[0], prompt, N_PROMPT, &wrong[i], NULL, NULL, r, &e), HADAL_ERR_ARG, &e, "");
        hadal_result_clear(r);
    }
    memset(r, 0xee, sizeof r);
    refused(hadal_generate(s[0], prompt, 0, NULL, NULL, NULL, r, &e), HADAL_ERR_ARG, &e, "empty");
    hadal_result_clear(r);
    memset(r, 0xee, sizeof r);
    refused(hadal_generate(NULL, prompt, 1, NULL, NULL, NULL, r, &e), HADAL_ERR_ARG, &e, "sessions");
    hadal_result_clear(r);
    memset(r, 0xee, sizeof r);
    refused(hadal_generate(s[0], NULL, 1, NULL, NULL, NULL, r, &e), HADAL_ERR_ARG, &e, "prompt");
    hadal_result_clear(r);
    refused(hadal_generate(s[0], prompt, 1, NULL, NULL, NULL, NULL, &e), HADAL_ERR_ARG, &e, "results");
    hadal_sampling o = {.size = sizeof o, .max_tokens = 4, .n_stop = 3}; /* stop: NULL */
    succeeds(hadal_generate(s[0], prompt, N_PROMPT, &o, NULL, NULL, r, &e), &e);
    hadal_result_clear(r);
    o = (hadal_sampling){.size = sizeof o, .progress = cancel, .progress_arg = &calls};
    refused(hadal_generate(s[1], prompt, N_PROMPT, &o, NULL, NULL, r, &e), HADAL_ERR_CANCELLED, &e, "cancelled");
    assert_int_equal(calls, 1);
    hadal_result_clear(r);
    /* One session cannot be two sequences of a batch. */
    hadal_session *twice[] = {s[0], s[0]};
    const int32_t *prompts[] = {prompt, prompt + 1};
    const int n[] = {4, 4};
    memset(r, 0xee, sizeof r);
    refused(hadal_generate_batch(twice, 2, prompts, n, NULL, NULL, NULL, r, &e), HADAL_ERR_ARG, &e, "session");
    for (int i = 0; i < 2; i++) hadal_result_clear(&r[i]);
    refused(hadal_generate_batch(s, 0, prompts, n, NULL, NULL, NULL, r, &e), HADAL_ERR_ARG, &e, "");
    o = (hadal_sampling){.size = sizeof o, .max_tokens = 3, .ignore_eos = 1};
    succeeds(hadal_generate_batch(s, 2, prompts, n, &o, NULL, NULL, r, &e), &e);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(r[i].n_ids, 3);
        hadal_result_clear(&r[i]);
        hadal_session_close(s[i]);
    }
}

/* --- check, trace, bench, convert, init -------------------------------------------------------------------------- */

static void count_line(void *arg, const char *json) {
    ++*(int *)arg;
    has(json, "\"pass\":true");
}

static void golden_logits(void **state) {
    (void)state;
    static const char *const prompts[] = {"The deepest part of the sea", "int main(void)", "\xf0\x9f\x90\x9f"};
    char path[160], missing[160], *json = NULL;
    int lines = 0;
    hadal_error e;
    in_folder(path, "golden.jsonl");
    succeeds(hadal_golden_write(model, prompts, 3, path, &e), &e);
    succeeds(hadal_check(model, path, 1e-9, count_line, &lines, &json, &e), &e);
    printf("%s\n", json);
    assert_int_equal(lines, 3);
    has(json, "\"pass\":true");
    has(json, "\"prompts\":3");
    hadal_free(json);
    succeeds(hadal_check(model, path, 1e-9, NULL, NULL, NULL, &e), &e);
    succeeds(hadal_check(model, path, -1, NULL, NULL, &json, &e), &e); /* nothing is below zero */
    has(json, "\"pass\":false");
    hadal_free(json);
    refused(hadal_check(model, in_folder(missing, "none.jsonl"), 1, NULL, NULL, &json, &e), HADAL_ERR_FORMAT, &e,
            "none");
    assert_null(json);
    save(in_folder(path, "bad.jsonl"), "\n{\"prompt\": \"x\", \"logits\": [[1, 2]]}\n");
    refused(hadal_check(model, path, 1, NULL, NULL, &json, &e), HADAL_ERR_FORMAT, &e, "line 2");
    refused(hadal_golden_write(model, prompts, 0, path, &e), HADAL_ERR_ARG, &e, "prompts");
    refused(hadal_golden_write(model, prompts, 1, in_folder(path, "none/x"), &e), HADAL_ERR_IO, &e, "none");
    refused(hadal_trace(model, missing, in_folder(path, "trace"), NULL, NULL, NULL, &e), HADAL_ERR_FORMAT, &e, "none");
}

static void bench(void **state) {
    (void)state;
    static const char *const fields[] = {"model_type",
                                         "kernels",
                                         "compute",
                                         "threads",
                                         "prompt",
                                         "generate",
                                         "depth",
                                         "read_gbs",
                                         "peak_gflops",
                                         "prompt_tps",
                                         "prompt_gflops",
                                         "prompt_share_of_peak",
                                         "generate_tps",
                                         "weight_bytes_per_token",
                                         "cache_bytes_per_token",
                                         "generate_share_of_bandwidth",
                                         "tps"}; /* docs/bench.md */
    hadal_bench_options o = {.size = sizeof o, .prompt = 4, .generate = 2, .depth = 3, .repeat = 1};
    char *json, name[64];
    hadal_error e;
    succeeds(hadal_bench(model, &o, &json, &e), &e);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        snprintf(name, sizeof name, "\"%s\": ", fields[i]);
        has(json, name);
        const char *value = strstr(json, name) + strlen(name);
        if (i > 6) assert_true(strtod(value, NULL) > 0);
    }
    has(json, "\"prompt\": 4");
    has(json, "\"generate\": 2");
    has(json, "\"depth\": 3");
    hadal_free(json);
    int calls = 0;
    o.progress = cancel, o.progress_arg = &calls;
    refused(hadal_bench(model, &o, &json, &e), HADAL_ERR_CANCELLED, &e, "cancelled");
    assert_null(json);
    o = (hadal_bench_options){.size = sizeof o, .prompt = 1, .repeat = -1};
    refused(hadal_bench(model, &o, &json, &e), HADAL_ERR_ARG, &e, "bench");
    refused(hadal_bench_machine(1, "sse9", &json, &e), HADAL_ERR_ARG, &e, "sse9");
}

static void convert_and_init(void **state) {
    (void)state;
    char out[160], other[160], *json = NULL;
    int calls = 0;
    hadal_error e;
    hadal_convert_options o = {.size = sizeof o, .to = "bf16", .threads = 1};
    succeeds(hadal_convert(fp8, in_folder(out, "bf16"), &o, &json, &e), &e);
    static const char *const fields[] = {"\"in\"", "\"out\"", "\"tensors\"", "\"shards\"", "\"bytes\""};
    for (int i = 0; i < 5; i++) has(json, fields[i]);
    hadal_free(json);
    hadal_model *m;
    succeeds(hadal_model_open(&m, out, NULL, &e), &e);
    hadal_model_close(m);
    refused(hadal_convert(fp8, fp8, &o, &json, &e), HADAL_ERR_ARG, &e, "same");
    assert_null(json);
    refused(hadal_convert(in_folder(other, "none"), in_folder(out, "x"), &o, NULL, &e), HADAL_ERR_ARG, &e, "none");
    refused(hadal_convert(NULL, out, &o, NULL, &e), HADAL_ERR_ARG, &e, "folders");
    refused(hadal_convert(fp8, NULL, &o, NULL, &e), HADAL_ERR_ARG, &e, "folders");
    refused(hadal_convert(fp8, out, NULL, NULL, &e), HADAL_ERR_ARG, &e, "type");
    o.mtp = "perhaps";
    refused(hadal_convert(fp8, out, &o, NULL, &e), HADAL_ERR_ARG, &e, "perhaps");
    o.mtp = NULL, o.scale_fmt = "ue9";
    refused(hadal_convert(fp8, out, &o, NULL, &e), HADAL_ERR_ARG, &e, "ue9");
    o.scale_fmt = NULL, o.progress = cancel, o.progress_arg = &calls;
    refused(hadal_convert(fp8, out, &o, NULL, &e), HADAL_ERR_CANCELLED, &e, "cancelled");
    assert_true(calls > 0);
    calls = 0;
    refused(hadal_init(DEMO, in_folder(out, "y"), 1, cancel, &calls, &e), HADAL_ERR_CANCELLED, &e, "cancelled");
    assert_true(calls > 0);
    refused(hadal_init(in_folder(other, "none"), out, 1, NULL, NULL, &e), HADAL_ERR_FORMAT, &e, "none");
    refused(hadal_init(NULL, out, 1, NULL, NULL, &e), HADAL_ERR_ARG, &e, "configuration");
    refused(hadal_init(DEMO, NULL, 1, NULL, NULL, &e), HADAL_ERR_ARG, &e, "folder");
    save(in_folder(out, "file"), "x");
    assert_int_equal(hadal_init(DEMO, out, 1, NULL, NULL, &e), HADAL_ERR_IO); /* a file has that name */
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(models),
                                       cmocka_unit_test(models_that_do_not_open),
                                       cmocka_unit_test(smaller_option_structs),
                                       cmocka_unit_test(tokenizers),
                                       cmocka_unit_test(chats),
                                       cmocka_unit_test(answers_taken_apart),
                                       cmocka_unit_test(information),
                                       cmocka_unit_test(sessions),
                                       cmocka_unit_test(generation),
                                       cmocka_unit_test(generation_refused),
                                       cmocka_unit_test(golden_logits),
                                       cmocka_unit_test(bench),
                                       cmocka_unit_test(convert_and_init)};
    return cmocka_run_group_tests_name("api/hadal", tests, set_up, tear_down);
}
