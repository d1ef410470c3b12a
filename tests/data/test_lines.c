/* Lines of plain, gzip and zstd files: the same in all three; damage has a name. */
#include "data/lines.h"
#include "scratch.h"

static void read_all(const char *path, str *out, int64_t *count) {
    lines *l;
    error e = {0};
    if (lines_open(&l, path, &e) != OK) fail_msg("%s", e.text);
    *count = 0;
    for (;;) {
        str line = {0};
        bool end;
        if (lines_next(l, &line, &end, &e) != OK) fail_msg("%s", e.text);
        if (!end) {
            str_add(out, line.p ? line.p : "", line.n);
            str_putc(out, '|');
            assert_int_equal(lines_number(l), ++*count);
        }
        str_free(&line);
        if (end) break;
    }
    assert_int_equal(lines_done(l), lines_size(l));
    lines_close(l);
}

static void check_lines(const char *path, const char *expected) {
    str got = {0};
    int64_t n;
    read_all(path, &got, &n);
    assert_string_equal(got.p ? got.p : "", expected);
    str_free(&got);
}

static void test_lines(void **state) {
    (void)state;
    scratch s = scratch_open();
    check_lines(scratch_text(&s, "a", "one\ntwo\r\n\nlast"), "one|two||last|");
    check_lines(scratch_text(&s, "b", "one\n"), "one|");
    check_lines(scratch_text(&s, "c", ""), "");
    check_lines(scratch_packed(&s, "a", "gzip", ".gz"), "one|two||last|");
    check_lines(scratch_packed(&s, "a", "zstd", ".zst"), "one|two||last|");
    check_lines(scratch_packed(&s, "c", "gzip", ".gz"), "");
    check_lines(scratch_packed(&s, "c", "zstd", ".zst"), "");
    scratch_close(&s);
}

/* Lines longer than a block, and lines that a block's end cuts; several members or frames one behind the other. */
static void test_long_and_joined(void **state) {
    (void)state;
    scratch s = scratch_open();
    str text = {0}, expected = {0};
    for (int i = 0; i < 30; i++) {
        for (int k = 0; k < 20011 * i; k++) {
            char c = (char)('a' + (k * 7 + k / 31 + i) % 26);
            str_putc(&text, c);
            str_putc(&expected, c);
        }
        str_putc(&text, '\n');
        str_putc(&expected, '|');
    }
    check_lines(scratch_file(&s, "a", text.p, text.n), expected.p);
    const char *packed[] = {scratch_packed(&s, "a", "gzip", ".gz"), scratch_packed(&s, "a", "zstd", ".zst")};
    str twice = {0};
    str_add(&twice, expected.p, expected.n);
    str_add(&twice, expected.p, expected.n);
    for (int i = 0; i < 2; i++) {
        check_lines(packed[i], expected.p);
        str bytes = {0};
        error e;
        assert_int_equal(file_read(&bytes, packed[i], 1 << 28, &e), OK);
        assert_int_equal(file_read(&bytes, packed[i], 1 << 28, &e), OK);
        check_lines(scratch_file(&s, i ? "b.zst" : "b.gz", bytes.p, bytes.n), twice.p);
        str_free(&bytes);
    }
    str_free(&text);
    str_free(&expected);
    str_free(&twice);
    scratch_close(&s);
}

static void check_broken(const char *path, const char *says) {
    lines *l;
    error e = {0};
    status st = lines_open(&l, path, &e);
    bool end = false;
    while (st == OK && !end) {
        str line = {0};
        st = lines_next(l, &line, &end, &e);
        str_free(&line);
    }
    lines_close(l);
    assert_int_equal(st, ERR_FORMAT);
    if (!strstr(e.text, path) || !strstr(e.text, says)) fail_msg("\"%s\" lacks \"%s\"", e.text, says);
}

static void test_broken(void **state) {
    (void)state;
    scratch s = scratch_open();
    char noise[4000]; /* does not shrink, so that half the packed file is half the text */
    for (unsigned i = 0, x = 1; i < sizeof noise; i++) noise[i] = (char)((x = x * 1664525u + 1013904223u) >> 24);
    scratch_file(&s, "a", noise, sizeof noise);
    const char *packed[] = {scratch_packed(&s, "a", "gzip", ".gz"), scratch_packed(&s, "a", "zstd", ".zst")};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(truncate(packed[i], 2000), 0);
        check_broken(packed[i], "truncated");
    }
    check_broken(scratch_text(&s, "no.gz", "plain text\n"), "not gzip");
    check_broken(scratch_text(&s, "no.zst", "plain text\n"), "damaged");
    check_broken(s.folder, "not a regular file");
    check_broken("/tmp/hadal-is-not-there", "cannot open");
    scratch_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lines), cmocka_unit_test(test_long_and_joined),
                                       cmocka_unit_test(test_broken)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
