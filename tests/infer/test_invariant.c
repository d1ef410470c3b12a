/* A row's logits are a function of its own sequence alone, bit by bit, on every level and in both number types: of
 * prompt rows with ROWS_MANY, however the prompt is cut and whoever is in the batch; of decoded rows with ROWS_FEW,
 * alone, beside others, or several at once. Latent attention is absorbed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../kernels/attn_test.h"
#include "../model/small_models.h"
#include "infer/session.h"

enum { PROMPT = 660, LONG = 500, SHORT = 140, DECODED = 20, OTHERS = 40, OTHERS_PROMPT = 20 };

static model *models[SMALL_MODELS];
static int32_t text[PROMPT + DECODED + OTHERS];

static int set_up(void **state) {
    (void)state;
    error e = {0};
    for (int i = 0; i < PROMPT + DECODED + OTHERS; i++) text[i] = (i * 37 + i * i) % SMALL_VOCAB;
    if (small_models_open(models, &e) == OK) return 0;
    printf("%s\n", e.text);
    return -1;
}

static int tear_down(void **state) {
    (void)state;
    small_models_close(models);
    return 0;
}

static session *begin(engine *g) {
    session *s;
    error e = {0};
    if (session_open(&s, g, PROMPT + DECODED, &e) != OK) fail_msg("%s", e.text);
    return s;
}

/* n[i] more tokens of the text, begun at from[i], for session i; logits of all new rows. */
static void extend(session *const *s, int count, const int64_t *from, const int64_t *n, rows_way way) {
    const int32_t *tokens[OTHERS + 1];
    error e = {0};
    for (int i = 0; i < count; i++) tokens[i] = text + from[i] + s[i]->length;
    queue_rows(s[0]->g->ws.q, way);
    if (sessions_extend(s, count, tokens, n, n, &e) != OK) fail_msg("%s", e.text);
}

static void extend_alone(session *s, int64_t n, rows_way way) {
    extend(&s, 1, &(int64_t){0}, &n, way);
}

/* Compares the logits of the last n rows of a session with rows of `want`, which begin at position `first`. */
static void check(const session *s, int64_t n, const float *want, int64_t first, const char *what) {
    const float *got = s->logits + (s->rows - n) * SMALL_VOCAB;
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = s->length - n + i;
        if (memcmp(got + i * SMALL_VOCAB, want + (at - first) * SMALL_VOCAB, SMALL_VOCAB * sizeof *want) != 0)
            fail_msg("%s: other logits at position %lld", what, (long long)at);
    }
}

typedef void test_of_model(int f, const char *on, int c, engine *g, engine *one);

/* On every level, in every number type: engines of two threads and of one. */
static void each_model(test_of_model *test) {
    for (int l = 0; l < LENGTH(test_levels); l++) {
        for (int c = COMPUTE_F32; c <= COMPUTE_BF16; c++) {
            if (c == COMPUTE_F32 && l > 2) continue; /* F32 is avx512's there, too */
            for (int f = 0; f < SMALL_MODELS; f++) {
                engine *g, *one = NULL;
                error e = {0};
                status s = engine_open(&g, models[f], 2, test_levels[l], c, MLA_ABSORBED, &e);
                if (s == ERR_UNSUPPORTED) continue;
                if (s == OK) s = engine_open(&one, models[f], 1, test_levels[l], c, MLA_ABSORBED, &e);
                if (s != OK) fail_msg("%s", e.text);
                test(f, test_levels[l], c, g, one);
                engine_close(g);
                engine_close(one);
            }
        }
    }
}

/* --- prompts ------------------------------------------------------------------------------------------------------ */

static void check_prompt(int f, const char *on, int c, engine *g, engine *one) {
    static const int64_t cut[] = {1, 3, 8, 9, 64, 300, 150, 2, 17, 40, 66};
    static const int64_t beside[][3] = {{5, 70, 1}, {150, 1, 30}, {1, 9, 100}, {504, 8, 7}};
    char what[100];
    session *all = begin(g), *cuts = begin(one), *three[3] = {begin(g), begin(g), begin(g)};
    extend_alone(all, PROMPT, ROWS_MANY);
    snprintf(what, sizeof what, "%s %s %s, prompt in pieces", small_model_name(f), on, compute_names[c]);
    for (int i = 0; i < LENGTH(cut); i++) {
        extend_alone(cuts, cut[i], ROWS_MANY);
        check(cuts, cut[i], all->logits, 0, what);
    }
    assert_int_equal(cuts->length, PROMPT);
    snprintf(what, sizeof what, "%s %s %s, prompt beside others", small_model_name(f), on, compute_names[c]);
    for (int i = 0; i < LENGTH(beside); i++) {
        extend(three, 3, (const int64_t[]){0, 11, 30}, beside[i], ROWS_MANY);
        check(three[0], beside[i][0], all->logits, 0, what);
    }
    assert_int_equal(three[0]->length, PROMPT);
    for (int i = 0; i < 3; i++) session_close(three[i]);
    session_close(all);
    session_close(cuts);
}

static void test_prompts(void **state) {
    (void)state;
    each_model(check_prompt);
}

/* --- decoding ----------------------------------------------------------------------------------------------------- */

/* The same tokens beside others, one more each; then several at once, alone and beside others. */
static void check_decoded(session *s, session *const *others, const char *what) {
    static const int beside[] = {1, 7, 8, 9, OTHERS};
    static const int64_t drafts[] = {3, 8, 1, 9, 2};
    const int64_t first = s->length;
    float *want = malloc(DECODED * SMALL_VOCAB * sizeof *want);
    session *together[OTHERS + 1] = {s};
    int64_t from[OTHERS + 1] = {0}, n[OTHERS + 1];
    assert_non_null(want);
    for (int i = 0; i < DECODED; i++) {
        extend_alone(s, 1, ROWS_FEW);
        memcpy(want + i * SMALL_VOCAB, s->logits, SMALL_VOCAB * sizeof *want);
    }
    for (int i = 0; i < OTHERS; i++) {
        together[i + 1] = others[i];
        from[i + 1] = i;
    }
    for (int several = 0; several < 2; several++) {
        for (int beside_one = 0; beside_one < 1 + several; beside_one++) {
            session_truncate(s, first);
            for (int i = 0; s->length < first + DECODED - 1; i++) {
                int count = 1 + (several ? beside_one * 3 : beside[i % LENGTH(beside)]);
                for (int k = 0; k < count; k++) n[k] = several ? drafts[(i + k) % LENGTH(drafts)] : 1;
                if (n[0] > first + DECODED - s->length) n[0] = first + DECODED - s->length;
                for (int k = 1; k < count; k++) /* the first one is long */
                    session_truncate(others[k - 1], k == 1 ? LONG : 1 + (k * 29 + i) % OTHERS_PROMPT);
                extend(together, count, from, n, ROWS_FEW);
                check(s, n[0], want, first, what);
            }
        }
    }
    free(want);
}

static void check_decoding(int f, const char *on, int c, engine *g, engine *one) {
    char what[100];
    session *others[OTHERS], *s = begin(g), *single = begin(one);
    int64_t from[OTHERS], n[OTHERS];
    snprintf(what, sizeof what, "%s %s %s, decoding", small_model_name(f), on, compute_names[c]);
    for (int i = 0; i < OTHERS; i++) {
        others[i] = begin(g);
        from[i] = i;
        n[i] = i == 0 ? LONG : OTHERS_PROMPT;
    }
    extend(others, OTHERS, from, n, ROWS_MANY);
    extend_alone(s, SHORT, ROWS_MANY);
    check_decoded(s, others, what);
    session_truncate(s, SHORT);
    extend_alone(s, LONG - SHORT, ROWS_MANY);
    check_decoded(s, others, what);
    extend_alone(single, LONG, ROWS_MANY); /* and with one thread */
    while (single->length < s->length) extend_alone(single, 1, ROWS_FEW);
    check(single, 1, s->logits + (s->rows - 1) * SMALL_VOCAB, s->length - 1, what);
    assert_true(single->length > LONG + DECODED / 2);
    for (int i = 0; i < OTHERS; i++) session_close(others[i]);
    session_close(s);
    session_close(single);
}

static void test_decoding(void **state) {
    (void)state;
    each_model(check_decoding);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_prompts), cmocka_unit_test(test_decoding)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
