/* jsonl: any file of JSON lines with a prompt and an answer, judged by one of these rules:
 *
 *   jsonl          the answer in the text (boxed, tagged, "the answer is", or the last number) means the same
 *   jsonl:exact    what the model wrote, behind its thinking and without white space around it, is the same text
 *   jsonl:letter   the letter of a multiple choice */
#include <string.h>
#include "eval/judge.h"
#include "eval/loading.h"
#include "eval/tasks.h"
#include "text/template_text.h"

typedef enum form { MEANING, EXACT, LETTER } form;

/* A text, or a number as it stands in the file. */
static status add_answer(const json_t *v, const char *name, str *out, error *e) {
    if (json_is_string(v)) str_add(out, json_string_value(v), json_string_length(v));
    else if (json_is_integer(v)) str_addf(out, "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v)) str_addf(out, "%.17g", json_real_value(v));
    else if (v) return fail(e, ERR_FORMAT, "\"%s\" should be a text or a number", name);
    else return fail(e, ERR_FORMAT, "\"%s\" is missing: name the member with --answer-member", name);
    return OK;
}

static status jsonl_item(const rows *r, int64_t i, const eval_options *o, item *out, error *e) {
    const char *asked = o->prompt_member ? o->prompt_member : "prompt",
               *answer = o->answer_member ? o->answer_member : "answer", *question_text;
    const json_t *prompt = json_object_get(rows_at(r, i), asked);
    TRY(add_answer(json_object_get(rows_at(r, i), answer), answer, &out->answer, e));
    str_puts(&out->worked, out->answer.p ? out->answer.p : "");
    if (json_is_array(prompt)) {
        out->messages = prompt;
        return OK;
    }
    if (!prompt) return fail(e, ERR_FORMAT, "\"%s\" is missing: name the member with --prompt-member", asked);
    TRY(rows_text(r, i, asked, &question_text, e));
    str_puts(&out->asked, question_text);
    return OK;
}

static status judge_exact(const question *q, const char *completion, int rule, judgement *j, error *e) {
    (void)rule, (void)e;
    completion = behind_reasoning(completion);
    const text given = text_strip((text){completion, strlen(completion)}, NULL, true, true),
               right = text_strip((text){q->answer, strlen(q->answer)}, NULL, true, true);
    str_add(&j->extracted, given.p, given.n);
    j->verdict = given.n == right.n && memcmp(given.p, right.p, right.n) == 0 ? RIGHT : WRONG;
    return OK;
}

static status form_of(const char *kind, form *out, error *e) {
    if (!kind) *out = MEANING;
    else if (!strcmp(kind, "exact")) *out = EXACT;
    else if (!strcmp(kind, "letter")) *out = LETTER;
    else return fail(e, ERR_ARG, "jsonl has no kind \"%s\", but: exact, letter", kind);
    return OK;
}

status jsonl_eval(engine *g, const tokenizer *t, const char *kind, const eval_options *o, json_t *out, error *e) {
    static const char *const files[] = {"test", "", NULL}, *const examples[] = {"train", NULL};
    const loader load = {.item = jsonl_item,
                         .names = files,
                         .examples = examples,
                         .header = o->prompt_member ? o->prompt_member : "prompt"};
    form f = MEANING;
    TRY(form_of(kind, &f, e));
    const ask_rules ask = {.max_tokens = o->chat ? 4096 : 1024,
                           .judge = f == EXACT    ? judge_exact
                                    : f == LETTER ? judge_letter
                                                  : judge_meaning,
                           .same = f == MEANING ? same_meaning : same_text};
    questions q = {.o = o, .t = t};
    status s = load_questions(&load, o, &q, e);
    if (s == OK) s = ask_written(g, &q, &ask, out, e);
    questions_close(&q);
    return s;
}
