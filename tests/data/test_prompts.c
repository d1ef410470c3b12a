/* Rows of prompts: every layout that peers use, the right answer of each, what a chat template makes of them, what of a
 * rendered prompt belongs to the answer; too long ones, empty files, damaged and hostile lines. */
#include "data/prompts.h"
#include "data/order.h"
#include "scratch.h"

/* The roles in brackets; the answer is begun with an open <think>. */
#define THINKING                                                                    \
    "{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] }}{% endfor %}" \
    "{% if tools is defined and tools %}{{ tools | length }} tools{% endif %}"      \
    "{% if add_generation_prompt %}[assistant]<think>\n{% endif %}"

typedef struct setup { /* everything an opening needs */
    scratch s;
    tokenizer *t;
    heard told;
    data_options d;
    prompt_options o;
    const char *path[4];
} setup;

static setup *setup_open(void) {
    setup *x = calloc(1, sizeof *x);
    assert_non_null(x);
    x->s = scratch_open();
    x->t = small_tokenizer();
    x->d = (data_options){.paths = x->path,
                          .seq_len = 1 << 20,
                          .format = "auto",
                          .tokenizer = x->t,
                          .model_type = "deepseek_v3",
                          .chat_template = THINKING,
                          .note = heard_note,
                          .progress = heard_progress,
                          .arg = &x->told};
    x->o = (prompt_options){.data = &x->d, .most = 1 << 20};
    return x;
}

static void setup_close(setup *x) {
    tokenizer_close(x->t);
    scratch_close(&x->s);
    free(x);
}

static void add_file(setup *x, const char *rows) {
    char name[16];
    snprintf(name, sizeof name, "%d.jsonl", x->d.n_paths);
    x->path[x->d.n_paths++] = scratch_text(&x->s, name, rows);
}

static prompts *open_all(setup *x) {
    prompts *p;
    error e = {0};
    if (prompts_open(&p, &x->o, &e) != OK) fail_msg("%s", e.text);
    return p;
}

static void check_prompt(const setup *x, const prompt *p, const char *text, const char *begun, const char *answer) {
    str s = {0};
    assert_string_equal(p->text, text);
    assert_string_equal(p->begun, begun);
    assert_ptr_equal(p->begun, p->text + strlen(p->text) - strlen(begun));
    if (answer) assert_string_equal(p->answer, answer);
    else assert_null(p->answer);
    tokenizer_decode(x->t, p->ids, (size_t)p->n, false, &s);
    assert_string_equal(s.p, text); /* the tokens are those of the text */
    str_free(&s);
}

/* --- what is asked ------------------------------------------------------------------------------------------------ */

static void layouts(void **unused) {
    static const struct {
        const char *row, *text, *begun, *answer;
    } cases[] = {
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"a\"}]}",
         "[user]q[assistant]<think>\n", "<think>\n", NULL},
        {"{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": \"q1\"}, "
         "{\"role\": \"assistant\", \"content\": \"a1\"}, {\"role\": \"user\", \"content\": \"q2\"}], \"answer\": 7}",
         "[system]s[user]q1[assistant]a1[user]q2[assistant]<think>\n", "<think>\n", "7"},
        {"{\"prompt\": [{\"role\": \"user\", \"content\": \"q\"}], \"reward_model\": {\"ground_truth\": \"3/4\"}, "
         "\"answer\": \"other\"}",
         "[user]q[assistant]<think>\n", "<think>\n", "3/4"},
        {"{\"prompt\": \"as it is <think>\", \"ground_truth\": \"x\"}", "as it is <think>", "", "x"},
        {"{\"prompt\": \"" USER "q" ASSISTANT "\", \"expected_answer\": \"y\"}", USER "q" ASSISTANT, "", "y"},
        {"{\"question\": \"q\", \"answer\": \"steps 1 #### 2\\n#### 1,024\"}", "[user]q[assistant]<think>\n",
         "<think>\n", "1,024"},
        {"{\"problem\": \"q\", \"solution\": \"long\", \"answer\": \"\\\\frac{1}{2}\"}", "[user]q[assistant]<think>\n",
         "<think>\n", "\\frac{1}{2}"},
        {"{\"problem\": \"q\", \"solution\": \"long\"}", "[user]q[assistant]<think>\n", "<think>\n", "long"},
        {"{\"input\": \"q\", \"output\": \"o\", \"target\": -12}", "[user]q[assistant]<think>\n", "<think>\n", "-12"},
        {"{\"input\": \"q\", \"tools\": [{}, {}], \"target\": 0.1}", "[user]q2 tools[assistant]<think>\n", "<think>\n",
         "0.1"},
        /* an answer that is no text and no number is none */
        {"{\"question\": \"q\", \"answer\": [1, 2]}", "[user]q[assistant]<think>\n", "<think>\n", NULL},
        {"{\"question\": \"q\", \"answer\": null}", "[user]q[assistant]<think>\n", "<think>\n", NULL},
    };
    (void)unused;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        setup *x = setup_open();
        add_file(x, cases[i].row);
        prompts *p = open_all(x);
        assert_int_equal(prompts_count(p), 1);
        const prompt *q = prompts_get(p, 0);
        check_prompt(x, q, cases[i].text, cases[i].begun, cases[i].answer);
        assert_true(json_is_object(q->row));
        assert_true((q->messages == NULL) == (strncmp(cases[i].text, "[", 1) != 0));
        prompts_close(p);
        setup_close(x);
    }
}

/* `messages` is what was asked, without the answers at the end: what sampling puts its own answer behind. */
static void messages_are_kept(void **unused) {
    (void)unused;
    setup *x = setup_open();
    add_file(x,
             "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"a\"}, "
             "{\"role\": \"assistant\", \"content\": \"b\"}]}\n{\"question\": \"p\"}");
    x->o.system = "S";
    prompts *p = open_all(x);
    for (int i = 0; i < 2; i++) {
        const json_t *m = prompts_get(p, i)->messages;
        assert_int_equal(json_array_size(m), 2);
        assert_string_equal(json_string_value(json_object_get(json_array_get(m, 0), "content")), "S");
        assert_string_equal(json_string_value(json_object_get(json_array_get(m, 1), "content")), i ? "p" : "q");
    }
    prompts_close(p);
    setup_close(x);
}

static void forms(void **unused) {
    static const struct {
        prompt_form form;
        const char *row, *begin, *template, *text, *begun;
    } cases[] = {
        {PROMPT_CHAT, "{\"prompt\": \"q\"}", NULL, THINKING, "[user]q[assistant]<think>\n", "<think>\n"},
        {PROMPT_RAW, "{\"question\": \"q\"}", NULL, THINKING, "q", ""},
        {PROMPT_RAW, "{\"question\": \"q\"}", "<think>", THINKING, "q<think>", "<think>"},
        {PROMPT_AUTO, "{\"prompt\": \"q \"}", "So", THINKING, "q So", "So"},
        {PROMPT_AUTO, "{\"question\": \"q\"}", "So", THINKING, "[user]q[assistant]<think>\nSo", "So"},
        {PROMPT_AUTO, "{\"question\": \"q\"}", "", THINKING, "[user]q[assistant]<think>\n", "<think>\n"},
        {PROMPT_AUTO, "{\"question\": \"q\"}", NULL, "{{ messages[0]['content'] }}<think>", "q<think>", "<think>"},
        {PROMPT_AUTO, "{\"question\": \"q\"}", NULL, "{{ messages[0]['content'] }}:", "q:", ""},
        /* the checkpoint's own template */
        {PROMPT_AUTO, "{\"question\": \"q\"}", NULL, NULL, BOS USER "q" ASSISTANT "</think>", ""},
    };
    (void)unused;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        setup *x = setup_open();
        add_file(x, cases[i].row);
        x->o.form = cases[i].form;
        x->o.begin = cases[i].begin;
        x->d.chat_template = cases[i].template;
        prompts *p = open_all(x);
        check_prompt(x, prompts_get(p, 0), cases[i].text, cases[i].begun, NULL);
        prompts_close(p);
        setup_close(x);
    }
}

/* --- files of peers ----------------------------------------------------------------------------------------------- */

static void check_shared(const char *file, int64_t rows, const char *asked, const char *answer) {
    setup *x = setup_open();
    str s = shared_file(file);
    add_file(x, s.p);
    prompts *p = open_all(x);
    assert_int_equal(prompts_count(p), rows);
    assert_non_null(strstr(prompts_get(p, 0)->text, asked));
    if (answer) assert_string_equal(prompts_get(p, 0)->answer, answer);
    for (int64_t i = 0; i < rows; i++) {
        const prompt *q = prompts_get(p, i);
        assert_true(q->n > 0);
        assert_int_equal(q->answer != NULL, answer != NULL);
        assert_null(strstr(q->text, "####")); /* the answer is not in the question */
    }
    str_free(&s);
    prompts_close(p);
    setup_close(x);
}

static int64_t lines_of(const char *file) {
    str s = shared_file(file);
    int64_t n = 0;
    for (size_t i = 0; i < s.n; i++) n += s.p[i] == '\n';
    str_free(&s);
    return n;
}

static void rows_of_peers(void **unused) {
    (void)unused;
    static const struct {
        const char *file, *asked, *answer;
    } cases[] = {
        {"data/formats/grpo_verl.jsonl", "Tara is saving up to buy a new clarinet", "25"},
        {"data/formats/input_output.jsonl", "Farmer Brown fed 7 chickens", NULL},
        {"data/formats/messages.jsonl", "Tara is saving up to buy a new clarinet", NULL},
        {"data/formats/preference.jsonl", "Thomas is making hummus", NULL},
        {"data/formats/prompt_completion.jsonl", "Victoria was given a $50 bill", NULL},
        {"data/formats/prompt_completion_chat.jsonl", "Rhea buys 2 trays of eggs", NULL},
        {"data/gsm8k/test.jsonl", "Janet", "18"},
        {"data/math/math500.jsonl", "Find a way to write", "p - q"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_shared(cases[i].file, lines_of(cases[i].file), cases[i].asked, cases[i].answer);
}

/* --- order -------------------------------------------------------------------------------------------------------- */

static void endless_and_shuffled(void **unused) {
    (void)unused;
    setup *x = setup_open();
    add_file(x, "{\"prompt\": \"a0\"}\n{\"prompt\": \"a1\"}\n\n  \t\r\n{\"prompt\": \"a2\"}\n");
    add_file(x, "{\"prompt\": \"a3\"}\r\n{\"prompt\": \"a4\"}"); /* no end of line at the end */
    prompts *p = open_all(x);
    assert_int_equal(prompts_count(p), 5);
    for (int64_t i = 0; i < 12; i++) assert_int_equal(prompts_get(p, i)->text[1], '0' + i % 5);
    prompts_close(p);
    x->d.shuffle = true;
    x->d.seed = 3;
    p = open_all(x);
    int moved = 0;
    for (int pass = 0; pass < 4; pass++) {
        int seen = 0;
        for (int i = 0; i < 5; i++) {
            const int at = prompts_get(p, 5 * pass + i)->text[1] - '0';
            assert_int_equal(at, order_at(3, pass, 5, i)); /* a function of seed, pass and number: what resume needs */
            seen |= 1 << at;
            moved += at != i;
        }
        assert_int_equal(seen, 31);
    }
    assert_true(moved > 0);
    prompts_close(p);
    setup_close(x);
}

/* --- what is wrong ------------------------------------------------------------------------------------------------ */

static void too_long(void **unused) {
    (void)unused;
    setup *x = setup_open();
    prompts *p;
    error e = {0};
    add_file(x, "{\"prompt\": \"abc abc abc abc abc abc abc abc abc abc\"}\n{\"prompt\": \"a\"}\n");
    x->o.most = 1;
    p = open_all(x);
    assert_int_equal(prompts_count(p), 1);
    assert_string_equal(prompts_get(p, 0)->text, "a");
    assert_int_equal(x->told.n, 1);
    assert_string_equal(x->told.last, "1 of 2 prompts are left out: they are longer than 1 tokens");
    prompts_close(p);
    x->o.most = 0;
    assert_int_equal(prompts_open(&p, &x->o, &e), ERR_FORMAT);
    assert_null(p);
    assert_non_null(strstr(e.text, "all 2 prompts are longer than 0 tokens"));
    setup_close(x);
}

static void check_error(const char *rows, status code, const char *says, bool line) {
    setup *x = setup_open();
    prompts *p;
    error e = {0};
    add_file(x, rows);
    const status s = prompts_open(&p, &x->o, &e);
    if (s == OK) prompts_close(p);
    if (s != code || !strstr(e.text, says) || !strstr(e.text, x->path[0]) || strchr(e.text, '\n'))
        fail_msg("%s: status %d, \"%s\", wanted \"%s\" and the file", rows, (int)s, e.text, says);
    if (line && !strstr(e.text, ".jsonl:2")) fail_msg("\"%s\" does not name the line", e.text);
    setup_close(x);
}

static void wrong_rows(void **unused) {
    (void)unused;
    check_error("", ERR_FORMAT, "no prompts", false);
    check_error("\n \n\t\r\n", ERR_FORMAT, "no prompts", false);
    static const struct {
        const char *row, *says;
    } cases[] = {
        {"{\"prompt\": \"torn", "not valid JSON"},
        {"[1]", "should be a JSON object"},
        {"null", "not valid JSON"},
        {"\"text\"", "not valid JSON"},
        {"{}", "nothing is asked"},
        {"{\"text\": \"q\"}", "nothing is asked"},
        {"{\"prompt\": null}", "nothing is asked"},
        {"{\"prompt\": 5}", "nothing is asked"},
        {"{\"question\": {\"a\": 1}}", "nothing is asked"},
        {"{\"messages\": \"q\"}", "nothing is asked"},
        {"{\"messages\": []}", "no message to answer"},
        {"{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}", "no message to answer"},
        {"{\"prompt\": \"\"}", "an empty prompt"},
        {"{\"prompt\": \"a\\u0000b\"}", "holds a NUL"},
        {"{\"question\": \"a\\u0000b\"}", "holds a NUL"},
        {"{\"prompt\": \"\\ud800\"}", "not valid JSON"},
        {"{\"prompt\": \"\xff\"}", "not valid JSON"},
        {"{\"prompt\": \"a\"} {\"prompt\": \"b\"}", "not valid JSON"},
        {"{\"prompt\": \"a\", \"answer\": 1e999}", "not valid JSON"},
        {"{\"prompt\": \"a\", \"answer\": 99999999999999999999}", "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char rows[256];
        snprintf(rows, sizeof rows, "{\"prompt\": \"a\"}\n%s\n", cases[i].row);
        check_error(rows, ERR_FORMAT, cases[i].says, true);
    }
}

/* What a template cannot read is the row's error, never a crash: messages that are none, members of other types, a
 * thousand brackets. */
static void hostile_messages(void **unused) {
    (void)unused;
    static const char *const rows[] = {
        "{\"messages\": [1, null, \"x\", []]}",
        "{\"messages\": [{}]}",
        "{\"messages\": [{\"role\": 5, \"content\": {}}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image\"}]}]}",
        "{\"messages\": [{\"role\": \"user\"}]}",
        "{\"prompt\": [[[[]]]]}",
        "{\"prompt\": [{\"role\": \"user\", \"content\": null}]}",
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        setup *x = setup_open();
        prompts *p;
        error e = {0};
        add_file(x, rows[i]);
        const status s = prompts_open(&p, &x->o, &e);
        if (s == OK) prompts_close(p);
        else if (!*e.text || strchr(e.text, '\n') || !strstr(e.text, ".jsonl:1")) fail_msg("%s: %s", rows[i], e.text);
        setup_close(x);
    }
    str deep = {0};
    str_puts(&deep, "{\"prompt\": \"a\", \"more\": ");
    for (int i = 0; i < 5000; i++) str_putc(&deep, '[');
    for (int i = 0; i < 5000; i++) str_putc(&deep, ']');
    str_puts(&deep, "}");
    check_error(deep.p, ERR_FORMAT, "not valid JSON", false);
    str_free(&deep);
}

static void damaged_lines_may_be_skipped(void **unused) {
    (void)unused;
    setup *x = setup_open();
    add_file(x, "{\"prompt\": \"a\"}\n{torn\n[]\n{\"prompt\": \"b\"}\n");
    x->d.skip_damaged = true;
    prompts *p = open_all(x);
    assert_int_equal(prompts_count(p), 2);
    assert_string_equal(prompts_get(p, 1)->text, "b");
    assert_int_equal(x->told.n, 2);
    assert_non_null(strstr(x->told.last, ".jsonl:3"));
    prompts_close(p);
    setup_close(x);
}

static void refused(void **unused) {
    (void)unused;
    setup *x = setup_open();
    prompts *p;
    error e = {0};
    x->path[0] = "/nowhere/x.jsonl";
    x->d.n_paths = 1;
    assert_int_equal(prompts_open(&p, &x->o, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "/nowhere/x.jsonl"));
    x->d.n_paths = 0;
    assert_int_equal(prompts_open(&p, &x->o, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "data.train"));
    add_file(x, "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}]}");
    x->o.form = PROMPT_RAW;
    assert_int_equal(prompts_open(&p, &x->o, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "rollout.prompt is raw"));
    x->o.form = PROMPT_AUTO;
    x->told.cancel = true;
    assert_int_equal(prompts_open(&p, &x->o, &e), ERR_CANCELLED);
    x->d.tokenizer = NULL;
    assert_int_equal(prompts_open(&p, &x->o, &e), ERR_ARG);
    assert_non_null(strstr(e.text, "data.tokenizer"));
    prompts_close(NULL);
    setup_close(x);
}

/* A tokenizer without a template: texts stand as they are, conversations are refused with what to do. */
static void without_a_template(void **unused) {
    (void)unused;
    setup *x = setup_open();
    prompts *p;
    error e = {0};
    tokenizer *bare;
    str json = {0};
    assert_int_equal(file_read(&json, TOKENIZER "/tokenizer.json", 1 << 24, &e), OK);
    assert_int_equal(tokenizer_parse(&bare, json.p, json.n, "{}", 2, &e), OK);
    x->d.tokenizer = bare;
    x->d.chat_template = NULL;
    add_file(x, "{\"question\": \"q\"}");
    p = open_all(x);
    assert_string_equal(prompts_get(p, 0)->text, "q");
    prompts_close(p);
    x->o.form = PROMPT_CHAT;
    assert_int_equal(prompts_open(&p, &x->o, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.text, "data.chat_template"));
    str_free(&json);
    tokenizer_close(bare);
    setup_close(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layouts),
        cmocka_unit_test(messages_are_kept),
        cmocka_unit_test(forms),
        cmocka_unit_test(rows_of_peers),
        cmocka_unit_test(endless_and_shuffled),
        cmocka_unit_test(too_long),
        cmocka_unit_test(wrong_rows),
        cmocka_unit_test(hostile_messages),
        cmocka_unit_test(damaged_lines_may_be_skipped),
        cmocka_unit_test(refused),
        cmocka_unit_test(without_a_template),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
