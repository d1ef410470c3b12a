/* The documents of tiny-r1 against a second reckoning of every sum, their shares, and what is held out. */
#include "../format/scratch.h"
#include <math.h>
#include "base/json.h"
#include "data/md5.h"
#include "data/tiny_r1.h"

static void known_md5(void **state) {
    (void)state;
    static const struct {
        const char *text, *sum;
    } known[] = {
        /* RFC 1321, A.5 */
        {"", "d41d8cd98f00b204e9800998ecf8427e"},
        {"a", "0cc175b9c0f1b6a831c399e269772661"},
        {"abc", "900150983cd24fb0d6963f7d28e17f72"},
        {"message digest", "f96b697d7cb7938d525a2f31aaf161d0"},
        {"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", "d174ab98d277d9f5a5611c2c9f419d9f"},
        {"12345678901234567890123456789012345678901234567890123456789012345678901234567890",
         "57edf4a22be3c955ac49da2e2107b67a"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint8_t sum[16];
        char hex[33];
        md5(known[i].text, strlen(known[i].text), sum);
        for (int k = 0; k < 16; k++) snprintf(hex + 2 * k, 3, "%02x", sum[k]);
        assert_string_equal(hex, known[i].sum);
    }
}

/* --- a second reckoning ---------------------------------------------------------------------------------------------
 */

/* The right values after each step. */
static int values(const tiny_r1_document *t, int out[8]) {
    int n = 0;
    if (t->task == TINY_R1_CALC) {
        long sum = t->prompt[1] - '0';
        assert_int_equal(strlen(t->prompt), 10);
        for (int i = 2; i < 10; i += 2) {
            assert_true(strchr("+-", t->prompt[i]) && t->prompt[i + 1] >= '0' && t->prompt[i + 1] <= '9');
            sum += (t->prompt[i] == '+' ? 1 : -1) * (t->prompt[i + 1] - '0');
            out[n++] = (int)(((sum % 10) + 10) % 10);
        }
    } else {
        int seen[26] = {0}, kinds = 0, sum = 0;
        assert_true(t->prompt[0] == 'n' && t->prompt[2] == ':' && strlen(t->prompt) == 9);
        seen[t->prompt[1] - 'a'] = 1;
        for (int i = 3; i < 9; i++) {
            assert_true(t->prompt[i] >= 'a' && t->prompt[i] <= 'z');
            seen[t->prompt[i] - 'a'] = 1;
            out[n++] = sum += t->prompt[i] == t->prompt[1];
        }
        for (int i = 0; i < 26; i++) kinds += seen[i];
        assert_true(kinds <= 3);
    }
    return n;
}

/* The values in a completion's working; -1: it has none. */
static int written(const tiny_r1_document *t, int out[8]) {
    const char *p = strstr(t->completion, "<think>"), *end = strstr(t->completion, "</think>");
    int n = 0;
    if (!p || p + 7 == end) return -1;
    p += 7;
    if (t->task == TINY_R1_CALC) assert_int_equal(*p++, t->prompt[1]);
    for (int i = 2; p < end; i += 2) {
        if (t->task == TINY_R1_CALC) assert_int_equal(*p++, t->prompt[i]);
        assert_true(*p >= '0' && *p <= '9');
        out[n++] = *p++ - '0';
    }
    return n;
}

static void check_document(const tiny_r1_document *t) {
    int right[8], wrote[8], n = values(t, right), m = written(t, wrote);
    char whole[80];
    const char *answer;
    assert_int_equal(t->answer[0], '0' + right[n - 1]);
    assert_int_equal(t->answer[1], 0);
    if (t->style == TINY_R1_PLAIN) {
        assert_string_equal(t->completion, t->answer);
        return;
    }
    snprintf(whole, sizeof whole, "%s<eos>", t->completion);
    assert_int_equal(tiny_r1_answer(whole, strlen(whole), &answer), 1);
    assert_true((*answer == t->answer[0]) == (t->style != TINY_R1_ERR));
    if (t->style == TINY_R1_DIRECT) assert_int_equal(m, -1);
    else assert_int_equal(m, n);
    if (t->style == TINY_R1_WORK) assert_memory_equal(wrote, right, (size_t)n * sizeof *right);
    if (t->style == TINY_R1_ERR) { /* the difference from what is right comes in one step and stays */
        int changes = 0, before = 0;
        for (int i = 0; i < n; i++) {
            int off = (wrote[i] - right[i] + 20) % 10;
            changes += off != before;
            before = off;
        }
        assert_true(changes == 1 && before != 0);
        assert_int_equal(*answer, '0' + wrote[n - 1]);
    }
}

static void documents(void **state) {
    (void)state;
    enum { N = 20000 };
    tiny_r1_options o = {.tasks = TINY_R1_BOTH, .seed = 7};
    error e = {0};
    for (int held = 0; held < 2; held++) {
        int style[TINY_R1_STYLES] = {0}, calc = 0;
        assert_int_equal(tiny_r1_phase(held ? "clean" : "mixed", o.share, &e), OK);
        o.held_out = held;
        for (uint64_t i = 0; i < N; i++) {
            tiny_r1_document t;
            uint8_t sum[16];
            tiny_r1_make(&t, &o, i);
            check_document(&t);
            md5(t.prompt, strlen(t.prompt), sum);
            assert_true((sum[0] < 16) == held);
            style[t.style]++;
            calc += t.task == TINY_R1_CALC;
        }
        /* five standard deviations: right for all but one in two million seeds */
        assert_true(fabs(calc - N / 2.0) < 5 * sqrt(N * 0.25));
        for (int s = 0; s < TINY_R1_STYLES; s++)
            assert_true(fabs(style[s] - N * o.share[s]) <= 5 * sqrt(N * o.share[s] * (1 - o.share[s])));
    }
}

/* A document does not depend on which others are made, and seeds give others. */
static void seeds(void **state) {
    (void)state;
    tiny_r1_options o = {.tasks = TINY_R1_CALC, .share = {1, 0, 0, 0}, .seed = 1}, other = o;
    int same = 0;
    other.seed = 2;
    for (uint64_t i = 50; i-- > 0;) {
        tiny_r1_document a, b, c;
        tiny_r1_make(&a, &o, i);
        tiny_r1_make(&b, &o, i);
        tiny_r1_make(&c, &other, i);
        assert_string_equal(a.prompt, b.prompt);
        assert_string_equal(a.completion, b.completion);
        assert_true(a.task == TINY_R1_CALC && a.style == TINY_R1_WORK);
        same += !strcmp(a.prompt, c.prompt);
    }
    assert_int_equal(same, 0); /* 1.6 million prompts: a pair alike has a chance of 3e-5 */
    tiny_r1_document t;
    o.seed = 0;
    tiny_r1_make(&t, &o, 0); /* the generator stays what it is: figures in the documentation depend on it */
    printf("  %s %s\n", t.prompt, t.completion);
    assert_string_equal(t.prompt, "c9+7-4-6+5");
}

static void answers(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int n;
    } cases[] = {
        {"<think></think><answer>5</answer><eos>", 1},
        {"<think>1+2</think><answer>12</answer><eos>", 2},
        {"<think></think><answer></answer><eos>", 0},
        {"<think></think><answer>5</answer>", -1}, /* did not end */
        {"<think></think><answer>5</answer><eos><eos>", -1},
        {" <think></think><answer>5</answer><eos>", -1},
        {"<think><think></think><answer>5</answer><eos>", -1},
        {"<think></think>5<answer>5</answer><eos>", -1},
        {"<think></think><answer>5<eos>", -1},
        {"<answer>5</answer><eos>", -1},
        {"5<eos>", -1},
        {"", -1},
        {"<think>", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *answer;
        size_t n = strlen(cases[i].text);
        char *exact = malloc(n + !n); /* so that a sanitizer sees the first byte read beyond it */
        memcpy(exact, cases[i].text, n);
        assert_int_equal(tiny_r1_answer(exact, n, &answer), cases[i].n);
        if (cases[i].n > 0) assert_memory_equal(answer, cases[i].n == 1 ? "5" : "12", (size_t)cases[i].n);
        free(exact);
    }
}

static int stop_at_once(void *arg, uint64_t done, uint64_t total, const char *what) {
    (void)arg, (void)done, (void)total, (void)what;
    return 1;
}

static void file(void **state) {
    (void)state;
    scratch s = scratch_open();
    char *path = scratch_path(&s, "train.jsonl");
    tiny_r1_options o = {.tasks = TINY_R1_BOTH, .seed = 3};
    tiny_r1_counts counts;
    error e = {0};
    str text = {0};
    assert_int_equal(tiny_r1_phase("mixed", o.share, &e), OK);
    assert_int_equal(tiny_r1_write(path, &o, 5, stop_at_once, NULL, &counts, &e), ERR_CANCELLED);
    assert_false(file_exists(path));
    if (tiny_r1_write(path, &o, 300, NULL, NULL, &counts, &e) != OK) fail_msg("%s", e.text);
    assert_int_equal(file_read(&text, path, 1 << 20, &e), OK);
    assert_int_equal(counts.bytes, text.n);
    assert_int_equal(counts.calc + counts.count, 300);
    const char *p = text.p;
    for (uint64_t i = 0; i < 300; i++) {
        const char *end = strchr(p, '\n'), *prompt, *completion, *task, *style, *answer;
        tiny_r1_document t;
        json_t *j;
        char wanted[40];
        assert_non_null(end);
        assert_int_equal(json_parse(&j, p, (size_t)(end - p), "line", &e), OK);
        assert_int_equal(json_unpack(j, "{s:s,s:s,s:s,s:s,s:s!}", "prompt", &prompt, "completion", &completion, "task",
                                     &task, "style", &style, "answer", &answer),
                         0);
        tiny_r1_make(&t, &o, i);
        snprintf(wanted, sizeof wanted, "<user>%s<assistant>", t.prompt);
        assert_string_equal(prompt, wanted);
        assert_string_equal(completion, t.completion);
        assert_string_equal(answer, t.answer);
        assert_string_equal(style, tiny_r1_style_names[t.style]);
        assert_string_equal(task, t.task == TINY_R1_CALC ? "calc" : "count");
        counts.style[t.style]--;
        json_decref(j);
        p = end + 1;
    }
    assert_int_equal(*p, 0);
    for (int i = 0; i < TINY_R1_STYLES; i++) assert_int_equal(counts.style[i], 0);
    assert_int_equal(tiny_r1_phase("dirty", o.share, &e), ERR_ARG);
    assert_int_equal(tiny_r1_tasks("signs", &o.tasks, &e), ERR_ARG);
    assert_int_equal(tiny_r1_write("/nowhere/x", &o, 1, NULL, NULL, &counts, &e), ERR_IO);
    str_free(&text);
    free(path);
    scratch_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_md5), cmocka_unit_test(documents),
                                       cmocka_unit_test(seeds), cmocka_unit_test(answers), cmocka_unit_test(file)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
