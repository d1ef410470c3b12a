/* Files: what may be mapped and read, and that a reader of a path never sees half of what is written there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/file.h"
#include <cmocka.h>

static char folder[64];

static int set_up(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/hadal-test-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static const char *in_folder(char path[128], const char *name) {
    snprintf(path, 128, "%s/%s", folder, name);
    return path;
}

static void save(const char *path, const char *text) {
    error e;
    if (file_save(path, text, strlen(text), &e) != OK) fail_msg("%s", e.text);
}

static void holds(const char *path, const char *text) {
    str s = {0};
    error e;
    if (file_read(&s, path, 1 << 20, &e) != OK) fail_msg("%s", e.text);
    assert_string_equal(s.p, text);
    str_free(&s);
}

static void no_temporary(const char *path) {
    char t[160];
    snprintf(t, sizeof t, "%s.tmp", path);
    if (file_exists(t)) fail_msg("%s was left behind", t);
}

static void map_and_read(void **state) {
    (void)state;
    char path[128];
    mapping m;
    error e;
    str s = {0};
    save(in_folder(path, "text"), "some text");
    assert_int_equal(file_map(&m, path, &e), OK);
    assert_int_equal(m.n, 9);
    assert_memory_equal(m.p, "some text", 9);
    file_unmap(&m);
    assert_null(m.p);
    file_unmap(&m);
    str_puts(&s, "and ");
    assert_int_equal(file_read(&s, path, 9, &e), OK); /* appends */
    assert_string_equal(s.p, "and some text");
    str_free(&s);
    save(in_folder(path, "empty"), "");
    assert_int_equal(file_map(&m, path, &e), OK);
    assert_null(m.p);
    assert_int_equal(m.n, 0);
    file_unmap(&m);
    assert_int_equal(file_read(&s, path, 0, &e), OK);
    assert_string_equal(s.p, "");
    str_free(&s);
}

static void refused(const char *path, const char *why) {
    mapping m = {.n = 1};
    str s = {0};
    error e = {0};
    assert_int_equal(file_map(&m, path, &e), ERR_FORMAT);
    printf("%s\n", e.text);
    assert_non_null(strstr(e.text, path));
    assert_non_null(strstr(e.text, why));
    assert_null(m.p);
    assert_int_equal(file_read(&s, path, 100, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, why));
    str_free(&s);
}

static void only_regular_files(void **state) {
    (void)state;
    char path[128];
    refused(in_folder(path, "missing"), strerror(ENOENT));
    refused(folder, "not a regular file");
    assert_int_equal(mkfifo(in_folder(path, "fifo"), 0600), 0);
    refused(path, "not a regular file"); /* and does not wait for a writer */
    refused("/dev/zero", "not a regular file");
    save(in_folder(path, "file"), "x");
    refused(in_folder(path, "file/below"), strerror(ENOTDIR));
    assert_int_equal(symlink("loop", in_folder(path, "loop")), 0);
    refused(path, strerror(ELOOP));
}

static void read_has_a_limit(void **state) {
    (void)state;
    char path[128];
    str s = {0};
    error e;
    save(in_folder(path, "ten"), "0123456789");
    assert_int_equal(file_read(&s, path, 9, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "10 bytes"));
    assert_non_null(strstr(e.text, "9"));
    str_free(&s);
    assert_int_equal(file_read(&s, path, 10, &e), OK);
    assert_int_equal(s.n, 10);
    str_free(&s);
    /* A file whose size the system does not tell is read up to the limit. */
    if (file_exists("/proc/self/stat")) {
        assert_int_equal(file_read(&s, "/proc/self/stat", 3, &e), ERR_FORMAT);
        str_free(&s);
        assert_int_equal(file_read(&s, "/proc/self/stat", 1 << 16, &e), OK);
        assert_true(s.n > 3);
        str_free(&s);
    }
}

static void commit_replaces(void **state) {
    (void)state;
    char path[128];
    file_writer w;
    error e;
    save(in_folder(path, "replaced"), "old");
    assert_int_equal(file_begin(&w, path, &e), OK);
    assert_int_equal(file_write(&w, "new ", 4, &e), OK);
    assert_int_equal(file_write(&w, NULL, 0, &e), OK);
    assert_int_equal(file_write(&w, "text", 4, &e), OK);
    assert_int_equal(w.written, 8);
    holds(path, "old");
    assert_int_equal(file_commit(&w, &e), OK);
    holds(path, "new text");
    no_temporary(path);
    file_abort(&w); /* after a commit: nothing */
    holds(path, "new text");
}

static void abort_keeps_the_old_file(void **state) {
    (void)state;
    char path[128];
    file_writer w = {.fd = -1};
    error e;
    file_abort(&w); /* never begun */
    save(in_folder(path, "kept"), "old");
    assert_int_equal(file_begin(&w, path, &e), OK);
    assert_int_equal(file_write(&w, "new", 3, &e), OK);
    file_abort(&w);
    holds(path, "old");
    no_temporary(path);
    assert_int_equal(file_begin(&w, in_folder(path, "never"), &e), OK);
    file_abort(&w);
    assert_false(file_exists(path));
    no_temporary(path);
}

/* Pieces around the size of the buffer and far beyond it arrive in their order. */
static void large_writes(void **state) {
    (void)state;
    enum { BUFFER = 1 << 20, MOST = 3 * BUFFER + 17 };
    static const size_t sizes[] = {1, BUFFER - 1, 1, BUFFER, 5, BUFFER + 1, MOST, 0, BUFFER - 7, 8, 100};
    enum { PIECES = sizeof sizes / sizeof *sizes };
    char path[128];
    file_writer w;
    mapping m;
    error e;
    uint8_t *p = malloc(MOST);
    size_t at = 0;
    assert_non_null(p);
    assert_int_equal(file_begin(&w, in_folder(path, "large"), &e), OK);
    for (int i = 0; i < PIECES; i++) {
        for (size_t k = 0; k < sizes[i]; k++, at++) p[k] = (uint8_t)(at * 131 + (at >> 11));
        assert_int_equal(file_write(&w, p, sizes[i], &e), OK);
    }
    assert_int_equal(w.written, at);
    assert_int_equal(file_commit(&w, &e), OK);
    assert_int_equal(file_map(&m, path, &e), OK);
    assert_int_equal(m.n, at);
    for (size_t i = 0; i < at; i++)
        if (m.p[i] != (uint8_t)(i * 131 + (i >> 11))) fail_msg("byte %zu of %zu is wrong", i, at);
    file_unmap(&m);
    free(p);
}

/* A disk that is full, played by the limit on a file's size: whether it is a write, the flush in commit or file_save
 * that fails, the old file stays and the temporary one goes. */
static void a_failure_keeps_the_old_file(void **state) {
    (void)state;
    char path[128];
    file_writer w;
    error e;
    struct rlimit was, small;
    uint8_t *p = calloc(1, 4 << 20);
    assert_non_null(p);
    save(in_folder(path, "precious"), "old");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    small = was;
    small.rlim_cur = 1000;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    status begun = file_begin(&w, path, &e), at_once = file_write(&w, p, 4 << 20, &e);
    file_abort(&w);
    error later;
    status begun_again = file_begin(&w, path, &later), buffered = file_write(&w, p, 2000, &later),
           committed = file_commit(&w, &later), saved = file_save(path, p, 4 << 20, NULL);
    setrlimit(RLIMIT_FSIZE, &was);
    signal(SIGXFSZ, handler);
    free(p);
    printf("%s; %s\n", e.text, later.text);
    assert_int_equal(begun, OK);
    assert_int_equal(at_once, ERR_IO);
    assert_non_null(strstr(e.text, strerror(EFBIG)));
    assert_int_equal(begun_again, OK);
    assert_int_equal(buffered, OK);
    assert_int_equal(committed, ERR_IO);
    assert_int_equal(w.fd, -1);
    assert_int_equal(saved, ERR_IO);
    holds(path, "old");
    no_temporary(path);
}

static void places_that_cannot_be_written(void **state) {
    (void)state;
    char path[128];
    error e;
    assert_int_equal(file_save(in_folder(path, "no/such/folder"), "x", 1, &e), ERR_IO);
    assert_non_null(strstr(e.text, "no/such/folder"));
    assert_int_equal(make_directory(in_folder(path, "taken"), &e), OK);
    assert_int_equal(file_save(path, "x", 1, &e), ERR_IO); /* a folder has that name */
    no_temporary(path);
    assert_true(is_directory(path));
}

static void folders_and_paths(void **state) {
    (void)state;
    char path[128];
    error e;
    assert_int_equal(make_directory(in_folder(path, "a/b//c/"), &e), OK);
    assert_int_equal(make_directory(path, &e), OK);
    assert_true(is_directory(path));
    assert_true(file_exists(path));
    save(in_folder(path, "plain"), "");
    assert_false(is_directory(path));
    assert_int_equal(make_directory(in_folder(path, "plain/sub"), &e), ERR_IO);
    assert_int_equal(make_directory(in_folder(path, "plain"), &e), ERR_IO);
    char *joined = path_join("dir", "name"), *slash = path_join("dir/", "name"), *none = path_join("", "name");
    assert_string_equal(joined, "dir/name");
    assert_string_equal(slash, "dir/name");
    assert_string_equal(none, "name");
    free(joined);
    free(slash);
    free(none);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(map_and_read),
                                       cmocka_unit_test(only_regular_files),
                                       cmocka_unit_test(read_has_a_limit),
                                       cmocka_unit_test(commit_replaces),
                                       cmocka_unit_test(abort_keeps_the_old_file),
                                       cmocka_unit_test(large_writes),
                                       cmocka_unit_test(a_failure_keeps_the_old_file),
                                       cmocka_unit_test(places_that_cannot_be_written),
                                       cmocka_unit_test(folders_and_paths)};
    return cmocka_run_group_tests_name("base/file", tests, set_up, tear_down);
}
