/* The small MTP model of tests/data, opened once for a program's tests. Include after scratch.h. */
#ifndef HADAL_TESTS_EVAL_TINY_H
#define HADAL_TESTS_EVAL_TINY_H

#include "infer/session.h"

#define TINY "tests/data/models/v3_mtp/"

typedef struct tiny {
    model *m;
    engine *f32, *bf16;
} tiny;

static inline tiny *tiny_open(void) {
    tiny *t = calloc(1, sizeof *t);
    error e = {0};
    assert_non_null(t);
    if (model_open(&t->m, TINY "checkpoint", &e) != OK ||
        engine_open(&t->f32, t->m, 2, NULL, COMPUTE_F32, MLA_CHEAPER, &e) != OK ||
        engine_open(&t->bf16, t->m, 2, NULL, COMPUTE_BF16, MLA_CHEAPER, &e) != OK)
        fail_msg("%s", e.text);
    return t;
}

static inline void tiny_close(tiny *t) {
    engine_close(t->f32);
    engine_close(t->bf16);
    model_close(t->m);
    free(t);
}

/* Logits of every token of a prompt, [n][vocab]. */
static inline float *tiny_logits(engine *g, const int32_t *ids, int64_t n) {
    session *s;
    error e = {0};
    const size_t bytes = (size_t)(n * g->m->cfg.vocab_size) * sizeof(float);
    assert_int_equal(session_open(&s, g, n, &e), OK);
    assert_int_equal(sessions_extend(&s, 1, &ids, &n, &n, &e), OK);
    float *rows = malloc(bytes);
    assert_non_null(rows);
    memcpy(rows, s->logits, bytes);
    session_close(s);
    return rows;
}

#endif
