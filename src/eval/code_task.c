/* humaneval: lm-evaluation-harness humaneval 1.0 (Chen et al. 2021). The prompt is the beginning of a function as it
 * is; what the model writes behind it, up to a line that is no longer of it, has to pass the tests in a sandbox.
 *
 * Through the chat template: the question of humaneval_instruct 4.0. Its answer is the last block of code that the
 * model wrote, put behind the prompt, whose function it defines anew. */
#include <string.h>
#include "eval/ask.h"
#include "eval/loading.h"
#include "eval/tasks.h"
#include "reward/code.h"

static const sandbox_limits limits = {.seconds = 3, .memory = 4ull << 30, .output = 1 << 16};

static const char *member(const question *q, const char *name) {
    return json_string_value(json_object_get(q->row, name));
}

static status humaneval_item(const rows *r, int64_t i, const eval_options *o, item *out, error *e) {
    static const char *const members[] = {"prompt", "test", "entry_point"};
    const char *text[3];
    for (int k = 0; k < 3; k++) TRY(rows_text(r, i, members[k], &text[k], e));
    if (o->chat)
        str_addf(&out->asked,
                 "Write a solution to the following problem and make sure that it passes the tests:\n```python\n%s\n"
                 "```\n",
                 text[0]);
    else str_puts(&out->asked, text[0]);
    str_puts(&out->answer, text[2]);
    return OK;
}

static status run_tests(const question *q, const char *code, judgement *j, error *e) {
    bool passed = false;
    str why = {0};
    status s = code_humaneval(member(q, "prompt"), code, member(q, "test"), member(q, "entry_point"), &limits, &passed,
                              &why, e);
    str_puts(&j->extracted, passed ? "passed" : why.p ? why.p : "");
    j->verdict = passed ? RIGHT : WRONG;
    str_free(&why);
    return s;
}

static status judge_body(const question *q, const char *completion, int rule, judgement *j, error *e) {
    (void)rule;
    return run_tests(q, completion, j, e);
}

static status judge_block(const question *q, const char *completion, int rule, judgement *j, error *e) {
    str block = {0}, code = {0};
    status s = OK;
    (void)rule;
    if (code_find(completion, &block)) {
        str_addf(&code, "\n%s", block.p);
        s = str_check(&code, e);
        if (s == OK) s = run_tests(q, code.p, j, e);
    }
    str_free(&block);
    str_free(&code);
    return s;
}

status humaneval_eval(engine *g, const tokenizer *t, const char *kind, const eval_options *o, json_t *out, error *e) {
    static const char *const files[] = {"HumanEval", "humaneval", "test", NULL}, *const stop[] = {"\nclass", "\ndef",
                                                                                                  "\n#", "\nif",
                                                                                                  "\nprint"};
    const loader load = {.item = humaneval_item, .names = files};
    const ask_rules ask = {.stop = stop,
                           .n_stop = o->chat ? 0 : 5,
                           .max_tokens = o->chat ? 4096 : 1024,
                           .judge = o->chat ? judge_block : judge_body};
    (void)kind;
    if (o->shots > 0) return fail(e, ERR_ARG, "humaneval has no worked examples");
    questions q = {.o = o, .t = t};
    status s = load_questions(&load, o, &q, e);
    if (s == OK) s = ask_written(g, &q, &ask, out, e);
    questions_close(&q);
    return s;
}
