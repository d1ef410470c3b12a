#include "kernels/train_blocks.h"

#include <string.h>

void *block_carve(block_memory *at, int64_t numbers, size_t size) {
    void *p = at->base ? at->base + at->used : NULL;
    at->used += ((size_t)numbers * size + BLOCK_ALIGN - 1) / BLOCK_ALIGN * BLOCK_ALIGN;
    return p;
}

/* --- products ----------------------------------------------------------------------------------------------------- */

block_products block_products_of(const queue *q) {
    bool bf16 = q->compute == COMPUTE_BF16;
    return (block_products){.linear = q->linear,
                            .train = &q->attn->train,
                            .add = q->attn->add,
                            .compute = bf16 ? COMPUTE_BF16 : COMPUTE_F32,
                            .size = bf16 ? sizeof(uint16_t) : sizeof(float)};
}

void *block_at(const block_products *b, void *operand, int64_t i) {
    return (char *)operand + (size_t)i * b->size;
}

void block_rows(const block_products *b, void *to, const float *x, int64_t ldx, int64_t n, int64_t d) {
    const float one = 1;
    int64_t ld = block_pad(d), written = block_groups(n) * GROUP;
    panel_call c = {.w = x, .in = ldx, .rows = n, .k = d, .scale = &one, .panel = to, .ld = ld};
    b->linear->panel[b->compute][DT_F32](&c);
    memset(block_at(b, to, written * ld), 0, (size_t)((block_pad(n) - written) * ld) * b->size);
}

void block_turned(const block_products *b, void *to, int64_t ld, const float *x, int64_t ldx, int64_t n, int64_t d) {
    turn_call c = {.a = x, .lda = ldx, .rows = d, .k = n, .panel = to, .ld = ld};
    b->linear->turn[b->compute](&c);
}

void block_columns_of(const block_products *b, void *to, const float *x, int64_t ldx, int64_t n, int64_t d) {
    int64_t group = block_pad(d) * GROUP;
    for (int64_t i = 0; i < block_pad(n); i += GROUP) {
        void *at = block_at(b, to, i / GROUP * group);
        if (i < n) b->linear->group_x[b->compute](at, x + i * ldx, ldx, least(GROUP, n - i), d);
        else memset(at, 0, (size_t)group * b->size);
    }
}

void block_lanes(const block_products *b, void *to, const float *x, int64_t ldx, int64_t n, int64_t d) {
    lanes_call c = {.b = x, .ld = ldx, .k = n, .columns = d, .to = to, .group = block_pad(n) * GROUP};
    b->linear->lanes[b->compute][DT_F32](&c);
}

void block_multiply(const block_products *b, float *c, bool first, const void *rows, int64_t ld, int64_t count,
                    int64_t k, const void *x, int64_t x_group, int64_t groups) {
    block_call call = {.w = rows,
                       .ldw = ld,
                       .rows = count,
                       .k = k,
                       .x = x,
                       .x_group = x_group,
                       .groups = groups,
                       .c = c,
                       .first = first};
    b->linear->block[b->compute](&call);
}

void block_store(const block_products *b, const float *c, int64_t groups, int64_t rows, int64_t n, float *y,
                 int64_t ldy, bool add) {
    store_call s = {.c = c, .groups = groups, .rows = rows, .n = n, .y = y, .ldy = ldy, .y_type = DT_F32, .add = add};
    b->linear->store(&s);
}

void block_place(const block_products *b, const float *c, int64_t groups, int64_t rows, int64_t columns, float *y,
                 int64_t ldy, bool add) {
    place_call p = {.c = c, .groups = groups, .rows = rows, .columns = columns, .y = y, .ldy = ldy, .add = add};
    b->linear->place(&p);
}

/* --- keys and queries --------------------------------------------------------------------------------------------- */

static void mask_causal(uint16_t *mask, const block_pair *p) {
    for (int64_t r = 0; r < p->padded; r++) {
        for (int64_t g = 0; g < p->groups; g++) {
            int64_t first = p->key + r - p->q - g * GROUP, end = least(GROUP, p->nq - g * GROUP);
            if (first < 0) first = 0;
            mask[r * p->groups + g] = first < end ? (uint16_t)((1u << end) - (1u << first)) : 0;
        }
    }
}

/* Position in an ascending list of the first that is not below `key`. */
static int64_t lower_bound(const int32_t *list, int64_t n, int64_t key) {
    int64_t low = 0;
    while (low < n) {
        int64_t middle = low + (n - low) / 2;
        if (list[middle] < key) low = middle + 1;
        else n = middle;
    }
    return low;
}

/* Returns how many kept rows there are. */
static int64_t mask_kept(uint16_t *mask, const block_pair *p, const attention_train *a) {
    int64_t count = 0;
    memset(mask, 0, (size_t)(p->padded * p->groups) * sizeof *mask);
    for (int64_t i = 0; i < p->nq; i++) {
        const int32_t *keep = a->keep + (p->q + i) * a->keep_stride;
        int64_t n = a->keep_n[p->q + i];
        for (int64_t j = lower_bound(keep, n, p->key); j < n && keep[j] < p->key + p->keys; j++, count++)
            mask[(keep[j] - p->key) * p->groups + i / GROUP] |= (uint16_t)(1u << i % GROUP);
    }
    return count;
}

bool block_meet(block_pair *p, const attention_train *a, int64_t q, int64_t nq, int64_t key, int64_t keys,
                uint16_t *mask) {
    *p = (block_pair){.q = q, .nq = nq, .key = key, .keys = least(keys, q + nq - key), .mask = mask};
    p->groups = block_pad(nq) / GROUP;
    p->padded = block_pad(p->keys);
    if (a->keep) return mask_kept(mask, p, a) > 0;
    if (key + p->padded <= q + 1 && nq == p->groups * GROUP) p->mask = NULL;
    else mask_causal(mask, p);
    return true;
}

/* A key of the trunk is seen by all queries from its own row on, one of a branch by those of the branch alone. */
static void mask_tree(uint16_t *mask, const block_pair *p, const attention_train *a) {
    int64_t after = 0; /* the first query whose branch begins after the key */
    for (int64_t r = 0; r < p->padded; r++) {
        const int64_t key = p->key + r;
        while (after < p->nq && a->from[p->q + after] <= key) after++;
        const int64_t last = r >= p->keys ? 0 : key < a->trunk ? p->nq : after;
        for (int64_t g = 0; g < p->groups; g++) {
            int64_t first = key - p->q - g * GROUP, end = least(GROUP, last - g * GROUP);
            if (first < 0) first = 0;
            mask[r * p->groups + g] = first < end ? (uint16_t)((1u << end) - (1u << first)) : 0;
        }
    }
}

bool block_meet_tree(block_pair *p, const attention_train *a, int64_t q, int64_t nq, int64_t key, int64_t keys,
                     int part, uint16_t *mask) {
    const int64_t end = least(key + keys, q + nq), shared = least(key + keys, a->trunk);
    int64_t own = a->from[q] / BLOCK_PAD * BLOCK_PAD;
    if (own < key) own = key;
    const bool touch = key < a->trunk && own <= round_up(shared, BLOCK_PAD);
    const int64_t first = part == 0 ? key : own, last = part == 0 && !touch ? shared : end;
    if (first >= last || (part == 0 && key >= a->trunk) || (part == 1 && touch)) return false;
    *p = (block_pair){.q = q, .nq = nq, .key = first, .keys = last - first, .mask = mask};
    p->groups = block_pad(nq) / GROUP;
    p->padded = block_pad(p->keys);
    const bool all = first + p->padded <= a->trunk || a->from[q + nq - 1] <= first;
    if (all && first + p->padded <= q + 1 && nq == p->groups * GROUP) p->mask = NULL;
    else mask_tree(mask, p, a);
    return true;
}

const float *block_keys(const attention_train *a, int64_t key, int64_t n, int64_t head, float *joined, int64_t *ld) {
    const float *k = a->k + key * a->ldk + head * a->k_head;
    int64_t own = a->d_qk - a->d_tail;
    *ld = a->ldk;
    if (a->d_tail == 0) return k;
    *ld = a->d_qk;
    for (int64_t r = 0; r < n; r++) {
        memcpy(joined + r * a->d_qk, k + r * a->ldk, (size_t)own * sizeof *k);
        memcpy(joined + r * a->d_qk + own, a->tail + (key + r) * a->ldtail, (size_t)a->d_tail * sizeof *k);
    }
    return joined;
}

train_tiles block_tiles(const block_products *b, const block_pair *p, const float *s) {
    return (train_tiles){
        .s = s, .keys = p->padded, .groups = p->groups, .mask = p->mask, .bf16 = b->compute == COMPUTE_BF16};
}
