#include "convert/native.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "convert/scales.h"
#include "format/native.h"

enum { TASK = 1 << 14, PIECE = 512 /* elements of a task; that pass through F32 at once */ };

bool is_native_input(const char *folder) {
    int64_t *steps = NULL, count = 0;
    if (is_native(folder)) return true;
    native_steps(folder, &steps, &count, NULL);
    free(steps);
    return count > 0;
}

const char *native_copy_of(const model_config *c, const weight_item *w) {
    if (w->owner != OWNER_MTP || !(w->slot->flags & W_NOT_PARAMETER)) return NULL;
    bool head = name_ends_with(w->slot->name, "head.weight") && !c->tie_word_embeddings;
    return head ? "lm_head.weight" : "model.embed_tokens.weight";
}

bool native_is_number(dtype t) {
    return t == DT_F32 || t == DT_BF16 || t == DT_F16;
}

static void shape_text(char *to, size_t size, int ndim, const int64_t *dim) {
    size_t at = (size_t)snprintf(to, size, "[");
    for (int i = 0; i < ndim && at < size; i++)
        at += (size_t)snprintf(to + at, size - at, "%s%lld", i ? ", " : "", (long long)dim[i]);
    if (at < size) snprintf(to + at, size - at, "]");
}

status native_check_shape(const char *where, const weight_item *w, int ndim, const int64_t *dim, error *e) {
    if (ndim == w->ndim && memcmp(dim, w->dim, (size_t)ndim * sizeof *dim) == 0) return OK;
    char found[128], wanted[128];
    shape_text(found, sizeof found, ndim, dim);
    shape_text(wanted, sizeof wanted, w->ndim, w->dim);
    return fail(e, ERR_FORMAT, "%s: tensor \"%s\" has shape %s, but config.json asks for %s", where, w->name, found,
                wanted);
}

void native_tasks(pool *threads, int64_t n, pool_function *f, void *arg) {
    if (threads) pool_run(threads, n, f, arg);
    else
        for (int64_t i = 0; i < n; i++) f(arg, i, 0);
}

typedef struct cast {
    uint8_t *out;
    const uint8_t *from;
    dtype to, type;
    int64_t n;
} cast;

static void cast_task(void *arg, int64_t task, int thread) {
    (void)thread;
    const cast *c = arg;
    int64_t end = (task + 1) * TASK < c->n ? (task + 1) * TASK : c->n;
    for (int64_t at = task * TASK, n; at < end; at += n) {
        float x[PIECE];
        n = end - at < PIECE ? end - at : PIECE;
        fp8_load(x, c->type, c->from + (size_t)at * dtype_size(c->type), n);
        if (c->to == DT_F32) memcpy(c->out + 4 * at, x, (size_t)n * 4);
        else
            for (int64_t i = 0; i < n; i++) ((uint16_t *)(void *)c->out)[at + i] = f32_to_bf16(x[i]);
    }
}

void native_cast(pool *threads, void *out, dtype to, const void *from, dtype type, int64_t n) {
    native_tasks(threads, (n + TASK - 1) / TASK, cast_task, &(cast){out, from, to, type, n});
}
