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

/* A sum of signed digits modulo 10; signs before each digit but the first. */
static int signed_sum(char first, const char *signs, const char *digits, int n) {
    int sum = first - '0';
    for (int i = 0; i < n; i++) {
        assert_true(strchr("+-", signs[i]) && digits[i] >= '0' && digits[i] <= '9');
        sum += (signs[i] == '+' ? 1 : -1) * (digits[i] - '0');
    }
    return ((sum % 10) + 10) % 10;
}

static bool right(const char *prompt, const char *answer) {
    int a, b, n = 0;
    if (*prompt == 'c') {
        const char signs[] = {prompt[2], prompt[4], prompt[6], prompt[8]};
        const char digits[] = {prompt[3], prompt[5], prompt[7], prompt[9]};
        assert_int_equal(strlen(prompt), 10);
        return answer[0] == '0' + signed_sum(prompt[1], signs, digits, 4) && !answer[1];
    }
    if (*prompt == 'n') {
        assert_true(prompt[2] == ':' && strlen(prompt) == 9);
        for (int i = 3; i < 9; i++) n += prompt[i] == prompt[1];
        return answer[0] == '0' + n && !answer[1];
    }
    if (*prompt == 'a') {
        char text[16];
        assert_int_equal(sscanf(prompt, "a%d+%d%n", &a, &b, &n), 2);
        assert_true(!prompt[n] && a >= 10 && a <= 9999 && b >= 10 && b <= 9999);
        snprintf(text, sizeof text, "%d", a + b);
        return !strcmp(text, answer);
    }
    assert_true(*prompt == 's' && prompt[2] == ':' && strlen(prompt) == 7);
    return strlen(answer) == 3 && signed_sum(prompt[3], answer, prompt + 4, 3) == prompt[1] - '0';
}

/* Each of these reads the working of a prompt to its end, counts the steps that do not follow from the ones before, as
 * they are written, and says which answer it comes to. */

static int calc_slips(const char *prompt, const char *p, char *answer) {
    int slips = 0;
    assert_int_equal(*p++, prompt[1]);
    for (int i = 2; i < 10; i += 2, p += 2) {
        assert_int_equal(p[0], prompt[i]);
        slips += p[1] - '0' != signed_sum(p[-1], prompt + i, prompt + i + 1, 1);
    }
    sprintf(answer, "%c", p[-1]);
    assert_int_equal(*p, 0);
    return slips;
}

static int count_slips(const char *prompt, const char *p, char *answer) {
    int slips = 0;
    for (int i = 0; i < 6; i++) {
        assert_int_equal(p[2 * i], prompt[3 + i]);
        slips += p[2 * i + 1] != (i ? p[2 * i - 1] : '0') + (prompt[3 + i] == prompt[1]);
    }
    sprintf(answer, "%c", p[11]);
    assert_int_equal(p[12], 0);
    return slips;
}

static int add_slips(const char *prompt, const char *p, char *answer) {
    int a, b, x, y, c, sum, n, slips = 0, carry = 0, total = 0, place = 1;
    assert_int_equal(sscanf(prompt, "a%d+%d", &a, &b), 2);
    for (; a || b; a /= 10, b /= 10, place *= 10, p += n + (p[n] == ';')) {
        assert_int_equal(sscanf(p, "%1d+%1d+%1d=%2d%n", &x, &y, &c, &sum, &n), 4);
        assert_true(n == 8 && x == a % 10 && y == b % 10 && c == carry);
        slips += sum != x + y + c;
        total += place * (sum % 10);
        carry = sum / 10;
    }
    assert_int_equal(*p, 0);
    sprintf(answer, "%d", total + place * carry);
    return slips;
}

static int search_slips(const char *prompt, const char *p, char *answer) {
    int slips = 0;
    for (int try = 0;; try++, p++) {
        char before = prompt[3];
        for (int i = 0; i < 3; i++, p += 2) {
            answer[i] = p[0];
            assert_int_equal(p[0], try & 4 >> i ? '-' : '+');
            slips += p[1] - '0' != signed_sum(before, p, prompt + 4 + i, 1);
            before = p[1];
        }
        assert_true((before == prompt[1]) == !*p); /* it ends with the first try that hits */
        if (!*p) break;
        assert_int_equal(*p, ';');
    }
    answer[3] = 0;
    return slips;
}

static void check_document(const tiny_r1_document *t) {
    static int (*const slips[])(const char *, const char *, char *) = {calc_slips, count_slips, add_slips,
                                                                       search_slips};
    char whole[140], working[64] = "", said[16] = "", follows[16];
    const char *answer, *prompt = t->prompt;
    assert_true(right(prompt, t->answer));
    assert_int_equal(*prompt, "cnas"[t->task]);
    if (t->style == TINY_R1_PLAIN) {
        assert_string_equal(t->completion, t->answer);
        return;
    }
    snprintf(whole, sizeof whole, "%s<eos>", t->completion);
    const int n = tiny_r1_answer(whole, strlen(whole), &answer);
    assert_true(n >= 1 && n < 16);
    memcpy(said, answer, (size_t)n);
    assert_true(right(prompt, said) == (t->style != TINY_R1_ERR));
    assert_true(tiny_r1_right(prompt, said, (size_t)n) == (t->style != TINY_R1_ERR));
    memcpy(working, whole + 7, (size_t)(strstr(whole, "</think>") - whole - 7));
    if (t->style == TINY_R1_DIRECT) {
        assert_string_equal(working, "");
        return;
    }
    assert_int_equal(slips[t->task](prompt, working, follows), t->style == TINY_R1_ERR);
    assert_string_equal(said, follows);
    if (t->style == TINY_R1_WORK) assert_string_equal(said, t->answer);
}

static void documents(void **state) {
    (void)state;
    enum { N = 20000 };
    tiny_r1_options o = {.tasks = 15, .seed = 7};
    error e = {0};
    for (int held = 0; held < 2; held++) {
        int style[TINY_R1_STYLES] = {0}, task[TINY_R1_TASKS] = {0}, searches = 0, tries[8] = {0};
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
            task[t.task]++;
            if (t.task != TINY_R1_SEARCH || t.style != TINY_R1_WORK) continue;
            int n = 0;
            for (const char *p = t.completion; *p; p++) n += *p == ';';
            tries[n]++;
            searches++;
        }
        /* five standard deviations: right for all but one in two million seeds */
        for (int k = 0; k < TINY_R1_TASKS; k++) assert_true(fabs(task[k] - N / 4.0) < 5 * sqrt(N * 0.25 * 0.75));
        for (int k = 0; k < 8; k++) /* all numbers of tries but one are as frequent */
            assert_true(fabs(tries[k] - searches * (k > 0) / 7.0) <= 5 * sqrt(searches * 6.0 / 49) * (k > 0));
        for (int s = 0; s < TINY_R1_STYLES; s++)
            assert_true(fabs(style[s] - N * o.share[s]) <= 5 * sqrt(N * o.share[s] * (1 - o.share[s])));
    }
}

/* A document does not depend on which others are made, and seeds give others. */
static void seeds(void **state) {
    (void)state;
    tiny_r1_options o = {.tasks = 1 << TINY_R1_CALC, .share = {1, 0, 0, 0}, .seed = 1}, other = o;
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

static void rules(void **state) {
    (void)state;
    static const struct {
        const char *prompt, *answer;
        bool right;
    } cases[] = {
        {"c7+8-3+5-9", "8", true},
        {"<user>c7+8-3+5-9<assistant>", "8", true},
        {"<user>c7+8-3+5-9", "8", true},
        {"c7+8-3+5-9<assistant><think>", "8", true},
        {"c7+8-3+5-9", "7", false},
        {"c7+8-3+5-9", "08", false},
        {"c7+8-3+5-9", "", false},
        {"c7+8-3+5-9", " 8", false},
        {"c0-9-9-9-9", "4", true},
        {"nz:zcazaz", "3", true},
        {"nz:zcazaz", "2", false},
        {"nq:zcazaz", "0", true},
        {"a487+95", "582", true},
        {"a487+95", "0582", false},
        {"a487+95", "572", false},
        {"a487+95", "+582", false},
        {"a9999+9999", "19998", true},
        {"a10+10", "20", true},
        {"s4:3852", "++-", true},
        {"s4:3852", "+-+", false},
        {"s8:3852", "+-+", true},
        {"s8:3050", "+++", true}, /* other signs hit as well: 3+0+5+0, 3-0-5-0 ... */
        {"s8:3050", "---", true},
        {"s8:3050", "-+-", true},
        {"s8:3050", "++", false},
        {"s8:3050", "++++", false},
        {"s8:3050", "+0+5+0", false},
        {"s8:3050", "8", false},
        {"s8:3051", "+++", false},
        /* prompts of no task have no right answer */
        {"", "", false},
        {"x", "0", false},
        {"c7+8-3+5", "7", false},
        {"c7+8-3+5-9+0", "8", false},
        {"c7+8-3*5-9", "8", false},
        {"a5+10", "15", false},
        {"a10-10", "0", false},
        {"a010+10", "20", false},
        {"a10000+10", "10010", false},
        {"a10+10+10", "20", false},
        {"a10+", "10", false},
        {"s4:385", "++", false},
        {"nz:zcaza", "2", false},
        {"<user><assistant>", "0", false},
        {"c7+8-3+5-9c7+8-3+5-9c7+8-3+5-9", "8", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const size_t n = strlen(cases[i].answer);
        char *exact = malloc(n + !n);
        memcpy(exact, cases[i].answer, n);
        if (tiny_r1_right(cases[i].prompt, exact, n) != cases[i].right)
            fail_msg("%s = %s", cases[i].prompt, cases[i].answer);
        free(exact);
    }
    assert_false(tiny_r1_right("c7+8-3+5-9", "8\0", 2));
}

static void names(void **state) {
    (void)state;
    static const struct {
        const char *text;
        unsigned tasks; /* 0: refused */
    } cases[] = {{"all", 15},  {"calc", 1},  {"add", 4},     {"search,count", 10}, {"calc,calc", 1}, {"", 0},
                 {"signs", 0}, {"calc,", 0}, {"calc,al", 0}, {",calc", 0},         {"cal", 0},       {"both", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned tasks;
        error e = {0};
        const status s = tiny_r1_tasks(cases[i].text, &tasks, &e);
        assert_int_equal(s, cases[i].tasks ? OK : ERR_ARG);
        if (s == OK) assert_int_equal(tasks, cases[i].tasks);
        else assert_non_null(strstr(e.text, "use all, or"));
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
    tiny_r1_options o = {.tasks = 1 << TINY_R1_COUNT | 1 << TINY_R1_SEARCH, .seed = 3};
    tiny_r1_counts counts;
    error e = {0};
    str text = {0};
    assert_int_equal(tiny_r1_phase("mixed", o.share, &e), OK);
    assert_int_equal(tiny_r1_write(path, &o, 5, stop_at_once, NULL, &counts, &e), ERR_CANCELLED);
    assert_false(file_exists(path));
    if (tiny_r1_write(path, &o, 300, NULL, NULL, &counts, &e) != OK) fail_msg("%s", e.text);
    assert_int_equal(file_read(&text, path, 1 << 20, &e), OK);
    assert_int_equal(counts.bytes, text.n);
    assert_true(counts.task[TINY_R1_COUNT] > 0 && counts.task[TINY_R1_SEARCH] > 0);
    assert_int_equal(counts.task[TINY_R1_COUNT] + counts.task[TINY_R1_SEARCH], 300);
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
        assert_string_equal(task, t.task == TINY_R1_SEARCH ? "search" : "count");
        counts.style[t.style]--;
        json_decref(j);
        p = end + 1;
    }
    assert_int_equal(*p, 0);
    for (int i = 0; i < TINY_R1_STYLES; i++) assert_int_equal(counts.style[i], 0);
    assert_int_equal(tiny_r1_phase("dirty", o.share, &e), ERR_ARG);
    assert_int_equal(tiny_r1_write("/nowhere/x", &o, 1, NULL, NULL, &counts, &e), ERR_IO);
    str_free(&text);
    free(path);
    scratch_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_md5), cmocka_unit_test(documents), cmocka_unit_test(seeds), cmocka_unit_test(answers),
        cmocka_unit_test(rules),     cmocka_unit_test(names),     cmocka_unit_test(file)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
