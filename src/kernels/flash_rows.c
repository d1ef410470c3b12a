/* Queries whose few heads would leave most of a panel empty: a kernel takes them one by one. A job's first queries,
 * which see no more keys than lie in a page, go this way whatever the number of its queries: so results do not depend
 * on it. */
#include "kernels/attn_micro.h"
#include "kernels/flash.h"
#include "kernels/queue.h"

enum { QUERIES = 16 }; /* of a task */

typedef struct piece {
    const flash_job *job;
    int64_t first, n;
} piece;

typedef struct rows_call {
    const attn_micro *m;
    const piece *piece;
} rows_call;

static const float LOG2_E = 1.44269504f;

static void rows_task(void *arg, int64_t task, int thread) {
    const rows_call *c = arg;
    const piece *p = &c->piece[task];
    const flash_job *j = p->job;
    (void)thread;
    const int64_t row = j->pages ? (int64_t)j->pages[0] * CACHE_PAGE : 0;
    attn_row a = {.heads = (int)j->group,
                  .k = (const float *)j->k + row * j->k_stride,
                  .v = (const float *)j->v + row * j->v_stride,
                  .k_stride = j->k_stride,
                  .v_stride = j->v_stride,
                  .d_qk = j->d_qk,
                  .d_v = j->d_v,
                  .scale = j->scale * LOG2_E};
    for (int64_t i = p->first; i < p->first + p->n; i++) {
        a.q = j->q + i * j->ldq;
        a.o = j->o + i * j->ldo;
        a.keys = j->seen + i * j->grow;
        c->m->row(&a);
    }
}

/* How many queries of a job go one by one. */
static int64_t count(const queue *q, const flash_job *j) {
    const int64_t n = j->rows / j->group;
    if (!q->attn->row || q->compute != COMPUTE_F32 || j->type != DT_F32 || j->index || j->group > ROW_HEADS ||
        j->group < ROW_HEADS - 1 || j->d_qk % ROW_DIMS || j->d_v % ROW_DIMS || j->seen < 1 || j->grow != 1)
        return 0;
    return least(n, ROW_KEYS - j->seen + 1 > 0 ? ROW_KEYS - j->seen + 1 : 0);
}

void flash_rows(queue *q, flash_job *job, int64_t jobs) {
    int64_t pieces = 0;
    for (int64_t i = 0; i < jobs; i++) pieces += (count(q, &job[i]) + QUERIES - 1) / QUERIES;
    if (pieces == 0) return;
    const size_t copies = (size_t)jobs * sizeof *job;
    char *at = queue_scratch(q, SLOT_FLASH, copies + (size_t)pieces * sizeof(piece));
    if (!at) return;
    flash_job *copy = (flash_job *)(void *)at; /* as they are now */
    piece *p = (piece *)(void *)(at + copies);
    for (int64_t i = 0; i < jobs; i++) {
        const int64_t n = count(q, &job[i]);
        copy[i] = job[i];
        for (int64_t first = 0; first < n; first += QUERIES) *p++ = (piece){&copy[i], first, least(QUERIES, n - first)};
        job[i].q += n * job[i].ldq;
        job[i].o += n * job[i].ldo;
        job[i].rows -= n * job[i].group;
        job[i].seen += n;
    }
    pool_run(q->pool, pieces, rows_task, &(rows_call){q->attn, p - pieces});
}
