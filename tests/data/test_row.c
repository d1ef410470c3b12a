/* Layouts of text rows and what of them the loss counts, token by token; parallel tokenizing; damaged lines. */
#include "data/row.h"
#include "base/json.h"
#include "scratch.h"

enum { LONG = 100000 };

typedef struct notes {
    str text;
    int n;
} notes;

static void on_note(void *arg, const char *line) {
    notes *n = arg;
    n->n++;
    str_addf(&n->text, "%s\n", line);
}

static data_options options_for(const char *const *paths, int n, const tokenizer *t) {
    return (data_options){.paths = paths,
                          .n_paths = n,
                          .format = "auto",
                          .seq_len = LONG,
                          .packing = PACK_NONE,
                          .document_mask = true,
                          .loss = LOSS_ASSISTANT,
                          .eos = tokenizer_eos(t),
                          .vocab_size = tokenizer_vocab_size(t),
                          .tokenizer = t,
                          .model_type = "deepseek_v3",
                          .threads = 2};
}

/* The text of row i with what the loss counts in «marks». */
static char *show(dataset *d, const tokenizer *t, int64_t i) {
    token_batch b;
    error e = {0};
    str s = {0};
    bool open = false;
    if (dataset_rows(d, i, 1, &b, &e) != OK) fail_msg("%s", e.text);
    assert_int_equal(b.n_docs, 1);
    for (int64_t k = 0; k < b.n; k++) {
        size_t n;
        bool counts = k > 0 && b.target[k - 1] >= 0;
        const char *p = tokenizer_bytes(t, b.ids[k], &n);
        if (counts != open) str_puts(&s, counts ? "«" : "»");
        open = counts;
        str_add(&s, p, n);
    }
    if (open) str_puts(&s, "»");
    assert_int_equal(b.next[b.n - 1], -1);
    return str_take(&s);
}

/* The rows of one file's text, shown one behind the other. */
static void check_with(data_options *o, const char *rows, const char *expected) {
    scratch s = scratch_open();
    const char *path = scratch_text(&s, "rows.jsonl", rows);
    dataset *d;
    error e = {0};
    str got = {0};
    o->paths = &path, o->n_paths = 1;
    if (dataset_open(&d, o, &e) != OK) fail_msg("%s", e.text);
    for (int64_t i = 0; i < dataset_epoch_rows(d); i++) {
        char *one = show(d, o->tokenizer, i);
        str_addf(&got, "%s%s", i ? "\n" : "", one);
        free(one);
    }
    assert_string_equal(got.p, expected);
    str_free(&got);
    dataset_close(d);
    scratch_close(&s);
}

static void check(loss_on loss, const char *rows, const char *expected) {
    tokenizer *t = small_tokenizer();
    data_options o = options_for(NULL, 0, t);
    o.loss = loss;
    check_with(&o, rows, expected);
    tokenizer_close(t);
}

static void check_error(data_options *o, const char *rows, status code, const char *says) {
    scratch s = scratch_open();
    const char *path = scratch_text(&s, "rows.jsonl", rows);
    dataset *d;
    error e = {0};
    o->paths = &path, o->n_paths = 1;
    status st = dataset_open(&d, o, &e);
    if (st == OK) dataset_close(d);
    if (st != code || !strstr(e.text, says) || !strstr(e.text, path))
        fail_msg("status %d, \"%s\", wanted \"%s\" and the file", st, e.text, says);
    scratch_close(&s);
}

/* ---- texts ---- */

static void test_texts(void **state) {
    (void)state;
    check(LOSS_ASSISTANT, "{\"text\": \"The deep sea\"}\n\n{\"text\": \"\", \"id\": 7}\r\n{\"text\": \"Hi\\nyou\"}",
          "The« deep sea" EOS "»\n" EOS "\nH«i\nyou" EOS "»");
    /* special tokens that a text writes are its text: many tokens, not one */
    tokenizer *t = small_tokenizer();
    scratch s = scratch_open();
    const char *path = scratch_text(&s, "a.jsonl", "{\"text\": \"" EOS "\"}");
    data_options o = options_for(&path, 1, t);
    dataset *d;
    error e = {0};
    assert_int_equal(dataset_open(&d, &o, &e), OK);
    assert_true(dataset_tokens(d) > 5);
    dataset_close(d);
    o.text_field = "story";
    scratch_close(&s);
    check_with(&o, "{\"story\": \"sea\"}", "s«ea" EOS "»");
    o.eos = -1;
    check_with(&o, "{\"story\": \"sea\"}\n{\"story\": \"\"}", "s«ea»"); /* nothing is left of an empty one */
    tokenizer_close(t);
}

static void test_pairs(void **state) {
    (void)state;
    const char *rows = "{\"prompt\": \"2+2=\", \"completion\": \"4\"}\n"
                       "{\"input\": \"" USER "hi" ASSISTANT "\", \"output\": \"yes\"}";
    check(LOSS_ASSISTANT, rows, "2+2=«4" EOS "»\n" USER "hi" ASSISTANT "«yes" EOS "»");
    check(LOSS_LAST, rows, "2+2=«4" EOS "»\n" USER "hi" ASSISTANT "«yes" EOS "»");
    check(LOSS_ALL, rows, "2«+2=4" EOS "»\n" USER "«hi" ASSISTANT "yes" EOS "»");
}

/* ---- conversations ---- */

#define M(role, text) "{\"role\": \"" role "\", \"content\": \"" text "\"}"
#define TALK \
    M("system", "Be brief.") "," M("user", "q1") "," M("assistant", "a1") "," M("user", "q2") "," M("assistant", "a2")

static void test_messages(void **state) {
    (void)state;
    const char *row = "{\"messages\": [" TALK "]}";
    check(LOSS_ASSISTANT, row,
          BOS "Be brief." USER "q1" ASSISTANT "</think>«a1" EOS "»" USER "q2" ASSISTANT "</think>«a2" EOS "»");
    check(LOSS_LAST, row,
          BOS "Be brief." USER "q1" ASSISTANT "</think>a1" EOS USER "q2" ASSISTANT "</think>«a2" EOS "»");
    check(LOSS_ALL, row,
          BOS "«Be brief." USER "q1" ASSISTANT "</think>a1" EOS USER "q2" ASSISTANT "</think>a2" EOS "»");
    /* an answer that looks like the conversation, one that is like the question, an empty one */
    check(LOSS_ASSISTANT,
          "{\"messages\": [" M("user", "a") "," M("assistant", "a") "," M("user", "") "," M("assistant", "") "]}",
          BOS USER "a" ASSISTANT "</think>«a" EOS "»" USER ASSISTANT "</think>«" EOS "»");
    /* what follows the last answer does not count */
    check(LOSS_LAST, "{\"messages\": [" TALK "," M("user", "q3") "]}",
          BOS "Be brief." USER "q1" ASSISTANT "</think>a1" EOS USER "q2" ASSISTANT "</think>«a2" EOS "»" USER "q3");
}

static void test_lists(void **state) {
    (void)state;
    const char *row = "{\"prompt\": [" M("user", "q1") "," M("assistant", "a1") "," M(
        "user", "q2") "], "
                      "\"completion\": [" M("assistant", "a2") "]}";
    check(LOSS_ASSISTANT, row, BOS USER "q1" ASSISTANT "</think>a1" EOS USER "q2" ASSISTANT "</think>«a2" EOS "»");
}

/* Thinking: the small template writes </think> before every answer, which would close what the answer opens. */
static void test_thinking(void **state) {
    (void)state;
    tokenizer *t = small_tokenizer();
    notes said = {0};
    data_options o = options_for(NULL, 0, t);
    o.note = on_note, o.arg = &said;
    check_with(&o, "{\"messages\": [" M("user", "q") "," M("assistant", "<think>\\nhm</think>a") "]}",
               BOS USER "q" ASSISTANT "<think>«\nhm</think>a" EOS "»");
    assert_int_equal(said.n, 1);
    assert_non_null(strstr(said.text.p, "the last answer of 1 conversations keeps it"));
    str_free(&said.text);
    tokenizer_close(t);
}

/* ---- templates ---- */

static void check_template(const char *source, loss_on loss, const char *row, const char *expected) {
    tokenizer *t = small_tokenizer();
    data_options o = options_for(NULL, 0, t);
    o.chat_template = source, o.loss = loss;
    check_with(&o, row, expected);
    tokenizer_close(t);
}

#define CHATML                                                                                                \
    "{% for m in messages %}{{ '" USER "' + m.role + '\n' + m.content|trim + eos_token + '\n' }}{% endfor %}" \
    "{% if add_generation_prompt %}{{ '" USER "assistant\n' }}{% endif %}"

static void test_templates(void **state) {
    (void)state;
    const char *row =
        "{\"messages\": [" M("user", "q1") "," M("assistant", " a1 ") "," M("user", "q2") "," M("assistant", "a2") "]}";
    check_template(CHATML, LOSS_ASSISTANT, row, /* a newline behind the end of a turn is not the model's */
                   USER "user\nq1" EOS "\n" USER "assistant\n«a1" EOS "»\n" USER "user\nq2" EOS "\n" USER
                        "assistant\n«a2" EOS "»\n");
    /* a row may say more to the template; of its members only those that are known to */
    check_template("{{ mood }}{{ id }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
                   "{% if add_generation_prompt %}[assistant]{{ thinking }}{% endif %}",
                   LOSS_ASSISTANT,
                   "{\"id\": 5, \"prefix\": \"x\", \"chat_template_kwargs\": {\"mood\": \"glad \"}, \"messages\": [" M(
                       "user", "q") "," M("assistant", "a") "]}",
                   "glad [user]q[assistant]«a»");
    /* no prompt for an answer: only the contents and what ends them are the model's */
    check_template("{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}", LOSS_ASSISTANT,
                   row, "[user]q1" EOS "[assistant]« a1 " EOS "»[user]q2" EOS "[assistant]«a2" EOS "»");
    /* the last turn looks different: found by its content */
    check_template("{% for m in messages %}[{{ m.role }}]{% if loop.last and m.role == 'assistant' %}!{% endif %}{{ "
                   "m.content }}{{ eos_token }}"
                   "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}",
                   LOSS_ASSISTANT, row,
                   "[user]q1" EOS "[assistant]« a1 " EOS "»[user]q2" EOS "[assistant]«!a2" EOS "»");
    tokenizer *t = small_tokenizer();
    data_options o = options_for(NULL, 0, t);
    o.chat_template = "{{ messages|length }} messages"; /* prints none of them */
    check_error(&o, row, ERR_FORMAT, "does not show which part of its text is message 1");
    o.loss = LOSS_ALL;
    check_with(&o, row, "4« messages»");
    o.chat_template = "{% if %}";
    check_error(&o, row, ERR_UNSUPPORTED, "the chat template cannot be used");
    tokenizer_close(t);
}

static const char *const tool_talk =
    "{\"messages\": [" M("user", "sum?") ",{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"type\": "
                                         "\"function\", \"function\": {\"name\": \"add\", \"arguments\": \"{}\"}}]}," M(
                                             "tool", "5") "," M("assistant", "It is 5.") "]}";

/* The published template of one family, and the tokenizer of the tests. */
static void check_published(const char *family, loss_on loss, const char *row, const char *expected) {
    str text = shared_file("golden/chat/templates.json");
    json_t *all;
    error e = {0};
    assert_int_equal(json_parse(&all, text.p, text.n, "templates", &e), OK);
    const char *source = json_string_value(json_object_get(json_object_get(all, family), "template"));
    assert_non_null(source);
    check_template(source, loss, row, expected);
    json_decref(all);
    str_free(&text);
}

static void test_published(void **state) {
    (void)state;
    const char *row = "{\"messages\": [" TALK "]}";
    const char *thinking =
        "{\"messages\": [" M("user", "q1") "," M("assistant", "<think>\\nt1\\n</think>\\n\\na1") "," M(
            "user", "q2") "," M("assistant", "<think>\\nt2\\n</think>\\n\\na2") "]}";
    const char *plain = BOS "Be brief." USER "q1" ASSISTANT "«a1" EOS "»" USER "q2" ASSISTANT "«a2" EOS "»";
    const char *closed =
        BOS "Be brief." USER "q1" ASSISTANT "</think>«a1" EOS "»" USER "q2" ASSISTANT "</think>«a2" EOS "»";
    check_published("v3", LOSS_ASSISTANT, row, plain);
    /* two of them write their own indentation into the prompt, as published */
    check_published("v3-tools", LOSS_ASSISTANT, row,
                    "\n\n" BOS "\nBe brief." USER "q1" ASSISTANT "            «a1" EOS "»" USER "q2" ASSISTANT
                    "            «a2" EOS "»\n");
    check_published("r1", LOSS_ASSISTANT, row, plain);
    check_published("r1-tools", LOSS_ASSISTANT, row, plain);
    check_published("v3.1", LOSS_ASSISTANT, row, closed);
    check_published("v3.1-tools", LOSS_ASSISTANT, row,
                    "\n\n" BOS "Be brief." USER "q1      " ASSISTANT "        </think>      «a1" EOS "»" USER
                    "q2      " ASSISTANT "        </think>      «a2" EOS "»");
    check_published("community-v3.2", LOSS_ASSISTANT, row, closed);
    check_published("v2", LOSS_ASSISTANT, row,
                    BOS "Be brief.\n\nUser: q1\n\nAssistant:« a1" EOS "»User: q2\n\nAssistant:« a2" EOS "»");
    /* thinking: gone from the earlier turn, as in prompts; learnt in the last one, behind the prompt that asks for it
     */
    check_published("r1", LOSS_ASSISTANT, thinking,
                    BOS USER "q1" ASSISTANT "«\n\na1" EOS "»" USER "q2" ASSISTANT "<think>\n«t2\n</think>\n\na2" EOS
                             "»");
    check_published("r1", LOSS_LAST, thinking,
                    BOS USER "q1" ASSISTANT "\n\na1" EOS USER "q2" ASSISTANT "<think>\n«t2\n</think>\n\na2" EOS "»");
    check_published("v3", LOSS_LAST, thinking,
                    BOS USER "q1" ASSISTANT "\n\na1" EOS USER "q2" ASSISTANT "«<think>\nt2\n</think>\n\na2" EOS "»");
    check_published("v3.1", LOSS_LAST, thinking,
                    BOS USER "q1" ASSISTANT "</think>\n\na1" EOS USER "q2" ASSISTANT "<think>«\nt2\n</think>\n\na2" EOS
                             "»");
    /* the same when it stands in a member of its own */
    const char *reasoning = "{\"messages\": [" M("user", "q") ",{\"role\": \"assistant\", \"content\": \"a\", "
                                                              "\"reasoning_content\": \"why\"}]}";
    check_published("r1", LOSS_LAST, reasoning, BOS USER "q" ASSISTANT "<think>\n«why\n</think>\n\na" EOS "»");
    check_published("v3", LOSS_LAST, reasoning, BOS USER "q" ASSISTANT "«<think>\nwhy\n</think>\n\na" EOS "»");
    check_published("v3.1", LOSS_LAST, reasoning, BOS USER "q" ASSISTANT "<think>«why</think>a" EOS "»");
    check_published("community-v3.2", LOSS_LAST, reasoning, BOS USER "q" ASSISTANT "<think>«why</think>a" EOS "»");
    /* calls of tools are the model's, their results are not */
    check_published("v3", LOSS_ASSISTANT, tool_talk,
                    BOS USER "sum?" ASSISTANT "«<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n"
                             "```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>" EOS
                             "»<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>5<｜tool▁output▁end｜>"
                             "<｜tool▁outputs▁end｜>«It is 5." EOS "»");
    check_published("v3.1", LOSS_ASSISTANT, tool_talk,
                    BOS USER "sum?" ASSISTANT "</think>«<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{}"
                             "<｜tool▁call▁end｜><｜tool▁calls▁end｜>" EOS
                             "»<｜tool▁output▁begin｜>5<｜tool▁output▁end｜>«It "
                             "is 5." EOS "»");
    check_published("r1", LOSS_ASSISTANT, tool_talk, /* writes no end behind a single call */
                    BOS USER "sum?" ASSISTANT "«<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n"
                             "```json\n{}\n```<｜tool▁call▁end｜>»<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>5"
                             "<｜tool▁output▁end｜><｜tool▁outputs▁end｜>«It is 5." EOS "»");
}

/* Without a template, V3.2's own encoding. */
static void test_v32(void **state) {
    (void)state;
    tokenizer *t;
    error e = {0};
    str json = {0};
    assert_int_equal(file_read(&json, TOKENIZER "/tokenizer.json", 1 << 24, &e), OK);
    static const char config[] = "{\"bos_token\": \"" BOS "\", \"eos_token\": \"" EOS "\"}";
    assert_int_equal(tokenizer_parse(&t, json.p, json.n, config, sizeof config - 1, &e), OK);
    str_free(&json);
    data_options o = options_for(NULL, 0, t);
    const char *row = "{\"messages\": [" TALK "]}";
    check_error(&o, row, ERR_UNSUPPORTED, "the tokenizer has no chat template: set data.chat_template");
    o.model_type = "deepseek_v32";
    check_with(&o, row,
               BOS "Be brief." USER "q1" ASSISTANT "</think>«a1" EOS "»" USER "q2" ASSISTANT "</think>«a2" EOS "»");
    check_with(&o,
               "{\"messages\": [" M("user", "q") "," M("assistant", "a") "," M("user", "q2") "," M(
                   "assistant", "<think>hm</think>a2") "]}",
               BOS USER "q" ASSISTANT "</think>«a" EOS "»" USER "q2" ASSISTANT "<think>«hm</think>a2" EOS "»");
    tokenizer_close(t);
}

/* ---- layouts of ../shared/data/formats ---- */

static void test_formats(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int rows;
        bool chat;
    } files[] = {{"messages", 100, true},
                 {"prompt_completion_chat", 50, true},
                 {"prompt_completion", 50, false},
                 {"input_output", 50, false}};
    tokenizer *t = small_tokenizer();
    for (size_t k = 0; k < 4; k++) {
        str name = {0};
        str_addf(&name, "data/formats/%s.jsonl", files[k].name);
        str text = shared_file(name.p);
        scratch s = scratch_open();
        const char *path = scratch_file(&s, "a.jsonl", text.p, text.n);
        data_options o = options_for(&path, 1, t);
        dataset *d;
        error e = {0};
        if (dataset_open(&d, &o, &e) != OK) fail_msg("%s", e.text);
        assert_int_equal(dataset_epoch_rows(d), files[k].rows);
        for (int64_t i = 0; i < files[k].rows; i++) { /* the answer, with its thinking, and the end count */
            char *got = show(d, t, i), *from = strstr(got, "«");
            const char *begin = files[k].chat ? ASSISTANT "<think>«\n" : "«<think>\n";
            assert_non_null(from);
            assert_non_null(strstr(got, begin));
            assert_null(strstr(from + 2, "«"));
            assert_string_equal(got + strlen(got) - strlen("\n</answer>" EOS "»"), "\n</answer>" EOS "»");
            free(got);
        }
        dataset_close(d);
        scratch_close(&s);
        str_free(&text);
        str_free(&name);
    }
    static const char *const others[][2] = {{"data/formats/preference.jsonl", "a preference row"},
                                            {"data/formats/grpo_verl.jsonl", "a prompt and no answer"}};
    for (int k = 0; k < 2; k++) {
        str text = shared_file(others[k][0]);
        data_options o = options_for(NULL, 0, t);
        o.skip_damaged = true; /* that is not damage */
        check_error(&o, text.p, ERR_UNSUPPORTED, others[k][1]);
        str_free(&text);
    }
    tokenizer_close(t);
}

/* With the published tokenizer and templates the parts of a conversation, tokenized one by one, are the tokens of its
 * whole text. */
static void test_parts_are_the_whole(void **state) {
    (void)state;
    str text = shared_file("data/formats/messages.jsonl"), unpacked = {0};
    scratch s = scratch_open();
    const char *path = scratch_file(&s, "a.jsonl", text.p, text.n), *json = scratch_path(&s, "tokenizer.json");
    const char *shared = getenv("HADAL_SHARED");
    char command[600];
    snprintf(command, sizeof command, "gzip -dc '%s/golden/tokenizers/deepseek-v3/tokenizer.json.gz' > %s",
             shared ? shared : "../shared", json);
    assert_int_equal(system(command), 0);
    static const char config[] = "{\"bos_token\": \"" BOS "\", \"eos_token\": \"" EOS "\"}";
    tokenizer *t;
    json_t *all;
    error e = {0};
    assert_int_equal(file_read(&unpacked, json, 1 << 28, &e), OK);
    assert_int_equal(tokenizer_parse(&t, unpacked.p, unpacked.n, config, sizeof config - 1, &e), OK);
    str templates = shared_file("golden/chat/templates.json");
    assert_int_equal(json_parse(&all, templates.p, templates.n, "templates", &e), OK);
    static const char *const families[] = {"r1", "v3", "v3.1", "v2.5"};
    for (size_t k = 0; k < sizeof families / sizeof *families; k++) {
        data_options o = options_for(&path, 1, t);
        o.chat_template = json_string_value(json_object_get(json_object_get(all, families[k]), "template"));
        dataset *d;
        token_batch b;
        if (dataset_open(&d, &o, &e) != OK) fail_msg("%s", e.text);
        for (int64_t i = 0; i < dataset_epoch_rows(d); i++) {
            str whole = {0};
            int32_t *ids;
            size_t n;
            assert_int_equal(dataset_rows(d, i, 1, &b, &e), OK);
            tokenizer_decode(t, b.ids, (size_t)b.n, false, &whole);
            assert_non_null(strstr(whole.p, "</think>\n<answer>"));
            assert_int_equal(tokenizer_encode(t, whole.p, whole.n, TOK_PARSE_SPECIAL, &ids, &n, &e), OK);
            assert_int_equal(n, b.n);
            assert_memory_equal(ids, b.ids, n * sizeof *ids);
            free(ids);
            str_free(&whole);
        }
        dataset_close(d);
    }
    json_decref(all);
    tokenizer_close(t);
    str_free(&templates);
    str_free(&unpacked);
    str_free(&text);
    scratch_close(&s);
}

/* ---- damage ---- */

static void test_damage(void **state) {
    (void)state;
    static const struct {
        const char *line, *says;
    } bad[] = {{"{\"text\": \"x\"", "line 3: not valid JSON: '}' expected near end of file (column 12)"},
               {"[1, 2]", "should be a JSON object"},
               {"{\"text\": 5}", "\"text\" should be a string"},
               {"{\"text\": \"\xff\"}", "not valid JSON"},
               {"{\"txt\": \"a\"}", "it has \"txt\""},
               {"{}", "it has nothing"},
               {"{\"prompt\": \"a\", \"completion\": 3}", "should be two strings or two lists of messages"},
               {"{\"input\": [], \"output\": []}", "should be two strings"},
               {"{\"messages\": \"a\"}", "\"messages\" should be a list"},
               {"{\"messages\": [], \"tools\": 1}", "\"tools\" should be a list"},
               {"{\"messages\": []}", "has no messages"},
               {"{\"messages\": [\"a\"]}", "message 0 is no object with a \"role\""},
               {"{\"messages\": [" M("user", "a") "]}", "no message of the assistant"}};
    tokenizer *t = small_tokenizer();
    str all = {0}, rows = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        data_options o = options_for(NULL, 0, t);
        rows.n = 0;
        str_addf(&rows, "{\"text\": \"good\"}\n\n%s\n{\"text\": \"good\"}\n", bad[i].line);
        str_addf(&all, "%s\n{\"text\": \"n%zu\"}\n", bad[i].line, i);
        check_error(&o, rows.p, ERR_FORMAT, bad[i].says);
        check_error(&o, rows.p, ERR_FORMAT, "rows.jsonl, line 3: ");
    }
    notes said = {0};
    data_options o = options_for(NULL, 0, t);
    o.skip_damaged = true, o.note = on_note, o.arg = &said;
    check_with(&o, all.p,
               "n«0" EOS "»\nn«1" EOS "»\nn«2" EOS "»\nn«3" EOS "»\nn«4" EOS "»\nn«5" EOS "»\nn«6" EOS "»\nn«7" EOS
               "»\nn«8" EOS "»\nn«9" EOS "»\nn«10" EOS "»\nn«11" EOS "»\nn«12" EOS "»");
    assert_int_equal(said.n, 11); /* ten of them, and the sum */
    assert_non_null(strstr(said.text.p, "rows.jsonl, line 3: "));
    assert_non_null(strstr(said.text.p, "13 damaged lines were skipped"));
    check_error(&o, "x\ny\n", ERR_FORMAT, "no tokens");
    o.skip_damaged = false, o.format = "text";
    check_error(&o, "{\"messages\": []}", ERR_FORMAT, "no \"text\": it has \"messages\"");
    o.format = "auto", o.skip_damaged = true, o.vocab_size = 50, o.eos = 1;
    check_error(&o, "{\"text\": \"\\u00e9\"}", ERR_FORMAT, "the model's vocabulary has 50");
    str_free(&said.text);
    str_free(&all);
    str_free(&rows);
    tokenizer_close(t);
}

/* ---- threads and packed files ---- */

static int cancel(void *arg, uint64_t done, uint64_t total, const char *what) {
    assert_true(done <= total && total > 0);
    assert_string_equal(what, "tokenizing");
    return ++*(int *)arg == 2;
}

static void compare(const data_options *x, const data_options *y) {
    dataset *a = NULL, *b = NULL;
    token_batch p, q;
    error e = {0};
    if (dataset_open(&a, x, &e) != OK || dataset_open(&b, y, &e) != OK) fail_msg("%s", e.text);
    int64_t n = dataset_epoch_rows(a);
    assert_int_equal(dataset_epoch_rows(b), n);
    assert_int_equal(dataset_rows(a, 0, n, &p, &e), OK);
    assert_int_equal(dataset_rows(b, 0, n, &q, &e), OK);
    assert_int_equal(p.n, q.n);
    assert_int_equal(p.n_docs, q.n_docs);
    assert_memory_equal(p.ids, q.ids, (size_t)p.n * 4);
    assert_memory_equal(p.target, q.target, (size_t)p.n * 4);
    assert_memory_equal(p.doc, q.doc, (size_t)(p.n_docs + 1) * sizeof *p.doc);
    dataset_close(a);
    dataset_close(b);
}

static void test_threads_and_packed(void **state) {
    (void)state;
    tokenizer *t = small_tokenizer();
    scratch s = scratch_open();
    str text = {0};
    for (int i = 0; i < 5000; i++) /* several blocks of lines */
        if (i % 3) str_addf(&text, "{\"text\": \"line %d of the deep sea, %d\"}\n", i, i * i);
        else str_addf(&text, "{\"messages\": [" M("user", "%d?") "," M("assistant", "%d.") "]}\n", i, i + 1);
    const char *plain = scratch_file(&s, "a.jsonl", text.p, text.n);
    const char *packed[] = {scratch_packed(&s, "a.jsonl", "gzip", ".gz"),
                            scratch_packed(&s, "a.jsonl", "zstd", ".zst")};
    data_options one = options_for(&plain, 1, t), other = one;
    one.threads = 1, other.threads = 3;
    compare(&one, &other);
    for (int i = 0; i < 2; i++) {
        other.paths = &packed[i];
        compare(&one, &other);
    }
    /* two files are one behind the other; a plain text is one document; token files lie between */
    const char *head = scratch_file(&s, "head.jsonl", text.p, (size_t)(strstr(text.p, "line 2000") - text.p) - 10);
    const char *tail = scratch_text(&s, "tail.jsonl", strstr(text.p, "line 2000") - 10);
    const char *both[] = {head, tail};
    other.paths = both, other.n_paths = 2;
    compare(&one, &other);
    const uint32_t ids[] = {5, 6, 1, 7, 1};
    const char *mixed[] = {scratch_text(&s, "story.txt", "one\ntwo\n"), scratch_file(&s, "t.bin", ids, sizeof ids),
                           head};
    data_options o = options_for(mixed, 3, t);
    dataset *d;
    error e = {0};
    o.eos = 1;
    assert_int_equal(dataset_open(&d, &o, &e), OK);
    assert_int_equal(dataset_epoch_rows(d), 1 + 2 + 2000);
    char *got = show(d, t, 0);
    assert_string_equal(got, "on«e\ntwo\n" EOS "»");
    free(got);
    dataset_close(d);
    int calls = 0;
    one.progress = cancel, one.arg = &calls;
    assert_int_equal(dataset_open(&d, &one, &e), ERR_CANCELLED);
    str_free(&text);
    scratch_close(&s);
    tokenizer_close(t);
}

/* What the loss counts is the same in every packing: the stream of PACK_NONE, cut or put together otherwise. */
static void test_masks_in_packings(void **state) {
    (void)state;
    enum { T = 9 };
    tokenizer *t = small_tokenizer();
    scratch s = scratch_open();
    str text = {0};
    for (int i = 0; i < 40; i++)
        str_addf(&text,
                 "{\"messages\": [" M("user", "%d?") "," M("assistant",
                                                           "%d") "]}\n{\"prompt\": \"a\", \"completion\": \"%d\"}\n",
                 i, i * 77, i * i);
    const char *path = scratch_file(&s, "a.jsonl", text.p, text.n);
    data_options o = options_for(&path, 1, t);
    dataset *d;
    error e = {0};
    token_batch all, b;
    if (dataset_open(&d, &o, &e) != OK) fail_msg("%s", e.text);
    assert_int_equal(dataset_rows(d, 0, dataset_epoch_rows(d), &all, &e), OK);
    assert_int_equal(all.n_docs, 80);
    o.packing = PACK_CONCAT, o.seq_len = T;
    dataset *c;
    if (dataset_open(&c, &o, &e) != OK) fail_msg("%s", e.text);
    int64_t rows = dataset_epoch_rows(c);
    assert_int_equal(rows, (all.n - 1) / T);
    assert_int_equal(dataset_rows(c, 0, rows, &b, &e), OK);
    assert_memory_equal(b.ids, all.ids, (size_t)b.n * 4);
    assert_memory_equal(b.next, all.next, (size_t)b.n * 4);
    assert_memory_equal(b.target, all.target, (size_t)b.n * 4);
    dataset_close(c);
    o.packing = PACK_BEST_FIT, o.seq_len = 64;
    if (dataset_open(&c, &o, &e) != OK) fail_msg("%s", e.text);
    assert_int_equal(dataset_rows(c, 0, dataset_epoch_rows(c), &b, &e), OK);
    assert_true(b.n_rows < all.n_rows);
    assert_int_equal(b.n, all.n);
    assert_int_equal(b.n_targets, all.n_targets);
    bool taken[80] = {false};
    for (int64_t i = 0; i < b.n_docs; i++) { /* each is one of them, with its mask */
        int64_t n = b.doc[i + 1] - b.doc[i], k = 0;
        for (; k < 80; k++) {
            const int64_t at = all.doc[k];
            if (!taken[k] && all.doc[k + 1] - at == n && !memcmp(all.ids + at, b.ids + b.doc[i], (size_t)n * 4) &&
                !memcmp(all.target + at, b.target + b.doc[i], (size_t)n * 4))
                break;
        }
        assert_true(k < 80);
        taken[k] = true;
    }
    dataset_close(c);
    dataset_close(d);
    str_free(&text);
    scratch_close(&s);
    tokenizer_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_texts),
                                       cmocka_unit_test(test_pairs),
                                       cmocka_unit_test(test_messages),
                                       cmocka_unit_test(test_lists),
                                       cmocka_unit_test(test_thinking),
                                       cmocka_unit_test(test_templates),
                                       cmocka_unit_test(test_published),
                                       cmocka_unit_test(test_v32),
                                       cmocka_unit_test(test_formats),
                                       cmocka_unit_test(test_parts_are_the_whole),
                                       cmocka_unit_test(test_damage),
                                       cmocka_unit_test(test_threads_and_packed),
                                       cmocka_unit_test(test_masks_in_packings)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
