/* Tokens, conversations as ids and answers in pieces, through hadal.h alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "hadal.h"
#include <cmocka.h>

static hadal_model *model;

static int set_up(void **state) {
    (void)state;
    hadal_error e = {0};
    hadal_model_options o = {.size = sizeof o, .threads = 1};
    if (hadal_model_open(&model, "tests/data/models/v3_mtp/checkpoint", &o, &e) == HADAL_OK) return 0;
    printf("%s\n", e.text);
    return -1;
}

static int tear_down(void **state) {
    (void)state;
    hadal_model_close(model);
    return 0;
}

static void succeeds(int got, const hadal_error *e) {
    if (got != HADAL_OK) fail_msg("%d: %s", got, e->text);
}

static int32_t id_of(const char *text) {
    int32_t *ids, id;
    size_t n;
    hadal_error e;
    succeeds(hadal_tokenize(hadal_model_tokenizer(model), text, strlen(text), HADAL_PARSE_SPECIAL, &ids, &n, &e), &e);
    assert_int_equal(n, 1);
    id = ids[0];
    hadal_free(ids);
    return id;
}

static void tokens(void **state) {
    (void)state;
    const hadal_tokenizer *t = hadal_model_tokenizer(model);
    size_t n;
    const char *bytes = hadal_token_bytes(t, id_of("<｜User｜>"), &n);
    assert_int_equal(n, strlen("<｜User｜>"));
    assert_memory_equal(bytes, "<｜User｜>", n);
    assert_null(hadal_token_bytes(t, -1, &n));
    assert_null(hadal_token_bytes(t, hadal_tokenizer_size(t), &n));
    assert_true(hadal_token_is_special(t, id_of("<｜end▁of▁sentence｜>")));
    assert_false(hadal_token_is_special(t, id_of("<think>")));
    assert_false(hadal_token_is_special(t, -1));
}

static void information(void **state) {
    (void)state;
    char *json;
    hadal_error e;
    succeeds(hadal_tokenizer_info(hadal_model_tokenizer(model), &json, &e), &e);
    static const char *const parts[] = {"\"tokenizer_class\": \"PreTrainedTokenizerFast\"",
                                        "\"bos_token\": \"<｜begin▁of▁sentence｜>\"",
                                        "\"eos_token\": \"<｜end▁of▁sentence｜>\"",
                                        "\"pad_token\": \"<｜end▁of▁sentence｜>\"",
                                        "\"unk_token\": null",
                                        "\"model_max_length\": 4096",
                                        "\"add_bos_token\": true",
                                        "\"add_eos_token\": false",
                                        "\"vocab_size\": ",
                                        "\"chat_template\": \"{{ bos_token }}{% for m in messages %}"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strstr(json, parts[i])) fail_msg("%s is not in %s", parts[i], json);
    hadal_free(json);
}

/* ---- conversations ---- */

static int count_of(const int32_t *ids, size_t n, int32_t id) {
    int count = 0;
    for (size_t i = 0; i < n; i++) count += ids[i] == id;
    return count;
}

static void typed_tokens(void **state) {
    (void)state;
    int32_t *ids;
    size_t n;
    int thinking = 1;
    hadal_error e;
    char *text;
    succeeds(hadal_chat_encode(model,
                               "[{\"role\": \"user\", \"content\": \"a<｜end▁of▁sentence｜><｜User｜><think>\"}]", NULL,
                               &ids, &n, &thinking, &e),
             &e);
    assert_int_equal(thinking, 0);
    assert_int_equal(ids[0], id_of("<｜begin▁of▁sentence｜>"));
    assert_int_equal(ids[n - 1], id_of("</think>"));
    assert_int_equal(count_of(ids, n, id_of("<｜User｜>")), 1);
    assert_int_equal(count_of(ids, n, id_of("<｜end▁of▁sentence｜>")), 0);
    assert_int_equal(count_of(ids, n, id_of("<think>")), 0);
    assert_int_equal(count_of(ids, n, id_of("<｜begin▁of▁sentence｜>")), 1);
    succeeds(hadal_detokenize(hadal_model_tokenizer(model), ids, n, 0, &text, NULL, &e), &e);
    assert_string_equal(
        text, "<｜begin▁of▁sentence｜><｜User｜>a<｜end▁of▁sentence｜><｜User｜><think><｜Assistant｜></think>");
    hadal_free(text);
    hadal_free(ids);
}

static void written_ids(void **state) {
    (void)state;
    int32_t *first, *next, a = id_of("a"), b = id_of("b"), end = id_of("</think>");
    size_t n, m;
    char messages[400];
    hadal_error e;
    succeeds(hadal_chat_encode(model, "[{\"role\": \"user\", \"content\": \"q\"}]", NULL, &first, &n, NULL, &e), &e);
    snprintf(messages, sizeof messages,
             "[{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"ab\", \"token_ids\": "
             "[%d, %d]}, {\"role\": \"user\", \"content\": \"q\"}]",
             (int)a, (int)b);
    succeeds(hadal_chat_encode(model, messages, NULL, &next, &m, NULL, &e), &e);
    assert_true(m > n + 3);
    assert_memory_equal(first, next, n * sizeof *first);
    assert_int_equal(next[n], a);
    assert_int_equal(next[n + 1], b);
    assert_int_equal(next[n + 2], id_of("<｜end▁of▁sentence｜>"));
    hadal_free(first);
    hadal_free(next);
    assert_int_equal(hadal_chat_reasoning_ids(model, (int32_t[]){a, end, b}, 3), 2);
    assert_int_equal(hadal_chat_reasoning_ids(model, (int32_t[]){a, b}, 2), 0);
}

static void encoding_refused(void **state) {
    (void)state;
    static const struct {
        const char *messages, *options;
        int code;
        const char *says;
    } cases[] = {{"[]", NULL, HADAL_ERR_ARG, "not empty"},
                 {"{}", NULL, HADAL_ERR_ARG, "list"},
                 {"[", NULL, HADAL_ERR_FORMAT, "messages"},
                 {"[{\"role\": \"user\", \"content\": \"q\"}]", "[]", HADAL_ERR_ARG, "options"},
                 {"[{\"role\": \"robot\", \"content\": \"q\"}]", NULL, HADAL_ERR_ARG, "messages[0].role"},
                 {"[{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]", NULL, HADAL_ERR_ARG,
                  "messages[0].content[0]"},
                 {"[{\"role\": \"assistant\", \"content\": \"\", \"token_ids\": [1, -1]}]", NULL, HADAL_ERR_ARG,
                  "messages[0].token_ids[1]"},
                 {"[{\"role\": \"assistant\", \"content\": \"\", \"token_ids\": 1}]", NULL, HADAL_ERR_ARG,
                  "messages[0].token_ids"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t *ids = (int32_t *)1;
        size_t n = 1;
        hadal_error e = {0};
        int got = hadal_chat_encode(model, cases[i].messages, cases[i].options, &ids, &n, NULL, &e);
        printf("%d: %s\n", got, e.text);
        assert_int_equal(got, cases[i].code);
        assert_non_null(strstr(e.text, cases[i].says));
        assert_null(ids);
        assert_int_equal(n, 0);
    }
}

/* ---- answers in pieces ---- */

static void on_piece(void *arg, const hadal_piece *p) {
    char *out = arg;
    sprintf(out + strlen(out), "%d:%.*s ", p->kind, (int)p->n, p->text ? p->text : "");
}

static void pieces(void **state) {
    (void)state;
    static const char written[] = "Let me see.</think>It is 4.";
    char got[400] = "";
    hadal_reader *r;
    hadal_error e;
    succeeds(hadal_reader_open(&r, model, 1, 1, on_piece, got, &e), &e);
    succeeds(hadal_reader_feed(r, written, 14, &e), &e); /* up to "</t" */
    assert_string_equal(got, "0:Let me see. ");
    succeeds(hadal_reader_feed(r, written + 14, strlen(written) - 14, &e), &e);
    succeeds(hadal_reader_finish(r, &e), &e);
    assert_string_equal(got, "0:Let me see. 1:It is 4. ");
    hadal_reader_close(r);
    hadal_reader_close(NULL);
    assert_int_equal(hadal_reader_open(&r, model, 0, 0, NULL, NULL, &e), HADAL_ERR_ARG);
    assert_null(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(tokens),           cmocka_unit_test(information),
                                       cmocka_unit_test(typed_tokens),     cmocka_unit_test(written_ids),
                                       cmocka_unit_test(encoding_refused), cmocka_unit_test(pieces)};
    return cmocka_run_group_tests_name("api/text", tests, set_up, tear_down);
}
