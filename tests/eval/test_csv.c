/* Comma-separated values: what RFC 4180 allows, what it does not, and where the error is said to be; the files of data
 * around them. */
#include "../format/scratch.h"
#include "eval/csv.h"
#include "eval/rows.h"

/* The records of a text as JSON, or the error. */
static void reads(const char *text, size_t n, const char *json) {
    csv c = csv_open(text, n, "f");
    json_t *all = json_array(), *row;
    error e = {0};
    while (csv_next(&c, &row, &e) == OK && row) json_array_append_new(all, row);
    char *got = e.code ? strdup(e.text) : json_dumps(all, JSON_COMPACT);
    assert_string_equal(got, json);
    free(got);
    json_decref(all);
}
#define READS(text, json) reads(text, sizeof(text) - 1, json)

static void records(void **state) {
    (void)state;
    READS("", "[]");
    READS("a,b\nc,d\n", "[[\"a\",\"b\"],[\"c\",\"d\"]]");
    READS("a,b\r\nc,d", "[[\"a\",\"b\"],[\"c\",\"d\"]]");
    READS("\xef\xbb\xbf"
          "a",
          "[[\"a\"]]");
    READS("\n\na\n\r\n\nb\n\n", "[[\"a\"],[\"b\"]]");
    READS(",\n", "[[\"\",\"\"]]");
    READS("a,", "[[\"a\",\"\"]]");
    READS("\"\"", "[[\"\"]]");
    READS("\"a,b\",c\n", "[[\"a,b\",\"c\"]]");
    READS("\"a\nb\r\nc\",\"d\"\ne\n", "[[\"a\\nb\\r\\nc\",\"d\"],[\"e\"]]");
    READS("\"say \"\"no\"\"\",\"\"\"\"\n", "[[\"say \\\"no\\\"\",\"\\\"\"]]");
    READS("5\" pipe,a \"b\"\n", "[[\"5\\\" pipe\",\"a \\\"b\\\"\"]]");
    READS(" a , b ", "[[\" a \",\" b \"]]");
    READS("a\rb\n", "[[\"a\\rb\"]]"); /* a lone CR ends no line */
    READS("\"a\"\n", "[[\"a\"]]");
    READS("\"a\"\r\n\"b\"", "[[\"a\"],[\"b\"]]");
}

static void refused(void **state) {
    (void)state;
    READS("a,b\n\"c\n\nd", "f, line 2: a quote is opened and not closed");
    READS("\"a\nb\"\n\n\"x\"y\n", "f, line 4: text behind a closing quote");
    READS("\"a\n\nb\"c", "f, line 3: text behind a closing quote");
    READS("a\nb\0c\n", "f, line 2: a zero byte");
    READS("a\n\"\n\",\xff\n", "f, line 2: not UTF-8");
}

static void file(const scratch *s, const char *name, const char *text) {
    scratch_write(s, name, text, strlen(text));
}

static char *opened(const scratch *s, const char *name, const char *field) {
    static const char *const names[] = {"test", "other", NULL};
    char *path = scratch_path(s, name), *got;
    rows r = {0};
    error e = {0};
    if (rows_open(&r, path, names, &e) == OK && (!field || rows_name_columns(&r, field, &e) == OK))
        got = json_dumps(r.list, JSON_COMPACT);
    else {
        const char *slash = strrchr(e.text, '/'); /* the folder has another name each time */
        got = strdup(slash ? slash + 1 : e.text);
    }
    rows_close(&r);
    free(path);
    return got;
}

static void holds(const scratch *s, const char *name, const char *field, const char *json) {
    char *got = opened(s, name, field);
    assert_string_equal(got, json);
    free(got);
}

static void files(void **state) {
    (void)state;
    scratch s = scratch_open();
    file(&s, "a.csv", "q,r\n1,2\n");
    holds(&s, "a.csv", NULL, "[[\"q\",\"r\"],[\"1\",\"2\"]]");
    holds(&s, "a.csv", "r", "[{\"q\":\"1\",\"r\":\"2\"}]");
    holds(&s, "a.csv", "z", "[[\"q\",\"r\"],[\"1\",\"2\"]]");
    file(&s, "b.csv", "q,r\n1,2\n3\n");
    holds(&s, "b.csv", "q", "b.csv, row 3: 1 fields, but the first record names 2");
    file(&s, "c.csv", "q,r\n");
    holds(&s, "c.csv", "q", "c.csv: no rows behind the names");
    file(&s, "d.jsonl", "{\"a\":1}\n \n{\"a\":2}");
    holds(&s, "d.jsonl", NULL, "[{\"a\":1},{\"a\":2}]");
    file(&s, "e.jsonl", "{\"a\":1}\n[2]\n");
    holds(&s, "e.jsonl", NULL, "e.jsonl:2: should be a JSON object");
    file(&s, "f.jsonl", "\n");
    holds(&s, "f.jsonl", NULL, "f.jsonl: no rows");
    file(&s, "dir/other.jsonl", "{}\n");
    file(&s, "dir/otherx.jsonl", "{\"x\":1}\n");
    file(&s, "dir/test.txt", "{\"x\":1}\n");
    holds(&s, "dir", NULL, "[{}]");
    file(&s, "dir/test-9.jsonl", "{\"x\":9}\n");
    file(&s, "dir/test-1.csv", "1\n");
    holds(&s, "dir", NULL, "[[\"1\"]]");
    file(&s, "none/x.jsonl", "{}\n");
    holds(&s, "none", NULL, "none: no file test*.jsonl or .csv in this folder: name the file itself");
    scratch_close(&s);
}

/* The published files: 57 subjects with five examples each, every record with six fields and a letter. */
static void mmlu(void **state) {
    (void)state;
    static const char *const subjects[] = {"anatomy", "high_school_european_history", "professional_law", "sociology"};
    static const int64_t count[] = {122, 154, 1375, 177};
    static const char *const none[] = {NULL};
    const char *shared = getenv("HADAL_SHARED");
    char path[500];
    for (int i = 0; i < 4; i++) {
        rows r;
        error e = {0};
        snprintf(path, sizeof path, "%s/data/mmlu/test/%s_test.csv", shared ? shared : "../shared", subjects[i]);
        if (!file_exists(path)) skip();
        if (rows_open(&r, path, none, &e) != OK) fail_msg("%s", e.text);
        for (int64_t k = 0; k < rows_count(&r); k++) {
            assert_int_equal(json_array_size(rows_at(&r, k)), 6);
            assert_non_null(strstr("A B C D", json_string_value(json_array_get(rows_at(&r, k), 5))));
        }
        assert_int_equal(rows_count(&r), count[i]);
        rows_close(&r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(records), cmocka_unit_test(refused), cmocka_unit_test(files),
                                       cmocka_unit_test(mmlu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
