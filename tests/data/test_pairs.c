/* Preference pairs: texts and conversations, what of an answer counts, too long pairs, damaged lines. */
#include "data/pairs.h"
#include "scratch.h"

#define CHAT                                                                  \
    "{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] }}"       \
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}" \
    "{% if add_generation_prompt %}[assistant]{% endif %}"

typedef struct setup {
    scratch s;
    tokenizer *t;
    heard told;
    data_options d;
    const char *path[2];
} setup;

static setup *setup_open(const char *rows) {
    setup *x = calloc(1, sizeof *x);
    assert_non_null(x);
    x->s = scratch_open();
    x->t = small_tokenizer();
    x->d = (data_options){.paths = x->path,
                          .n_paths = 1,
                          .seq_len = 1 << 20,
                          .format = "auto",
                          .text_field = "text",
                          .eos = tokenizer_eos(x->t),
                          .tokenizer = x->t,
                          .model_type = "deepseek_v3",
                          .chat_template = CHAT,
                          .note = heard_note,
                          .progress = heard_progress,
                          .arg = &x->told};
    x->path[0] = scratch_text(&x->s, "pairs.jsonl", rows);
    return x;
}

static void setup_close(setup *x) {
    tokenizer_close(x->t);
    scratch_close(&x->s);
    free(x);
}

static pairs *open_all(setup *x) {
    pairs *p;
    error e = {0};
    if (pairs_open(&p, &x->d, &e) != OK) fail_msg("%s", e.text);
    return p;
}

/* "prompt|answer", what does not count of the answer in braces. */
static void check_side(const setup *x, const pair_side *s, const char *expected) {
    str got = {0};
    bool silent = false;
    assert_true(0 < s->n_prompt && s->n_prompt < s->n);
    for (int64_t i = 0; i < s->n; i++) {
        size_t n;
        const char *p = tokenizer_bytes(x->t, s->ids[i], &n);
        if (i == s->n_prompt) str_putc(&got, '|');
        const bool now = i >= s->n_prompt && s->counts[i - s->n_prompt] == 0;
        if (now != silent) str_putc(&got, now ? '{' : '}');
        silent = now;
        str_add(&got, p, n);
    }
    assert_string_equal(got.p, expected);
    str_free(&got);
}

static void layouts(void **unused) {
#define U(text) "{\"role\": \"user\", \"content\": \"" text "\"}"
#define A(text) "{\"role\": \"assistant\", \"content\": \"" text "\"}"
    static const struct {
        const char *row, *chosen, *rejected;
    } cases[] = {
        {"{\"prompt\": \"2+2=\", \"chosen\": \"4\", \"rejected\": \"5, or so\"}", "2+2=|4" EOS, "2+2=|5, or so" EOS},
        {"{\"prompt\": [" U("q") "], \"chosen\": [" A("a") "], \"rejected\": [" A("b c") "]}",
         "[user]q[assistant]|a" EOS, "[user]q[assistant]|b c" EOS},
        {"{\"prompt\": [" U("q") "], \"chosen\": \"a\", \"rejected\": \"b\"}", "[user]q[assistant]|a" EOS,
         "[user]q[assistant]|b" EOS},
        /* only the last answer counts; what stands before it is the prompt */
        {"{\"prompt\": [" U("q") "," A("x") "," U("r") "], \"chosen\": [" A("a") "], \"rejected\": [" A("b") "]}",
         "[user]q[assistant]x" EOS "[user]r[assistant]|a" EOS, "[user]q[assistant]x" EOS "[user]r[assistant]|b" EOS},
    };
    (void)unused;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        setup *x = setup_open(cases[i].row);
        pairs *p = open_all(x);
        assert_int_equal(pairs_count(p), 1);
        check_side(x, &pairs_get(p, 0)->side[0], cases[i].chosen);
        check_side(x, &pairs_get(p, 0)->side[1], cases[i].rejected);
        pairs_close(p);
        setup_close(x);
    }
}

/* A template that writes behind the answer: those tokens are cut off, they are nobody's choice. */
static void what_follows_the_answer(void **unused) {
    (void)unused;
    setup *x = setup_open("{\"prompt\": [" U("q") "], \"chosen\": [" A("a") "], \"rejected\": [" A("b") "]}");
    x->d.chat_template = "{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] + '|' }}{% endfor %}"
                         "{% if add_generation_prompt %}[assistant]{% endif %}";
    pairs *p = open_all(x);
    const pair_side *s = &pairs_get(p, 0)->side[0];
    for (int64_t i = 0; i < s->n - s->n_prompt; i++) assert_true(s->counts[i] == 0 || s->counts[i] == 1);
    assert_true(s->counts[0] == 1 && s->counts[s->n - s->n_prompt - 1] == 1);
    pairs_close(p);
    setup_close(x);
}

static void rows_of_peers(void **unused) {
    (void)unused;
    str s = shared_file("data/formats/preference.jsonl");
    int64_t n = 0;
    for (size_t i = 0; i < s.n; i++) n += s.p[i] == '\n';
    setup *x = setup_open(s.p);
    pairs *p = open_all(x);
    assert_true(n > 0);
    assert_int_equal(pairs_count(p), n);
    for (int64_t i = 0; i < n; i++) {
        const pair *q = pairs_get(p, i);
        assert_int_equal(q->side[0].n_prompt, q->side[1].n_prompt);
        assert_memory_equal(q->side[0].ids, q->side[1].ids, (size_t)q->side[0].n_prompt * sizeof(int32_t));
        for (int k = 0; k < 2; k++) assert_int_equal(q->side[k].ids[q->side[k].n - 1], tokenizer_eos(x->t));
    }
    pairs_close(p);
    setup_close(x);
    str_free(&s);
}

static void endless_and_shuffled(void **unused) {
    (void)unused;
#define ROW(x) "{\"prompt\": \"p\", \"chosen\": \"" x "\", \"rejected\": \"r\"}\n"
    setup *x = setup_open(ROW("0") ROW("1") "\n" ROW("2") ROW("3"));
    pairs *p = open_all(x);
    assert_int_equal(pairs_count(p), 4);
    const pair *first[4];
    for (int64_t i = 0; i < 4; i++) first[i] = pairs_get(p, i);
    for (int64_t i = 4; i < 12; i++) assert_ptr_equal(pairs_get(p, i), first[i % 4]);
    pairs_close(p);
    x->d.shuffle = true;
    p = open_all(x);
    int moved = 0;
    for (int pass = 0; pass < 8; pass++)
        for (int i = 0; i < 4; i++) {
            moved += pairs_get(p, 4 * pass + i) != pairs_get(p, i);
            for (int k = 0; k < i; k++) assert_ptr_not_equal(pairs_get(p, 4 * pass + i), pairs_get(p, 4 * pass + k));
        }
    assert_true(moved > 0); /* another order in another pass */
    pairs_close(p);
    setup_close(x);
}

static void too_long(void **unused) {
    (void)unused;
    setup *x = setup_open(ROW("0") ROW("0 1 2 3 4 5 6 7 8 9"));
    x->d.seq_len = 6;
    pairs *p = open_all(x);
    error e = {0};
    assert_int_equal(pairs_count(p), 1);
    assert_string_equal(x->told.last, "1 of 2 pairs are left out: they are longer than data.seq_len = 6 tokens");
    pairs_close(p);
    x->d.seq_len = 1;
    assert_int_equal(pairs_open(&p, &x->d, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "no pairs that data.seq_len has room for"));
    setup_close(x);
}

static void wrong_rows(void **unused) {
    static const struct {
        const char *row, *says;
    } cases[] = {
        {"", "no pairs"},
        {" \n\r\n", "no pairs"},
        {"{\"prompt\": \"p\", \"chosen\": \"c\"}", ":1: \"rejected\" is missing"},
        {ROW("0") "{\"prompt\": \"p\", \"rejected\": \"c\"}", ":2: \"chosen\" is missing"},
        {"{\"chosen\": \"p\", \"rejected\": \"c\"}", ":1: \"prompt\" is missing"},
        {"[1, 2]", ":1: should be a JSON object"},
        {"{\"prompt\": \"p\", \"chosen\": \"c\", \"rejected\": \"torn", "not valid JSON"},
        {"{\"prompt\": \"\", \"chosen\": \"c\", \"rejected\": \"r\"}", "an empty prompt or answer"},
        {"{\"prompt\": 5, \"chosen\": \"c\", \"rejected\": \"r\"}", ":1"},
        {"{\"prompt\": \"p\", \"chosen\": null, \"rejected\": \"r\"}", ":1"},
        {"{\"prompt\": \"p\", \"chosen\": {}, \"rejected\": \"r\"}", ":1"},
        {"{\"prompt\": [1], \"chosen\": \"c\", \"rejected\": \"r\"}", ":1"},
        {"{\"prompt\": [], \"chosen\": [], \"rejected\": []}", ":1"},
        {"{\"prompt\": [[]], \"chosen\": [{}], \"rejected\": [null]}", ":1"},
    };
    (void)unused;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        setup *x = setup_open(cases[i].row);
        pairs *p;
        error e = {0};
        const status s = pairs_open(&p, &x->d, &e);
        if (s == OK) pairs_close(p);
        if ((s != ERR_FORMAT && s != ERR_ARG) || !strstr(e.text, cases[i].says) || !strstr(e.text, x->path[0]) ||
            strchr(e.text, '\n'))
            fail_msg("%s: status %d, \"%s\", wanted \"%s\" and the file", cases[i].row, (int)s, e.text, cases[i].says);
        setup_close(x);
    }
}

static void damaged_lines_may_be_skipped(void **unused) {
    (void)unused;
    setup *x = setup_open(ROW("0") "{torn\n{\"prompt\": \"p\"}\n" ROW("1"));
    x->d.skip_damaged = true;
    pairs *p = open_all(x);
    assert_int_equal(pairs_count(p), 2);
    assert_int_equal(x->told.n, 2);
    assert_non_null(strstr(x->told.last, ".jsonl:3: \"chosen\" is missing"));
    pairs_close(p);
    setup_close(x);
}

static void refused(void **unused) {
    (void)unused;
    setup *x = setup_open(ROW("0"));
    pairs *p;
    error e = {0};
    x->told.cancel = true;
    assert_int_equal(pairs_open(&p, &x->d, &e), ERR_CANCELLED);
    x->d.tokenizer = NULL;
    assert_int_equal(pairs_open(&p, &x->d, &e), ERR_ARG);
    assert_non_null(strstr(e.text, "data.tokenizer"));
    x->d.tokenizer = x->t;
    x->path[0] = "/nowhere/x.jsonl";
    assert_int_equal(pairs_open(&p, &x->d, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "/nowhere/x.jsonl"));
    pairs_close(NULL);
    setup_close(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layouts),       cmocka_unit_test(what_follows_the_answer),
        cmocka_unit_test(rows_of_peers), cmocka_unit_test(endless_and_shuffled),
        cmocka_unit_test(too_long),      cmocka_unit_test(wrong_rows),
        cmocka_unit_test(refused),       cmocka_unit_test(damaged_lines_may_be_skipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
