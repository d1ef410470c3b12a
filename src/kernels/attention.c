/* op_attention: every key-value head of every sequence is one job, in which all query rows and all heads of its group
 * share the keys. */
#include "kernels/attn_micro.h"
#include "kernels/flash.h"
#include "kernels/queue.h"

void attn_fill(struct attn_micro *m, level l) {
    ref_attn(m);
#if defined(__x86_64__)
    if (l >= LEVEL_AVX2) avx2_attn(m);
    if (l >= LEVEL_AVX512) avx512_attn(m);
    if (l >= LEVEL_AVX512BF16) avx512bf16_attn(m);
    if (l >= LEVEL_AMX) amx_attn(m);
#else
    (void)l;
#endif
}

static flash_job head_job(const attention *a, int head) {
    int64_t group = a->heads / a->kv_heads;
    int64_t k_step = a->k_head_stride ? a->k_head_stride : a->d_qk;
    int64_t v_step = a->v_head_stride ? a->v_head_stride : a->d_v;
    size_t size = dtype_size(a->kv_type);
    return (flash_job){
        .q = a->q + head * group * a->d_qk,
        .o = a->o + head * group * a->d_v,
        .ldq = a->ldq,
        .ldo = a->ldo,
        .rows = a->n * group,
        .group = group,
        .k = (const char *)a->k + (size_t)(head * k_step) * size,
        .v = (const char *)a->v + (size_t)(head * v_step) * size,
        .type = a->kv_type,
        .k_stride = a->k_stride,
        .v_stride = a->v_stride,
        .pages = a->pages,
        .seen = a->T - a->n + 1,
        .grow = 1,
        .d_qk = a->d_qk,
        .d_v = a->d_v,
        .scale = a->scale,
        .split = a->n <= OP_FEW_ROWS,
    };
}

void op_attention(queue *q, const attention *list, int count) {
    int64_t jobs = 0;
    for (int i = 0; i < count; i++) jobs += list[i].kv_heads;
    flash_job *job = queue_scratch(q, SLOT_ATTENTION, (size_t)jobs * sizeof *job);
    if (!job) return;
    jobs = 0;
    for (int i = 0; i < count; i++)
        for (int head = 0; head < list[i].kv_heads; head++) job[jobs++] = head_job(&list[i], head);
    flash_run(q, job, jobs);
}
