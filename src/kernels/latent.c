/* op_latent_attention: one job per sequence, in which all heads of all query rows share the latent rows, read once
 * for all of them; with keep lists one job per query, since each has its own rows. */
#include "kernels/flash.h"
#include "kernels/queue.h"

static flash_job sequence_job(const latent_attention *a) {
    return (flash_job){
        .q = a->q,
        .o = a->o,
        .ldq = a->ldq,
        .ldo = a->ldo,
        .rows = a->n * a->heads,
        .group = a->heads,
        .k = a->rows,
        .v = a->rows,
        .type = a->row_type,
        .k_stride = a->row_stride,
        .v_stride = a->row_stride,
        .pages = a->pages,
        .seen = a->T - a->n + 1,
        .grow = 1,
        .d_qk = a->rank + a->rope,
        .d_v = a->rank,
        .scale = a->scale,
        .split = a->n <= OP_FEW_ROWS,
    };
}

static flash_job query_job(const latent_attention *a, int64_t i) {
    flash_job job = sequence_job(a);
    job.q += i * a->ldq;
    job.o += i * a->ldo;
    job.rows = a->heads;
    job.index = a->keep + i * a->keep_stride;
    job.seen = a->keep_n[i];
    job.grow = 0;
    return job;
}

typedef struct find_call {
    flash_job *job;
    int32_t *rows; /* [jobs][stride] */
    int64_t stride;
} find_call;

/* Lists hold positions; the kernels that gather want rows. */
static void find_rows(void *arg, int64_t task, int thread) {
    const find_call *f = arg;
    flash_job *j = &f->job[task];
    int32_t *rows = f->rows + task * f->stride;
    (void)thread;
    if (!j->index || !j->pages) return;
    for (int64_t i = 0; i < j->seen; i++)
        rows[i] = j->pages[j->index[i] / CACHE_PAGE] * CACHE_PAGE + j->index[i] % CACHE_PAGE;
    j->index = rows;
}

void op_latent_attention(queue *q, const latent_attention *list, int count) {
    int64_t jobs = 0;
    find_call find = {0};
    for (int i = 0; i < count; i++) {
        jobs += list[i].keep ? list[i].n : 1;
        if (list[i].keep && list[i].pages && list[i].keep_stride > find.stride) find.stride = list[i].keep_stride;
    }
    flash_job *job =
        queue_scratch(q, SLOT_LATENT, (size_t)jobs * (sizeof *job + (size_t)find.stride * sizeof *find.rows));
    if (!job) return;
    find.job = job;
    find.rows = (int32_t *)(void *)(job + jobs);
    jobs = 0;
    for (int i = 0; i < count; i++) {
        if (!list[i].keep) job[jobs++] = sequence_job(&list[i]);
        for (int64_t r = 0; list[i].keep && r < list[i].n; r++) job[jobs++] = query_job(&list[i], r);
    }
    if (find.stride > 0) pool_run(q->pool, jobs, find_rows, &find);
    flash_run(q, job, jobs);
}
