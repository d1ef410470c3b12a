/* The evaluations on data with a small model: the prompts as lm-evaluation-harness makes them (written down by hand
 * from its definitions of gsm8k 3.0, minerva_math 3.0, mmlu 2, gpqa 2.2, humaneval 1.0), what is judged right,
 * log-likelihoods against a plain forward pass, going on where a run ended, and what is refused. */
#include "../format/scratch.h"
#include <math.h>
#include "eval/tasks.h"
#include "text/template.h"
#include "tiny.h"

#define QWEN2 "tests/data/models/qwen2/checkpoint"

typedef struct fixture {
    scratch s;
    model *m;
    engine *g;
    tokenizer *t;
    chat_template *template;
    chat_format format;
    char *out;
    eval_options o;
} fixture;

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    error e = {0};
    assert_non_null(f);
    f->s = scratch_open();
    if (model_open(&f->m, QWEN2, &e) != OK || engine_open(&f->g, f->m, 2, NULL, COMPUTE_F32, MLA_CHEAPER, &e) != OK ||
        tokenizer_open(&f->t, QWEN2, &e) != OK ||
        template_open(&f->template, tokenizer_chat_template(f->t), strlen(tokenizer_chat_template(f->t)), &e) != OK)
        fail_msg("%s", e.text);
    queue_rows(f->g->ws.q, ROWS_MANY); /* an answer is the same bits whatever else is in the batch */
    f->format = (chat_format){f->template, "qwen2", f->t};
    f->out = scratch_path(&f->s, "out.jsonl");
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    template_close(f->template);
    tokenizer_close(f->t);
    engine_close(f->g);
    model_close(f->m);
    scratch_close(&f->s);
    free(f->out);
    free(f);
    return 0;
}

/* Greedy answers of two tokens; the rest is for each test to say. */
static void start(fixture *f) {
    unlink(f->out);
    f->o = (eval_options){.limit = EVAL_ALL,
                          .greedy = true,
                          .samples = 1,
                          .shots = -1,
                          .max_tokens = 2,
                          .format = &f->format,
                          .output = f->out};
}

static char *file(const fixture *f, const char *name, const char *text) {
    scratch_write(&f->s, name, text, strlen(text));
    return scratch_path(&f->s, name);
}

static json_t *evaluate(const fixture *f, const char *task, const char *data) {
    eval_options o = f->o;
    json_t *report;
    error e = {0};
    o.data = data;
    if (eval_run(f->g, f->t, task, &o, &report, &e) != OK) fail_msg("%s: %s", task, e.text);
    return report;
}

static void refuses(const fixture *f, const char *task, const char *data, status code, const char *says) {
    eval_options o = f->o;
    json_t *report;
    error e = {0};
    o.data = data;
    assert_int_equal(eval_run(f->g, f->t, task, &o, &report, &e), code);
    if (!strstr(e.text, says) || strchr(e.text, '\n')) fail_msg("\"%s\" does not say \"%s\"", e.text, says);
    assert_null(report);
}

/* Line i of the file of answers, 0 being the first answer. */
static json_t *answer(const fixture *f, int i) {
    str s = {0};
    error e = {0};
    json_t *j;
    if (file_read(&s, f->out, 1 << 24, &e) != OK) fail_msg("%s", e.text);
    const char *p = s.p;
    for (int k = 0; k <= i && p; k++) p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL;
    assert_true(p && *p);
    if (json_parse(&j, p, strcspn(p, "\n"), "answer", &e) != OK) fail_msg("%s", e.text);
    str_free(&s);
    return j;
}

static const char *text_of(const json_t *j, const char *name) {
    const char *v = json_string_value(json_object_get(j, name));
    if (!v) fail_msg("%s is missing", name);
    return v;
}

static double number(const json_t *j, const char *a, const char *b) {
    const json_t *v = json_object_get(j, a);
    if (b) v = json_object_get(v, b);
    if (!json_is_number(v)) fail_msg("%s %s is missing", a, b ? b : "");
    return json_number_value(v);
}

static void prompts(fixture *f, int i, const char *prompt, const char *right) {
    json_t *j = answer(f, i);
    assert_string_equal(text_of(j, "prompt"), prompt);
    assert_string_equal(text_of(j, "answer"), right);
    json_decref(j);
}

/* --- gsm8k -------------------------------------------------------------------------------------------------------- */

static void gsm8k_rules(void **state) {
    (void)state;
    static const struct {
        const char *text, *strict, *flexible; /* NULL: nothing found */
    } cases[] = {
        {"#### 18", "18", "18"},
        {"so\n#### 18\n\nmore 20", "18", "20"},
        {"#### 18 and #### 19", "18", "19"}, /* strict: the first */
        {"#### -1,234.50", "-1234.50", "-1234.50"},
        {"#### 70,000.", "70000", "70000"},
        {"#### $5", NULL, "5"},
        {"####18", NULL, "18"},
        {"#### x #### 7", "7", "7"},
        {"##### 7", "7", "7"},
        {"The answer is 5.", NULL, "5"},
        {"It costs $1,200 or 3", NULL, "3"},
        {"$3.50!", NULL, "3.50"},
        {"9-4", NULL, "-4"},
        {"--4-", NULL, "-4"},
        {"x... nothing", NULL, ".."}, /* as the harness does: it is no number, and wrong */
        {"7. ", NULL, "7"},
        {"$ , .", NULL, NULL},
        {"", NULL, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int flexible = 0; flexible < 2; flexible++) {
            const char *want = flexible ? cases[i].flexible : cases[i].strict;
            str s = {0};
            const bool found = gsm8k_find(cases[i].text, flexible, &s);
            if (found != (want != NULL) || (found && strcmp(s.p, want) != 0))
                fail_msg("\"%s\" %s: %s", cases[i].text, flexible ? "flexible" : "strict", found ? s.p : "nothing");
            str_free(&s);
        }
}

#define TRAIN                                                             \
    "{\"question\":\"1+1?\",\"answer\":\"It is <<1+1=2>>2.\\n#### 2\"}\n" \
    "{\"question\":\"2+2?\",\"answer\":\"#### 1,004\"}\n"

static void gsm8k(void **state) {
    fixture *f = *state;
    start(f);
    char *test = file(f, "gsm8k/test.jsonl", "{\"question\":\"3+3?\",\"answer\":\"Well\\n#### 1,006\"}\n"),
         *train = file(f, "gsm8k/train-2.jsonl", TRAIN), *folder = scratch_path(&f->s, "gsm8k");
    f->o.shots = 2;
    json_t *r = evaluate(f, "gsm8k", folder);
    prompts(f, 0,
            "Question: 1+1?\nAnswer: It is <<1+1=2>>2.\n#### 2\n\nQuestion: 2+2?\nAnswer: #### 1,004\n\nQuestion: "
            "3+3?\nAnswer:",
            "1006");
    assert_true(number(r, "prompts", NULL) == 1 && number(r, "shots", NULL) == 2);
    const json_t *greedy = json_object_get(r, "greedy");
    assert_true(number(greedy, "strict_match", "accuracy") == 0 && number(greedy, "flexible_extract", "accuracy") == 0);
    assert_true(number(greedy, "max_tokens", NULL) == 2 && number(greedy, "mean_tokens", NULL) <= 2);
    json_decref(r);
    start(f); /* turns of a conversation */
    f->o.shots = 1;
    f->o.chat = true;
    json_decref(evaluate(f, "gsm8k", test));
    prompts(f, 0,
            "<｜begin▁of▁sentence｜><｜User｜>Question: 1+1?\nAnswer:<｜Assistant｜></think>It is <<1+1=2>>2.\n#### "
            "2<｜end▁of▁sentence｜><｜User｜>Question: 3+3?\nAnswer:<｜Assistant｜></think>",
            "1006");
    start(f); /* thinking, examples from elsewhere */
    json_t *thinking = json_pack("{s:b}", "thinking", 1);
    f->o.shots = 1;
    f->o.chat = true;
    f->o.chat_options = thinking;
    f->o.examples = train;
    json_decref(evaluate(f, "gsm8k", test));
    json_t *a = answer(f, 0);
    assert_non_null(strstr(text_of(a, "prompt"), "3+3?\nAnswer:<｜Assistant｜><think>"));
    json_decref(a);
    json_decref(thinking);
    start(f);
    f->o.shots = 1;
    f->o.examples = test;
    refuses(f, "gsm8k", test, ERR_ARG, "worked examples cannot be the questions themselves");
    f->o.examples = NULL;
    f->o.shots = 3;
    refuses(f, "gsm8k", folder, ERR_FORMAT, "train-2.jsonl: 2 rows, but 3 worked examples are wanted");
    free(train);
    free(folder);
    free(test);
    test = file(f, "alone/test.jsonl", "{\"question\":\"3+3?\",\"answer\":\"6\"}\n");
    start(f);
    refuses(f, "gsm8k", test, ERR_FORMAT, "worked examples (--examples FILE; none: --shots 0): ");
    f->o.shots = 0;
    refuses(f, "gsm8k", test, ERR_FORMAT, "test.jsonl, row 1: \"answer\" has no number behind \"#### \"");
    refuses(f, "gsm8k:x", test, ERR_ARG, "gsm8k has no kind \"x\"");
    free(test);
}

/* --- math --------------------------------------------------------------------------------------------------------- */

static void math(void **state) {
    fixture *f = *state;
    char *data = file(f, "math/math2.jsonl",
                      "{\"problem\":\"What is $1+1$?\",\"answer\":\"2\"}\n"
                      "{\"problem\":\"And $\\\\frac12+1$?\",\"solution\":\"It is $\\\\boxed{\\\\frac{3}{2}}$.\"}\n"),
         *folder = scratch_path(&f->s, "math");
    start(f);
    f->o.shots = 0;
    f->o.sequences = 1; /* in order */
    json_decref(evaluate(f, "math", folder));
    prompts(f, 0, "Problem:\nWhat is $1+1$?\n\nSolution:", "2");
    prompts(f, 1, "Problem:\nAnd $\\frac12+1$?\n\nSolution:", "\\frac{3}{2}");
    start(f); /* four examples */
    f->o.limit = 1;
    json_decref(evaluate(f, "math", data));
    json_t *a = answer(f, 0);
    const char *p = text_of(a, "prompt");
    static const char first[] = "Problem:\nFind the domain of the expression  $\\frac{\\sqrt{x-2}}{\\sqrt{5-x}}$.}\n\n"
                                "Solution: The expressions inside each square root must be non-negative.",
                      last[] =
                          "\\boxed{-\\frac{2}{3}}.$$\nFinal Answer: The final answer is $-\\frac{2}{3}$. I hope it is "
                          "correct.\n\nProblem:\nWhat is $1+1$?\n\nSolution:";
    assert_memory_equal(p, first, sizeof first - 1);
    assert_string_equal(p + strlen(p) - (sizeof last - 1), last);
    assert_non_null(
        strstr(p, "\\begin{align*}\n30n&=480\\\n\\Rightarrow\\qquad n&=480/30=\\boxed{16}\n\\end{align*}\n"));
    int examples = 0;
    for (const char *q = p; (q = strstr(q, "Problem:\n")); q++) examples++;
    assert_int_equal(examples, 5);
    json_decref(a);
    start(f);
    f->o.limit = 1;
    f->o.chat = true;
    json_decref(evaluate(f, "math", data));
    prompts(
        f, 0,
        "<｜begin▁of▁sentence｜><｜User｜>What is $1+1$?\nPlease reason step by step, and put your final answer within "
        "\\boxed{}.<｜Assistant｜></think>",
        "2");
    start(f);
    f->o.shots = 5;
    refuses(f, "math", data, ERR_ARG, "math has 4 worked examples, not 5");
    start(f);
    f->o.examples = data;
    refuses(f, "math", data, ERR_ARG, "reads no worked examples");
    free(data);
    data = file(f, "bad.jsonl", "{\"problem\":\"a\",\"answer\":\"1\"}\n{\"problem\":\"b\"}\n");
    start(f);
    refuses(f, "math", data, ERR_FORMAT, "bad.jsonl, row 2: neither \"answer\" nor \"solution\"");
    free(data);
    free(folder);
}

/* --- multiple choice ---------------------------------------------------------------------------------------------- */

static void mmlu_files(const fixture *f) {
    free(file(f, "mmlu/dev/high_school_physics_dev.csv",
              "One?,w,x,y,z,C\nTwo?,w,x,y,z,A\nThree?,w,x,y,z,B\nFour?,w,x,y,z,D\nFive?,w,x,y,z,A\n"));
    free(
        file(f, "mmlu/dev/law_dev.csv", "Q1?,w,x,y,z,C\nQ2?,1,2,3,4,A\nQ3?,1,2,3,4,A\nQ4?,1,2,3,4,A\nQ5?,1,2,3,4,A\n"));
    free(file(f, "mmlu/test/high_school_physics_test.csv",
              "\" What \"\"is\"\"\nthis? \",\"a, b\",\" c \",,d,B\r\nAnd that?,1,2,3,4,D\r\n"));
    free(file(f, "mmlu/test/law_test.csv",
              "May I?,yes,no,perhaps,never,A\nMust I?,yes,no,perhaps,never,B\n"
              "Should I?,yes,no,perhaps,never,C\n"));
}

static void mmlu(void **state) {
    fixture *f = *state;
    char *folder = scratch_path(&f->s, "mmlu");
    mmlu_files(f);
    start(f);
    json_t *r = evaluate(f, "mmlu", folder);
    prompts(f, 0,
            "The following are multiple choice questions (with answers) about high school physics.\n\n"
            "One?\nA. w\nB. x\nC. y\nD. z\nAnswer: C\n\n"
            "Two?\nA. w\nB. x\nC. y\nD. z\nAnswer: A\n\n"
            "Three?\nA. w\nB. x\nC. y\nD. z\nAnswer: B\n\n"
            "Four?\nA. w\nB. x\nC. y\nD. z\nAnswer: D\n\n"
            "Five?\nA. w\nB. x\nC. y\nD. z\nAnswer: A\n\n"
            "What \"is\"\nthis?\nA. a, b\nB.  c \nC. \nD. d\nAnswer:",
            "B");
    json_t *a = answer(f, 2);
    assert_string_equal(text_of(a, "subject"), "law");
    assert_int_equal(json_integer_value(json_object_get(a, "number")), 2);
    json_decref(a);
    const json_t *l = json_object_get(r, "likelihood");
    assert_true(number(r, "prompts", NULL) == 5 && number(l, "answers", NULL) == 5);
    const json_t *by = json_object_get(l, "by_subject"), *categories = json_object_get(l, "by_category");
    assert_true(number(json_object_get(by, "law"), "prompts", NULL) == 3);
    assert_true(number(json_object_get(categories, "stem"), "prompts", NULL) == 2);
    assert_true(number(json_object_get(categories, "unlisted"), "prompts", NULL) == 3);
    json_decref(r);
    start(f); /* one subject; the limit is of each */
    f->o.limit = 1;
    f->o.shots = 0;
    r = evaluate(f, "mmlu:law", folder);
    assert_true(number(r, "prompts", NULL) == 1);
    prompts(f, 0,
            "The following are multiple choice questions (with answers) about law.\n\nMay I?\nA. yes\nB. no\nC. "
            "perhaps\nD. never\nAnswer:",
            "A");
    json_decref(r);
    start(f);
    f->o.limit = 1;
    r = evaluate(f, "mmlu", folder);
    assert_true(number(r, "prompts", NULL) == 2);
    json_decref(r);
    start(f); /* a file by itself, in a conversation */
    f->o.chat = true;
    f->o.limit = 1;
    char *one = scratch_path(&f->s, "mmlu/test/law_test.csv");
    r = evaluate(f, "mmlu", one);
    prompts(f, 0,
            "<｜begin▁of▁sentence｜><｜User｜>Answer the following multiple choice question. The last line of your "
            "response "
            "should be of the following format: 'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. Think "
            "step by step before answering.\n\nMay I?\n\nA) yes\nB) no\nC) perhaps\nD) never<｜Assistant｜></think>",
            "A");
    assert_non_null(json_object_get(r, "greedy"));
    json_decref(r);
    start(f);
    refuses(f, "mmlu:chess", folder, ERR_FORMAT, "chess_test.csv is not there: no such subject");
    free(file(f, "mmlu/test/law_test.csv", "May I?,yes,no,perhaps,never,A\nMust I, now?,yes,no,perhaps,never,B\n"));
    refuses(f, "mmlu:law", folder, ERR_FORMAT, "law_test.csv, row 2: 7 fields, not question, A, B, C, D, letter");
    free(file(f, "mmlu/test/law_test.csv", "May I?,yes,no,perhaps,never,E\n"));
    refuses(f, "mmlu:law", folder, ERR_FORMAT, "law_test.csv, row 1: answer \"E\": should be a letter from A to D");
    free(file(f, "mmlu/test/law_test.csv", "May I?,yes,\"no,perhaps,never,E\n"));
    refuses(f, "mmlu:law", folder, ERR_FORMAT, "law_test.csv, line 1: a quote is opened and not closed");
    free(one);
    free(folder);
}

static double log_softmax(const float *x, int64_t n, int32_t id) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - (double)x[id]);
    return -log(sum);
}

/* log p(text behind the first n tokens): one forward pass of everything, by itself. */
static double plain_likelihood(const fixture *f, const char *prompt, const char *more) {
    str all = {0};
    int32_t *ids, *context;
    size_t n, m;
    error e = {0};
    double sum = 0;
    const int64_t vocab = f->m->cfg.vocab_size;
    str_addf(&all, "%s%s", prompt, more);
    assert_int_equal(tokenizer_encode(f->t, prompt, strlen(prompt), TOK_ADD_SPECIAL, &context, &n, &e), OK);
    assert_int_equal(tokenizer_encode(f->t, all.p, all.n, TOK_ADD_SPECIAL, &ids, &m, &e), OK);
    float *logits = tiny_logits(f->g, ids, (int64_t)m);
    assert_true(m > n);
    for (size_t i = n; i < m; i++) sum += log_softmax(logits + (int64_t)(i - 1) * vocab, vocab, ids[i]);
    free(logits);
    free(ids);
    free(context);
    str_free(&all);
    return sum;
}

/* The same sums in another order: a row of logits is a sum over a few hundred terms in each of a few layers, which
 * leaves 2^-24 * sqrt(terms) * layers of their size, below 1e-5 for logits of 10; two or three tokens add up. */
static const double LIKELIHOOD_ROUNDING = 1e-4;

static void check_likelihoods(const fixture *f, int answers, const char *before, const char *behind) {
    for (int i = 0; i < answers; i++) {
        json_t *a = answer(f, i), *v;
        const char *letter, *best = NULL;
        double most = -INFINITY;
        json_object_foreach(json_object_get(a, "logprobs"), letter, v) {
            char more[16];
            snprintf(more, sizeof more, "%s%s%s", before, letter, behind);
            const double plain = plain_likelihood(f, text_of(a, "prompt"), more), ours = json_number_value(v);
            if (!(fabs(plain - ours) <= LIKELIHOOD_ROUNDING)) fail_msg("%.9g is not %.9g", ours, plain);
            if (ours > most) {
                most = ours;
                best = letter;
            }
        }
        assert_string_equal(text_of(a, "extracted"), best);
        assert_int_equal(json_integer_value(json_object_get(a, "score")), !strcmp(best, text_of(a, "answer")));
        json_decref(a);
    }
}

static void likelihoods(void **state) {
    fixture *f = *state;
    char *folder = scratch_path(&f->s, "mmlu");
    mmlu_files(f);
    start(f);
    json_decref(evaluate(f, "mmlu", folder));
    check_likelihoods(f, 5, " ", "");
    free(folder);
    start(f);
    char *data = file(f, "gpqa.jsonl",
                      "{\"question\":\"Which?\",\"choices\":[\"a\",\"b\",\"c\"],\"answer\":2}\n"
                      "{\"question\":\"This or that?\",\"choices\":[\"this\",\"that\"],\"answer\":\"(A)\"}\n"
                      "{\"question\":\"Who?\",\"choices\":[\"me\",\"you\",\"they\",\"we\",\"nobody\"],\"answer\":"
                      "\"they\"}\n");
    json_decref(evaluate(f, "gpqa", data));
    check_likelihoods(f, 3, " (", ")");
    prompts(f, 0, "What is the correct answer to this question:Which?\nChoices:\n(A) a\n(B) b\n(C) c\nAnswer:", "C");
    prompts(f, 1,
            "What is the correct answer to this question:This or that?\nChoices:\n(A) this\n(B) that\nAnswer:", "A");
    json_t *a = answer(f, 2);
    assert_string_equal(text_of(a, "answer"), "C");
    assert_int_equal(json_object_size(json_object_get(a, "logprobs")), 5);
    json_decref(a);
    free(data);
}

/* GPQA's own columns: the choices come in an order of the seed, the right one among them. */
static void gpqa_columns(void **state) {
    fixture *f = *state;
    str csv = {0};
    str_puts(&csv, "Record ID,Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3\n");
    for (int i = 0; i < 24; i++) str_puts(&csv, "x,Why?,\" right  one \",w1,w2,w3\n");
    char *data = file(f, "gpqa.csv", csv.p), first[32] = "";
    int seen[4] = {0}, changed = 0;
    for (uint64_t seed = 0; seed < 2; seed++) {
        start(f);
        f->o.seed = seed;
        json_decref(evaluate(f, "gpqa", data));
        for (int i = 0; i < 24; i++) {
            json_t *a = answer(f, i);
            const char letter = *text_of(a, "answer");
            char line[32];
            snprintf(line, sizeof line, "\n(%c) right one\n", letter);
            assert_non_null(strstr(text_of(a, "prompt"), line));
            for (const char *w = "1w2w3"; *w; w++)
                if (*w != 'w') {
                    snprintf(line, sizeof line, ") w%c\n", *w);
                    assert_non_null(strstr(text_of(a, "prompt"), line));
                }
            seen[letter - 'A']++;
            if (seed) changed += first[i] != letter;
            else first[i] = letter;
            json_decref(a);
        }
    }
    for (int i = 0; i < 4; i++) assert_true(seen[i] > 0);
    assert_true(changed > 0);
    free(data);
    str_free(&csv);
    static const struct {
        const char *row, *why;
    } bad[] = {
        {"{\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":2}", "row 1: answer 2: choices are numbered 0 to 1"},
        {"{\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":\"C\"}",
         "answer \"C\": should be a letter from A to B"},
        {"{\"question\":\"q\",\"choices\":[\"a\",\"b\"]}", "\"answer\" is missing"},
        {"{\"question\":\"q\",\"choices\":[\"a\"],\"answer\":0}", "1 choices: 2 to 26 are possible"},
        {"{\"question\":\"q\",\"choices\":\"a\",\"answer\":0}", "\"choices\" is missing, or no list"},
        {"{\"question\":\"q\",\"choices\":[\"a\",1],\"answer\":0}", "choice 2 is no text"},
        {"{\"choices\":[\"a\",\"b\"],\"answer\":0}", "\"question\" is missing, or no text"},
        {"{\"Question\":\"q\",\"Correct Answer\":\"a\"}", "is missing, or no text"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        data = file(f, "bad.jsonl", bad[i].row);
        start(f);
        refuses(f, "gpqa", data, ERR_FORMAT, bad[i].why);
        free(data);
    }
}

/* --- humaneval ---------------------------------------------------------------------------------------------------- */

/* What the model writes goes into a comment, or into a string that nobody closes. */
static void humaneval(void **state) {
    fixture *f = *state;
    char *data =
        file(f, "HumanEval.jsonl",
             "{\"task_id\":\"a/0\",\"prompt\":\"def f(x):\\n    return x + 1  #\",\"entry_point\":\"f\",\"test\":"
             "\"def check(g):\\n    assert g(1) == 2\\n\"}\n"
             "{\"task_id\":\"a/1\",\"prompt\":\"def f(x):\\n    return x - 1  #\",\"entry_point\":\"f\",\"test\":"
             "\"def check(g):\\n    assert g(1) == 2\\n\"}\n"
             "{\"task_id\":\"a/2\",\"prompt\":\"def f(x):\\n    return '\",\"entry_point\":\"f\",\"test\":"
             "\"def check(g):\\n    assert True\\n\"}\n");
    start(f);
    f->o.max_tokens = 1;
    f->o.sequences = 1;
    json_t *r = evaluate(f, "humaneval", f->s.dir);
    prompts(f, 0, "def f(x):\n    return x + 1  #", "f");
    assert_true(fabs(number(r, "greedy", "accuracy") - 1. / 3) < 1e-12);
    json_t *a = answer(f, 0), *b = answer(f, 1);
    assert_string_equal(text_of(a, "extracted"), "passed");
    assert_non_null(strstr(text_of(b, "extracted"), "AssertionError"));
    json_decref(a);
    json_decref(b);
    json_decref(r);
    start(f);
    f->o.max_tokens = 1;
    f->o.chat = true;
    f->o.limit = 1;
    json_decref(evaluate(f, "humaneval", data));
    prompts(
        f, 0,
        "<｜begin▁of▁sentence｜><｜User｜>Write a solution to the following problem and make sure that it passes the "
        "tests:\n```python\ndef f(x):\n    return x + 1  #\n```\n<｜Assistant｜></think>",
        "f");
    free(data);
    data = file(f, "HumanEval.jsonl", "{\"prompt\":\"def f(x):\",\"entry_point\":\"f\"}\n");
    start(f);
    refuses(f, "humaneval", data, ERR_FORMAT, "HumanEval.jsonl, row 1: \"test\" is missing");
    unlink(data);
    free(data);
}

/* --- jsonl -------------------------------------------------------------------------------------------------------- */

/* What the model writes to a prompt is asked first, and is then the right answer of two prompts of three. */
static void jsonl(void **state) {
    fixture *f = *state;
    char *data = file(f, "any.jsonl", "{\"q\":\"Say\",\"a\":1}\n");
    start(f);
    f->o.prompt_member = "q";
    f->o.answer_member = "a";
    f->o.max_tokens = 6;
    json_decref(evaluate(f, "jsonl:exact", data));
    json_t *a = answer(f, 0), *row = json_object();
    prompts(f, 0, "Say", "1");
    str text = {0};
    json_object_set_new(row, "q", json_string("Say"));
    json_object_set_new(row, "a", json_string(text_of(a, "completion")));
    char *right = json_dumps(row, JSON_COMPACT);
    str_addf(&text, "%s\n{\"q\":\"Say\",\"a\":\"no\"}\n%s\n", right, right);
    free(data);
    data = file(f, "any.jsonl", text.p);
    start(f);
    f->o.prompt_member = "q";
    f->o.answer_member = "a";
    f->o.max_tokens = 6;
    json_t *r = evaluate(f, "jsonl:exact", data);
    assert_true(fabs(number(r, "greedy", "accuracy") - 2. / 3) < 1e-12);
    json_decref(r);
    json_decref(a);
    json_decref(row);
    free(right);
    free(data);
    str_free(&text);
    data = file(f, "chat.jsonl", "{\"prompt\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"answer\":\"B\"}\n");
    start(f);
    refuses(f, "jsonl", data, ERR_ARG, "chat.jsonl, row 1: the prompt is a list of messages: it needs --chat");
    f->o.chat = true;
    json_decref(evaluate(f, "jsonl:letter", data));
    prompts(f, 0, "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜></think>", "B");
    start(f);
    f->o.prompt_member = "text";
    refuses(f, "jsonl", data, ERR_FORMAT, "row 1: \"text\" is missing");
    refuses(f, "jsonl:loose", data, ERR_ARG, "jsonl has no kind \"loose\", but: exact, letter");
    free(data);
    data = file(f, "bad.jsonl", "{\"prompt\":\"x\",\"answer\":[]}\n");
    start(f);
    refuses(f, "jsonl", data, ERR_FORMAT, "\"answer\" should be a text or a number");
    free(data);
    data = file(f, "rows.csv", "prompt,answer\n\"one, two\",3\n");
    start(f);
    json_decref(evaluate(f, "jsonl", data));
    prompts(f, 0, "one, two", "3");
    free(data);
}

/* --- any of them -------------------------------------------------------------------------------------------------- */

static char *many(const fixture *f, int n) {
    str text = {0};
    for (int i = 0; i < n; i++) str_addf(&text, "{\"prompt\":\"Count to %d\",\"answer\":%d}\n", i, i);
    char *path = file(f, "many.jsonl", text.p);
    str_free(&text);
    return path;
}

/* Lines of the file of answers in the order of the prompts and samples. */
static json_t *all_answers(const fixture *f, int n) {
    json_t *list = json_object();
    for (int i = 0; i < n; i++) {
        json_t *a = answer(f, i);
        char key[48];
        snprintf(key, sizeof key, "%lld %lld", (long long)json_integer_value(json_object_get(a, "number")),
                 (long long)json_integer_value(json_object_get(a, "sample")));
        assert_null(json_object_get(list, key));
        json_object_set_new(list, key, a);
    }
    return list;
}

typedef struct followed {
    int calls, most;
    int64_t first, done, total;
} followed;

static bool on_progress(void *arg, int64_t done, int64_t total) {
    followed *w = arg;
    if (!w->calls++) w->first = done;
    assert_true(done >= w->done && done <= total);
    w->done = done;
    w->total = total;
    return w->calls < w->most;
}

/* Cancelled after a while, asked for more prompts, asked again: the file is the same as of one run. */
static void goes_on(void **state) {
    fixture *f = *state;
    char *data = many(f, 9);
    const eval_options how = {.limit = EVAL_ALL,
                              .sampled = true,
                              .temperature = 1,
                              .samples = 3,
                              .shots = -1,
                              .max_tokens = 5,
                              .sequences = 4,
                              .seed = 3,
                              .format = &f->format,
                              .output = f->out};
    unlink(f->out);
    f->o = how;
    json_t *report = evaluate(f, "jsonl", data), *once = all_answers(f, 27);
    unlink(f->out);
    followed w = {.most = 12};
    f->o.progress = on_progress;
    f->o.progress_arg = &w;
    refuses(f, "jsonl", data, ERR_CANCELLED, "cancelled");
    assert_true(w.done > 0 && w.done < 27 && w.done % 3 == 0);
    followed two = {.most = 1 << 30};
    f->o.progress_arg = &two;
    f->o.limit = 7;
    json_decref(evaluate(f, "jsonl", data));
    assert_true(two.first == w.done && two.done == 21 && two.total == 21);
    f->o.limit = EVAL_ALL;
    json_t *again = evaluate(f, "jsonl", data), *pieces = all_answers(f, 27);
    assert_true(json_equal(once, pieces));
    assert_true(json_equal(report, again));
    json_decref(again);
    again = evaluate(f, "jsonl", data); /* nothing is left to ask */
    assert_true(json_equal(report, again));
    const json_t *sampled = json_object_get(report, "sampled");
    assert_true(number(sampled, "answers", NULL) == 27 && number(sampled, "temperature", NULL) == 1);
    number(sampled, "pass_at_2", NULL);
    number(sampled, "cons_at_3", NULL);
    json_decref(again);
    json_decref(pieces);
    json_decref(once);
    json_decref(report);
    f->o.seed = 4;
    refuses(f, "jsonl", data, ERR_ARG, "seed is 3 there and 4 here");
    f->o.seed = 3;
    free(data);
    data = file(f, "many.jsonl", "{\"prompt\":\"Count to 0\",\"answer\":8}\n");
    refuses(f, "jsonl", data, ERR_ARG, "holds answers to other questions");
    free(data);
}

static void contexts(void **state) {
    fixture *f = *state;
    char *data = file(f, "long.jsonl",
                      "{\"prompt\":\"a b c d e f g h i j k l m n o p q r s t u v w x y z\",\"answer\":1}\n"
                      "{\"prompt\":\"a\",\"answer\":1}\n");
    start(f);
    f->o.context = 12;
    f->o.max_tokens = 100;
    json_t *r = evaluate(f, "jsonl", data), *a = answer(f, 0);
    assert_true(number(r, "too_long", NULL) == 1 && number(r, "prompts", NULL) == 2);
    assert_true(number(r, "greedy", "answers") == 1);
    assert_int_equal(json_integer_value(json_object_get(a, "number")), 1);
    assert_true(number(a, "tokens", NULL) <= 12);
    json_decref(a);
    json_decref(r);
    start(f);
    f->o.context = 1;
    refuses(f, "jsonl", data, ERR_ARG, "all 2 prompts are longer than the context of 1 tokens");
    free(data);
}

static void refused(void **state) {
    fixture *f = *state;
    char *data = many(f, 2);
    start(f);
    refuses(f, "jsonl", NULL, ERR_ARG, "jsonl needs its data: --data FILE or FOLDER");
    refuses(f, "jsonl", "/no/such/file.jsonl", ERR_FORMAT, "/no/such/file.jsonl");
    f->o.sampled = true;
    f->o.temperature = 1;
    refuses(f, "jsonl", data, ERR_ARG, "greedy or sampled, not both");
    f->o.greedy = false;
    f->o.answer_member = "a";
    refuses(f, "math", data, ERR_ARG, "--answer-member are for jsonl");
    f->o.answer_member = NULL;
    char *choices = file(f, "choices.jsonl", "{\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":1}\n");
    refuses(f, "gpqa", choices, ERR_ARG, "log-likelihoods are not sampled");
    free(choices);
    start(f);
    f->o.chat = true;
    f->o.format = NULL;
    refuses(f, "jsonl", data, ERR_ARG, "no chat template");
    start(f);
    f->o.top_p = 2;
    refuses(f, "jsonl", data, ERR_ARG, "top-p");
    start(f);
    f->o.output = "/no/such/folder/out.jsonl";
    refuses(f, "jsonl", data, ERR_IO, "cannot open");
    free(data);
    data = file(f, "empty.jsonl", "\n\n");
    start(f);
    refuses(f, "jsonl", data, ERR_FORMAT, "empty.jsonl: no rows");
    free(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gsm8k_rules), cmocka_unit_test(gsm8k),       cmocka_unit_test(math),
        cmocka_unit_test(mmlu),        cmocka_unit_test(likelihoods), cmocka_unit_test(gpqa_columns),
        cmocka_unit_test(humaneval),   cmocka_unit_test(jsonl),       cmocka_unit_test(goes_on),
        cmocka_unit_test(contexts),    cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
