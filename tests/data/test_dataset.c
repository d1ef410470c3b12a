/* Rows of data sets: what stands in them for every packing, that they are a pure function of their number, and that bad
 * files are errors with a name. */
#include "data/dataset.h"
#include "scratch.h"

enum { END = 1 }; /* eos of the token files here */

static data_options options_for(const char *const *paths, int n) {
    return (data_options){
        .paths = paths, .n_paths = n, .seq_len = 4, .document_mask = true, .eos = END, .vocab_size = 100, .threads = 1};
}

static dataset *open_ok(const data_options *o) {
    dataset *d;
    error e = {0};
    if (dataset_open(&d, o, &e) != OK) fail_msg("%s", e.text);
    return d;
}

static token_batch rows_ok(dataset *d, int64_t first, int64_t n) {
    token_batch b;
    error e = {0};
    if (dataset_rows(d, first, n, &b, &e) != OK) fail_msg("%s", e.text);
    return b;
}

/* A batch as text: rows in brackets, documents apart by |, every token with its next and, where the loss does not count
 * it, a star: [5>6 6>7* | 8>.] */
static char *show(const token_batch *b) {
    str s = {0};
    int64_t doc = 0, targets = 0;
    for (int64_t r = 0; r < b->n_rows; r++) {
        str_puts(&s, "[");
        for (int64_t i = b->row[r]; i < b->row[r + 1]; i++) {
            if (i == b->doc[doc + 1]) doc++;
            str_puts(&s, i == b->row[r] ? "" : i == b->doc[doc] ? " | " : " ");
            str_addf(&s, "%d>", b->ids[i]);
            if (b->next[i] < 0) str_puts(&s, ".");
            else str_addf(&s, "%d%s", b->next[i], b->target[i] < 0 ? "*" : "");
            assert_true(b->target[i] < 0 || b->target[i] == b->next[i]);
            targets += b->target[i] >= 0;
        }
        assert_int_equal(b->doc[doc + 1], b->row[r + 1]);
        str_puts(&s, "]");
    }
    assert_int_equal(doc + 1, b->n_docs);
    assert_int_equal(b->row[b->n_rows], b->n);
    assert_int_equal(targets, b->n_targets);
    return str_take(&s);
}

static void check_rows(dataset *d, int64_t first, int64_t n, const char *expected) {
    token_batch b = rows_ok(d, first, n);
    char *got = show(&b);
    assert_string_equal(got, expected);
    free(got);
}

static const char *bin(scratch *s, const char *name, const uint32_t *ids, size_t n) {
    return scratch_file(s, name, ids, n * sizeof *ids);
}
#define BIN(s, name, ...) \
    bin(s, name, (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

/* ---- concatenation ---- */

static void test_concat(void **state) {
    (void)state;
    scratch s = scratch_open();
    const char *paths[] = {BIN(&s, "a.bin", 10, 11, END, 12, 13, 14, 15, END),
                           BIN(&s, "b.bin", 20, 21, 22, 23, END, 24)};
    data_options o = options_for(paths, 2);
    dataset *d = open_ok(&o);
    assert_int_equal(dataset_epoch_rows(d), 3); /* 14 tokens: 3 rows of 4 and the token behind them; one is left over */
    assert_int_equal(dataset_tokens(d), 12);
    check_rows(d, 0, 1, "[10>11 11>1 1>. | 12>13]");
    check_rows(d, 1, 1, "[13>14 14>15 15>1 1>.]");
    check_rows(d, 2, 1, "[20>21 21>22 22>23 23>1]");
    check_rows(d, 0, 3, "[10>11 11>1 1>. | 12>13][13>14 14>15 15>1 1>.][20>21 21>22 22>23 23>1]");
    check_rows(d, 3, 1, "[10>11 11>1 1>. | 12>13]"); /* the next epoch */
    dataset_close(d);
    o.document_mask = false;
    d = open_ok(&o);
    check_rows(d, 0, 2, "[10>11 11>1 1>12 12>13][13>14 14>15 15>1 1>20]");
    dataset_close(d);
    o.document_mask = true, o.eos = -1; /* nothing ends but files */
    d = open_ok(&o);
    check_rows(d, 1, 2, "[13>14 14>15 15>1 1>.][20>21 21>22 22>23 23>1]");
    dataset_close(d);
    scratch_close(&s);
}

/* Row b of step s with batch B is ids[(s B + b) T .. + T + 1], over files joined in order: the rule of other trainers.
 */
static void test_concat_rule(void **state) {
    (void)state;
    enum { N = 1000, T = 7, B = 3 };
    scratch s = scratch_open();
    uint32_t ids[N];
    for (uint32_t i = 0; i < N; i++) ids[i] = i * 7919 % 97;
    const char *paths[] = {bin(&s, "a.bin", ids, 333), bin(&s, "b.bin", ids + 333, 1), bin(&s, "e.bin", ids, 0),
                           bin(&s, "c.bin", ids + 334, N - 334)};
    data_options o = options_for(paths, 4);
    o.seq_len = T;
    o.document_mask = false;
    dataset *d = open_ok(&o);
    assert_int_equal(dataset_epoch_rows(d), (N - 1) / T);
    for (int64_t step = 0; (step + 1) * B <= (N - 1) / T; step++) {
        token_batch b = rows_ok(d, step * B, B);
        assert_int_equal(b.n, B * T);
        assert_int_equal(b.n_docs, B);
        assert_int_equal(b.n_targets, B * T);
        for (int64_t i = 0; i < b.n; i++) {
            int64_t at = (step * B + i / T) * T + i % T;
            assert_int_equal(b.ids[i], ids[at]);
            assert_int_equal(b.next[i], ids[at + 1]);
            assert_int_equal(b.target[i], ids[at + 1]);
        }
    }
    dataset_close(d);
    scratch_close(&s);
}

/* ---- whole documents ---- */

static void test_none_and_cut(void **state) {
    (void)state;
    scratch s = scratch_open();
    const char *paths[] = {BIN(&s, "a.bin", 10, END, 11, 12, 13, 14, 15, 16, 17, 18, 19, END, 20, 21)};
    data_options o = options_for(paths, 1);
    o.packing = PACK_NONE;
    dataset *d = open_ok(&o);
    assert_int_equal(dataset_tokens(d), 14);
    assert_int_equal(dataset_epoch_rows(d), 5);
    check_rows(d, 0, 5, "[10>1 1>.][11>12 12>13 13>14 14>15][15>16 16>17 17>18 18>19][19>1 1>.][20>21 21>.]");
    dataset_close(d);
    o.packing = PACK_BEST_FIT;
    d = open_ok(&o); /* 4 | 4 | 2 2 | 2, in the data's order */
    assert_int_equal(dataset_epoch_rows(d), 4);
    token_batch b = rows_ok(d, 0, 4);
    assert_int_equal(b.n, 14);
    dataset_close(d);
    o.document_mask = false;
    d = open_ok(&o);
    b = rows_ok(d, 0, 4);
    assert_int_equal(b.n_docs, 4); /* one a row, */
    char *got = show(&b);
    assert_non_null(strstr(got, "1>1")); /* and the token behind eos is that of the document joined to it */
    free(got);
    dataset_close(d);
    scratch_close(&s);
}

typedef struct lengths {
    int n;
    int32_t of[4000];
} lengths;

/* Documents of random lengths, token k of document i is 2 + (i + k) % 98; all of them at most seq_len. */
static const char *random_documents(scratch *s, lengths *l, int seq_len) {
    str bytes = {0};
    uint32_t x = 5, end = END;
    l->n = 4000;
    for (int i = 0; i < l->n; i++) {
        x = x * 1664525u + 1013904223u;
        l->of[i] = 2 + (int32_t)((x >> 8) % (uint32_t)(seq_len - 1));
        for (int k = 0; k + 1 < l->of[i]; k++) {
            uint32_t id = 2 + (uint32_t)(i + k) % 98;
            str_add(&bytes, (const char *)&id, sizeof id);
        }
        str_add(&bytes, (const char *)&end, sizeof end);
    }
    const char *path = scratch_file(s, "random.bin", bytes.p, bytes.n);
    str_free(&bytes);
    return path;
}

/* No packing takes fewer rows than this (Martello and Toth 1990, L2): for every a, documents longer than T/2 have a row
 * each, those longer than T-a share it with none of length a or more, and the others take the room that is left. */
static int lower_bound(const lengths *l, int t) {
    int best = 0;
    for (int a = 0; a <= t / 2; a++) {
        int alone = 0, half = 0, room = 0, small = 0;
        for (int i = 0; i < l->n; i++) {
            int n = l->of[i];
            if (n > t - a) alone++;
            else if (2 * n > t) half++, room += t - n;
            else if (n >= a) small += n;
        }
        int more = small > room ? (small - room + t - 1) / t : 0;
        if (alone + half + more > best) best = alone + half + more;
    }
    return best;
}

static void test_best_fit(void **state) {
    (void)state;
    enum { T = 64 };
    static lengths l;
    scratch s = scratch_open();
    const char *path = random_documents(&s, &l, T);
    data_options o = options_for(&path, 1);
    o.seq_len = T;
    o.packing = PACK_BEST_FIT;
    dataset *d = open_ok(&o);
    int64_t rows = dataset_epoch_rows(d), tokens = dataset_tokens(d);
    int left[T + 1] = {0};
    for (int i = 0; i < l.n; i++) left[l.of[i]]++;
    int64_t sum = 0;
    for (int64_t r = 0; r < rows; r++) {
        token_batch b = rows_ok(d, r, 1);
        assert_true(b.n <= T);
        sum += b.n;
        for (int64_t k = 0; k < b.n_docs; k++) { /* each document whole: ends with eos and is one of those given */
            int64_t n = b.doc[k + 1] - b.doc[k];
            assert_int_equal(b.ids[b.doc[k + 1] - 1], END);
            assert_int_equal(b.next[b.doc[k + 1] - 1], -1);
            for (int64_t i = b.doc[k]; i + 1 < b.doc[k + 1]; i++) assert_int_equal(b.next[i], b.ids[i + 1]);
            assert_true(left[n]-- > 0);
        }
    }
    assert_int_equal(sum, tokens);
    for (int i = 0; i <= T; i++) assert_int_equal(left[i], 0);
    int least = lower_bound(&l, T);
    assert_in_range(rows, least, least + least / 200); /* worst cases of best fit lose 2/9, random lengths hardly any */
    dataset_close(d);
    scratch_close(&s);
}

/* ---- order and resume ---- */

static uint64_t hash(const void *p, int64_t n, uint64_t h) {
    for (int64_t i = 0; i < n; i++) h = (h ^ ((const uint8_t *)p)[i]) * 0x100000001b3u;
    return h;
}

static uint64_t batch_hash(const token_batch *b) {
    uint64_t h = hash(b->ids, b->n * 4, 1469598103934665603u);
    h = hash(b->next, b->n * 4, h);
    return hash(b->target, b->n * 4, h);
}

/* Row i is the same one however it is asked for: alone, in a batch, after others, by another data set; in every
 * packing, across epochs. */
static void test_pure(void **state) {
    (void)state;
    static lengths l;
    scratch s = scratch_open();
    const char *path = random_documents(&s, &l, 50);
    for (int how = PACK_CONCAT; how <= PACK_NONE; how++) {
        data_options o = options_for(&path, 1);
        o.seq_len = 128, o.packing = (packing)how, o.shuffle = true, o.seed = 11;
        dataset *a = open_ok(&o), *b = open_ok(&o);
        int64_t n = dataset_epoch_rows(a), at = n - 5;
        token_batch all = rows_ok(a, at, 12); /* over the border of an epoch */
        for (int64_t i = 11; i >= 0; i--) {
            token_batch one = rows_ok(b, at + i, 1);
            int64_t first = all.row[i], k = all.row[i + 1] - first;
            assert_int_equal(one.n, k);
            assert_memory_equal(one.ids, all.ids + first, (size_t)k * 4);
            assert_memory_equal(one.next, all.next + first, (size_t)k * 4);
            assert_memory_equal(one.target, all.target + first, (size_t)k * 4);
        }
        dataset_close(a);
        dataset_close(b);
    }
    scratch_close(&s);
}

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void test_epochs(void **state) {
    (void)state;
    enum { N = 200 };
    scratch s = scratch_open();
    uint32_t ids[N * 4 + 1];
    for (uint32_t i = 0; i < N * 4 + 1; i++) ids[i] = i;
    const char *path = bin(&s, "a.bin", ids, N * 4 + 1);
    data_options o = options_for(&path, 1);
    o.eos = -1, o.vocab_size = 100000, o.shuffle = true, o.seed = 3;
    dataset *d = open_ok(&o);
    assert_int_equal(dataset_epoch_rows(d), N);
    uint64_t h[3][N];
    for (int k = 0; k < 3; k++)
        for (int64_t i = 0; i < N; i++) {
            token_batch b = rows_ok(d, k * N + i, 1);
            h[k][i] = batch_hash(&b);
        }
    assert_true(memcmp(h[0], h[1], sizeof h[0]) != 0); /* another order, */
    assert_true(memcmp(h[1], h[2], sizeof h[0]) != 0);
    for (int k = 0; k < 3; k++) qsort(h[k], N, sizeof **h, compare);
    assert_memory_equal(h[0], h[1], sizeof h[0]); /* the same rows, */
    assert_memory_equal(h[0], h[2], sizeof h[0]);
    for (int i = 1; i < N; i++) assert_true(h[0][i] != h[0][i - 1]); /* each once */
    dataset_close(d);
    scratch_close(&s);
}

/* ---- synthetic ---- */

static void test_synthetic(void **state) {
    (void)state;
    const char *path = "synthetic";
    data_options o = options_for(&path, 1);
    o.seq_len = 256;
    dataset *a = open_ok(&o), *b = open_ok(&o);
    o.seed = 1;
    dataset *c = open_ok(&o);
    token_batch x = rows_ok(a, 5, 4), y = rows_ok(b, 5, 4), z = rows_ok(c, 5, 4);
    assert_true(batch_hash(&x) == batch_hash(&y));
    assert_true(batch_hash(&x) != batch_hash(&z));
    assert_true(x.n_docs > x.n_rows); /* documents end inside rows */
    /* A pair (token, next) comes back far more often than among 99 x 99 equally likely ones: 1/4 of 7/8 each. */
    static int pair[100][100], follows[100];
    x = rows_ok(a, 0, 400);
    for (int64_t i = 0; i < x.n; i++) {
        assert_in_range(x.ids[i], 0, 99);
        if (x.next[i] >= 0) pair[x.ids[i]][x.next[i]]++, follows[x.ids[i]]++;
    }
    int best = 0;
    for (int i = 0; i < 100; i++)
        if (pair[7][i] > pair[7][best]) best = i;
    assert_true(pair[7][best] * 10 > follows[7]);
    dataset_close(a);
    dataset_close(b);
    dataset_close(c);
}

/* ---- errors ---- */

static void check_error(const data_options *o, status code, const char *says, const char *too) {
    dataset *d;
    error e = {0};
    status s = dataset_open(&d, o, &e);
    if (s == OK) dataset_close(d);
    assert_int_equal(s, code);
    if (!strstr(e.text, says) || !strstr(e.text, too)) fail_msg("\"%s\" lacks \"%s\" or \"%s\"", e.text, says, too);
}

static void test_bad_files(void **state) {
    (void)state;
    scratch s = scratch_open();
    const char *good = BIN(&s, "good.bin", 1, 2, 3, 4, 5, 6), *large = BIN(&s, "large.bin", 5, 6, 100, 7, 8, 9, 9);
    const char *empty = scratch_text(&s, "empty.bin", ""), *torn = scratch_text(&s, "torn.bin", "12345");
    const char *odd = scratch_text(&s, "data.parquet", "PAR1");
    data_options o = options_for(&large, 1);
    check_error(&o, ERR_FORMAT, large, "token 100 at byte 8, but the model's vocabulary has 100");
    o.packing = PACK_BEST_FIT;
    check_error(&o, ERR_FORMAT, large, "token 100 at byte 8");
    o.packing = PACK_CONCAT, o.paths = &empty;
    check_error(&o, ERR_FORMAT, empty, "no tokens");
    o.paths = &torn;
    check_error(&o, ERR_FORMAT, torn, "5 bytes");
    o.paths = &odd;
    check_error(&o, ERR_FORMAT, odd, "the name says nothing of its format");
    o.paths = (const char *const[]){"/tmp/hadal-is-not-there.bin"};
    check_error(&o, ERR_FORMAT, "/tmp/hadal-is-not-there.bin", "cannot open");
    o.paths = &good, o.seq_len = 6;
    check_error(&o, ERR_FORMAT, good, "6 tokens, fewer than the 7 of one row");
    o.seq_len = 0;
    check_error(&o, ERR_ARG, "seq_len", "0");
    o.seq_len = 4, o.eos = 100;
    check_error(&o, ERR_ARG, "eos", "100");
    o.eos = END, o.n_paths = 0;
    check_error(&o, ERR_ARG, "no data", "");
    o.n_paths = 1, o.format = "words";
    check_error(&o, ERR_FORMAT, good, "the name says nothing");
    o.format = "text";
    check_error(&o, ERR_FORMAT, good, "the name says nothing");
    const char *text = scratch_text(&s, "a.jsonl", "{\"text\": \"x\"}\n");
    o.paths = &text;
    check_error(&o, ERR_ARG, text, "needs a tokenizer");
    scratch_close(&s);
}

/* Beyond what dataset_open looks at, an id is found when its row is read. */
static void test_late_id(void **state) {
    (void)state;
    enum { N = (1 << 24) + 100 };
    scratch s = scratch_open();
    uint32_t *ids = calloc(N, sizeof *ids);
    ids[N - 50] = 4000000000u;
    const char *path = bin(&s, "a.bin", ids, N);
    data_options o = options_for(&path, 1);
    dataset *d = open_ok(&o);
    token_batch b;
    error e = {0};
    assert_int_equal(dataset_rows(d, (N - 50) / 4, 1, &b, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "token 4000000000 at byte 67109064"));
    rows_ok(d, 0, 1); /* others still can be read */
    dataset_close(d);
    free(ids);
    scratch_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_concat),    cmocka_unit_test(test_concat_rule), cmocka_unit_test(test_none_and_cut),
        cmocka_unit_test(test_best_fit),  cmocka_unit_test(test_pure),        cmocka_unit_test(test_epochs),
        cmocka_unit_test(test_synthetic), cmocka_unit_test(test_bad_files),   cmocka_unit_test(test_late_id)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
