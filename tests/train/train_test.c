#include "train_test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"

static char *folder_path(const char *folder) {
    const char *root = "tests/data/models";
    char *path = malloc(strlen(root) + strlen(folder) + 16);
    if (path && strchr(folder, '/')) strcpy(path, folder);
    else if (path) sprintf(path, "%s/%s/checkpoint", root, folder);
    return path;
}

status training_open(training *out, const char *folder, const char *rows, error *e) {
    *out = (training){.folder = folder, .rows = rows, .micro = 1, .steps = 3, .failing_rank = -1};
    train_config *c = &out->cfg;
    train_config_default(c);
    c->training.precision = PRECISION_F32;
    c->training.threads = 2;
    c->training.ranks = 1;
    c->optimizer.lr = 1e-3;
    c->optimizer.eps = 1e-3;
    c->optimizer.weight_decay = 0;
    c->optimizer.clip = 1;
    c->objective.balance_alpha = 0.01;
    c->objective.bias_update_speed = 0.01;
    c->objective.mtp_weight = 0.3;
    c->model.seed = 5;
    char *path = folder_path(folder);
    if (!path) return fail(e, ERR_NOMEM, "memory is out");
    status s = config_open(&out->model, path, e);
    free(path);
    return s;
}

/* --- data -------------------------------------------------------------------------------------------------------- */

typedef struct table { /* of a step */
    int rows, docs;
    int first_doc[64], length[256];
    bool silent[64];
} table;

static void read_rows(const char *text, table *t) {
    *t = (table){.rows = 1};
    for (const char *c = text; *c;) {
        if (*c >= '0' && *c <= '9') {
            t->length[t->docs++] = (int)strtol(c, (char **)&c, 10);
            continue;
        }
        if (*c == '|') t->first_doc[t->rows++] = t->docs;
        if (*c == '!') t->silent[t->rows - 1] = true;
        c++;
    }
    t->first_doc[t->rows] = t->docs;
}

/* Tokens depend on the step, the document's number in it and the place; every eighth or so is no target. */
static int32_t token(int64_t step, int doc, int i, int64_t vocab, bool *target) {
    uint32_t w[4];
    rng_words(11, (uint64_t)(step * 1000 + doc), (uint64_t)i, w);
    *target = w[1] % 8 != 0;
    return (int32_t)(w[0] % (uint32_t)vocab);
}

static status get(void *arg, int64_t micro, token_batch *out, error *e) {
    feed *f = arg;
    table t;
    read_rows(f->c->rows, &t);
    if (*f->step == 1 && f->rank == f->c->failing_rank) return fail(e, ERR_IO, "the data of rank %d end", f->rank);
    const int64_t first = t.rows / f->ranks * f->rank + micro * f->c->micro;
    *out = (token_batch){.ids = f->ids, .next = f->next, .target = f->target, .doc = f->doc, .row = f->row};
    for (int64_t r = first; r < first + f->c->micro; r++) {
        f->row[out->n_rows++] = out->n;
        for (int d = t.first_doc[r]; d < t.first_doc[r + 1]; d++) {
            f->doc[out->n_docs++] = out->n;
            for (int i = 0; i < t.length[d]; i++, out->n++) {
                bool scored;
                f->ids[out->n] = token(*f->step, d, i, f->c->model.vocab_size, &scored);
                const int32_t next = token(*f->step, d, i + 1, f->c->model.vocab_size, &scored);
                f->next[out->n] = i + 1 < t.length[d] ? next : -1;
                f->target[out->n] = scored && !t.silent[r] ? f->next[out->n] : -1;
                out->n_targets += f->target[out->n] >= 0;
            }
        }
    }
    f->row[out->n_rows] = f->doc[out->n_docs] = out->n;
    return OK;
}

batch_source training_source(const training *c, const trainer *t, feed *f) {
    table rows;
    read_rows(c->rows, &rows);
    *f = (feed){.c = c, .step = &t->step, .rank = t->net.world->rank, .ranks = t->net.world->size};
    return (batch_source){.get = get, .arg = f, .count = rows.rows / f->ranks / c->micro};
}

/* --- ranks ------------------------------------------------------------------------------------------------------- */

status training_trainer(const training *c, comm *world, trainer *t, error *e) {
    model *from = NULL;
    status s = trainer_open(t, &c->cfg, &c->model, world, e);
    if (s == OK && c->folder) {
        char *path = folder_path(c->folder);
        s = path ? model_open(&from, path, e) : fail(e, ERR_NOMEM, "memory is out");
        if (s == OK) s = params_load(&t->p, from, e);
        free(path);
        model_close(from);
    } else if (s == OK) {
        params_init(&t->p, &c->model, c->cfg.model.seed);
    }
    if (s == OK && c->prepare) c->prepare(t);
    return s == OK ? trainer_ready(t, e) : s;
}

typedef struct run_call {
    const training *c;
    trained *out;
} run_call;

/* Copies this rank's shares of `from` (weights or gradients) into the whole model's. */
static void hand_in(const trainer *t, const float *from, const params *whole, float *to) {
    for (int half = 0; half < 2; half++)
        for (int64_t i = t->share[half].first; i < t->share[half].end; i++) {
            const param *mine = &t->p.list[i], *all = &whole->list[params_find(whole, mine->name)];
            memcpy(to + all->first, from + mine->first, (size_t)mine->n * sizeof *to);
        }
}

static status same_everywhere(const trainer *t, const params *whole, error *e) {
    for (int64_t i = 0; i < t->p.count; i++) {
        const param *mine = &t->p.list[i], *all = &whole->list[params_find(whole, mine->name)];
        if (memcmp(whole->w + all->first, t->p.w + mine->first, (size_t)mine->n * sizeof(float)) != 0)
            return fail(e, ERR_COMM, "rank %d has other numbers in %s", t->net.world->rank, mine->name);
    }
    return OK;
}

static status steps(const training *c, trainer *t, trained *out, error *e) {
    feed f;
    comm *world = t->net.world;
    const batch_source source = training_source(c, t, &f);
    const int64_t loads = (c->model.num_hidden_layers + c->model.num_nextn_predict_layers) * c->model.n_routed_experts;
    hand_in(t, t->p.w, &out->p, out->w0);
    for (int s = 0; s < c->steps; s++) {
        step_metrics m;
        TRY(trainer_gradients(t, &source, &m, e));
        if (s == 0) hand_in(t, t->p.g, &out->p, out->p.g);
        TRY(trainer_update(t, &m, e));
        t->step++;
        if (world->rank == 0) {
            out->step[s] = m;
            if (loads) memcpy(out->load[s], t->sums.layer[0].load, (size_t)loads * sizeof(int64_t));
        }
        TRY(world->kind->barrier(world, e));
        if (m.loss != out->step[s].loss && !isnan(m.loss)) return fail(e, ERR_COMM, "ranks report different losses");
    }
    hand_in(t, t->p.w, &out->p, out->p.w);
    TRY(world->kind->barrier(world, e));
    return same_everywhere(t, &out->p, e);
}

static status one_rank(void *arg, comm *world, error *e) {
    const run_call *r = arg;
    trainer t = {0};
    status s = training_trainer(r->c, world, &t, e);
    if (s == OK) s = steps(r->c, &t, r->out, e);
    trainer_close(&t);
    return s;
}

status train(const training *c, trained *out, error *e) {
    const int64_t loads = (c->model.num_hidden_layers + c->model.num_nextn_predict_layers) * c->model.n_routed_experts;
    *out = (trained){.steps = c->steps};
    TRY(params_open(&out->p, &c->model, &c->cfg, 0, c->model.n_routed_experts, e));
    out->w0 = calloc((size_t)out->p.total, sizeof *out->w0);
    for (int s = 0; s < c->steps; s++) out->load[s] = calloc((size_t)loads + 1, sizeof(int64_t));
    run_call r = {c, out};
    status s = comm_run_threads(c->cfg.training.ranks, one_rank, &r, e);
    if (s != OK) trained_close(out);
    return s;
}

void trained_close(trained *r) {
    params_close(&r->p);
    free(r->w0);
    for (int s = 0; s < TT_STEPS; s++) free(r->load[s]);
    *r = (trained){0};
}

/* --- comparing --------------------------------------------------------------------------------------------------- */

static const char *differ(const params *p, const float *a, const float *b) {
    for (int64_t i = 0; i < p->count; i++)
        if (memcmp(a + p->list[i].first, b + p->list[i].first, (size_t)p->list[i].n * sizeof *a) != 0)
            return p->list[i].name;
    return NULL;
}

const char *weights_differ(const trained *a, const trained *b) {
    return differ(&a->p, a->p.w, b->p.w);
}

const char *gradients_differ(const trained *a, const trained *b) {
    return differ(&a->p, a->p.g, b->p.g);
}

double weight_gap(const trained *a, const trained *b) {
    double gap = 0;
    for (int64_t i = 0; i < a->p.total; i++) gap = fmax(gap, fabs((double)a->p.w[i] - (double)b->p.w[i]));
    return gap;
}

double gradient_gap(const params *a, const params *b, const char **who) {
    double worst = 0;
    *who = "none";
    for (int64_t i = 0; i < a->count; i++) {
        const float *x = a->g + a->list[i].first, *y = b->g + b->list[i].first;
        double sum = 0, gap = 0;
        for (int64_t j = 0; j < a->list[i].n; j++) {
            sum += (double)x[j] * x[j];
            gap += ((double)x[j] - y[j]) * ((double)x[j] - y[j]);
        }
        if (!(sum > 0)) gap = gap > 0 ? 1 : 0, sum = 1;
        if (sqrt(gap / sum) <= worst) continue;
        worst = sqrt(gap / sum);
        *who = a->list[i].name;
    }
    return worst;
}

const param *find_weight(const params *p, const char *end) {
    for (int64_t i = 0; i < p->count; i++) {
        const size_t n = strlen(p->list[i].name), m = strlen(end);
        if (n >= m && strcmp(p->list[i].name + n - m, end) == 0) return &p->list[i];
    }
    return NULL;
}
