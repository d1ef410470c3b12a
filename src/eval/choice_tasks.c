/* Multiple choice.
 *
 *   mmlu   lm-evaluation-harness mmlu 2 (its tasks 1.0), on the csv files of Hendrycks et al. 2021:
 *          "question,A,B,C,D,letter". Right is the letter that is likeliest behind "Answer:", after five examples from
 *          dev in their order
 *   gpqa   lm-evaluation-harness gpqa_*_zeroshot 2.2: the likeliest of " (A)", " (B)" ... Rows may be GPQA's own csv or
 *          JSON lines (choices in an order that the seed draws), {"question", "choices", "answer"}, or as mmlu's
 *
 * Through the chat template the model writes an answer to the prompt of OpenAI's simple-evals, and the letter in it
 * counts. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/rng.h"
#include "eval/judge.h"
#include "eval/loading.h"
#include "eval/tasks.h"
#include "text/template_text.h"

enum { MOST_CHOICES = 26 };

/* --- a row -------------------------------------------------------------------------------------------------------- */

typedef struct choice_row {
    const char *question;
    const char *choices[MOST_CHOICES];
    int n, right;
} choice_row;

/* "B", "(B)", "b": its number; -1: no letter. */
static int letter_number(const char *s) {
    const size_t open = *s == '(';
    const char c = s[open];
    const bool alone = c && (open ? !strcmp(s + open + 1, ")") : !s[1]);
    if (!alone) return -1;
    return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' : -1;
}

static status right_one(choice_row *c, const json_t *answer, error *e) {
    const char *letter = json_string_value(answer);
    c->right = -1;
    if (!answer) return fail(e, ERR_FORMAT, "\"answer\" is missing");
    if (json_is_integer(answer)) {
        const json_int_t i = json_integer_value(answer);
        if (i < 0 || i >= c->n)
            return fail(e, ERR_FORMAT, "answer %lld: choices are numbered 0 to %d", (long long)i, c->n - 1);
        c->right = (int)i;
        return OK;
    }
    if (letter) c->right = letter_number(letter);
    for (int i = 0; letter && i < c->n && c->right < 0; i++)
        if (strcmp(letter, c->choices[i]) == 0) c->right = i;
    if (c->right >= 0 && c->right < c->n) return OK;
    return fail(e, ERR_FORMAT, "answer \"%s\": should be a letter from A to %c", letter ? letter : "?", 'A' + c->n - 1);
}

/* question, A, B, C, D, letter */
static status read_record(choice_row *c, const json_t *row, error *e) {
    const size_t n = json_array_size(row);
    if (n != 6) return fail(e, ERR_FORMAT, "%zu fields, not question, A, B, C, D, letter", n);
    c->question = json_string_value(json_array_get(row, 0));
    c->n = 4;
    for (int i = 0; i < c->n; i++) c->choices[i] = json_string_value(json_array_get(row, (size_t)i + 1));
    return right_one(c, json_array_get(row, n - 1), e);
}

static status read_object(choice_row *c, const json_t *row, error *e) {
    const json_t *list = json_object_get(row, "choices");
    c->question = json_string_value(json_object_get(row, "question"));
    if (!c->question) return fail(e, ERR_FORMAT, "\"question\" is missing, or no text");
    if (!json_is_array(list)) return fail(e, ERR_FORMAT, "\"choices\" is missing, or no list");
    if (json_array_size(list) < 2 || json_array_size(list) > MOST_CHOICES)
        return fail(e, ERR_FORMAT, "%zu choices: 2 to %d are possible", json_array_size(list), MOST_CHOICES);
    c->n = (int)json_array_size(list);
    for (int i = 0; i < c->n; i++)
        if (!(c->choices[i] = json_string_value(json_array_get(list, (size_t)i))))
            return fail(e, ERR_FORMAT, "choice %d is no text", i + 1);
    return right_one(c, json_object_get(row, "answer"), e);
}

/* GPQA's own members; the order of the choices is drawn. */
static status read_gpqa(choice_row *c, const json_t *row, uint64_t seed, int64_t number, error *e) {
    static const char *const names[] = {"Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2",
                                        "Incorrect Answer 3"};
    enum { N = sizeof names / sizeof *names };
    int order[N];
    c->n = N;
    for (int i = 0; i < N; i++) { /* Fisher and Yates */
        const int j = (int)(rng_uniform(seed, (uint64_t)number, (uint64_t)i) * (i + 1));
        order[i] = order[j];
        order[j] = i;
    }
    for (int i = 0; i < N; i++) {
        c->choices[i] = json_string_value(json_object_get(row, names[order[i]]));
        if (!c->choices[i]) return fail(e, ERR_FORMAT, "\"%s\" is missing, or no text", names[order[i]]);
        if (order[i] == 0) c->right = i;
    }
    c->question = json_string_value(json_object_get(row, "Question"));
    return c->question ? OK : fail(e, ERR_FORMAT, "\"Question\" is missing, or no text");
}

static status read_row(choice_row *c, const json_t *row, uint64_t seed, int64_t number, error *e) {
    *c = (choice_row){0};
    if (json_is_array(row)) return read_record(c, row, e);
    if (json_object_get(row, "Correct Answer")) return read_gpqa(c, row, seed, number, e);
    return read_object(c, row, e);
}

/* --- prompts ------------------------------------------------------------------------------------------------------ */

static void add_stripped(str *out, const char *s) {
    const text t = text_strip((text){s, strlen(s)}, NULL, true, true);
    str_add(out, t.p, t.n);
}

static void ask_in_chat(str *out, const choice_row *c) {
    str_puts(out, "Answer the following multiple choice question. The last line of your response should be of the "
                  "following format: 'Answer: $LETTER' (without quotes) where LETTER is one of ");
    for (int i = 0; i < c->n; i++) str_putc(out, (char)('A' + i));
    str_puts(out, ". Think step by step before answering.\n\n");
    str_puts(out, c->question);
    str_puts(out, "\n\n");
    for (int i = 0; i < c->n; i++) str_addf(out, "%s%c) %s", i ? "\n" : "", 'A' + i, c->choices[i]);
}

static void ask_mmlu(str *out, const choice_row *c) {
    add_stripped(out, c->question);
    for (int i = 0; i < c->n; i++) str_addf(out, "\n%c. %s", 'A' + i, c->choices[i]);
    str_puts(out, "\nAnswer:");
}

/* Choices as the harness cleans them: "  " is " ". */
static void ask_gpqa(str *out, const choice_row *c) {
    str_addf(out, "What is the correct answer to this question:%s\nChoices:", c->question);
    for (int i = 0; i < c->n; i++) {
        const text t = text_strip((text){c->choices[i], strlen(c->choices[i])}, NULL, true, true);
        str_addf(out, "\n(%c) ", 'A' + i);
        for (size_t k = 0; k < t.n; k++) {
            str_putc(out, t.p[k]);
            k += k + 1 < t.n && t.p[k] == ' ' && t.p[k + 1] == ' ';
        }
    }
    str_puts(out, "\nAnswer:");
}

/* --- tasks -------------------------------------------------------------------------------------------------------- */

typedef struct choice_style {
    void (*ask)(str *out, const choice_row *c);
    ask_letters letters; /* what stands around the letter of an answer */
} choice_style;

static const choice_style mmlu_style = {ask_mmlu, {" ", ""}}, gpqa_style = {ask_gpqa, {" (", ")"}};

static status choice_item(const choice_style *y, const rows *r, int64_t i, const eval_options *o, item *out, error *e) {
    choice_row c;
    TRY(read_row(&c, rows_at(r, i), o->seed, i, e));
    const int letter = 'A' + c.right;
    (o->chat ? ask_in_chat : y->ask)(&out->asked, &c);
    if (o->chat) str_addf(&out->worked, "Answer: %c", letter);
    else str_addf(&out->worked, "%s%c%s", y->letters.before + 1, letter, y->letters.behind);
    str_putc(&out->answer, (char)letter);
    out->choices = c.n;
    return OK;
}

static status mmlu_item(const rows *r, int64_t i, const eval_options *o, item *out, error *e) {
    return choice_item(&mmlu_style, r, i, o, out, e);
}

static status gpqa_item(const rows *r, int64_t i, const eval_options *o, item *out, error *e) {
    return choice_item(&gpqa_style, r, i, o, out, e);
}

static status answer_choices(engine *g, const questions *q, const choice_style *y, json_t *out, error *e) {
    const ask_rules ask = {.max_tokens = 4096, .judge = judge_letter, .same = same_text};
    if (q->o->chat) return ask_written(g, q, &ask, out, e);
    if (q->o->sampled)
        return fail(e, ERR_ARG,
                    "log-likelihoods are not sampled: leave out --samples and --temperature, or add --chat");
    return ask_likelihood(g, q, &y->letters, out, e);
}

/* --- gpqa --------------------------------------------------------------------------------------------------------- */

status gpqa_eval(engine *g, const tokenizer *t, const char *kind, const eval_options *o, json_t *out, error *e) {
    static const char *const files[] = {"gpqa", "test", NULL}, *const examples[] = {"train", "dev", NULL};
    const loader load = {.item = gpqa_item, .names = files, .examples = examples, .header = "Correct Answer"};
    (void)kind;
    questions q = {.o = o, .t = t};
    status s = load_questions(&load, o, &q, e);
    if (s == OK) s = answer_choices(g, &q, &gpqa_style, out, e);
    questions_close(&q);
    return s;
}

/* --- mmlu --------------------------------------------------------------------------------------------------------- */

/* The categories of Hendrycks et al. (and of the harness). */
static const struct {
    const char *name, *subjects; /* separated by spaces */
} categories[] = {
    {"stem", " abstract_algebra anatomy astronomy college_biology college_chemistry college_computer_science "
             "college_mathematics college_physics computer_security conceptual_physics electrical_engineering "
             "elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science "
             "high_school_mathematics high_school_physics high_school_statistics machine_learning "},
    {"humanities", " formal_logic high_school_european_history high_school_us_history high_school_world_history "
                   "international_law jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy "
                   "prehistory professional_law world_religions "},
    {"social_sciences", " econometrics high_school_geography high_school_government_and_politics "
                        "high_school_macroeconomics high_school_microeconomics high_school_psychology human_sexuality "
                        "professional_psychology public_relations security_studies sociology us_foreign_policy "},
    {"other", " business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing "
              "medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology "},
};

static const char *category_of(const char *subject) {
    str word = {0};
    const char *found = "unlisted";
    str_addf(&word, " %s ", subject);
    for (size_t i = 0; word.p && i < sizeof categories / sizeof *categories; i++)
        if (strstr(categories[i].subjects, word.p)) found = categories[i].name;
    str_free(&word);
    return found;
}

/* "FOLDER/test/anatomy_test.csv" is of the subject anatomy; NULL: memory is out. */
static char *subject_of(const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t n = strlen(name);
    static const char *const ends[] = {".csv", "_test"};
    for (int i = 0; i < 2; i++) {
        const size_t k = strlen(ends[i]);
        if (n > k && memcmp(name + n - k, ends[i], k) == 0) n -= k;
    }
    return strndup(name, n);
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

typedef struct subjects { /* of a folder, or one */
    char *folder;         /* of the test files */
    char **name;
    int n;
} subjects;

static void subjects_close(subjects *s) {
    for (int i = 0; i < s->n; i++) free(s->name[i]);
    free(s->name);
    free(s->folder);
}

static status add_subject(subjects *s, char *name, error *e) {
    char **list = name ? realloc(s->name, (size_t)(s->n + 1) * sizeof *list) : NULL;
    if (!list) {
        free(name);
        return fail(e, ERR_NOMEM, "memory is out");
    }
    s->name = list;
    s->name[s->n++] = name;
    return OK;
}

static status list_folder(subjects *s, error *e) {
    static const char end[] = "_test.csv";
    DIR *d = opendir(s->folder);
    if (!d) return fail(e, ERR_FORMAT, "%s: cannot open: %s", s->folder, strerror(errno));
    status st = OK;
    for (struct dirent *f; st == OK && (f = readdir(d));) {
        if (name_ends_with(f->d_name, end)) st = add_subject(s, subject_of(f->d_name), e);
    }
    closedir(d);
    if (st == OK && !s->n) st = fail(e, ERR_FORMAT, "%s: no files SUBJECT_test.csv in this folder", s->folder);
    if (st == OK) qsort(s->name, (size_t)s->n, sizeof *s->name, by_name);
    return st;
}

static status find_subjects(subjects *s, const char *data, const char *kind, error *e) {
    char *test = path_join(data, "test");
    *s = (subjects){0};
    if (test && is_directory(test)) s->folder = test;
    else {
        free(test);
        s->folder = rows_folder(data);
    }
    if (!s->folder) return fail(e, ERR_NOMEM, "memory is out");
    if (!is_directory(data)) return add_subject(s, subject_of(data), e);
    return kind ? add_subject(s, strdup(kind), e) : list_folder(s, e);
}

/* The files of a subject. */
static status paths_of(const subjects *s, const char *subject, const eval_options *o, str *test, str *dev, error *e) {
    if (is_directory(o->data)) str_addf(test, "%s/%s_test.csv", s->folder, subject);
    else str_puts(test, o->data);
    const char *inner = strcmp(s->folder, o->data) && is_directory(o->data) ? o->data : NULL; /* that has test/ */
    if (!o->examples && inner) str_addf(dev, "%s/dev/%s_dev.csv", inner, subject);
    else if (!o->examples) str_addf(dev, "%s/../dev/%s_dev.csv", s->folder, subject);
    else if (is_directory(o->examples)) str_addf(dev, "%s/%s_dev.csv", o->examples, subject);
    else str_puts(dev, o->examples);
    TRY(str_check(test, e));
    TRY(str_check(dev, e));
    return file_exists(test->p) ? OK : fail(e, ERR_FORMAT, "%s is not there: no such subject", test->p);
}

static status load_subject(questions *q, const subjects *s, const char *subject, error *e) {
    static const char *const none[] = {"test", NULL};
    const loader load = {.item = mmlu_item, .names = none, .examples = none, .shots = q->o->chat ? 0 : 5};
    eval_options o = *q->o;
    str test = {0}, dev = {0}, description = {0};
    str_puts(&description, "The following are multiple choice questions (with answers) about ");
    for (const char *p = subject; *p; p++) str_putc(&description, *p == '_' ? ' ' : *p);
    str_puts(&description, ".\n\n");
    status st = str_check(&description, e);
    if (st == OK) st = paths_of(s, subject, q->o, &test, &dev, e);
    o.data = test.p;
    o.examples = dev.p;
    q->description = q->o->chat ? NULL : description.p;
    q->subject = subject;
    q->category = category_of(subject);
    if (st == OK) st = load_questions(&load, &o, q, e);
    q->description = NULL;
    str_free(&test);
    str_free(&dev);
    str_free(&description);
    return st;
}

status mmlu_eval(engine *g, const tokenizer *t, const char *kind, const eval_options *o, json_t *out, error *e) {
    subjects all;
    questions q = {.o = o, .t = t};
    status s = find_subjects(&all, o->data, kind, e);
    for (int i = 0; s == OK && i < all.n; i++) s = load_subject(&q, &all, all.name[i], e);
    if (s == OK) s = answer_choices(g, &q, &mmlu_style, out, e);
    questions_close(&q);
    subjects_close(&all);
    return s;
}
