/* Byte pair encoding against the rule itself, written out naively, with random merges and words. */
#include "text/bpe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/rng.h"

enum { LETTERS = 4, MERGES = 60, MAX_WORD = 400 };

/* Tokens a, b, c, d, then what each merge makes. */
typedef struct model {
    char text[LETTERS + MERGES][64];
    int left[MERGES], right[MERGES], made[MERGES];
    int tokens, merges;
} model;

static uint32_t draw(uint64_t *counter, uint32_t below) {
    uint32_t w[4];
    rng_words(1, 2, (*counter)++, w);
    return w[0] % below;
}

static int find_text(const model *m, const char *text) {
    for (int i = 0; i < m->tokens; i++)
        if (strcmp(m->text[i], text) == 0) return i;
    return -1;
}

static void make_model(model *m, uint64_t *counter) {
    *m = (model){.tokens = LETTERS};
    for (int i = 0; i < LETTERS; i++) m->text[i][0] = (char)('a' + i);
    while (m->merges < MERGES) {
        int left = (int)draw(counter, (uint32_t)m->tokens), right = (int)draw(counter, (uint32_t)m->tokens);
        char text[128];
        snprintf(text, sizeof text, "%s%s", m->text[left], m->text[right]);
        bool repeated = strlen(text) > 12;
        for (int i = 0; i < m->merges; i++) repeated |= m->left[i] == left && m->right[i] == right;
        if (repeated) continue;
        int made = find_text(m, text);
        if (made < 0) strcpy(m->text[made = m->tokens++], text);
        m->left[m->merges] = left;
        m->right[m->merges] = right;
        m->made[m->merges++] = made;
    }
}

static json_t *model_json(const model *m, bool whole_words) {
    json_t *texts = json_object(), *merges = json_array();
    for (int i = 0; i < m->tokens; i++) json_object_set_new(texts, m->text[i], json_integer(i));
    for (int i = 0; i < m->merges; i++) {
        const char *left = m->text[m->left[i]], *right = m->text[m->right[i]];
        json_array_append_new(merges, i % 2 ? json_sprintf("%s %s", left, right) : json_pack("[ss]", left, right));
    }
    return json_pack("{s:s,s:b,s:o,s:o}", "type", "BPE", "ignore_merges", whole_words, "vocab", texts, "merges",
                     merges);
}

/* The definition: join the leftmost pair of the lowest rank until there is none. */
static size_t naive(const model *m, int32_t *id, size_t n) {
    for (;;) {
        int best = MERGES;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++)
            for (int r = 0; r < best; r++)
                if (m->left[r] == id[i] && m->right[r] == id[i + 1]) best = r, at = i;
        if (best == MERGES) return n;
        id[at] = m->made[best];
        memmove(id + at + 1, id + at + 2, (n - at - 2) * sizeof *id);
        n--;
    }
}

static void against_the_definition(void **state) {
    (void)state;
    uint64_t counter = 0;
    for (int round = 0; round < 8; round++) {
        model m;
        make_model(&m, &counter);
        bool whole = round % 2;
        json_t *j = model_json(&m, whole);
        vocab v;
        bpe *b;
        bpe_run *run;
        id_list ids = {0};
        error e = {0};
        assert_int_equal(vocab_open(&v, json_object_get(j, "vocab"), NULL, &e), OK);
        assert_int_equal(bpe_open(&b, &v, j, &e), OK);
        json_decref(j);
        assert_int_equal(bpe_begin(&run, b, &ids, 1000, &e), OK);
        static char words[200][MAX_WORD + 1];
        for (int k = 0; k < 200; k++) {
            size_t n = 1 + draw(&counter, k % 3 ? 12 : MAX_WORD), first = ids.n;
            int32_t want[MAX_WORD];
            for (size_t i = 0; i < n; i++)
                words[k][i] = (char)('a' + (want[i] = (int32_t)draw(&counter, k % 5 ? LETTERS : 2)));
            words[k][n] = 0;
            size_t count = naive(&m, want, n);
            int one = whole ? find_text(&m, words[k]) : -1;
            if (one >= 0) want[0] = one, count = 1;
            assert_int_equal(bpe_word(run, words[k], n, &e), OK);
            if (ids.n - first != count || memcmp(ids.p + first, want, count * sizeof *want) != 0)
                fail_msg("round %d, word \"%s\": %zu ids, want %zu", round, words[k], ids.n - first, count);
            size_t second = ids.n; /* remembered now */
            assert_int_equal(bpe_word(run, words[k], n, &e), OK);
            assert_int_equal(ids.n - second, count);
            assert_memory_equal(ids.p + second, want, count * sizeof *want);
        }
        bpe_end(run);
        bpe_close(b);
        vocab_close(&v);
        free(ids.p);
    }
}

static void vocabulary(void **state) {
    (void)state;
    const char text[] =
        "{\"vocab\":{\"a\":0,\"\\u0120b\":2,\"<x y>\":5},\"added\":[{\"id\":5,\"content\":\"<x y>\",\"special\":true},"
        "{\"id\":7,\"content\":\"\\u00f8\"}]}";
    json_t *j;
    vocab v;
    error e = {0};
    assert_int_equal(json_parse(&j, text, sizeof text - 1, "test", &e), OK);
    assert_int_equal(vocab_open(&v, json_object_get(j, "vocab"), json_object_get(j, "added"), &e), OK);
    json_decref(j);
    assert_int_equal(v.size, 8);
    assert_int_equal(vocab_find(&v,
                                "\xC4\xA0"
                                "b",
                                3),
                     2);
    assert_int_equal(vocab_find(&v, "b", 1), -1);
    assert_int_equal(vocab_find(&v, "", 0), -1);
    assert_null(v.token[1].text);
    assert_int_equal(v.token[2].bytes_n, 2);
    assert_memory_equal(v.token[2].bytes, " b", 2);
    assert_true(v.token[5].special && v.token[5].added && v.token[5].in_model);
    assert_string_equal(v.token[5].bytes, "<x y>"); /* the space is not in the alphabet */
    assert_true(!v.token[7].special && v.token[7].added && !v.token[7].in_model);
    assert_int_equal(v.token[7].bytes_n, 1); /* decodes as the byte, as in the library */
    vocab_close(&v);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_the_definition), cmocka_unit_test(vocabulary)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
