#include "eval/trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "format/safetensors_write.h"

/* Where a tensor comes from. */
typedef enum source {
    NOT_MADE,
    COPIED,
    LOGITS,
    WATCHED, /* seen inside the blocks under the name `watch` */
    GENERATED,
    GENERATED_IN_BATCH,
    MTP_LOGITS,
    MTP_HIDDEN,
    MTP_PRENORM_LOGITS
} source;

typedef struct wanted {
    const char *name;
    const tensor *golden;
    source from;
    const tensor *ids; /* the prompt that it belongs to */
    const char *watch;
    int64_t layer;
    void *data; /* ours, once made */
} wanted;

typedef struct trace {
    engine *g;
    safetensors file;
    wanted *list;
    size_t count;
    arena *mem; /* what we made */
    const tensor *ids;
    error *e; /* of the watcher */
    status st;
} trace;

static const tensor *find(const safetensors *f, const char *name) {
    for (size_t i = 0; i < f->count; i++)
        if (!strcmp(f->entries[i].name, name)) return &f->entries[i].t;
    return NULL;
}

/* --- names ------------------------------------------------------------------------------------------------------ */

enum { FIELDS = 4, FIELD = 48 };
typedef char fields[FIELDS][FIELD]; /* of a name, between its dots */

static int split(fields f, const char *name) {
    int n = 0;
    for (size_t at = 0;; n++) {
        size_t len = strcspn(name + at, ".");
        if (n == FIELDS || len == 0 || len >= FIELD) return 0;
        memcpy(f[n], name + at, len);
        f[n][len] = '\0';
        at += len;
        if (!name[at++]) return n + 1;
    }
}

static bool one_of(const char *s, const char *const *list) {
    for (; *list; list++)
        if (!strcmp(s, *list)) return true;
    return false;
}

/* "layer12" -> 12, else -1 */
static int64_t layer_of(const char *s) {
    if (strncmp(s, "layer", 5) != 0 || s[5] < '0' || s[5] > '9' || strlen(s) > 10) return -1;
    char *end;
    long n = strtol(s + 5, &end, 10);
    return *end ? -1 : n;
}

/* The name by which the model's code calls what it shows. */
static const char *watch_name(const char *group, const char *what) {
    static const char *const names[][3] = {{"hidden", "embed", "embed"},
                                           {"hidden", "final_norm", "final_norm"},
                                           {"part", "attn_out", "attn_out"},
                                           {"part", "mlp_out", "mlp_out"},
                                           {"part", "kv_latent", "kv_latent"},
                                           {"part", "k_pe", "k_pe"},
                                           {"router", "logits", "router.logits"},
                                           {"router", "index", "router.index"},
                                           {"router", "weight", "router.weight"},
                                           {"dsa", "score", "score"},
                                           {"dsa", "mask", "mask"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(group, names[i][0]) && !strcmp(what, names[i][1])) return names[i][2];
    return NULL;
}

/* Fills w->from, watch and layer, and gives the name of the prompt, or NULL when there is none. */
static const char *understand(wanted *w, fields f) {
    static const char *const f32[] = {"logits", "logits_last", "logits_tail8", NULL},
                             *const bf16[] = {"logits_bf16", "logits_bf16_last", NULL},
                             *const fp8[] = {"logits_fp8weights_fp32", NULL};
    const int n = split(f, w->name);
    w->layer = -1;
    if ((n == 2 && !strcmp(f[0], "ids")) || (n > 1 && !strcmp(f[0], "genbatch") && strcmp(f[n - 1], "gen") != 0)) {
        w->from = COPIED;
        return NULL;
    }
    if (n == 2 && (one_of(f[0], f32) || one_of(f[0], bf16) || one_of(f[0], fp8))) {
        w->from = LOGITS;
        return f[1];
    }
    if (n == 2 && !strcmp(f[0], "gen")) {
        w->from = GENERATED;
        return f[1];
    }
    if (n == 3 && !strcmp(f[0], "genbatch")) {
        w->from = GENERATED_IN_BATCH;
        return f[1];
    }
    if (n == 3 && !strcmp(f[0], "mtp")) {
        w->from = !strcmp(f[1], "logits")                  ? MTP_LOGITS
                  : !strcmp(f[1], "hidden")                ? MTP_HIDDEN
                  : !strcmp(f[1], "logits_prenorm_source") ? MTP_PRENORM_LOGITS
                                                           : NOT_MADE;
        return f[2];
    }
    if (n == 3 && !strcmp(f[0], "hidden")) {
        w->layer = layer_of(f[1]);
        w->watch = w->layer >= 0 ? "hidden" : watch_name(f[0], f[1]);
        w->from = w->watch ? WATCHED : NOT_MADE;
        return f[2];
    }
    if (n == 4 && (w->layer = layer_of(f[1])) >= 0) {
        const bool prompt_last = !strcmp(f[0], "part"); /* elsewhere the kind is last */
        w->watch = watch_name(f[0], prompt_last ? f[2] : f[3]);
        w->from = w->watch ? WATCHED : NOT_MADE;
        return prompt_last ? f[3] : f[2];
    }
    return NULL;
}

/* Is this a name of the arithmetic that the engine does? */
static bool of_this_arithmetic(const trace *t, const wanted *w) {
    if (w->from == COPIED) return true;
    const bool bf16 = queue_compute(t->g->ws.q) == COMPUTE_BF16;
    if (!strncmp(w->name, "logits_bf16", 11)) return bf16;
    if (!strncmp(w->name, "logits_fp8weights_fp32.", 23)) return !bf16 && t->g->m->cfg.fp8;
    return !bf16 && !t->g->m->cfg.fp8;
}

static bool type_is_known(const wanted *w) {
    const dtype type = w->golden->type;
    if (w->from == COPIED) return true;
    if (w->from == GENERATED || w->from == GENERATED_IN_BATCH) return type == DT_I32 && w->golden->ndim == 1;
    if (w->from == WATCHED && !strcmp(w->watch, "mask")) return type == DT_U8;
    if (w->from == WATCHED && !strcmp(w->watch, "router.index")) return type == DT_I32;
    return type == DT_F32;
}

static status check_ids(const trace *t, const char *name, const tensor *ids, error *e) {
    const int64_t vocab = t->g->m->cfg.vocab_size;
    if (ids->type != DT_I32 || ids->ndim != 1 || ids->dim[0] < 1)
        return fail(e, ERR_FORMAT, "the prompt of \"%.100s\" should be a list of I32 ids", name);
    for (int64_t i = 0; i < ids->dim[0]; i++) {
        int32_t id;
        memcpy(&id, (const char *)ids->data + i * 4, 4);
        if (id < 0 || id >= vocab)
            return fail(e, ERR_FORMAT, "the prompt of \"%.100s\" has the token %d, but the model has %lld", name, id,
                        (long long)vocab);
    }
    return OK;
}

static status plan(trace *t, error *e) {
    size_t makeable = 0;
    for (size_t i = 0; i < t->count; i++) {
        wanted *w = &t->list[i];
        fields f;
        char ids[FIELD + 16];
        w->name = t->file.entries[i].name;
        w->golden = &t->file.entries[i].t;
        const char *prompt = understand(w, f);
        if (w->from == NOT_MADE || !of_this_arithmetic(t, w) || !type_is_known(w)) {
            w->from = NOT_MADE;
            continue;
        }
        if (w->from == COPIED) w->data = (void *)w->golden->data;
        else {
            if (w->from == GENERATED_IN_BATCH) snprintf(ids, sizeof ids, "genbatch.%s.ids", prompt);
            else snprintf(ids, sizeof ids, "ids.%s", prompt);
            w->ids = find(&t->file, ids);
            if (!w->ids) return fail(e, ERR_FORMAT, "\"%.100s\" is there, but its prompt \"%s\" is not", w->name, ids);
            TRY(check_ids(t, w->name, w->ids, e));
        }
        makeable += w->from != COPIED;
    }
    if (makeable) return OK;
    const bool bf16 = queue_compute(t->g->ws.q) == COMPUTE_BF16;
    return fail(e, ERR_FORMAT, "no tensor has a name that arithmetic in %s with this model makes, such as %s.p1",
                bf16 ? "BF16" : "F32",
                bf16               ? "logits_bf16"
                : t->g->m->cfg.fp8 ? "logits_fp8weights_fp32"
                                   : "logits");
}

/* --- what a run leaves ------------------------------------------------------------------------------------------ */

/* Memory for w, if the golden tensor is n rows of `width` numbers. */
static status make(trace *t, wanted *w, int64_t n, int64_t width, error *e) {
    const tensor *x = w->golden;
    const int64_t rows = x->ndim == 2 ? x->dim[0] : 1;
    if (x->ndim < 1 || x->ndim > 2 || rows != n || x->dim[x->ndim - 1] != width)
        return fail(e, ERR_FORMAT,
                    "\"%.100s\" has another shape than this model's %lld rows of %lld: is it of this model?", w->name,
                    (long long)n, (long long)width);
    w->data = arena_take(t->mem, (size_t)(n * width) * dtype_size(x->type));
    return w->data ? OK : fail(e, ERR_NOMEM, "memory is out");
}

static status keep(trace *t, wanted *w, const float *x, int64_t ld, int64_t n, int64_t width, error *e) {
    TRY(make(t, w, n, width, e));
    for (int64_t i = 0; i < n; i++) {
        if (w->golden->type == DT_U8)
            for (int64_t j = 0; j < width; j++) ((uint8_t *)w->data)[i * width + j] = x[i * ld + j] != 0;
        else memcpy((float *)w->data + i * width, x + i * ld, (size_t)width * sizeof *x);
    }
    return OK;
}

static wanted *watched(trace *t, const char *name, int64_t layer) {
    for (size_t i = 0; i < t->count; i++) {
        wanted *w = &t->list[i];
        if (w->from == WATCHED && w->ids == t->ids && w->layer == layer && !strcmp(w->watch, name)) return w;
    }
    return NULL;
}

static void see(void *arg, const char *name, int64_t layer, const float *x, int64_t ld, int64_t n, int64_t width) {
    trace *t = arg;
    wanted *w = t->st == OK ? watched(t, name, layer) : NULL;
    if (w) t->st = keep(t, w, x, ld, n, width, t->e);
}

static void see_ints(void *arg, const char *name, int64_t layer, const int32_t *x, int64_t ld, int64_t n,
                     int64_t width) {
    trace *t = arg;
    wanted *w = t->st == OK ? watched(t, name, layer) : NULL;
    if (w) t->st = make(t, w, n, width, t->e);
    if (!w || t->st != OK) return;
    for (int64_t i = 0; i < n; i++) memcpy((int32_t *)w->data + i * width, x + i * ld, (size_t)width * sizeof *x);
}

/* The file may hold them at any address. */
static int32_t *copy_ids(const tensor *ids, arena *mem, error *e) {
    int32_t *copy = arena_take(mem, (size_t)ids->dim[0] * sizeof *copy);
    if (copy) memcpy(copy, ids->data, (size_t)ids->dim[0] * sizeof *copy);
    else fail(e, ERR_NOMEM, "memory is out");
    return copy;
}

/* --- one prompt ------------------------------------------------------------------------------------------------- */

/* What the tensors of a prompt ask for. */
typedef struct needs {
    bool run, inner, mtp[2]; /* a run of the model; inner values of it; MTP with h after and before the final norm */
    int64_t rows;            /* of logits: the last ones */
} needs;

static needs needs_of(const trace *t, const tensor *ids) {
    needs q = {0};
    for (size_t i = 0; i < t->count; i++) {
        const wanted *w = &t->list[i];
        if (w->ids != ids) continue;
        q.inner |= w->from == WATCHED;
        q.mtp[0] |= w->from == MTP_LOGITS || w->from == MTP_HIDDEN;
        q.mtp[1] |= w->from == MTP_PRENORM_LOGITS;
        if (w->from == LOGITS && w->golden->ndim) {
            int64_t rows = w->golden->ndim == 1 ? 1 : w->golden->dim[0];
            if (rows > q.rows) q.rows = rows;
            q.run = true;
        }
    }
    q.run |= q.inner || q.mtp[0] || q.mtp[1];
    if (q.rows > ids->dim[0]) q.rows = ids->dim[0];
    return q;
}

static status keep_all(trace *t, source from, const float *x, int64_t n, int64_t width, error *e) {
    for (size_t i = 0; i < t->count; i++) {
        wanted *w = &t->list[i];
        if (w->from != from || w->ids != t->ids) continue;
        int64_t rows = w->golden->ndim == 2 && w->golden->dim[0] < n ? w->golden->dim[0] : n;
        if (from == LOGITS && w->golden->ndim == 1) rows = 1;
        TRY(keep(t, w, x + (n - rows) * width, width, rows, width, e));
    }
    return OK;
}

/* The MTP layer over the whole prompt: n - 1 rows. */
static status run_mtp(trace *t, session *s, arena *mem, const int32_t *ids, const float *h, bool prenorm, error *e) {
    engine *g = t->g;
    const int64_t n = t->ids->dim[0] - 1, vocab = g->m->cfg.vocab_size, hidden = g->m->cfg.hidden_size;
    int64_t *out = arena_take(mem, (size_t)n * sizeof *out);
    float *logits = arena_take(mem, (size_t)(n * vocab) * sizeof *logits),
          *state = arena_take(mem, (size_t)(n * hidden) * sizeof *state);
    if (!out || !logits || !state) return fail(e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; i < n; i++) out[i] = i;
    sequence seq = {.first = 0, .n = n, .pos = 0, .cache = s->cache};
    batch b = {.n = n,
               .ids = ids + 1,
               .seq = &seq,
               .n_seq = 1,
               .n_out = n,
               .out = out,
               .logits = logits,
               .prenorm = state,
               .form = g->form};
    TRY(model_forward_mtp(g->m, &g->ws, 0, h, &b, e));
    TRY(keep_all(t, prenorm ? MTP_PRENORM_LOGITS : MTP_LOGITS, logits, n, vocab, e));
    return prenorm ? OK : keep_all(t, MTP_HIDDEN, state, n, hidden, e);
}

/* The prompt as one batch, so that every inner value is seen whole. */
static status run_prompt(trace *t, session *s, arena *mem, needs q, error *e) {
    engine *g = t->g;
    const int64_t n = t->ids->dim[0], vocab = g->m->cfg.vocab_size, hidden = g->m->cfg.hidden_size;
    const int32_t *ids = copy_ids(t->ids, mem, e);
    int64_t *out = arena_take(mem, (size_t)q.rows * sizeof *out);
    float *logits = arena_take(mem, (size_t)(q.rows * vocab) * sizeof *logits),
          *h = arena_take(mem, (size_t)(n * hidden) * sizeof *h),
          *prenorm = arena_take(mem, (size_t)(n * hidden) * sizeof *prenorm);
    if (!ids || !out || !logits || !h || !prenorm) return fail(e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; i < q.rows; i++) out[i] = n - q.rows + i;
    sequence seq = {.first = 0, .n = n, .pos = 0, .cache = s->cache};
    watcher w = {.see = see, .see_ints = see_ints, .arg = t};
    batch b = {.n = n,
               .ids = ids,
               .seq = &seq,
               .n_seq = 1,
               .n_out = q.rows,
               .out = out,
               .logits = logits,
               .hidden = h,
               .prenorm = prenorm,
               .form = g->form,
               .watch = q.inner ? &w : NULL};
    TRY(model_forward(g->m, &g->ws, &b, e));
    TRY(t->st);
    TRY(keep_all(t, LOGITS, logits, q.rows, vocab, e));
    const bool mtp = g->m->n_mtp > 0 && n > 1;
    if (mtp && q.mtp[0]) TRY(run_mtp(t, s, mem, ids, h, false, e));
    if (mtp && q.mtp[1]) TRY(run_mtp(t, s, mem, ids, prenorm, true, e));
    return OK;
}

/* --- greedy continuation ---------------------------------------------------------------------------------------- */

static int32_t most_likely(const float *x, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return (int32_t)best;
}

/* Continues all prompts at once, each until its golden tensor is full. */
static status generate(trace *t, wanted **row, int count, error *e) {
    const int64_t vocab = t->g->m->cfg.vocab_size;
    session **s = calloc((size_t)count, sizeof *s), **active = calloc((size_t)count, sizeof(session *));
    const int32_t **next = calloc((size_t)count, sizeof(int32_t *));
    int64_t *n = calloc((size_t)count, sizeof *n), done = 0;
    status st = s && active && next && n ? OK : fail(e, ERR_NOMEM, "memory is out");
    for (int i = 0; st == OK && i < count; i++) {
        const int64_t steps = row[i]->golden->dim[0];
        st = make(t, row[i], 1, steps, e);
        if (st == OK) st = session_open(&s[i], t->g, row[i]->ids->dim[0] + steps, e);
        if (st == OK) {
            active[i] = s[i];
            n[i] = row[i]->ids->dim[0];
            next[i] = copy_ids(row[i]->ids, t->mem, e);
            if (!next[i]) st = ERR_NOMEM;
        }
    }
    for (int live = count; st == OK; done++) {
        st = sessions_extend(active, live, next, n, NULL, e);
        live = 0;
        for (int i = 0; st == OK && i < count; i++) {
            if (done >= row[i]->golden->dim[0]) continue;
            int32_t *to = (int32_t *)row[i]->data + done;
            *to = most_likely(s[i]->logits, vocab);
            if (done + 1 == row[i]->golden->dim[0]) continue;
            active[live] = s[i];
            next[live] = to;
            n[live++] = 1;
        }
        if (!live) break;
    }
    for (int i = 0; s && i < count; i++) session_close(s[i]);
    free(s);
    free(active);
    free(next);
    free(n);
    return st;
}

static status generate_batch(trace *t, error *e) {
    wanted **row = calloc(t->count, sizeof *row);
    int count = 0;
    if (!row) return fail(e, ERR_NOMEM, "memory is out");
    for (size_t i = 0; i < t->count; i++)
        if (t->list[i].from == GENERATED_IN_BATCH && t->list[i].golden->dim[0] > 0) row[count++] = &t->list[i];
    status st = count ? generate(t, row, count, e) : OK;
    free(row);
    return st;
}

/* --- the whole -------------------------------------------------------------------------------------------------- */

static status trace_prompt(trace *t, const safetensors_entry *prompt, error *e) {
    const needs q = needs_of(t, t->ids = &prompt->t);
    t->e = e;
    status st = OK;
    if (q.run) {
        session *s;
        arena *mem = arena_open(1 << 16);
        if (!mem) return fail(e, ERR_NOMEM, "memory is out");
        st = session_open(&s, t->g, t->ids->dim[0], e);
        if (st == OK) {
            pthread_mutex_lock(&t->g->turn);
            st = run_prompt(t, s, mem, q, e);
            pthread_mutex_unlock(&t->g->turn);
            session_close(s);
        }
        arena_close(mem);
    }
    for (size_t i = 0; st == OK && i < t->count; i++) {
        wanted *w = &t->list[i];
        if (w->from == GENERATED && w->ids == t->ids && w->golden->dim[0] > 0) st = generate(t, &w, 1, e);
    }
    return st;
}

static status trace_all(trace *t, trace_progress *progress, void *arg, error *e) {
    for (size_t i = 0; i < t->count; i++) {
        const safetensors_entry *x = &t->file.entries[i];
        if (strncmp(x->name, "ids.", 4) != 0) continue;
        if (progress && progress(arg, i, t->count, x->name)) return fail(e, ERR_CANCELLED, "cancelled");
        TRY(trace_prompt(t, x, e));
    }
    if (progress && progress(arg, t->count, t->count, "")) return fail(e, ERR_CANCELLED, "cancelled");
    return generate_batch(t, e);
}

static status save(const trace *t, const char *out, error *e) {
    const char *slash = strrchr(out, '/'), *name = slash ? slash + 1 : out;
    char *folder = slash ? strndup(out, slash == out ? 1 : (size_t)(slash - out)) : strdup(".");
    shard_plan *p = NULL;
    shard_writer w = {.file = {.fd = -1}};
    status st = folder ? shard_plan_open(&p, e) : fail(e, ERR_NOMEM, "memory is out");
    size_t *index = calloc(t->count, sizeof *index), added = 0;
    if (st == OK && !index) st = fail(e, ERR_NOMEM, "memory is out");
    for (size_t i = 0; st == OK && i < t->count; i++)
        if (t->list[i].data) {
            st = shard_plan_add(p, name, t->list[i].name, t->list[i].golden, e);
            index[added++] = i;
        }
    if (st == OK) st = shard_plan_finish(p, SHARD_BYTES, e);
    const planned_shard *shard = st == OK ? shard_plan_at(p, 0) : NULL;
    if (shard) st = shard_begin(&w, shard, folder, e);
    for (size_t i = 0; st == OK && i < shard->count; i++)
        st = shard_write(&w, t->list[index[shard->tensors[i].added]].data, (size_t)shard->tensors[i].bytes, e);
    if (st == OK) st = shard_commit(&w, e);
    else shard_abort(&w);
    shard_plan_close(p);
    free(index);
    free(folder);
    return st;
}

status trace_run(engine *g, const char *golden, const char *out, str *missing, trace_progress *progress, void *arg,
                 error *e) {
    trace t = {.g = g};
    TRY(safetensors_open(&t.file, golden, e));
    t.count = t.file.count;
    t.list = calloc(t.count + 1, sizeof *t.list);
    t.mem = arena_open(1 << 20);
    status st = t.list && t.mem ? OK : fail(e, ERR_NOMEM, "memory is out");
    if (st == OK && (st = plan(&t, e)) != OK) wrap(e, "%s", golden);
    if (st == OK) st = trace_all(&t, progress, arg, e);
    if (st == OK) st = save(&t, out, e);
    for (size_t i = 0; missing && st == OK && i < t.count; i++)
        if (!t.list[i].data) str_addf(missing, "%s\n", t.list[i].name);
    if (missing && st == OK) st = str_check(missing, e);
    free(t.list);
    arena_close(t.mem);
    safetensors_close(&t.file);
    return st;
}
