/* The tokenizer against the golden vectors of the Hugging Face library, against a small tokenizer of our own, and
 * against files and texts that mean harm. */
#include "text/tokenizer.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/file.h"
#include "base/json.h"

/* ---- Golden vectors ---- */

static const char *const families[] = {"deepseek-v3", "deepseek-llm", "deepseek-coder", "r1-distill-qwen",
                                       "r1-distill-llama"};

static const char *shared(void) {
    const char *s = getenv("HADAL_SHARED");
    return s ? s : "../shared";
}

static void need_shared(void) {
    if (is_directory(shared())) return;
    print_message("%s is absent\n", shared());
    skip();
}

static tokenizer *open_golden(const char *family) {
    char command[600];
    snprintf(command, sizeof command, "gzip -dc '%s/golden/tokenizers/%s/tokenizer.json.gz'", shared(), family);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    str json = {0};
    char block[1 << 12];
    for (size_t n; (n = fread(block, 1, sizeof block, f)) > 0;) str_add(&json, block, n);
    assert_int_equal(pclose(f), 0);
    tokenizer *t;
    error e = {0};
    if (tokenizer_parse(&t, json.p, json.n, NULL, 0, &e) != OK) fail_msg("%s: %s", family, e.text);
    str_free(&json);
    return t;
}

static void check_text(const char *what, const char *family, int line, const char *got, size_t got_n, const char *want,
                       size_t want_n) {
    if (got_n == want_n && memcmp(got, want, want_n) == 0) return;
    fail_msg("%s line %d, %s: got %zu bytes \"%.*s\", want %zu bytes \"%.*s\"", family, line, what, got_n, (int)got_n,
             got, want_n, (int)want_n, want);
}

static void check_member(const char *what, const char *family, int line, const str *got, const json_t *row) {
    const json_t *want = json_object_get(row, what);
    assert_true(json_is_string(want));
    check_text(what, family, line, got->p ? got->p : "", got->n, json_string_value(want), json_string_length(want));
}

/* Decodes id by id; every addition must be whole characters. */
static void decode_stream(const tokenizer *t, const int32_t *ids, size_t n, bool skip_special, str *out) {
    tokenizer_decoding d = {0};
    for (size_t i = 0; i < n; i++) {
        size_t before = out->n;
        tokenizer_decode_next(t, &d, ids[i], skip_special, out);
        if (out->n > before) assert_int_equal(utf8_valid(out->p + before, out->n - before), out->n - before);
    }
    tokenizer_decode_end(&d, out);
}

static void check_ids(const tokenizer *t, const char *family, int line, const json_t *row, const int32_t *ids,
                      size_t n) {
    str bytes = {0}, text = {0}, skipped = {0}, whole = {0};
    for (size_t i = 0; i < n; i++) {
        size_t k;
        const char *p = tokenizer_bytes(t, ids[i], &k);
        assert_non_null(p);
        for (size_t j = 0; j < k; j++) str_addf(&bytes, "%02x", (unsigned char)p[j]);
    }
    check_member("bytes_hex", family, line, &bytes, row);
    decode_stream(t, ids, n, false, &text);
    check_member("decoded", family, line, &text, row);
    decode_stream(t, ids, n, true, &skipped);
    if (json_object_get(row, "decoded_skip_special")) check_member("decoded_skip_special", family, line, &skipped, row);
    tokenizer_decode(t, ids, n, false, &whole);
    check_member("decoded", family, line, &whole, row);
    str_free(&bytes);
    str_free(&text);
    str_free(&skipped);
    str_free(&whole);
}

static void check_encoding(const tokenizer *t, const char *family, int line, const json_t *row) {
    const json_t *text = json_object_get(row, "text"), *want = json_object_get(row, "ids");
    int32_t *ids;
    size_t n;
    error e = {0};
    if (tokenizer_encode(t, json_string_value(text), json_string_length(text), TOK_PARSE_SPECIAL, &ids, &n, &e) != OK)
        fail_msg("%s line %d: %s", family, line, e.text);
    for (size_t i = 0; i < n && i < json_array_size(want); i++)
        if (ids[i] != json_integer_value(json_array_get(want, i)))
            fail_msg("%s line %d, id %zu: got %d, want %lld", family, line, i, ids[i],
                     (long long)json_integer_value(json_array_get(want, i)));
    assert_int_equal(n, json_array_size(want));
    check_ids(t, family, line, row, ids, n);
    free(ids);
    assert_int_equal(tokenizer_encode(t, json_string_value(text), json_string_length(text), 0, &ids, &n, &e), OK);
    for (size_t i = 0; i < n; i++) assert_false(tokenizer_is_special(t, ids[i]));
    free(ids);
}

static void check_decoding(const tokenizer *t, const char *family, int line, const json_t *row) {
    const json_t *list = json_object_get(row, "ids");
    size_t n = json_array_size(list);
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    assert_non_null(ids);
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    check_ids(t, family, line, row, ids, n);
    free(ids);
}

typedef void row_check(const tokenizer *t, const char *family, int line, const json_t *row);

static void each_row(const tokenizer *t, const char *family, const char *file, row_check *check) {
    char path[600];
    error e = {0};
    str s = {0};
    snprintf(path, sizeof path, "%s/golden/tokenizers/%s/%s", shared(), family, file);
    if (file_read(&s, path, 64 << 20, &e) != OK) fail_msg("%s", e.text);
    int line = 0;
    for (char *p = s.p, *end; *p; p = end + 1) {
        end = strchr(p, '\n');
        assert_non_null(end);
        json_t *row;
        if (json_parse(&row, p, (size_t)(end - p), path, &e) != OK) fail_msg("%s", e.text);
        check(t, family, ++line, row);
        json_decref(row);
    }
    assert_true(line > 100);
    print_message("%s: %d rows of %s\n", family, line, file);
    str_free(&s);
}

static void golden_vectors(void **state) {
    (void)state;
    need_shared();
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        tokenizer *t = open_golden(families[i]);
        each_row(t, families[i], "encode.jsonl", check_encoding);
        each_row(t, families[i], "decode.jsonl", check_decoding);
        tokenizer_close(t);
    }
}

/* ---- The small tokenizer of our own ---- */

#define FIXTURE "tests/data/tokenizer"

static char *fixture_text(void) {
    str s = {0};
    error e = {0};
    if (file_read(&s, FIXTURE "/tokenizer.json", 1 << 20, &e) != OK) fail_msg("%s", e.text);
    return str_take(&s);
}

static tokenizer *open_fixture(void) {
    tokenizer *t;
    error e = {0};
    if (tokenizer_open(&t, FIXTURE, &e) != OK) fail_msg("%s", e.text);
    return t;
}

/* The text with its first `old` replaced. */
static char *replaced(const char *text, const char *old, const char *new) {
    const char *at = strstr(text, old);
    if (!at) fail_msg("the fixture has no %s", old);
    str s = {0};
    str_add(&s, text, (size_t)(at - text));
    str_puts(&s, new);
    str_puts(&s, at + strlen(old));
    return str_take(&s);
}

static void check_encode(const tokenizer *t, const char *text, unsigned flags, const char *want) {
    int32_t *ids;
    size_t n;
    error e = {0};
    str got = {0};
    if (tokenizer_encode(t, text, strlen(text), flags, &ids, &n, &e) != OK) fail_msg("\"%s\": %s", text, e.text);
    for (size_t i = 0; i < n; i++) str_addf(&got, "%s%d", i ? " " : "", ids[i]);
    if (strcmp(got.p ? got.p : "", want) != 0)
        fail_msg("\"%s\" flags %u: got %s, want %s", text, flags, got.p ? got.p : "", want);
    str_free(&got);
    free(ids);
}

/* What the Hugging Face library gives, with and without recognition of special tokens. */
static void fixture_vectors(void **state) {
    (void)state;
    const struct {
        const char *text, *parsed, *plain;
    } rows[] = {
        {"", "", ""},
        {"the whale is deep in the sea", "257 32 276 32 105 115 32 280 32 258 32 257 32 282", NULL},
        {"hello  1234   \n\n", "263 108 108 111 265 269 52 265 32 267", NULL},
        {"cafe\xCC\x81 caf\xC3\xA9 \xE4\xB8\xAD\xE6\x96\x87", "296 32 296 32 284 230 150 135", NULL},
        {"a<s>b</s>", "97 289 98 290", "97 60 115 62 98 60 47 115 62"},
        {"<think>the</think>", "291 257 60 47 256 258 107 62", NULL},
        {"x<word> <word> <word>y", "120 60 119 111 114 100 62 32 292 32 60 119 111 114 100 62 121", NULL},
        {"a  <left>b <right>  c", "97 293 98 32 294 99", NULL},
        {"<s><s><s>", "289 289 289", "295 60 115 62"},
        {" \xE3\x80\x80<sp>\n x", "297 120", "32 227 128 128 60 115 112 62 10 32 120"},
        {"aaaaaaaaaaa", "272 272 271 97", NULL},
        {"shell", "115 263 108 108", NULL},
    };
    tokenizer *t = open_fixture();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        check_encode(t, rows[i].text, TOK_PARSE_SPECIAL, rows[i].parsed);
        check_encode(t, rows[i].text, 0, rows[i].plain ? rows[i].plain : rows[i].parsed);
    }
    check_encode(t, "x</s>", TOK_PARSE_SPECIAL | TOK_ADD_SPECIAL, "289 120 290 290");
    check_encode(t, "", TOK_ADD_SPECIAL, "289 290");
    tokenizer_close(t);
}

static void questions(void **state) {
    (void)state;
    tokenizer *t = open_fixture();
    assert_int_equal(tokenizer_vocab_size(t), 298);
    assert_int_equal(tokenizer_bos(t), 289);
    assert_int_equal(tokenizer_eos(t), 290);
    assert_int_equal(tokenizer_pad(t), 290);
    assert_string_equal(tokenizer_bos_text(t), "<s>");
    assert_string_equal(tokenizer_eos_text(t), "</s>");
    assert_string_equal(tokenizer_pad_text(t), "</s>");
    assert_string_equal(tokenizer_chat_template(t), "{{ bos_token }}");
    assert_int_equal(tokenizer_id(t, "<think>"), 291);
    assert_int_equal(tokenizer_id(t, "the"), -1); /* a token, but not an added one */
    assert_int_equal(tokenizer_id(t, "nothing"), -1);
    assert_true(tokenizer_is_special(t, 289));
    assert_false(tokenizer_is_special(t, 291));
    assert_string_equal(tokenizer_token_text(t, 10), "\xC4\x8A");
    size_t n;
    assert_memory_equal(tokenizer_bytes(t, 10, &n), "\n", 1);
    assert_int_equal(n, 1);
    assert_string_equal(tokenizer_bytes(t, 296, &n), "caf\xC3\xA9");
    const int32_t absent[] = {-1, 298, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < 4; i++) {
        str out = {0};
        tokenizer_decode(t, &absent[i], 1, false, &out);
        assert_int_equal(out.n, 0);
        assert_null(tokenizer_bytes(t, absent[i], &n));
        assert_null(tokenizer_token_text(t, absent[i]));
        assert_false(tokenizer_is_special(t, absent[i]));
    }
    tokenizer_close(t);
}

/* A character in three tokens appears when its last byte comes; an id in between that is skipped does not part it. */
static void streaming(void **state) {
    (void)state;
    const int32_t ids[] = {97, 228, 289, 184, 173, 228, 98};
    const size_t length[] = {1, 1, 1, 1, 4, 4, 8};
    tokenizer *t = open_fixture();
    tokenizer_decoding d = {0};
    str out = {0};
    for (size_t i = 0; i < 7; i++) {
        tokenizer_decode_next(t, &d, ids[i], true, &out);
        assert_int_equal(out.n, length[i]);
    }
    tokenizer_decode_next(t, &d, 0xF0, true, &out);
    tokenizer_decode_end(&d, &out);
    assert_string_equal(out.p, "a\xE4\xB8\xAD\xEF\xBF\xBD"
                               "b\xEF\xBF\xBD");
    str_free(&out);
    tokenizer_close(t);
}

static void variants(void **state) {
    (void)state;
    char *text = fixture_text();
    const struct {
        const char *old, *new, *config, *text, *want;
    } rows[] = {
        {"\"version\"", "\"version\"", NULL, "shell", "289 115 263 108 108"}, /* the post-processor puts BOS */
        {"\"version\"", "\"version\"", "{\"add_bos_token\":false}", "shell", "115 263 108 108"},
        {"\"version\"", "\"version\"", "{\"bos_token\":\"whale\",\"add_bos_token\":true}", "a whale",
         "276 97 32 275 101"},
        {"\"version\"", "\"version\"", "{\"bos_token\":\"none such\",\"add_bos_token\":true}", "a", "97"},
        {"\"ignore_merges\": false", "\"ignore_merges\": true", "{\"add_bos_token\":false}", "shell the", "288 264"},
        {"\"add_prefix_space\": false", "\"add_prefix_space\": true", "{\"add_bos_token\":false}", "the\n",
         "32 257 32 10"},
        {"\"!\": 33, ", "", "{\"add_bos_token\":false}", "the", "257"},
        {"\"dropout\": null", "\"dropout\": 0", "{\"add_eos_token\":false}", "a", "97"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *json = replaced(text, rows[i].old, rows[i].new);
        tokenizer *t;
        error e = {0};
        if (tokenizer_parse(&t, json, strlen(json), rows[i].config, rows[i].config ? strlen(rows[i].config) : 0, &e) !=
            OK)
            fail_msg("row %zu: %s", i, e.text);
        check_encode(t, rows[i].text, TOK_ADD_SPECIAL, rows[i].want);
        tokenizer_close(t);
        free(json);
    }
    free(text);
}

/* ---- Files and texts that mean harm ---- */

static void check_refused(const char *json, size_t n, const char *config, status code, const char *says) {
    tokenizer *t;
    error e = {0};
    status s = tokenizer_parse(&t, json, n, config, config ? strlen(config) : 0, &e);
    if (s != code || !strstr(e.text, says)) fail_msg("%.80s: %d \"%s\", want %d \"%s\"", json, s, e.text, code, says);
    assert_null(t);
}

static void refused_files(void **state) {
    (void)state;
    const struct {
        const char *old, *new;
        status code;
        const char *says;
    } rows[] = {
        {"\"!\": 33", "\"!\": -1", ERR_FORMAT, "outside"},
        {"\"!\": 33", "\"!\": 1000000000", ERR_FORMAT, "outside"},
        {"\"!\": 33", "\"!\": 99999999999999999999", ERR_FORMAT, "JSON"},
        {"\"!\": 33", "\"!\": 34", ERR_FORMAT, "same id"},
        {"\"!\": 33", "\"!\": \"33\"", ERR_FORMAT, "integer"},
        {"\"!\": 33", "\"!\": 33.5", ERR_FORMAT, "integer"},
        {"\"!\": 33", "\"!\": 33, \"!\": 33", ERR_FORMAT, "duplicate"},
        {"\"!\": 33", "\"!\": 33, \"\\ud800\": 999", ERR_FORMAT, "JSON"},
        {"\"h e\"", "\"h zz\"", ERR_FORMAT, "\"zz\" is not in the vocabulary"},
        {"\"h e\"", "\"h h\"", ERR_FORMAT, "\"hh\" is not in the vocabulary"},
        {"\"h e\"", "\"h e e\"", ERR_FORMAT, "not two tokens"},
        {"\"h e\"", "\"he\"", ERR_FORMAT, "not two tokens"},
        {"\"h e\"", "[\"h\", \"e\", \"e\"]", ERR_FORMAT, "not two tokens"},
        {"\"h e\"", "[\"h\", 7]", ERR_FORMAT, "not two tokens"},
        {"\"merges\": [", "\"merges\": 7, \"m\": [", ERR_FORMAT, "merges"},
        {"\"vocab\": {", "\"vocab\": [], \"v\": {", ERR_FORMAT, "vocab"},
        {"\"model\"", "\"madel\"", ERR_FORMAT, "model"},
        {"\"type\": \"BPE\"", "\"type\": \"Unigram\"", ERR_UNSUPPORTED, "Unigram"},
        {"\"NFC\"", "\"NFKC\"", ERR_UNSUPPORTED, "NFKC"},
        {"{\"type\": \"NFC\"}", "{\"type\": \"Sequence\"}", ERR_FORMAT, "normalizers"},
        {"\"decoder\": {\"type\": \"ByteLevel\"", "\"decoder\": {\"type\": \"Metaspace\"", ERR_UNSUPPORTED,
         "Metaspace"},
        {"\"type\": \"Split\"", "\"type\": \"Whitespace\"", ERR_UNSUPPORTED, "Whitespace"},
        {"\"TemplateProcessing\"", "\"BertProcessing\"", ERR_UNSUPPORTED, "BertProcessing"},
        {"\"ids\": [289]", "\"ids\": [298]", ERR_FORMAT, "298"},
        {"\"ids\": [289]", "\"ids\": [\"x\"]", ERR_FORMAT, "post_processor"},
        {"\"byte_fallback\": false", "\"byte_fallback\": true", ERR_UNSUPPORTED, "byte_fallback"},
        {"\"dropout\": null", "\"dropout\": 0.1", ERR_UNSUPPORTED, "dropout"},
        {"\"end_of_word_suffix\": null", "\"end_of_word_suffix\": \"</w>\"", ERR_UNSUPPORTED, "end_of_word_suffix"},
        {"\"ignore_merges\": false", "\"ignore_merges\": 1", ERR_FORMAT, "ignore_merges"},
        {"\"id\": 290", "\"id\": 289", ERR_FORMAT, "same id"},
        {"\"id\": 290", "\"id\": -5", ERR_FORMAT, "outside"},
        {"\"id\": 290", "\"ID\": 290", ERR_FORMAT, "integer"},
        {"\"content\": \"</s>\"", "\"content\": \"the\"", ERR_FORMAT, "two ids"},
        {"\"content\": \"<think>\"", "\"content\": 7", ERR_FORMAT, "content"},
        {"\"added_tokens\": [", "\"added_tokens\": 7, \"a\": [", ERR_FORMAT, "added_tokens"},
    };
    char *text = fixture_text();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *json = replaced(text, rows[i].old, rows[i].new);
        check_refused(json, strlen(json), NULL, rows[i].code, rows[i].says);
        free(json);
    }
    check_refused("", 0, NULL, ERR_FORMAT, "tokenizer.json");
    check_refused("[]", 2, NULL, ERR_FORMAT, "model");
    check_refused("{}", 2, NULL, ERR_FORMAT, "model");
    check_refused(text, strlen(text) / 2, NULL, ERR_FORMAT, "JSON");
    check_refused(text, strlen(text), "7", ERR_FORMAT, "tokenizer_config.json");
    check_refused(text, strlen(text), "{\"bos_token\":7}", ERR_FORMAT, "bos_token");
    check_refused(text, strlen(text), "{\"chat_template\":{}}", ERR_FORMAT, "chat_template");
    check_refused(text, strlen(text), "{\"add_bos_token\":\"yes\"}", ERR_FORMAT, "add_bos_token");
    str deep = {0};
    for (int i = 0; i < 100000; i++) str_puts(&deep, "[");
    check_refused(deep.p, deep.n, NULL, ERR_FORMAT, "depth");
    str_free(&deep);
    free(text);
}

static void refused_texts(void **state) {
    (void)state;
    int32_t *ids;
    size_t n;
    error e = {0};
    tokenizer *t = open_fixture();
    assert_int_equal(tokenizer_encode(t, "abc\xC3(", 5, 0, &ids, &n, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "byte 3"));
    assert_null(ids);
    assert_int_equal(tokenizer_encode(t, "\xE4\xB8", 2, 0, &ids, &n, &e), ERR_FORMAT);
    assert_int_equal(tokenizer_encode(t, "a\0b", 3, 0, &ids, &n, &e), OK);
    assert_int_equal(n, 3);
    assert_int_equal(ids[1], 0);
    free(ids);
    tokenizer_close(t);

    char *text = fixture_text(), *json = replaced(text, "\"!\": 33, ", "");
    assert_int_equal(tokenizer_parse(&t, json, strlen(json), NULL, 0, &e), OK);
    assert_int_equal(tokenizer_encode(t, "ab!", 3, 0, &ids, &n, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.text, "0x21"));
    assert_null(ids);
    tokenizer_close(t);
    free(json);
    free(text);
}

/* A merge, a byte or a whole word that is a special token is out of reach of plain text. */
static void plain_text_makes_no_special_ids(void **state) {
    (void)state;
    char *text = fixture_text(), *special = replaced(text, "\"added_tokens\": [",
                                                     "\"added_tokens\": [{\"id\": 257, \"content\": \"the\", "
                                                     "\"special\": true}, {\"id\": 288, \"content\": \"shell\", "
                                                     "\"special\": true},");
    char *json = replaced(special, "\"ignore_merges\": false", "\"ignore_merges\": true");
    tokenizer *t;
    error e = {0};
    if (tokenizer_parse(&t, json, strlen(json), NULL, 0, &e) != OK) fail_msg("%s", e.text);
    check_encode(t, "the shell", 0, "256 101 32 115 263 108 108");
    check_encode(t, "the shell", TOK_PARSE_SPECIAL, "257 32 288");
    tokenizer_close(t);
    free(json);
    free(special);
    free(text);
}

static bool is_think(const tokenizer *t, const char *token, size_t n) {
    (void)t;
    return n == 7 && !memcmp(token, "<think>", n);
}

static void check_marked(const tokenizer *t, const char *text, token_keeps *keep, const char *want, int added) {
    str marked = {0}, back = {0};
    int32_t *ids;
    size_t n;
    error e;
    assert_int_equal(tokenizer_mark(t, text, strlen(text), keep, &marked, &e), OK);
    assert_string_equal(marked.p, want);
    assert_int_equal(tokenizer_encode(t, marked.p, marked.n, TOK_PARSE_SPECIAL | TOK_MARKED, &ids, &n, &e), OK);
    for (size_t i = 0; i < n; i++) {
        const char *name = tokenizer_token_text(t, ids[i]);
        added -= strlen(name) > 1 && tokenizer_id(t, name) == ids[i];
    }
    assert_int_equal(added, 0);
    tokenizer_decode(t, ids, n, false, &back);
    assert_null(strstr(back.p, TOK_MARK));
    free(ids);
    str_free(&marked);
    str_free(&back);
}

/* Marks: no added token is found, also none that normalizing or what follows would make. */
static void marked_texts(void **state) {
    (void)state;
    tokenizer *t = open_fixture();
    check_marked(t, "a", NULL, "a", 0);
    check_marked(t, "<s>a</s>", NULL, "<" TOK_MARK "s>a<" TOK_MARK "/s>", 0);
    check_marked(t, "<s><s>", NULL, "<" TOK_MARK "s><" TOK_MARK "s>" TOK_MARK, 0);
    check_marked(t, "<think><s>", is_think, "<think><" TOK_MARK "s>" TOK_MARK, 1);
    check_marked(t, "cafe\xCC\x81", NULL, "c" TOK_MARK "af\xC3\xA9", 0);
    check_marked(t, "a <", NULL, "a <" TOK_MARK, 0);
    check_marked(t, TOK_MARK "<s" TOK_PLACE, NULL, "\xEF\xBF\xBD<s\xEF\xBF\xBD", 0);
    tokenizer_close(t);
}

static void long_texts(void **state) {
    (void)state;
    enum { N = 1000000 };
    const char *const units[] = {"a", " ", "\n", "<s", "<s>", "e\xCC\x81", "\xCC\x87\xCC\xA3", "1"};
    tokenizer *t = open_fixture();
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        str s = {0}, back = {0};
        int32_t *ids;
        size_t n;
        error e = {0};
        while (s.n < N) str_puts(&s, units[u]);
        str_putc(&s, 'x');
        if (tokenizer_encode(t, s.p, s.n, TOK_PARSE_SPECIAL, &ids, &n, &e) != OK) fail_msg("%s", e.text);
        tokenizer_decode(t, ids, n, false, &back);
        assert_int_equal(back.p[back.n - 1], 'x');
        if (units[u][0] != 'e' && (unsigned char)units[u][0] != 0xCC) { /* those two change form */
            assert_int_equal(back.n, s.n);
            assert_memory_equal(back.p, s.p, s.n);
        }
        print_message("%zu bytes of \"%s\": %zu ids\n", s.n, u == 2 ? "\\n" : units[u], n);
        free(ids);
        str_free(&s);
        str_free(&back);
    }
    tokenizer_close(t);
}

/* ---- Threads and folders ---- */

typedef struct worker {
    const tokenizer *t;
    int number;
    bool fine;
} worker;

static void *work(void *arg) {
    worker *w = arg;
    w->fine = true;
    for (int round = 0; round < 50; round++) {
        str s = {0}, back = {0};
        int32_t *ids;
        size_t n;
        error e = {0};
        for (int i = 0; i < 50; i++) str_addf(&s, "the whale %d of thread %d; ", i * round, w->number);
        if (tokenizer_encode(w->t, s.p, s.n, 0, &ids, &n, &e) != OK) w->fine = false;
        else tokenizer_decode(w->t, ids, n, false, &back);
        if (back.n != s.n || memcmp(back.p, s.p, s.n) != 0) w->fine = false;
        free(ids);
        str_free(&s);
        str_free(&back);
    }
    return NULL;
}

static void threads(void **state) {
    (void)state;
    tokenizer *t = open_fixture();
    pthread_t id[4];
    worker w[4];
    for (int i = 0; i < 4; i++) {
        w[i] = (worker){.t = t, .number = i};
        assert_int_equal(pthread_create(&id[i], NULL, work, &w[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(id[i], NULL);
        assert_true(w[i].fine);
    }
    tokenizer_close(t);
}

static void save(const char *folder, const char *name, const char *text) {
    error e = {0};
    char *path = path_join(folder, name);
    if (file_save(path, text, strlen(text), &e) != OK) fail_msg("%s", e.text);
    free(path);
}

static void folders(void **state) {
    (void)state;
    tokenizer *t;
    error e = {0};
    assert_int_equal(tokenizer_open(&t, "tests/data/no such folder", &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "tokenizer.json"));
    char folder[] = "/tmp/hadal-test-XXXXXX";
    assert_non_null(mkdtemp(folder));
    char *text = fixture_text();
    save(folder, "tokenizer.json", text);
    free(text);
    assert_int_equal(tokenizer_open(&t, folder, &e), OK); /* the other files are optional */
    assert_int_equal(tokenizer_bos(t), -1);
    assert_null(tokenizer_bos_text(t));
    assert_null(tokenizer_chat_template(t));
    tokenizer_close(t);
    save(folder, "tokenizer_config.json",
         "{\"eos_token\": \"</s>\", \"bos_token\": null, \"chat_template\": \"of config\"}");
    save(folder, "special_tokens_map.json", "{\"eos_token\": \"<sp>\", \"bos_token\": {\"content\": \"<s>\"}}");
    assert_int_equal(tokenizer_open(&t, folder, &e), OK);
    assert_int_equal(tokenizer_eos(t), 290); /* of the configuration */
    assert_int_equal(tokenizer_bos(t), 289); /* of the map, where the configuration names none */
    assert_string_equal(tokenizer_chat_template(t), "of config");
    tokenizer_close(t);
    save(folder, "chat_template.jinja", "of the file\n");
    assert_int_equal(tokenizer_open(&t, folder, &e), OK);
    assert_string_equal(tokenizer_chat_template(t), "of the file\n");
    tokenizer_close(t);
    save(folder, "tokenizer.json", "{\"model\": 7}");
    assert_int_equal(tokenizer_open(&t, folder, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, folder));
    const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                 "chat_template.jinja"};
    for (int i = 0; i < 4; i++) {
        char *path = path_join(folder, names[i]);
        assert_int_equal(remove(path), 0);
        free(path);
    }
    assert_int_equal(remove(folder), 0);
}

/* The folder of a model: text of golden_logits.jsonl and its tokens, BOS in front. */
static void golden_model(void **state) {
    (void)state;
    need_shared();
    char path[600];
    tokenizer *t;
    error e = {0};
    str s = {0};
    snprintf(path, sizeof path, "%s/golden/models/v3/checkpoint", shared());
    if (tokenizer_open(&t, path, &e) != OK) fail_msg("%s", e.text);
    snprintf(path, sizeof path, "%s/golden/models/v3/golden_logits.jsonl", shared());
    if (file_read(&s, path, 256 << 20, &e) != OK) fail_msg("%s", e.text);
    for (char *p = s.p, *end; (end = strchr(p, '\n')); p = end + 1) {
        json_t *row;
        int32_t *ids;
        size_t n;
        if (json_parse(&row, p, (size_t)(end - p), path, &e) != OK) fail_msg("%s", e.text);
        const json_t *text = json_object_get(row, "prompt"), *want = json_object_get(row, "tokens");
        assert_int_equal(tokenizer_encode(t, json_string_value(text), json_string_length(text),
                                          TOK_PARSE_SPECIAL | TOK_ADD_SPECIAL, &ids, &n, &e),
                         OK);
        assert_int_equal(n, json_array_size(want));
        for (size_t i = 0; i < n; i++) assert_int_equal(ids[i], json_integer_value(json_array_get(want, i)));
        free(ids);
        json_decref(row);
    }
    str_free(&s);
    tokenizer_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fixture_vectors),
        cmocka_unit_test(questions),
        cmocka_unit_test(streaming),
        cmocka_unit_test(variants),
        cmocka_unit_test(refused_files),
        cmocka_unit_test(refused_texts),
        cmocka_unit_test(plain_text_makes_no_special_ids),
        cmocka_unit_test(marked_texts),
        cmocka_unit_test(long_texts),
        cmocka_unit_test(threads),
        cmocka_unit_test(folders),
        cmocka_unit_test(golden_model),
        cmocka_unit_test(golden_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
