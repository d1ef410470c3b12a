/* The curves of metrics.jsonl as a page of small panels in SVG: reading, axes, lines, page.
 *
 * A curve is drawn twice: faint as it is, and smoothed over it, with weights that halve every hundredth of its points
 * to both sides, so that the line does not lag behind. Where several
 * points fall into one pixel column, the faint line goes from the smallest to the largest of them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/json.h"
#include "train/metrics.h"
#include "train/plot.h"

/* --- reading ---------------------------------------------------------------------------------------------------- */

enum {
    STEP,
    TOKENS,
    LOSS,
    LM_LOSS,
    MTP_LOSS,
    BALANCE_LOSS,
    INDEXER_LOSS,
    MTP_ACCEPTANCE,
    VALIDATION_LOSS,
    GRAD_NORM,
    LR,
    SPEED,
    MFU,
    MEMORY,
    MAX_VIO,
    DROPPED,
    POLICY_LOSS, /* what `loss` is where there are rewards */
    REWARD,
    ACCURACY,
    FORMAT,
    LENGTH,
    KL,
    ENTROPY,
    CLIPPED_LOW,
    CLIPPED_HIGH,
    NO_SIGNAL,
    LOGPROB_ERROR,
    ROLLOUT_SPEED,
    PREFERRED,
    PREFERENCE,
    HELD_REWARD,
    HELD_ACCURACY,
    HELD_FORMAT,
    HELD_LENGTH,
    HELD_PREFERRED,
    COLUMNS
};
static const char *const names[COLUMNS] = {
    [STEP] = "step",
    [TOKENS] = "tokens",
    [LOSS] = "loss",
    [LM_LOSS] = "lm_loss",
    [MTP_LOSS] = "mtp_loss",
    [BALANCE_LOSS] = "balance_loss",
    [INDEXER_LOSS] = "indexer_loss",
    [MTP_ACCEPTANCE] = "mtp_acceptance",
    [VALIDATION_LOSS] = "validation_loss",
    [GRAD_NORM] = "grad_norm",
    [LR] = "lr",
    [SPEED] = "tokens_per_second",
    [MFU] = "mfu",
    [MEMORY] = "memory",
    [MAX_VIO] = "max_vio",
    [DROPPED] = "dropped",
    [POLICY_LOSS] = "policy_loss",
    [REWARD] = "reward",
    [ACCURACY] = "accuracy",
    [FORMAT] = "format",
    [LENGTH] = "completion_tokens",
    [KL] = "kl",
    [ENTROPY] = "entropy",
    [CLIPPED_LOW] = "clipped_low",
    [CLIPPED_HIGH] = "clipped_high",
    [NO_SIGNAL] = "groups_without_signal",
    [LOGPROB_ERROR] = "logprob_error_max",
    [ROLLOUT_SPEED] = "rollout_tokens_per_second",
    [PREFERRED] = "preferred",
    [PREFERENCE] = "margin",
    [HELD_REWARD] = "validation_reward",
    [HELD_ACCURACY] = "validation_accuracy",
    [HELD_FORMAT] = "validation_format",
    [HELD_LENGTH] = "validation_tokens",
    [HELD_PREFERRED] = "validation_preferred",
};

/* Measured before the first step, in its line. */
static const struct {
    const char *name;
    int column;
} before[] = {{"before_reward", HELD_REWARD},
              {"before_accuracy", HELD_ACCURACY},
              {"before_format", HELD_FORMAT},
              {"before_tokens", HELD_LENGTH}};
enum { BEFORE = sizeof before / sizeof *before };

typedef struct row {
    double v[COLUMNS]; /* NaN: not in this step */
    bool skipped;
} row;

struct history {
    row *rows;
    int64_t n, cap;
};

static status read_row(row *r, const json_t *line, error *e) {
    for (int c = 0; c < COLUMNS; c++) TRY(json_get_real(line, names[c], NAN, &r->v[c], e));
    if (isnan(r->v[STEP])) return fail(e, ERR_FORMAT, "no \"step\"");
    if (!isnan(r->v[REWARD])) {
        r->v[POLICY_LOSS] = r->v[LOSS];
        r->v[LOSS] = r->v[LM_LOSS] = NAN;
    }
    return json_get_bool(line, "skipped", false, &r->skipped, e);
}

static status add_row(history *h, const row *r, error *e) {
    if (h->n == h->cap) {
        int64_t cap = h->cap ? 2 * h->cap : 1024;
        row *rows = realloc(h->rows, (size_t)cap * sizeof *rows);
        if (!rows) return fail(e, ERR_NOMEM, "memory is out");
        h->rows = rows;
        h->cap = cap;
    }
    h->rows[h->n++] = *r;
    return OK;
}

/* A row of its own, before that of the first step. */
static status add_before(history *h, const json_t *line, double step, error *e) {
    row r = {.skipped = false};
    bool some = false;
    for (int c = 0; c < COLUMNS; c++) r.v[c] = NAN;
    for (int i = 0; i < BEFORE; i++) {
        TRY(json_get_real(line, before[i].name, NAN, &r.v[before[i].column], e));
        some |= !isnan(r.v[before[i].column]);
    }
    r.v[STEP] = step - 1;
    return some ? add_row(h, &r, e) : OK;
}

static status add_line(history *h, const char *p, size_t n, const char *name, error *e) {
    json_t *line;
    row r;
    TRY(json_parse(&line, p, n, name, e));
    status s = read_row(&r, line, e);
    if (s == OK) s = add_before(h, line, r.v[STEP], e);
    if (s == OK) s = add_row(h, &r, e);
    json_decref(line);
    return s == OK ? OK : wrap(e, "%s", name);
}

/* A last line without newline is being written just now, or torn: it does not count. */
static status read_history(history *h, const char *folder, error *e) {
    char *path = path_join(folder, "metrics.jsonl");
    mapping file = {0};
    if (!path) return fail(e, ERR_NOMEM, "memory is out");
    status s = file_map(&file, path, e);
    const char *p = (const char *)file.p, *end = p ? p + file.n : p;
    for (int64_t line = 1; s == OK && p < end; line++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        if (!stop) break;
        str name = {0};
        str_addf(&name, "%s, line %lld", path, (long long)line);
        s = str_check(&name, e);
        if (s == OK) s = add_line(h, p, (size_t)(stop - p), name.p, e);
        str_free(&name);
        p = stop + 1;
    }
    file_unmap(&file);
    if (s == OK && !h->n) s = fail(e, ERR_FORMAT, "%s: no step is in it yet", path);
    free(path);
    return s;
}

/* --- numbers as people write them ------------------------------------------------------------------------------- */

/* "0.3", "12k", "1.5M", "3e-5": four digits at most */
static void add_number(str *s, double v) {
    static const char *const units[] = {"", "k", "M", "B", "T"};
    char text[40];
    double size = fabs(v);
    int unit = 0;
    if (size && size < 0.99e-3) {
        snprintf(text, sizeof text, "%.3e", v);
        char *exponent = strchr(text, 'e'), *digit = exponent;
        double mantissa = strtod(text, NULL) / pow(10, atoi(exponent + 1));
        while (*++digit == '-' || *digit == '+' || *digit == '0') continue;
        str_addf(s, "%.4ge%s%s", mantissa, exponent[1] == '-' ? "-" : "", digit);
        return;
    }
    for (; size >= (unit ? 999.95 : 9999.5) && unit < 4; unit++, size /= 1000, v /= 1000) continue;
    snprintf(text, sizeof text, "%.4g", v);
    str_addf(s, "%s%s", text, units[unit]);
}

static void add_escaped(str *s, const char *text) {
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '<') str_puts(s, "&lt;");
        else if (c == '>') str_puts(s, "&gt;");
        else if (c == '&') str_puts(s, "&amp;");
        else if (c < 0x20 || c >= 0x7f) str_putc(s, '?');
        else str_putc(s, (char)c);
    }
}

/* --- axes ------------------------------------------------------------------------------------------------------- */

typedef struct axis { /* values lo .. hi lie at from .. to on the page */
    double lo, hi, from, to;
    bool log;
} axis;

static double place(const axis *a, double v) {
    double t = a->log ? log(v / a->lo) / log(a->hi / a->lo) : (v - a->lo) / (a->hi - a->lo);
    return a->from + t * (a->to - a->from);
}

/* The step between ticks: 1, 2 or 5 times a power of ten, about `wanted` of them. */
static double tick_step(double range, int wanted) {
    double raw = range / wanted, power = pow(10, floor(log10(raw))), m = raw / power;
    return power * (m < 1.5 ? 1 : m < 3.5 ? 2 : m < 7.5 ? 5 : 10);
}

enum { MOST_TICKS = 16 };

static int linear_ticks(const axis *a, int wanted, double least, double tick[MOST_TICKS]) {
    double step = fmax(tick_step(a->hi - a->lo, wanted), least), first = ceil(a->lo / step - 1e-9);
    int n = 0;
    for (double i = first; n < MOST_TICKS && i * step <= a->hi + 1e-9 * step; i++)
        tick[n++] = i ? i * step : 0; /* not -0 */
    return n;
}

/* Powers of ten; with 2 and 5 between them when there are few, every second or third one when there are many. */
static int log_ticks(const axis *a, double tick[MOST_TICKS]) {
    const double decades = log10(a->hi / a->lo);
    const int stride = 1 + (int)(decades / 7), few = decades < 3 ? 3 : 1;
    static const double between[] = {1, 2, 5};
    int n = 0;
    for (int p = (int)floor(log10(a->lo)); p <= (int)ceil(log10(a->hi)); p += stride)
        for (int i = 0; i < few; i++) {
            double v = between[i] * pow(10, p);
            if (n < MOST_TICKS && v >= a->lo * 0.999 && v <= a->hi * 1.001) tick[n++] = v;
        }
    return n;
}

/* --- curves ----------------------------------------------------------------------------------------------------- */

enum { MOST_CURVES = 4 };
typedef struct curve {
    int column;
    const char *name, *color;
    bool rare; /* measured now and then: points, joined, and not smoothed */
} curve;

typedef struct panel {
    const char *title, *unit;
    double scale; /* of the values */
    bool from_zero;
    curve curves[MOST_CURVES];
} panel;

#define BLUE "#2563eb"
#define ORANGE "#ea7317"
#define GREEN "#0f9d6b"
#define RED "#dc2f45"
#define VIOLET "#8050d0"

static const panel panels[] = {
    {"Reward", "", 1, false, {{REWARD, "sampled", BLUE, false}, {HELD_REWARD, "held out", ORANGE, true}}},
    {"Accuracy", "%", 100, true, {{ACCURACY, "sampled", BLUE, false}, {HELD_ACCURACY, "held out", ORANGE, true}}},
    {"Format", "%", 100, true, {{FORMAT, "sampled", BLUE, false}, {HELD_FORMAT, "held out", ORANGE, true}}},
    {"Completion length",
     "tokens",
     1,
     true,
     {{LENGTH, "sampled", BLUE, false}, {HELD_LENGTH, "held out", ORANGE, true}}},
    {"Preferred",
     "% of pairs",
     100,
     true,
     {{PREFERRED, "trained", BLUE, false}, {HELD_PREFERRED, "held out", ORANGE, true}}},
    {"Margin", "of implicit rewards", 1, false, {{PREFERENCE, "", VIOLET, false}}},
    {"Loss",
     "nats",
     1,
     false,
     {{LOSS, "total", BLUE, false},
      {LM_LOSS, "LM", GREEN, false},
      {MTP_LOSS, "MTP", VIOLET, false},
      {VALIDATION_LOSS, "validation", ORANGE, true}}},
    {"Policy loss", "", 1, false, {{POLICY_LOSS, "", BLUE, false}}},
    {"KL to the reference", "nats a token", 1, true, {{KL, "", VIOLET, false}}},
    {"Entropy", "nats a token", 1, true, {{ENTROPY, "", GREEN, false}}},
    {"Clipped", "% of tokens", 100, true, {{CLIPPED_LOW, "low", ORANGE, false}, {CLIPPED_HIGH, "high", RED, false}}},
    {"Gradient norm", "", 1, false, {{GRAD_NORM, "", BLUE, false}}},
    {"Learning rate", "", 1, true, {{LR, "", BLUE, true}}},
    {"Small loss terms",
     "",
     1,
     false,
     {{BALANCE_LOSS, "balance", VIOLET, false}, {INDEXER_LOSS, "indexer", ORANGE, false}}},
    {"Groups without signal", "", 1, true, {{NO_SIGNAL, "", RED, false}}},
    {"Sampler against learner",
     "largest difference of log-probabilities",
     1,
     false,
     {{LOGPROB_ERROR, "", VIOLET, false}}},
    {"Rollout speed", "tokens/s", 1, true, {{ROLLOUT_SPEED, "", GREEN, false}}},
    {"Speed", "tokens/s", 1, true, {{SPEED, "", GREEN, false}}},
    {"MFU", "% of the peak", 100, true, {{MFU, "", GREEN, false}}},
    {"MaxVio", "largest load / mean load - 1", 1, true, {{MAX_VIO, "", VIOLET, false}}},
    {"Dropped", "% of token-expert pairs", 100, true, {{DROPPED, "", RED, false}}},
    {"MTP acceptance", "%", 100, true, {{MTP_ACCEPTANCE, "", VIOLET, false}}},
    {"Memory", "GiB", 0x1p-30, true, {{MEMORY, "", GREEN, false}}},
};
enum { PANELS = sizeof panels / sizeof *panels, IN_REPORTS = 12 }; /* those first */

/* Whether there is something to draw; the total is not when it is the language model's loss alone. */
static bool is_drawn(const history *h, int column) {
    bool some = false, other = column != LOSS;
    for (int64_t i = 0; i < h->n; i++) {
        const double *v = h->rows[i].v;
        some |= !isnan(v[column]);
        other |= !isnan(v[LOSS]) && v[LOSS] != v[LM_LOSS];
    }
    return some && other;
}

static int64_t count(const history *h, int column) {
    int64_t n = 0;
    for (int64_t i = 0; i < h->n; i++) n += !isnan(h->rows[i].v[column]);
    return n;
}

/* The raw curve: in each pixel column the smallest and the largest value. */
static void add_raw(str *s, const history *h, const curve *c, double scale, const axis *x, const axis *y) {
    double column = -1e9, low = 0, high = 0;
    const char *command = "M";
    str_puts(s, "<path class='raw' d='");
    for (int64_t i = 0; i <= h->n; i++) {
        const double v = i < h->n ? h->rows[i].v[c->column] : 0;
        if (isnan(v)) continue;
        const double px = i < h->n ? floor(place(x, h->rows[i].v[STEP])) : 1e9, py = place(y, v * scale);
        if (px == column) {
            low = fmax(low, py); /* on the page, below is more */
            high = fmin(high, py);
            continue;
        }
        if (column > 0) {
            str_addf(s, "%s%.0f %.1f", command, column, low);
            if (high < low) str_addf(s, "V%.1f", high);
            command = "L";
        }
        column = px;
        low = high = py;
    }
    str_addf(s, "' stroke='%s'/>\n", c->color);
}

/* out[i]: the mean of the curve around row i with weights keep^distance, the distance in points of the curve. One run
 * forward sums what lies before a point, one back what lies behind it. */
static void smooth(const history *h, int column, double keep, double *out) {
    double sum = 0, weight = 0, behind = 0, behind_weight = 0;
    for (int64_t i = 0; i < h->n; i++) {
        const double v = h->rows[i].v[column];
        out[i] = v;
        if (!isnan(v)) out[i] = sum = keep * sum + v;
    }
    for (int64_t i = h->n - 1, k = count(h, column); i >= 0; i--) {
        if (isnan(out[i])) continue;
        weight = (1 - pow(keep, (double)k--)) / (1 - keep); /* of this point and those before: a geometric sum */
        out[i] = (out[i] + behind) / (weight + behind_weight);
        behind = keep * (behind + h->rows[i].v[column]);
        behind_weight = keep * (behind_weight + 1);
    }
}

/* A line through v[i], not more than a point in each pixel column. */
static void add_line_of(str *s, const history *h, const double *v, double scale, const axis *x, const axis *y) {
    double column = -1e9;
    const char *command = "M";
    for (int64_t i = 0; i < h->n; i++) {
        if (isnan(v[i])) continue;
        const double px = place(x, h->rows[i].v[STEP]);
        if (floor(px) == column) continue;
        str_addf(s, "%s%.1f %.1f", command, px, place(y, v[i] * scale));
        column = floor(px);
        command = "L";
    }
}

static void add_points(str *s, const history *h, const curve *c, double scale, const axis *x, const axis *y) {
    for (int64_t i = 0; i < h->n; i++)
        if (!isnan(h->rows[i].v[c->column]))
            str_addf(s, "<circle cx='%.1f' cy='%.1f' r='2.2' fill='%s'/>\n", place(x, h->rows[i].v[STEP]),
                     place(y, h->rows[i].v[c->column] * scale), c->color);
}

enum { FEW = 40 }; /* points that are drawn one by one */

static bool is_smoothed(const history *h, const curve *c) {
    return !c->rare && count(h, c->column) > FEW;
}

/* The line over the raw curve; gives its last value. */
static double add_curve(str *s, const history *h, const curve *c, double scale, const axis *x, const axis *y) {
    const int64_t n = count(h, c->column);
    double *v = malloc((size_t)h->n * sizeof *v), last = NAN;
    if (!v) {
        s->failed = true;
        return last;
    }
    smooth(h, c->column, is_smoothed(h, c) ? exp2(-100.0 / (double)n) : 0, v);
    str_puts(s, "<path class='line' d='");
    add_line_of(s, h, v, scale, x, y);
    str_addf(s, "' stroke='%s'/>\n", c->color);
    if (n <= FEW) add_points(s, h, c, scale, x, y);
    for (int64_t i = h->n - 1; i >= 0 && isnan(last); i--) last = v[i] * scale;
    free(v);
    return last;
}

/* Red marks on the lower edge where the optimizer left a step out. */
static int64_t add_skipped(str *s, const history *h, const axis *x, double bottom) {
    int64_t n = 0;
    double column = -1e9;
    for (int64_t i = 0; i < h->n; i++) {
        if (!h->rows[i].skipped) continue;
        double px = place(x, h->rows[i].v[STEP]);
        if (floor(px) != column) str_addf(s, "<path class='line' stroke='" RED "' d='M%.1f %.1fv-8'/>\n", px, bottom);
        column = floor(px);
        n++;
    }
    return n;
}

/* --- panels ----------------------------------------------------------------------------------------------------- */

enum { WIDTH = 540, HEIGHT = 270, LEFT = 62, RIGHT = 24, TOP = 44, BOTTOM = 40, HEADER = 84, MARGIN = 16 };

typedef struct frame { /* where a panel lies on its page */
    double left, top, width, height;
    double room;   /* for the numbers on the left */
    double legend; /* this far under the title; 0: beside it */
} frame;

static axis value_axis(const history *h, const panel *p, const frame *f) {
    double lo = INFINITY, hi = -INFINITY;
    for (int k = 0; k < MOST_CURVES && p->curves[k].name; k++)
        for (int64_t i = 0; i < h->n; i++) {
            double v = h->rows[i].v[p->curves[k].column] * p->scale;
            if (!isnan(v)) lo = fmin(lo, v), hi = fmax(hi, v);
        }
    axis a = {.from = f->top + f->height - BOTTOM, .to = f->top + TOP + f->legend};
    a.log = !p->from_zero && lo > 0 && hi > 50 * lo;
    if (p->from_zero) lo = fmin(lo, 0), hi = fmax(hi, 0);
    double room = hi > lo ? 0.06 * (hi - lo) : hi != 0 ? 0.1 * fabs(hi) : 1;
    a.lo = a.log ? lo / pow(hi / lo, 0.04) : p->from_zero && lo == 0 ? 0 : lo - room;
    a.hi = a.log ? hi * pow(hi / lo, 0.04) : hi + room;
    return a;
}

static axis step_axis(const history *h, const frame *f) {
    axis a = {.lo = h->rows[0].v[STEP],
              .hi = h->rows[h->n - 1].v[STEP],
              .from = f->left + f->room,
              .to = f->left + f->width - RIGHT};
    if (!(a.hi > a.lo)) a.lo -= 0.5, a.hi = a.lo + 1;
    return a;
}

static void add_axes(str *s, const axis *x, const axis *y) {
    double tick[MOST_TICKS];
    int n = y->log ? log_ticks(y, tick) : linear_ticks(y, 5, 0, tick);
    for (int i = 0; i < n; i++) {
        double at = place(y, tick[i]);
        str_addf(s, "<path class='grid' d='M%.1f %.1fH%.1f'/><text class='tick' x='%.1f' y='%.1f' text-anchor='end'>",
                 x->from, at, x->to, x->from - 7, at + 3.5);
        add_number(s, tick[i]);
        str_puts(s, "</text>\n");
    }
    n = linear_ticks(x, 6, 1, tick);
    for (int i = 0; i < n; i++) {
        double at = place(x, tick[i]);
        str_addf(s, "<path class='axis' d='M%.1f %.1fv4'/><text class='tick' x='%.1f' y='%.1f' text-anchor='middle'>",
                 at, y->from, at, y->from + 17);
        add_number(s, tick[i]);
        str_puts(s, "</text>\n");
    }
    str_addf(
        s,
        "<path class='axis' d='M%.1f %.1fH%.1f'/><text class='tick' x='%.1f' y='%.1f' text-anchor='end'>step</text>\n",
        x->from, y->from, x->to, x->to, y->from + 31);
}

/* An entry of the legend that ends at `right`; gives where it begins. A character is about 6.1 wide. */
static double add_entry(str *s, double right, double y, const char *name, double value, const char *color) {
    str text = {0};
    str_puts(&text, name);
    if (*name) str_putc(&text, ' ');
    add_number(&text, value);
    double begin = right - 6.1 * (double)text.n - 18;
    if (text.failed) s->failed = true;
    else
        str_addf(s,
                 "<path class='line' stroke='%s' d='M%.1f %.1fh12'/><text class='legend' x='%.1f' y='%.1f'>%s</text>\n",
                 color, begin, y - 4, begin + 17, y, text.p);
    str_free(&text);
    return begin - 12;
}

/* The entries one beside the other, the last one's end at `right`; gives where the first begins. */
static double add_legend(str *s, const curve *const *c, const double *last, int n, int64_t skipped, double right,
                         double y) {
    if (skipped) right = add_entry(s, right, y, "skipped", (double)skipped, RED);
    for (int k = n - 1; k >= 0; k--) right = add_entry(s, right, y, c[k]->name, last[k], c[k]->color);
    return right + 12;
}

static void add_panel(str *s, const history *h, const panel *p, const frame *f) {
    const axis x = step_axis(h, f), y = value_axis(h, p, f);
    const double line = f->top + 28;
    const curve *c[MOST_CURVES];
    double last[MOST_CURVES], right = x.to;
    int64_t skipped = 0;
    int n = 0;
    for (int k = 0; k < MOST_CURVES && p->curves[k].name; k++)
        if (is_drawn(h, p->curves[k].column)) c[n++] = &p->curves[k];
    str_addf(s, "<text class='title' x='%.1f' y='%.1f'>%s<tspan class='unit' dx='7'>%s%s</tspan></text>\n", x.from,
             line, p->title, p->unit, y.log ? *p->unit ? ", logarithmic" : "logarithmic" : "");
    add_axes(s, &x, &y);
    if (p->curves[0].column == GRAD_NORM) skipped = add_skipped(s, h, &x, y.from);
    for (int k = 0; k < n; k++)
        if (is_smoothed(h, c[k])) add_raw(s, h, c[k], p->scale, &x, &y);
    for (int k = 0; k < n; k++) last[k] = add_curve(s, h, c[k], p->scale, &x, &y);
    if (f->legend > 0) { /* under the title: as wide as it is */
        str measured = {0};
        right = x.from - add_legend(&measured, c, last, n, skipped, 0, 0);
        str_free(&measured);
    }
    add_legend(s, c, last, n, skipped, right, line + f->legend);
}

/* --- the page --------------------------------------------------------------------------------------------------- */

static const char style[] =
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:#1f2937}"
    ".name{font-size:20px;font-weight:600}.facts{font-size:13px;fill:#4b5563}"
    ".title{font-size:14px;font-weight:600}.unit{font-size:11px;font-weight:400;fill:#6b7280}"
    ".tick{font-size:11px;fill:#6b7280}.legend{font-size:11.5px;fill:#374151}"
    ".grid{stroke:#e5e7eb;fill:none}.axis{stroke:#9ca3af;fill:none}"
    ".raw{fill:none;stroke-width:1;stroke-opacity:.28}"
    ".line{fill:none;stroke-width:1.7;stroke-linejoin:round;stroke-linecap:round}";

/* The first and last value and the least of a column; false: it has none. */
static bool ends(const history *h, int column, double *first, double *last, double *least) {
    *first = *last = *least = NAN;
    for (int64_t i = 0; i < h->n; i++) {
        double v = h->rows[i].v[column];
        if (isnan(v)) continue;
        if (isnan(*first)) *first = v;
        *last = v;
        *least = fmin(*least, v); /* of a number and NaN it gives the number */
    }
    return !isnan(*first);
}

static void add_header(str *s, const history *h, const char *name) {
    double first, last, least, steps = h->rows[h->n - 1].v[STEP] + 1;
    int64_t skipped = 0;
    for (int64_t i = 0; i < h->n; i++) skipped += h->rows[i].skipped;
    str_addf(s, "<text class='name' x='%d' y='38'>", MARGIN + LEFT);
    add_escaped(s, name);
    str_addf(s, "</text>\n<text class='facts' x='%d' y='62'>%.0f step%s", MARGIN + LEFT, steps, steps == 1 ? "" : "s");
    if (ends(h, TOKENS, &first, &last, &least)) {
        str_puts(s, ", ");
        add_number(s, last);
        str_puts(s, " tokens");
    }
    if (ends(h, LOSS, &first, &last, &least)) str_addf(s, ", loss %.4g at first, %.4g at last", first, last);
    if (ends(h, REWARD, &first, &last, &least)) str_addf(s, ", reward %.4g at first, %.4g at last", first, last);
    if (ends(h, VALIDATION_LOSS, &first, &last, &least)) str_addf(s, ", best validation loss %.4g", least);
    if (skipped) str_addf(s, ", %lld skipped", (long long)skipped);
    str_puts(s, "</text>\n");
}

static bool is_shown(const history *h, const panel *p) {
    for (int k = 0; k < MOST_CURVES && p->curves[k].name; k++)
        if (count(h, p->curves[k].column) > 0) return true;
    return false;
}

static void add_page(str *s, const history *h, const char *name) {
    const panel *shown[PANELS];
    int n = 0;
    for (int i = 0; i < PANELS; i++)
        if (is_shown(h, &panels[i])) shown[n++] = &panels[i];
    const int columns = n > 1 ? 2 : 1, width = 2 * MARGIN + columns * WIDTH,
              height = HEADER + (n + columns - 1) / columns * HEIGHT + MARGIN;
    str_addf(s,
             "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' viewBox='0 0 %d %d'>\n<style>%s</style>\n"
             "<rect width='%d' height='%d' fill='#fff'/>\n",
             width, height, width, height, style, width, height);
    add_header(s, h, name);
    for (int i = 0; i < n; i++) {
        const frame f = {MARGIN + i % columns * WIDTH, HEADER + i / columns * HEIGHT, WIDTH, HEIGHT, LEFT, 0};
        add_panel(s, h, shown[i], &f);
    }
    str_puts(s, "</svg>\n");
}

status metrics_plot(const char *folder, const char *path, error *e) {
    history *h;
    str page = {0};
    TRY(history_open(&h, folder, e));
    char *real = realpath(folder, NULL);
    const char *slash = real ? strrchr(real, '/') : NULL;
    add_page(&page, h, slash && slash[1] ? slash + 1 : folder);
    status s = str_check(&page, e);
    if (s == OK) s = file_save(path, page.p, page.n, e);
    str_free(&page);
    free(real);
    history_close(h);
    return s;
}

/* --- for others -------------------------------------------------------------------------------------------------- */

status history_open(history **out, const char *folder, error *e) {
    history *h = calloc(1, sizeof *h);
    *out = NULL;
    if (!h) return fail(e, ERR_NOMEM, "memory is out");
    status s = read_history(h, folder, e);
    if (s == OK) *out = h;
    else history_close(h);
    return s;
}

void history_close(history *h) {
    if (!h) return;
    free(h->rows);
    free(h);
}

bool history_ends(const history *h, const char *column, double *first, double *last) {
    double least;
    int c = 0;
    while (c < COLUMNS && strcmp(names[c], column) != 0) c++;
    return c < COLUMNS && ends(h, c, first, last, &least);
}

double history_steps(const history *h) {
    return h->rows[h->n - 1].v[STEP] + 1;
}

/* Zeros from the first step to the last are no news. */
static bool is_zero(const history *h, const panel *p) {
    for (int k = 0; k < MOST_CURVES && p->curves[k].name; k++)
        for (int64_t i = 0; i < h->n; i++) {
            const double v = h->rows[i].v[p->curves[k].column];
            if (!isnan(v) && v != 0) return false;
        }
    return true;
}

/* Narrower than on a page of their own, so that they can be read on a telephone. */
void history_panels(const history *h, str *out) {
    static const frame f = {.width = 400, .height = 250, .room = 48, .legend = 19};
    for (int i = 0; i < IN_REPORTS; i++) {
        const panel *p = &panels[i];
        if (!is_shown(h, p) || is_zero(h, p)) continue;
        str_addf(out, "<svg class='panel' viewBox='0 0 %.0f %.0f' role='img' aria-label='%s'>\n", f.width, f.height,
                 p->title);
        add_panel(out, h, p, &f);
        str_puts(out, "</svg>\n");
    }
}
