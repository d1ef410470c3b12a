#include "kernels/flash.h"

#include <math.h>
#include "kernels/attn_micro.h"
#include "kernels/queue.h"

enum {
    MOST_ROWS = 512,        /* rows of a unit: enough to pay for reading and packing the keys, */
    LEAST_ROWS = 64,        /* few enough to give every thread several units, */
    ROWS_BYTES = 1 << 20,   /* and for queries and results to stay in the second cache */
    INDEX_ROWS = 256,       /* rows of jobs side by side: see unit */
    SPLIT_ROWS = 128,       /* rows of a unit when the keys are split */
    CHUNK = 2 * KEY_BLOCK,  /* keys whose results are joined: a unit when the keys are split */
    JOIN_ROWS = 4,          /* rows of one joining task */
    PARTS_BYTES = 64 << 20, /* bound of the memory that holds partial results */
    GATHER = 64,            /* keys that are gathered at a time */
    ALIGN = 64
};

static const float LOG2_E = 1.44269504f;

/* A piece of memory that is handed out from its start; without a base it only counts the bytes. */
typedef struct memory {
    char *base;
    size_t used;
} memory;

/* What one thread does at a time: a block of rows against a range of keys. Of jobs that choose their keys by index,
 * and have few rows each, it does several side by side, block of keys by block of keys: neighbours choose much the same
 * keys, which are then still in the second cache. */
typedef struct unit {
    const flash_job *job;
    int64_t jobs; /* 1, or how many side by side */
    int64_t row, rows, key, end;
    int64_t block; /* split jobs: which row block of the run */
} unit;

/* The state of rows (see flash.h), rows padded to panels. */
typedef struct state {
    float *max, *sum, *o; /* [rows], [rows], [rows][d_v padded] */
} state;

typedef struct run {
    const attn_micro *m;
    const attn_product *p;
    int64_t rows; /* of a unit of jobs that are not split: changes no bit of a result */
    const unit *units;
    char *work; /* per thread */
    size_t work_bytes;
    /* Split jobs. Their chunks run in waves, as many at a time as there is memory for parts. */
    const unit *blocks; /* every row block with all its keys */
    float *joined;      /* [blocks][2][SPLIT_ROWS]: maximum and sum of what is joined already */
    char *parts;        /* the states of the chunks of a wave */
    size_t part_bytes;
    int64_t wave, wave_end, wave_blocks; /* chunks of the wave, and its first row block */
} run;

/* Scratch memory of a thread, carved from one piece. */
typedef struct space {
    void *q, *k, *v, *p;
    float *s;
    state chunk, joined; /* joined: of a whole unit */
} space;

static int64_t pad(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

static void *carve(memory *at, size_t bytes) {
    void *p = at->base ? at->base + at->used : NULL;
    at->used += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return p;
}

static state carve_state(memory *at, int64_t rows, int64_t d_v) {
    state s;
    s.max = carve(at, (size_t)rows * sizeof(float));
    s.sum = carve(at, (size_t)rows * sizeof(float));
    s.o = carve(at, (size_t)(rows * pad(d_v, PANEL)) * sizeof(float));
    return s;
}

static space carve_work(memory *at, const attn_product *p, int64_t rows, int64_t d_qk, int64_t d_v, bool whole) {
    size_t size = dtype_size(p->type), step = KEY_BLOCK * STEP_PANELS * PANEL * sizeof(float);
    size_t dk = (size_t)pad(d_qk, p->dim_pad), dv = (size_t)pad(d_v, PANEL);
    space w = {0};
    w.q = carve(at, (size_t)rows * dk * size);
    w.k = carve(at, KEY_BLOCK * dk * size);
    w.v = carve(at, KEY_BLOCK * dv * size);
    w.p = carve(at, step);
    w.s = carve(at, step);
    if (!whole) return w;
    w.chunk = carve_state(at, rows, d_v);
    w.joined = carve_state(at, rows, d_v);
    return w;
}

/* How many keys row r sees. */
static int64_t visible(const flash_job *j, int64_t r) {
    return j->seen + r / j->group * j->grow;
}

/* The row in memory of the first key of a block. */
static int64_t block_row(const flash_job *j, int64_t key) {
    return j->pages ? (int64_t)j->pages[key / KEY_BLOCK] * KEY_BLOCK : key;
}

static void pack_queries(const attn_product *p, const unit *u, const flash_job *j, void *out) {
    size_t panel_bytes = (size_t)(pad(j->d_qk, p->dim_pad) * PANEL) * dtype_size(p->type);
    for (int64_t first = 0; first < u->rows; first += PANEL) {
        int count = (int)least(PANEL, u->rows - first);
        const void *rows[PANEL];
        for (int c = 0; c < count; c++) {
            int64_t r = u->row + first + c;
            rows[c] = j->q + r / j->group * j->ldq + r % j->group * j->d_qk;
        }
        p->pack_panel((char *)out + (size_t)(first / PANEL) * panel_bytes, rows, DT_F32, count, j->d_qk);
    }
}

/* Makes keys and values of one block ready for steps: in place where their form allows it, else packed. */
static void take_keys(const attn_product *p, const flash_job *j, const space *w, int64_t key, int keys, attn_step *a) {
    size_t size = dtype_size(j->type);
    bool same = j->type == p->in_place && !j->index;
    int64_t row = j->index ? 0 : block_row(j, key);
    const char *k = (const char *)j->k + (size_t)(row * j->k_stride) * size;
    const char *v = (const char *)j->v + (size_t)(row * j->v_stride) * size;
    dtype v_type = j->type;
    int64_t v_stride = j->v_stride;
    a->keys = keys;
    a->d_qk = pad(j->d_qk, p->dim_pad);
    a->d_v = pad(j->d_v, PANEL);
    a->k = k;
    a->k_stride = j->k_stride;
    if (!same || a->d_qk != j->d_qk || keys % p->row_pad != 0) {
        p->pack_rows(w->k, k, j->type, j->k_stride, j->index ? j->index + key : NULL, keys, j->d_qk);
        a->k = w->k;
        a->k_stride = a->d_qk;
        if (j->v == j->k) {
            v = w->k;
            v_type = p->type;
            v_stride = a->d_qk;
            same = true;
        }
    }
    a->v = v;
    a->v_stride = v_stride;
    if (!same || !p->values_plain || a->d_v != j->d_v) {
        p->pack_values(w->v, v, v_type, v_stride, keys, j->d_v);
        a->v = w->v;
        a->v_stride = a->d_v;
    }
}

/* The same for keys chosen by index when there is a single step: a few at a time are gathered, scored and turned into
 * values before they leave the cache. The step finds its scores done. */
static void gather_keys(const attn_product *p, const flash_job *j, const space *w, int64_t key, int keys,
                        attn_step *a) {
    int64_t width = a->panels * PANEL;
    a->keys = keys;
    a->d_qk = pad(j->d_qk, p->dim_pad);
    a->d_v = pad(j->d_v, PANEL);
    a->v = w->v;
    a->v_stride = a->d_v;
    for (int r = 0; r < keys; r += GATHER) {
        int n = (int)least(GATHER, keys - r);
        p->pack_rows(w->k, j->k, j->type, j->k_stride, j->index + key + r, n, j->d_qk);
        p->scores(w->s + r * width, w->k, a->d_qk, n, a->q, a->panels, a->d_qk);
        p->pack_values((char *)w->v + (size_t)(r * a->d_v) * dtype_size(p->type), w->k, p->type, a->d_qk, n, j->d_v);
    }
}

/* Does a step gather the keys itself? */
static bool gathers(const attn_product *p, const flash_job *j) {
    return j->index && j->rows <= PANEL && j->type == p->in_place && p->gather_pad && j->d_qk % p->gather_pad == 0 &&
           j->d_v % p->gather_pad == 0;
}

/* Rows of u, with the keys of job j of it, against one block of keys. */
static void attend_block(const attn_product *p, const unit *u, const flash_job *j, const space *w, const char *panels,
                         const state *at, int64_t key, int keys) {
    int64_t rows = pad(u->rows, PANEL), d_v = pad(j->d_v, PANEL);
    attn_step a = {.scale = j->scale * LOG2_E, .s = w->s, .p = w->p};
    if (gathers(p, j)) {
        a.k = j->k;
        a.k_stride = j->k_stride;
        a.index = j->index + key;
        a.keys = keys;
        a.d_qk = j->d_qk;
        a.d_v = j->d_v;
    } else if (j->index && rows <= STEP_PANELS * PANEL) {
        a.q = panels;
        a.panels = (int)(rows / PANEL);
        gather_keys(p, j, w, key, keys, &a);
    } else {
        take_keys(p, j, w, key, keys, &a);
    }
    size_t panel_bytes = (size_t)(a.d_qk * PANEL) * dtype_size(p->type);
    for (int64_t r = 0; r < rows; r += STEP_PANELS * PANEL) {
        int32_t seen[STEP_PANELS * PANEL] = {0};
        int64_t most = 0;
        a.panels = (int)least(STEP_PANELS, (rows - r) / PANEL);
        for (int64_t c = 0; c < a.panels * PANEL && r + c < u->rows; c++) {
            int64_t see = least(visible(j, u->row + r + c) - key, keys);
            seen[c] = see > 0 ? (int32_t)see : 0;
            if (see > most) most = see;
        }
        if (most == 0) continue;
        a.keys = (int)most; /* what nobody here sees need not be multiplied */
        a.q = panels + (size_t)(r / PANEL) * panel_bytes;
        a.seen = seen;
        a.max = at->max + r;
        a.sum = at->sum + r;
        a.o = at->o + r * d_v;
        p->step(&a);
    }
}

/* The state of job number i of a unit. */
static state state_of(const unit *u, const state *all, int64_t i) {
    int64_t row = i * pad(u->rows, PANEL);
    return (state){all->max + row, all->sum + row, all->o + row * pad(u->job->d_v, PANEL)};
}

/* Bytes of the packed queries of one job of u. */
static size_t query_bytes(const attn_product *p, const unit *u) {
    return (size_t)(pad(u->job->d_qk, p->dim_pad) * pad(u->rows, PANEL)) * dtype_size(p->type);
}

static void pack_jobs(const attn_product *p, const unit *u, const space *w) {
    for (int64_t i = 0; i < u->jobs; i++) pack_queries(p, u, &u->job[i], (char *)w->q + (size_t)i * query_bytes(p, u));
}

/* Rows of u, packed, against the keys first .. last-1, from an empty state. */
static void attend(const attn_product *p, const unit *u, const space *w, int64_t first, int64_t last,
                   const state *out) {
    int64_t rows = pad(u->rows, PANEL), d_v = pad(u->job->d_v, PANEL);
    for (int64_t r = 0; r < rows * u->jobs; r++) {
        out->max[r] = -INFINITY;
        out->sum[r] = 0;
    }
    for (int64_t i = 0; i < rows * u->jobs * d_v; i++) out->o[i] = 0;
    for (int64_t key = first; key < last; key += KEY_BLOCK) {
        for (int64_t i = 0; i < u->jobs; i++) {
            int64_t end = least(last, visible(&u->job[i], u->row + u->rows - 1));
            state at = state_of(u, out, i);
            if (key < end)
                attend_block(p, u, &u->job[i], w, (char *)w->q + (size_t)i * query_bytes(p, u), &at, key,
                             (int)least(KEY_BLOCK, end - key));
        }
    }
}

static float *output_row(const flash_job *j, int64_t r) {
    return j->o + r / j->group * j->ldo + r % j->group * j->d_v;
}

static float inverse(float sum) {
    return sum == 0 ? 0 : 1 / sum; /* a row that sees nothing becomes zeros */
}

/* Joins row i of `part` to what is joined already; d_v numbers lie at o. A part that saw nothing changes nothing. */
static void join(const attn_micro *m, float *max, float *sum, float *o, const state *part, int64_t i, int64_t d_v) {
    if (part->sum[i] == 0) return;
    float most = part->max[i] > *max ? part->max[i] : *max;
    float mine = exp2f(*max - most), other = exp2f(part->max[i] - most);
    *max = most;
    *sum = *sum * mine + part->sum[i] * other;
    m->blend(o, mine, part->o + i * pad(d_v, PANEL), other, d_v);
}

/* A whole unit: chunk after chunk, as if each were a unit; result to its place. */
static void whole_task(void *arg, int64_t task, int thread) {
    const run *r = arg;
    const unit *u = &r->units[r->wave + task];
    int64_t d_v = u->job->d_v;
    memory at = {.base = r->work + (size_t)thread * r->work_bytes};
    space w = carve_work(&at, r->p, r->rows, u->job->d_qk, d_v, true);
    pack_jobs(r->p, u, &w);
    attend(r->p, u, &w, 0, least(CHUNK, u->end), &w.joined);
    for (int64_t key = CHUNK; key < u->end; key += CHUNK) {
        attend(r->p, u, &w, key, least(key + CHUNK, u->end), &w.chunk);
        for (int64_t i = 0; i < u->jobs * pad(u->rows, PANEL); i++)
            join(r->m, w.joined.max + i, w.joined.sum + i, w.joined.o + i * pad(d_v, PANEL), &w.chunk, i, d_v);
    }
    for (int64_t j = 0; j < u->jobs; j++) {
        state s = state_of(u, &w.joined, j);
        for (int64_t i = 0; i < u->rows; i++)
            r->m->scale(output_row(&u->job[j], u->row + i), s.o + i * pad(d_v, PANEL), inverse(s.sum[i]), d_v);
    }
}

static state part_of(const run *r, int64_t i, const unit *u) {
    memory at = {.base = r->parts + (size_t)(i - r->wave) * r->part_bytes};
    return carve_state(&at, pad(u->rows, PANEL), u->job->d_v);
}

static void chunk_task(void *arg, int64_t task, int thread) {
    const run *r = arg;
    const unit *u = &r->units[r->wave + task];
    memory at = {.base = r->work + (size_t)thread * r->work_bytes};
    space w = carve_work(&at, r->p, SPLIT_ROWS, u->job->d_qk, u->job->d_v, false);
    state part = part_of(r, r->wave + task, u);
    pack_jobs(r->p, u, &w);
    attend(r->p, u, &w, u->key, u->end, &part);
}

/* Joins the parts of the wave to what is joined already, which lies in the output rows; the last chunk divides. */
static void join_task(void *arg, int64_t task, int thread) {
    (void)thread;
    const run *r = arg;
    int64_t block = r->wave_blocks + task / (SPLIT_ROWS / JOIN_ROWS);
    const unit *b = &r->blocks[block];
    int64_t first = task % (SPLIT_ROWS / JOIN_ROWS) * JOIN_ROWS, end = least(first + JOIN_ROWS, b->rows);
    int64_t chunks = (b->end + CHUNK - 1) / CHUNK, d_v = b->job->d_v;
    int64_t from = r->wave > b->block ? r->wave : b->block, to = least(r->wave_end, b->block + chunks);
    for (int64_t i = first; i < end; i++) {
        float *max = r->joined + block * 2 * SPLIT_ROWS + i, *sum = max + SPLIT_ROWS;
        float *o = output_row(b->job, b->row + i);
        for (int64_t c = from; c < to; c++) {
            state part = part_of(r, c, b);
            if (c == b->block) {
                *max = part.max[i];
                *sum = part.sum[i];
                r->m->scale(o, part.o + i * pad(d_v, PANEL), 1, d_v);
            } else {
                join(r->m, max, sum, o, &part, i, d_v);
            }
        }
        if (to == b->block + chunks) r->m->scale(o, o, inverse(*sum), d_v);
    }
}

/* A job is split only when there is more than one chunk. The results are the same, split or not. */
static bool splits(const flash_job *j) {
    return j->split && visible(j, j->rows - 1) > CHUNK;
}

/* How many jobs from job[0] on make one unit. */
static int64_t side_by_side(const flash_job *job, int64_t jobs, int64_t size) {
    int64_t n = 1, most = least(size, INDEX_ROWS) / pad(job->rows, PANEL);
    if (!job->index || splits(job)) return 1;
    while (n < jobs && n < most && job[n].index && !splits(&job[n]) && job[n].rows == job->rows &&
           job[n].d_qk == job->d_qk && job[n].d_v == job->d_v)
        n++;
    return n;
}

/* Counts (units = NULL) or writes the row blocks, of at most `size` rows, of split jobs or of the others. */
static int64_t list_blocks(const flash_job *job, int64_t jobs, bool split, int64_t size, unit *units) {
    int64_t n = 0, together;
    for (int64_t i = 0; i < jobs; i += together) {
        together = 1;
        if (job[i].rows == 0 || splits(&job[i]) != split) continue;
        together = side_by_side(&job[i], jobs - i, size);
        int64_t blocks = (job[i].rows + size - 1) / size;
        for (int64_t b = blocks - 1; b >= 0; b--, n++) { /* those that see most come first */
            if (!units) continue;
            int64_t row = b * size, rows = least(size, job[i].rows - row), end = 0;
            for (int64_t k = i; k < i + together; k++) {
                int64_t see = visible(&job[k], row + rows - 1);
                if (see > end) end = see;
            }
            units[n] = (unit){.job = &job[i], .jobs = together, .row = row, .rows = rows, .end = end};
        }
    }
    return n;
}

/* Cuts the row blocks into chunks of keys; a block learns its first chunk, a chunk its block. */
static int64_t list_chunks(unit *blocks, int64_t n, unit *units) {
    int64_t count = 0;
    for (int64_t b = 0; b < n; b++) {
        int64_t first = count;
        for (int64_t key = 0; key < blocks[b].end; key += CHUNK, count++) {
            if (!units) continue;
            units[count] = blocks[b];
            units[count].key = key;
            units[count].end = least(key + CHUNK, blocks[b].end);
            units[count].block = b;
        }
        blocks[b].block = first;
    }
    return count;
}

/* The largest block of rows that leaves its data in the cache and enough units for the threads. */
static int64_t choose_rows(const attn_product *p, const flash_job *job, int64_t jobs, int64_t threads) {
    int64_t rows = MOST_ROWS, bytes = 0;
    for (int64_t i = 0; i < jobs; i++) {
        int64_t row = job[i].d_qk * (int64_t)dtype_size(p->type) + job[i].d_v * (int64_t)sizeof(float);
        if (row > bytes) bytes = row;
    }
    while (rows > LEAST_ROWS && (rows * bytes > ROWS_BYTES || list_blocks(job, jobs, false, rows, NULL) < 4 * threads))
        rows /= 2;
    return rows;
}

static void run_split(queue *q, run *r, int64_t chunks, int64_t parts) {
    for (r->wave = 0; r->wave < chunks; r->wave = r->wave_end) {
        r->wave_end = least(r->wave + parts, chunks);
        pool_run(q->pool, r->wave_end - r->wave, chunk_task, r);
        r->wave_blocks = r->units[r->wave].block;
        int64_t blocks = r->units[r->wave_end - 1].block + 1 - r->wave_blocks;
        pool_run(q->pool, blocks * (SPLIT_ROWS / JOIN_ROWS), join_task, r);
    }
}

void flash_run(queue *q, flash_job *job, int64_t jobs) {
    flash_rows(q, job, jobs);
    run r = {.m = q->attn, .p = &q->attn->product[q->compute]};
    int64_t threads = pool_threads(q->pool), chunks = 0;
    r.rows = choose_rows(r.p, job, jobs, threads);
    int64_t whole = list_blocks(job, jobs, false, r.rows, NULL);
    int64_t blocks = list_blocks(job, jobs, true, SPLIT_ROWS, NULL);
    if (whole + blocks == 0) return;
    for (int64_t i = 0; i < jobs; i++) {
        memory work = {0}, part = {0};
        if (i > 0 && blocks == 0 && job[i].d_qk == job[i - 1].d_qk && job[i].d_v == job[i - 1].d_v) continue;
        carve_work(&work, r.p, splits(&job[i]) ? SPLIT_ROWS : r.rows, job[i].d_qk, job[i].d_v, !splits(&job[i]));
        carve_state(&part, pad(least(SPLIT_ROWS, job[i].rows), PANEL), job[i].d_v);
        if (work.used > r.work_bytes) r.work_bytes = work.used;
        if (!splits(&job[i])) continue;
        if (part.used > r.part_bytes) r.part_bytes = part.used;
        chunks +=
            (job[i].rows + SPLIT_ROWS - 1) / SPLIT_ROWS * ((visible(&job[i], job[i].rows - 1) + CHUNK - 1) / CHUNK);
    }
    int64_t parts = r.part_bytes ? least(chunks, 1 + PARTS_BYTES / (int64_t)r.part_bytes) : 0;
    size_t units_bytes = (size_t)(whole + blocks + chunks) * sizeof(unit);
    size_t joined_bytes = (size_t)blocks * 2 * SPLIT_ROWS * sizeof(float);
    memory at = {0};
    at.base = queue_scratch(q, SLOT_FLASH,
                            (size_t)threads * r.work_bytes + (size_t)parts * r.part_bytes + joined_bytes + units_bytes +
                                4 * ALIGN);
    if (!at.base) return;
    r.work = carve(&at, (size_t)threads * r.work_bytes);
    r.parts = carve(&at, (size_t)parts * r.part_bytes);
    r.joined = carve(&at, joined_bytes);
    unit *units = carve(&at, units_bytes);
    r.units = units;
    list_blocks(job, jobs, false, r.rows, units);
    pool_run(q->pool, whole, whole_task, &r);
    if (blocks == 0) return;
    unit *split = units + whole;
    list_blocks(job, jobs, true, SPLIT_ROWS, split);
    r.blocks = split;
    r.units = split + blocks;
    chunks = list_chunks(split, blocks, split + blocks);
    run_split(q, &r, chunks, parts);
}
