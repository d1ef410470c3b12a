#include "compare.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/json.h"
#include "eval/logit_kl.h"
#include "format/weights_file.h"

bool gold_say(gold *g, bool pass, const char *file, const char *aspect, const char *fmt, ...) {
    va_list args;
    fprintf(g->out, "%s %s %s: ", pass ? "ok  " : "FAIL", file, aspect);
    va_start(args, fmt);
    vfprintf(g->out, fmt, args);
    va_end(args);
    fputc('\n', g->out);
    fflush(g->out);
    if (pass) g->passed++;
    else g->failed++;
    return pass;
}

void gold_skip(gold *g, const char *file, const char *fmt, ...) {
    va_list args;
    fprintf(g->out, "SKIP %s: ", file);
    va_start(args, fmt);
    vfprintf(g->out, fmt, args);
    va_end(args);
    fputc('\n', g->out);
    g->skipped++;
}

char *gold_path(const char *folder, const char *name) {
    char *p = path_join(folder, name);
    if (!p) abort();
    return p;
}

const tensor *gold_find(const safetensors *f, const char *name) {
    for (size_t i = 0; i < f->count; i++)
        if (!strcmp(f->entries[i].name, name)) return &f->entries[i].t;
    return NULL;
}

/* --- numbers ---------------------------------------------------------------------------------------------------- */

gold_gap gold_gap_of(const float *golden, const float *ours, int64_t n) {
    gold_gap d = {.finite = true};
    for (int64_t i = 0; i < n; i++) {
        const double x = golden[i], y = ours[i];
        if (!isfinite(y)) d.finite = false;
        if (fabs(x - y) > d.max) d.max = fabs(x - y);
        if (fabs(x) > d.scale) d.scale = fabs(x);
    }
    return d;
}

double gold_relative(gold_gap d) {
    return !d.finite ? INFINITY : d.max == 0 ? 0 : d.max / (d.scale > 1e-30 ? d.scale : 1e-30);
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

gold_kl gold_kl_of(const float *golden, const float *ours, int64_t rows, int64_t v) {
    double *kl = malloc((size_t)(rows + 1) * sizeof *kl), sum = 0;
    if (!kl) abort();
    for (int64_t i = 0; i < rows; i++) {
        kl[i] = logit_kl(golden + i * v, ours + i * v, v);
        if (isnan(kl[i])) kl[i] = INFINITY;
        sum += kl[i];
    }
    qsort(kl, (size_t)rows, sizeof *kl, by_size);
    const int64_t half = rows / 2;
    gold_kl k = {sum / (double)rows, rows % 2 ? kl[half] : (kl[half - 1] + kl[half]) / 2, kl[rows - 1]};
    free(kl);
    return k;
}

/* --- tensors ---------------------------------------------------------------------------------------------------- */

/* An aligned copy as F32. */
static float *floats(const tensor *t) {
    const int64_t n = tensor_count(t);
    float *x = malloc((size_t)(n + 1) * sizeof *x);
    if (!x) abort();
    if (t->type == DT_F32) memcpy(x, t->data, (size_t)n * sizeof *x);
    else
        for (int64_t i = 0; i < n; i++) x[i] = dtype_load(t->type, t->data, i);
    return x;
}

static bool same_shape(const tensor *a, const tensor *b) {
    if (a->type != b->type || a->ndim != b->ndim) return false;
    for (int i = 0; i < a->ndim; i++)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

typedef struct choice {
    int32_t expert;
    float weight;
} choice;

static int by_expert(const void *a, const void *b) {
    const choice *x = a, *y = b;
    return (x->expert > y->expert) - (x->expert < y->expert);
}

/* Router weights in the order of their experts, or the experts themselves in order. */
static float *sorted_choices(const safetensors *f, const char *name, const tensor *t) {
    char index[160];
    snprintf(index, sizeof index, "%.*s.index", (int)(strrchr(name, '.') - name), name);
    const tensor *e = gold_find(f, index);
    const int64_t rows = t->dim[0], k = t->dim[1];
    if (!e || e->type != DT_I32 || tensor_count(e) != rows * k || k > 256) return NULL;
    float *out = malloc((size_t)(rows * k + 1) * sizeof *out);
    if (!out) abort();
    for (int64_t i = 0; i < rows; i++) {
        choice c[256];
        for (int64_t j = 0; j < k; j++) {
            memcpy(&c[j].expert, (const char *)e->data + (i * k + j) * 4, 4);
            c[j].weight = t == e ? (float)c[j].expert : dtype_load(t->type, t->data, i * k + j);
        }
        qsort(c, (size_t)k, sizeof *c, by_expert);
        for (int64_t j = 0; j < k; j++) out[i * k + j] = c[j].weight;
    }
    return out;
}

typedef struct group { /* of names: what stands before the first dot */
    char name[40];
    int count;
    int64_t unequal;
    double relative, kl;
    bool pass, integers, floats, logits;
    char worst[120]; /* the tensor that failed first */
} group;

static void compare_one(group *r, const safetensors *a, const safetensors *b, const char *name, const tensor *x,
                        const tensor *y, double limit) {
    const bool router = !strncmp(name, "router.", 7) && (ends_with(name, ".index") || ends_with(name, ".weight"));
    bool pass = same_shape(x, y);
    if (pass && (router || x->type == DT_F32)) {
        float *g = router ? sorted_choices(a, name, x) : floats(x),
              *m = router ? sorted_choices(b, name, y) : floats(y);
        const bool integers = x->type != DT_F32;
        pass = g && m;
        gold_gap d = pass ? gold_gap_of(g, m, tensor_count(x)) : (gold_gap){.max = INFINITY};
        double relative = gold_relative(d);
        if (integers) {
            r->integers = true;
            r->unequal += d.max > 0;
            pass = pass && d.max == 0;
        } else {
            r->floats = true;
            if (!(relative <= r->relative)) r->relative = relative;
            pass = pass && relative <= limit;
        }
        if (g && m && (!strncmp(name, "logits", 6) || !strncmp(name, "mtp.logits", 10))) {
            int64_t v = x->dim[x->ndim - 1];
            double kl = gold_kl_of(g, m, tensor_count(x) / v, v).max;
            r->logits = true;
            if (!(kl <= r->kl)) r->kl = kl;
            pass = pass && kl <= GOLD_KL;
        }
        free(g);
        free(m);
    } else if (pass) {
        r->integers = true;
        pass = !memcmp(x->data, y->data, (size_t)tensor_count(x) * dtype_size(x->type));
        r->unequal += !pass;
    }
    r->count++;
    if (!pass && r->pass) snprintf(r->worst, sizeof r->worst, "; first failure: %.90s", name);
    r->pass &= pass;
}

static group *group_of(group *list, int *n, int max, const char *name) {
    char first[40];
    snprintf(first, sizeof first, "%.*s", (int)strcspn(name, "."), name);
    for (int i = 0; i < *n; i++)
        if (!strcmp(list[i].name, first)) return &list[i];
    if (*n == max) return NULL;
    list[*n] = (group){.pass = true};
    memcpy(list[*n].name, first, sizeof first);
    return &list[(*n)++];
}

static void group_line(gold *g, const char *file, const char *aspect, const group *r) {
    char text[300], title[100];
    int n = snprintf(text, sizeof text, "%d tensors", r->count);
    if (r->floats) n += snprintf(text + n, sizeof text - (size_t)n, ", largest difference %.2e", r->relative);
    if (r->logits) n += snprintf(text + n, sizeof text - (size_t)n, ", largest KL %.2e", r->kl);
    if (r->integers)
        snprintf(text + n, sizeof text - (size_t)n, r->unequal ? ", %lld unequal" : ", integers equal",
                 (long long)r->unequal);
    snprintf(title, sizeof title, "%.50s %.40s", aspect, r->name);
    gold_say(g, r->pass, file, title, "%s%s", text, r->worst);
}

/* Prompts: a trace has them from the golden file itself. */
static bool copied(const char *name) {
    return !strncmp(name, "ids.", 4) || (!strncmp(name, "genbatch.", 9) && !ends_with(name, ".gen"));
}

void gold_tensors(gold *g, const char *file, const char *aspect, const char *golden, const char *made) {
    safetensors a = {0}, b = {0};
    error e = {0};
    if (safetensors_open(&a, golden, &e) != OK || safetensors_open(&b, made, &e) != OK) {
        gold_say(g, false, file, aspect, "%s", e.text);
        safetensors_close(&a);
        return;
    }
    group list[16];
    int n = 0;
    for (size_t i = 0; i < a.count; i++) {
        const tensor *y = gold_find(&b, a.entries[i].name);
        group *r = y && !copied(a.entries[i].name) ? group_of(list, &n, 16, a.entries[i].name) : NULL;
        if (r) compare_one(r, &a, &b, a.entries[i].name, &a.entries[i].t, y, g->limit);
    }
    for (int i = 0; i < n; i++) group_line(g, file, aspect, &list[i]);
    if (!n) gold_say(g, false, file, aspect, "no tensor was made");
    safetensors_close(&a);
    safetensors_close(&b);
}

/* --- bytes ------------------------------------------------------------------------------------------------------ */

static bool same_json(const char *a, const char *b, const char *name) {
    char *x = gold_path(a, name), *y = gold_path(b, name);
    json_t *j = NULL, *k = NULL;
    bool same = json_read(&j, x, 1 << 24, NULL) == OK && json_read(&k, y, 1 << 24, NULL) == OK && json_equal(j, k);
    json_decref(j);
    json_decref(k);
    free(x);
    free(y);
    return same;
}

void gold_exact(gold *g, const char *file, const char *aspect, const char *golden, const char *made) {
    weights_file *a = NULL, *b = NULL;
    error e = {0};
    size_t same = 0;
    char worst[160] = "";
    if (weights_open_in_place(&a, golden, &e) != OK || weights_open_in_place(&b, made, &e) != OK) {
        gold_say(g, false, file, aspect, "%s", e.text);
        weights_close(a);
        return;
    }
    for (size_t i = 0; i < weights_count(a); i++) {
        const weights_entry *x = weights_at(a, i), *y = weights_find(b, x->name);
        if (y && !strcmp(x->file, y->file) && same_shape(&x->t, &y->t) &&
            !memcmp(x->t.data, y->t.data, (size_t)tensor_count(&x->t) * dtype_size(x->t.type)))
            same++;
        else if (!*worst) snprintf(worst, sizeof worst, "; first: %.140s", x->name);
    }
    const bool config = same_json(golden, made, "config.json");
    gold_say(g, same == weights_count(a) && same == weights_count(b) && config, file, aspect,
             "%zu of %zu tensors equal byte by byte, %zu were made%s; config.json %s", same, weights_count(a),
             weights_count(b), worst, config ? "equal" : "differs");
    weights_close(a);
    weights_close(b);
}
