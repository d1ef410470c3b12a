/* The page of curves: well-formed XML, points where they belong, any number of steps, damaged input. */
#include "../format/scratch.h"
#include <math.h>
#include "train/metrics.h"
#include "train/plot.h"

/* --- a strict little reader of XML: elements, attributes, text ------------------------------------------------------
 */

typedef struct page {
    int texts, raws, lines, circles, depth, most_depth;
    double x[64], y[64]; /* of circles */
} page;

static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == ':';
}

/* No stray < or &, and nothing but printable ASCII and newlines. */
static void check_text(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        assert_true(p[i] == '\n' || (p[i] >= 0x20 && p[i] < 0x7f));
        assert_true(p[i] != '<' && p[i] != '>');
        if (p[i] == '&')
            assert_true(!strncmp(p + i, "&lt;", 4) || !strncmp(p + i, "&gt;", 4) || !strncmp(p + i, "&amp;", 5));
    }
}

static void count_element(page *g, const char *tag, size_t n) {
    str s = {0};
    str_add(&s, tag, n);
    assert_null(strstr(s.p, "nan"));
    assert_null(strstr(s.p, "inf"));
    if (!strncmp(s.p, "text ", 5)) g->texts++;
    if (strstr(s.p, "class='raw'")) g->raws++;
    if (strstr(s.p, "class='line' d=")) g->lines++;
    if (!strncmp(s.p, "circle ", 7)) {
        if (g->circles < 64)
            assert_int_equal(sscanf(s.p, "circle cx='%lf' cy='%lf'", &g->x[g->circles], &g->y[g->circles]), 2);
        g->circles++;
    }
    str_free(&s);
}

static page check_xml(const char *p) {
    page g = {0};
    const char *open[8], *end = p + strlen(p);
    size_t length[8];
    assert_int_equal(*p, '<');
    while (p < end) {
        const char *text = p;
        p = strchr(p, '<') ? strchr(p, '<') : end;
        check_text(text, (size_t)(p - text));
        if (p == end) break;
        const char *tag = ++p;
        bool closing = *p == '/';
        if (closing) tag = ++p;
        while (is_name(*p)) p++;
        size_t n = (size_t)(p - tag);
        assert_true(n > 0);
        while (*p == ' ') { /* name='value' */
            while (*p == ' ') p++;
            assert_true(is_name(*p));
            while (is_name(*p) || (*p >= '0' && *p <= '9')) p++;
            assert_true(p[0] == '=' && p[1] == '\'');
            const char *value = p + 2;
            p = strchr(value, '\'');
            assert_non_null(p);
            check_text(value, (size_t)(p - value));
            p++;
        }
        if (!closing) count_element(&g, tag, (size_t)(p - tag));
        bool empty = *p == '/';
        if (empty) p++;
        assert_int_equal(*p++, '>');
        if (closing) {
            assert_true(g.depth > 0 && length[g.depth - 1] == n && !memcmp(open[g.depth - 1], tag, n));
            g.depth--;
        } else if (!empty) {
            assert_true(g.depth < 8);
            open[g.depth] = tag;
            length[g.depth++] = n;
        }
    }
    assert_int_equal(g.depth, 0);
    return g;
}

/* --- plotting -------------------------------------------------------------------------------------------------------
 */

/* Plots these lines; *svg may be NULL. */
static status plot(const char *lines, const char *folder, page *g, str *svg, error *e) {
    scratch s = scratch_open();
    char *run = scratch_path(&s, folder), *out = scratch_path(&s, "out.svg"), name[128];
    snprintf(name, sizeof name, "%s/metrics.jsonl", folder);
    scratch_write(&s, name, lines, strlen(lines));
    status st = metrics_plot(run, out, e);
    if (st == OK) {
        str text = {0};
        assert_int_equal(file_read(&text, out, 1 << 20, e), OK); /* 1 MiB is enough for any number of steps */
        *g = check_xml(text.p);
        if (svg) *svg = text;
        else str_free(&text);
    } else {
        assert_false(file_exists(out));
    }
    free(run);
    free(out);
    scratch_close(&s);
    return st;
}

static void one_step(void **state) {
    (void)state;
    page g;
    error e = {0};
    str svg = {0};
    if (plot("{\"step\": 0, \"loss\": 10.5, \"lm_loss\": 10.5, \"grad_norm\": 0, \"lr\": 0, \"skipped\": false}\n",
             "r&b <1>", &g, &svg, &e) != OK)
        fail_msg("%s", e.text);
    assert_true(g.circles == 3 && g.lines == 3 && g.raws == 0); /* loss, gradient norm, learning rate */
    assert_non_null(strstr(svg.p, ">r&amp;b &lt;1&gt;</text>"));
    assert_non_null(strstr(svg.p, ">1 step, loss 10.5 at first"));
    assert_null(strstr(svg.p, "total")); /* it is the language model's loss alone */
    str_free(&svg);
}

/* Where there are rewards the loss is a policy's, and what was measured before the first step is a point of its own. */
static void rewards(void **state) {
    (void)state;
    page g;
    error e = {0};
    str svg = {0};
    if (plot("{\"step\": 0, \"loss\": -0.5, \"lm_loss\": -0.5, \"reward\": 0.25, \"validation_reward\": 0.5, "
             "\"before_reward\": 0.125}\n{\"step\": 1, \"loss\": -0.4, \"lm_loss\": -0.4, \"reward\": 0.75}\n",
             "run", &g, &svg, &e) != OK)
        fail_msg("%s", e.text);
    assert_non_null(strstr(svg.p, ">Reward<"));
    assert_non_null(strstr(svg.p, ">Policy loss<"));
    assert_null(strstr(svg.p, ">Loss<"));
    assert_non_null(strstr(svg.p, "reward 0.25 at first, 0.75 at last"));
    assert_int_equal(g.circles, 2 + 2 + 2); /* sampled, held out (one of them before), loss */
    assert_true(g.x[2] < g.x[0]);           /* before the first step */
    str_free(&svg);
}

/* Panels for a report: in the order of the table, without what is zero all the time, and with ends of columns. */
static void panels_for_reports(void **state) {
    (void)state;
    error e = {0};
    history *h;
    str out = {0};
    double first, last;
    scratch s = scratch_open();
    static const char lines[] = "{\"step\": 3, \"loss\": 2, \"lr\": 1, \"kl\": 0, \"grad_norm\": 1}\n"
                                "{\"step\": 4, \"loss\": 1, \"lr\": 1, \"kl\": 0, \"grad_norm\": 1}\n";
    char *run = scratch_path(&s, "run");
    scratch_write(&s, "run/metrics.jsonl", lines, sizeof lines - 1);
    if (history_open(&h, run, &e) != OK) fail_msg("%s", e.text);
    history_panels(h, &out);
    const char *loss = strstr(out.p, "aria-label='Loss'"), *norm = strstr(out.p, "aria-label='Gradient norm'");
    assert_true(loss && norm && loss < norm);
    assert_null(strstr(out.p, "KL to the reference"));
    assert_null(strstr(out.p, "Learning rate"));
    assert_true(history_ends(h, "loss", &first, &last) && first == 2 && last == 1);
    assert_false(history_ends(h, "reward", &first, &last));
    assert_false(history_ends(h, "nothing", &first, &last));
    assert_true(history_steps(h) == 5);
    history_close(h);
    str_free(&out);
    assert_int_not_equal(history_open(&h, "/nowhere", &e), OK);
    assert_null(h);
    free(run);
    scratch_close(&s);
}

/* Values 0, 1, 2, 4 at the steps 0, 1, 2, 4 lie on a straight line from the lower left to the right. */
static void right_places(void **state) {
    (void)state;
    page g;
    error e = {0};
    static const char lines[] = "{\"step\": 0, \"lr\": 0}\n{\"step\": 1, \"lr\": 1, \"loss\": null}\n"
                                "{\"step\": 2, \"lr\": 2}\n{\"step\": 3}\n{\"step\": 4, \"lr\": 4}\n"
                                "{\"step\": 5, \"lr\": 1000"; /* being written */
    if (plot(lines, "run", &g, NULL, &e) != OK) fail_msg("%s", e.text);
    assert_true(g.circles == 4 && g.lines == 1);
    const double dx = g.x[1] - g.x[0], dy = g.y[1] - g.y[0];
    assert_true(dx > 20 && dy < -20);
    for (int i = 1; i < 4;
         i++) { /* coordinates have one decimal: a difference is off by 0.1 at most, 4 of them by 0.4 */
        const double v = i == 3 ? 4 : i;
        assert_true(fabs(g.x[i] - g.x[0] - v * dx) <= 0.5 && fabs(g.y[i] - g.y[0] - v * dy) <= 0.5);
    }
}

/* A constant is smoothed to itself, at the ends, too. */
static void smoothed(void **state) {
    (void)state;
    page g;
    error e = {0};
    str s = {0}, svg = {0};
    for (int i = 0; i < 500; i++) str_addf(&s, "{\"step\": %d, \"loss\": %s}\n", i, i % 7 ? "2.5" : "null");
    if (plot(s.p, "run", &g, &svg, &e) != OK) fail_msg("%s", e.text);
    assert_true(g.raws == 1 && g.lines == 1 && g.circles == 0);
    double first = 0, x, y;
    const char *p = strstr(svg.p, "<path class='line' d='M") + strlen("<path class='line' d='");
    int points = 0, used;
    for (; sscanf(p, "%*[ML]%lf %lf%n", &x, &y, &used) == 2; p += used, points++) {
        if (!points) first = y;
        assert_true(y == first);
    }
    assert_int_equal(*p, '\'');
    assert_true(points > 200);
    str_free(&s);
    str_free(&svg);
}

static void long_run(void **state) {
    (void)state;
    enum { STEPS = 100000 };
    page g;
    error e = {0};
    str s = {0}, svg = {0};
    for (int i = 0; i < STEPS; i++) {
        const double wave = 2 + sin(i) + 8 * exp(-i / 5000.0);
        if (i % 1000 == 999) str_addf(&s, "{\"step\": %d, \"skipped\": true}\n", i);
        else if (i % 5000)
            str_addf(&s, "{\"step\": %d, \"loss\": %.4f, \"lm_loss\": %.4f, \"grad_norm\": %g}\n", i, wave, 0.9 * wave,
                     i == 777 ? 1e6 : wave);
        else str_addf(&s, "{\"step\": %d, \"loss\": %.4f, \"lm_loss\": %.4f, \"validation_loss\": 3}\n", i, wave, wave);
    }
    if (plot(s.p, "run", &g, &svg, &e) != OK) fail_msg("%s", e.text);
    assert_true(g.raws == 3 && g.lines == 4 && g.circles == STEPS / 5000);
    assert_non_null(strstr(svg.p, ">100000 steps, loss "));
    assert_non_null(strstr(svg.p, "best validation loss 3, 100 skipped<"));
    assert_non_null(strstr(svg.p, "logarithmic")); /* the spike of the gradient norm leaves the rest readable */
    printf("  %d steps: %zu bytes\n", STEPS, svg.n);
    str_free(&s);
    str_free(&svg);
}

static void refused(void **state) {
    (void)state;
    page g;
    error e = {0};
    assert_int_equal(plot("", "run", &g, NULL, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "metrics.jsonl: no step is in it yet"));
    assert_int_equal(plot("{\"step\": 0, \"lo", "run", &g, NULL, &e), ERR_FORMAT);
    assert_int_equal(plot("{\"step\": 0}\n{\"step\": 1, \"loss\": \"low\"}\n", "run", &g, NULL, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "metrics.jsonl, line 2: \"loss\" should be a number"));
    assert_int_equal(plot("{\"step\": 0}\n{\n{\"step\": 2}\n", "run", &g, NULL, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "line 2"));
    assert_int_equal(plot("{\"loss\": 0}\n", "run", &g, NULL, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "no \"step\""));
    if (plot("{\"step\": 0}\n{\"step\": 1}\n", "run", &g, NULL, &e) != OK) fail_msg("%s", e.text); /* nothing to draw */
    assert_int_equal(g.lines, 0);
    assert_int_equal(metrics_plot("/nowhere/at all", "/tmp/x.svg", &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "/nowhere/at all/metrics.jsonl"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_step),     cmocka_unit_test(rewards),  cmocka_unit_test(panels_for_reports),
        cmocka_unit_test(right_places), cmocka_unit_test(smoothed), cmocka_unit_test(long_run),
        cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
