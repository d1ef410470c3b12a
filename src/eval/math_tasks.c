/* Tasks whose answer is a number or a formula: the model writes, a rule finds the answer.
 *
 *   gsm8k  lm-evaluation-harness gsm8k 3.0. Strict match is the first "#### NUMBER", flexible extract the last number
 * of the text; both without commas, dollars and a full stop at the end, and equal to the right one letter by letter
 *   math   lm-evaluation-harness minerva_math 3.0: the four worked examples of Lewkowycz et al. 2022 (appendix D.1;
 * rows of the MATH training set), and its metric math_verify: answers that mean the same (reward/answer.h). Through the
 * chat template: no examples, and the sentence that DeepSeek-R1's authors recommend
 */
#include <ctype.h>
#include <string.h>
#include "eval/judge.h"
#include "eval/loading.h"
#include "eval/tasks.h"

/* --- gsm8k -------------------------------------------------------------------------------------------------------- */

/* Without what the comparison ignores: commas, dollars, a full stop at the end. */
static void add_number(str *out, const char *p, size_t n) {
    str_puts(out, "");
    for (size_t i = 0; i < n; i++)
        if (p[i] != ',' && p[i] != '$') str_putc(out, p[i]);
    if (out->n && out->p[out->n - 1] == '.') out->p[--out->n] = 0;
}

/* The first "#### (-?[0-9.,]+)" (answer_gsm8k, as in training, takes the last). */
static bool find_strict(const char *text, str *out) {
    for (const char *p = text; (p = strstr(p, "#### ")); p++) {
        const char *number = p + strlen("#### ");
        const size_t sign = *number == '-', n = strspn(number + sign, "0123456789.,");
        if (n == 0) continue;
        add_number(out, number, sign + n);
        return true;
    }
    return false;
}

/* The last "-?[$0-9.,]{2,}" or "-?[0-9]+", looked for from the left. */
static bool find_flexible(const char *text, str *out) {
    const char *found = NULL;
    size_t length = 0;
    for (const char *p = text; *p;) {
        const size_t sign = *p == '-', run = strspn(p + sign, "$0123456789.,");
        const bool number = run >= 2 || (run == 1 && isdigit((unsigned char)p[sign]));
        if (number) {
            found = p;
            length = sign + run;
        }
        p += number ? sign + run : 1;
    }
    if (found) add_number(out, found, length);
    return found != NULL;
}

bool gsm8k_find(const char *text, bool flexible, str *out) {
    return (flexible ? find_flexible : find_strict)(text, out);
}

static status gsm8k_item(const rows *r, int64_t i, const eval_options *o, item *out, error *e) {
    const char *asked, *answer;
    (void)o;
    TRY(rows_text(r, i, "question", &asked, e));
    TRY(rows_text(r, i, "answer", &answer, e));
    if (!find_strict(answer, &out->answer)) return fail(e, ERR_FORMAT, "\"answer\" has no number behind \"#### \"");
    str_addf(&out->asked, "Question: %s\nAnswer:", asked);
    str_puts(&out->worked, answer);
    return OK;
}

static status gsm8k_judge(const question *q, const char *completion, int rule, judgement *j, error *e) {
    (void)e;
    const bool found = gsm8k_find(completion, rule == 1, &j->extracted);
    j->verdict = found && j->extracted.p && strcmp(j->extracted.p, q->answer) == 0 ? RIGHT : WRONG;
    return OK;
}

status gsm8k_eval(engine *g, const tokenizer *t, const char *kind, const eval_options *o, json_t *out, error *e) {
    static const char *const files[] = {"test", NULL}, *const examples[] = {"train", NULL},
                             *const rules[] = {"strict_match", "flexible_extract", NULL},
                             *const stop[] = {"Question:", "</s>", "<|im_end|>"};
    const loader load = {.item = gsm8k_item, .names = files, .examples = examples, .shots = 5};
    const ask_rules ask = {.stop = stop,
                           .n_stop = 3,
                           .max_tokens = o->chat ? 4096 : 256,
                           .names = rules,
                           .judge = gsm8k_judge,
                           .same = same_text};
    (void)kind;
    questions q = {.o = o, .t = t};
    status s = load_questions(&load, o, &q, e);
    if (s == OK) s = ask_written(g, &q, &ask, out, e);
    questions_close(&q);
    return s;
}

/* --- math --------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *problem, *solution;
} minerva[] = {
    {"Find the domain of the expression  $\\frac{\\sqrt{x-2}}{\\sqrt{5-x}}$.}",
     "The expressions inside each square root must be non-negative. Therefore, $x-2 \\ge 0$, so $x\\ge2$, and $5 - x "
     "\\ge 0$, so $x \\le 5$. Also, the denominator cannot be equal to zero, so $5-x>0$, which gives $x<5$. Therefore, "
     "the domain of the expression is $\\boxed{[2,5)}$.\nFinal Answer: The final answer is $[2,5)$. I hope it is "
     "correct."},
    {"If $\\det \\mathbf{A} = 2$ and $\\det \\mathbf{B} = 12,$ then find $\\det (\\mathbf{A} \\mathbf{B}).$",
     "We have that $\\det (\\mathbf{A} \\mathbf{B}) = (\\det \\mathbf{A})(\\det \\mathbf{B}) = (2)(12) = "
     "\\boxed{24}.$\nFinal Answer: The final answer is $24$. I hope it is correct."},
    {"Terrell usually lifts two 20-pound weights 12 times. If he uses two 15-pound weights instead, how many times "
     "must "
     "Terrell lift them in order to lift the same total weight?",
     "If Terrell lifts two 20-pound weights 12 times, he lifts a total of $2\\cdot 12\\cdot20=480$ pounds of weight.  "
     "If he lifts two 15-pound weights instead for $n$ times, he will lift a total of $2\\cdot15\\cdot n=30n$ pounds "
     "of "
     "weight.  Equating this to 480 pounds, we can solve for $n$:\n\\begin{align*}\n30n&=480\\\n\\Rightarrow\\qquad "
     "n&=480/30=\\boxed{16}\n\\end{align*}\nFinal Answer: The final answer is $16$. I hope it is correct."},
    {"If the system of equations\n\n\\begin{align*}\n6x-4y&=a,\\\n6y-9x &=b.\n\\end{align*}has a solution $(x, y)$ "
     "where "
     "$x$ and $y$ are both nonzero,\nfind $\\frac{a}{b},$ assuming $b$ is nonzero.",
     "If we multiply the first equation by $-\\frac{3}{2}$, we obtain\n\n$$6y-9x=-\\frac{3}{2}a.$$Since we also know "
     "that $6y-9x=b$, we have\n\n$$-\\frac{3}{2}a=b\\Rightarrow\\frac{a}{b}=\\boxed{-\\frac{2}{3}}.$$\nFinal Answer: "
     "The final answer is $-\\frac{2}{3}$. I hope it is correct."},
};
enum { MINERVA = sizeof minerva / sizeof *minerva };

static void add_problem(str *out, const char *problem, bool chat) {
    if (chat) str_addf(out, "%s\nPlease reason step by step, and put your final answer within \\boxed{}.", problem);
    else str_addf(out, "Problem:\n%s\n\nSolution:", problem);
}

/* The answer of a row, or what its solution has in a box. */
static status math_item(const rows *r, int64_t i, const eval_options *o, item *out, error *e) {
    const char *problem, *answer;
    const bool has_answer = json_object_get(rows_at(r, i), "answer") != NULL;
    TRY(rows_text(r, i, "problem", &problem, e));
    if (!has_answer && !json_object_get(rows_at(r, i), "solution"))
        return fail(e, ERR_FORMAT, "neither \"answer\" nor \"solution\"");
    TRY(rows_text(r, i, has_answer ? "answer" : "solution", &answer, e));
    if (has_answer) str_puts(&out->answer, answer);
    else if (!answer_find(answer, ANSWER_BOXED, &out->answer))
        return fail(e, ERR_FORMAT, "\"solution\" has no \\boxed answer");
    add_problem(&out->asked, problem, o->chat);
    return OK;
}

static status math_shots(questions *q, error *e) {
    const eval_options *o = q->o;
    const int n = o->shots >= 0 ? o->shots : o->chat ? 0 : MINERVA;
    status s = n > MINERVA ? fail(e, ERR_ARG, "math has %d worked examples, not %d", MINERVA, n) : OK;
    for (int i = 0; i < n && s == OK; i++) {
        str asked = {0};
        add_problem(&asked, minerva[i].problem, o->chat);
        s = str_check(&asked, e);
        if (s == OK) s = questions_shot(q, asked.p, minerva[i].solution, e);
        str_free(&asked);
    }
    return s;
}

status math_eval(engine *g, const tokenizer *t, const char *kind, const eval_options *o, json_t *out, error *e) {
    static const char *const files[] = {"test", "math", NULL}, *const stop[] = {"Problem:"};
    const loader load = {.item = math_item, .names = files};
    const ask_rules ask = {.stop = stop,
                           .n_stop = o->chat ? 0 : 1,
                           .max_tokens = o->chat ? 4096 : 256,
                           .judge = judge_meaning,
                           .same = same_meaning};
    (void)kind;
    questions q = {.o = o, .t = t};
    status s = math_shots(&q, e);
    if (s == OK) s = load_questions(&load, o, &q, e);
    if (s == OK) s = ask_written(g, &q, &ask, out, e);
    questions_close(&q);
    return s;
}
