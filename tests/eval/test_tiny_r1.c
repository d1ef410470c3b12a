/* Judging of answers, the whole evaluation on a model of random weights, and what it refuses. */
#include "../format/scratch.h"
#include <math.h>
#include "convert/init.h"
#include "eval/tiny_r1.h"

/* --- judging --------------------------------------------------------------------------------------------------------
 */

static void judged(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool right, formatted;
        tiny_r1_style style;
    } cases[] = {
        {"<think>7+5-2+7-8</think><answer>8</answer><eos>", true, true, TINY_R1_WORK},
        {"<think>anything</think><answer>8</answer><eos>", true, true, TINY_R1_WORK}, /* the answer counts alone */
        {"<think>7+5-2+7-8</think><answer>7</answer><eos>", false, true, TINY_R1_WORK},
        {"<think></think><answer>8</answer><eos>", true, true, TINY_R1_DIRECT},
        {"<think></think><answer>88</answer><eos>", false, true, TINY_R1_DIRECT},
        {"<think></think><answer></answer><eos>", false, true, TINY_R1_DIRECT},
        {"8<eos>", false, false, TINY_R1_PLAIN}, /* right, but no accuracy without format */
        {"<think>8", false, false, TINY_R1_WORK},
        {"", false, false, TINY_R1_PLAIN},
        {"<think>", false, false, TINY_R1_WORK},
    };
    enum { CASES = sizeof cases / sizeof *cases };
    const tiny_r1_document t = {.task = TINY_R1_CALC, .prompt = "c7+8-3+5-9", .answer = "8"};
    tiny_r1_score s = {0};
    int64_t right = 0, formatted = 0, style[TINY_R1_STYLES] = {0}, style_right[TINY_R1_STYLES] = {0};
    for (int i = 0; i < CASES; i++) {
        assert_true(tiny_r1_judge(&s, &t, cases[i].text, strlen(cases[i].text), i) == cases[i].right);
        right += cases[i].right;
        formatted += cases[i].formatted;
        style[cases[i].style]++;
        style_right[cases[i].style] += cases[i].right;
        for (int k = 0; k < TINY_R1_STYLES; k++)
            assert_true(s.style[TINY_R1_CALC][k].answers == style[k] &&
                        s.style[TINY_R1_CALC][k].right == style_right[k]);
        assert_true(s.formatted == formatted && s.all.right == right && s.all.answers == i + 1);
    }
    assert_true(s.task[TINY_R1_CALC].answers == CASES && s.task[TINY_R1_CALC].right == right &&
                s.task[TINY_R1_COUNT].answers == 0);
    assert_int_equal(s.tokens, CASES * (CASES - 1) / 2);
    const tiny_r1_document other = {.task = TINY_R1_SEARCH, .prompt = "s8:3050", .answer = "--+"};
    static const char hit[] = "<think></think><answer>-+-</answer><eos>"; /* not the stored one, but it hits */
    assert_true(tiny_r1_judge(&s, &other, hit, strlen(hit), 1));
    assert_true(s.style[TINY_R1_SEARCH][TINY_R1_DIRECT].right == 1 && s.all.answers == CASES + 1);
}

/* --- a model of random weights --------------------------------------------------------------------------------------
 */

typedef struct opened {
    scratch s;
    model *m;
    engine *g;
    tokenizer *t;
} opened;

/* The recipe's own model and tokenizer, or the tokenizer of a model that knows nothing of them. */
static opened open_random(int threads, const char *other) {
    opened o = {.s = scratch_open()};
    error e = {0};
    init_result made;
    char *folder = scratch_path(&o.s, "model");
    if (init_run(&(init_options){.config = "tiny", .out = folder, .seed = 1}, &made, &e) != OK ||
        model_open(&o.m, folder, &e) != OK ||
        engine_open(&o.g, o.m, threads, NULL, COMPUTE_F32, MLA_CHEAPER, &e) != OK ||
        tokenizer_open(&o.t, other ? other : folder, &e) != OK)
        fail_msg("%s", e.text);
    free(folder);
    return o;
}

static void close_random(opened *o) {
    tokenizer_close(o->t);
    engine_close(o->g);
    model_close(o->m);
    scratch_close(&o->s);
}

static char *report(const opened *o, const char *task, const eval_options *v) {
    json_t *j;
    error e = {0};
    if (eval_run(o->g, o->t, task, v, &j, &e) != OK) fail_msg("%s", e.text);
    char *text = json_dumps(j, 0);
    json_decref(j);
    assert_non_null(text);
    return text;
}

static double number(const json_t *j, const char *key) {
    assert_true(json_is_number(json_object_get(j, key)));
    return json_number_value(json_object_get(j, key));
}

/* The sum over a table of {"answers", "accuracy"}. */
static void sum(const json_t *table, double *answers, double *right) {
    const char *key;
    json_t *v;
    *answers = *right = 0;
    json_object_foreach((json_t *)(uintptr_t)table, key, v) {
        *answers += number(v, "answers");
        *right += number(v, "answers") * number(v, "accuracy");
    }
}

typedef struct seen {
    int64_t last, total;
} seen;

static bool on_answers(void *arg, int64_t done, int64_t total) {
    seen *s = arg;
    assert_true((done >= s->last || done == 0) && done <= total); /* a report begins at 0 */
    *s = (seen){done, total};
    return true;
}

static void random_model(void **state) {
    (void)state;
    opened one = open_random(1, NULL), two = open_random(2, NULL);
    seen s = {0};
    eval_options v = {.limit = 40,
                      .greedy = true,
                      .sampled = true,
                      .temperature = 1,
                      .samples = 3,
                      .seed = 5,
                      .progress = on_answers,
                      .progress_arg = &s};
    char *a = report(&one, "tiny-r1", &v), *b = report(&one, "tiny-r1", &v), *c = report(&two, "tiny-r1", &v);
    v.seed = 6;
    char *d = report(&one, "tiny-r1", &v);
    assert_string_equal(a, b);
    assert_string_equal(a, c); /* whatever the number of threads */
    assert_string_not_equal(a, d);
    assert_int_equal(s.total, 40 + 120);
    json_t *j;
    error e = {0};
    assert_int_equal(json_parse(&j, a, strlen(a), "report", &e), OK);
    assert_true(number(j, "prompts") == 40 && number(j, "seed") == 5);
    for (int k = 0; k < 2; k++) {
        const json_t *r = json_object_get(j, k ? "sampled" : "greedy");
        const double n = k ? 120 : 40;
        double answers, right;
        assert_true(number(r, "answers") == n && number(r, "temperature") == k);
        sum(json_object_get(r, "by_style"), &answers, &right);
        assert_true(answers == n && fabs(right - n * number(r, "accuracy")) < 1e-9);
        sum(json_object_get(r, "by_task"), &answers, &right);
        assert_true(answers == n && fabs(right - n * number(r, "accuracy")) < 1e-9);
        assert_true(number(r, "mean_tokens") >= 1 && number(r, "mean_tokens") <= TINY_R1_MOST_TOKENS);
        assert_true((json_object_get(r, "pass_at_3") != NULL) == k);
        const char *task;
        json_t *v_task;
        double tasks = 0;
        json_object_foreach(json_object_get(r, "by_task"), task, v_task) {
            double of_styles, right_of_styles;
            sum(json_object_get(v_task, "by_style"), &of_styles, &right_of_styles);
            assert_true(of_styles == number(v_task, "answers"));
            assert_true((json_object_get(v_task, "pass_at_3") != NULL) == k);
            tasks++;
        }
        assert_true(tasks == 4); /* 40 prompts lack one of four tasks with a chance of 4e-5 */
    }
    json_decref(j);
    free(a);
    free(b);
    free(c);
    free(d);
    v.greedy = false;
    a = report(&one, "tiny-r1:count", &v);
    assert_null(strstr(a, "calc"));
    assert_null(strstr(a, "greedy"));
    free(a);
    close_random(&one);
    close_random(&two);
}

static bool stop_after(void *arg, int64_t done, int64_t total) {
    (void)done, (void)total;
    return --*(int *)arg > 0;
}

static void refused(void **state) {
    (void)state;
    opened o = open_random(1, NULL), other = open_random(1, "tests/data/models/v3_mtp/checkpoint");
    eval_options v = {.limit = 40, .greedy = true, .samples = 1, .temperature = 1};
    json_t *j;
    error e = {0};
    assert_int_equal(eval_run(o.g, o.t, "tiny", &v, &j, &e), ERR_ARG);
    assert_string_equal(e.text, "there is no evaluation \"tiny\", but: tiny-r1, gsm8k, math, mmlu, gpqa, humaneval, "
                                "jsonl");
    assert_int_equal(eval_run(o.g, o.t, "tiny-r1:signs", &v, &j, &e), ERR_ARG);
    assert_non_null(strstr(e.text, "\"signs\""));
    assert_int_equal(eval_run(o.g, NULL, "tiny-r1", &v, &j, &e), ERR_ARG);
    assert_int_equal(eval_run(other.g, other.t, "tiny-r1", &v, &j, &e), ERR_ARG);
    assert_non_null(strstr(e.text, "has no token <user>"));
    for (int left = 1; left < 30; left += 7) { /* cancelled in the prompts, and among the tokens */
        int n = left;
        v.progress = stop_after;
        v.progress_arg = &n;
        assert_int_equal(eval_run(o.g, o.t, "tiny-r1", &v, &j, &e), ERR_CANCELLED);
        assert_null(j);
    }
    v = (eval_options){.limit = 0, .greedy = true};
    assert_int_equal(eval_run(o.g, o.t, "tiny-r1", &v, &j, &e), ERR_ARG);
    v = (eval_options){.limit = 1};
    assert_int_equal(eval_run(o.g, o.t, "tiny-r1", &v, &j, &e), ERR_ARG);
    v = (eval_options){.limit = 1, .sampled = true, .samples = 1, .temperature = (double)NAN};
    assert_int_equal(eval_run(o.g, o.t, "tiny-r1", &v, &j, &e), ERR_ARG);
    close_random(&o);
    close_random(&other);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(judged), cmocka_unit_test(random_model),
                                       cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
