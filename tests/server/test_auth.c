/* API keys out of files and texts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "server/auth.h"
#include <cmocka.h>

static char folder[] = "/tmp/hadal-auth-XXXXXX", path[64];

static status open_text(auth **a, const char *text, size_t n, const char *more, error *e) {
    assert_int_equal(file_save(path, text, n, e), OK);
    return auth_open(a, path, more, e);
}

static void keys_are_read(void **state) {
    (void)state;
    auth *a;
    error e;
    static const char text[] = "# ours\nalpha\r\n\n  beta\t\n#gamma\nlast";
    assert_int_equal(open_text(&a, text, strlen(text), "x, y,,", &e), OK);
    assert_int_equal(auth_keys(a), 5);
    static const char *const good[] = {"alpha", "beta", "last", "x", "y"};
    static const char *const bad[] = {"", "gamma", "#gamma", "alph", "alphaa", "Alpha", "alphaalpha", "x, y", "# ours"};
    for (size_t i = 0; i < 5; i++) {
        char line[64];
        snprintf(line, sizeof line, "Bearer %s", good[i]);
        assert_true(auth_allows(a, line, NULL));
        assert_true(auth_allows(a, NULL, good[i]));
        assert_true(auth_allows(a, "Bearer wrong", good[i])); /* clients that send both: one is enough */
        assert_false(auth_allows(a, good[i], NULL));
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char line[64];
        snprintf(line, sizeof line, "Bearer %s", bad[i]);
        assert_false(auth_allows(a, line, NULL));
        assert_false(auth_allows(a, NULL, bad[i]));
    }
    assert_false(auth_allows(a, NULL, NULL));
    auth_close(a);
}

static void without_keys_everybody_may(void **state) {
    (void)state;
    auth *a;
    error e;
    assert_int_equal(auth_open(&a, NULL, NULL, &e), OK);
    assert_int_equal(auth_keys(a), 0);
    assert_true(auth_allows(a, NULL, NULL));
    assert_true(auth_allows(a, "Bearer anything", NULL));
    auth_close(a);
}

static void files_that_protect_nothing_are_refused(void **state) {
    (void)state;
    auth *a;
    error e;
    assert_int_equal(open_text(&a, "", 0, "x", &e), ERR_FORMAT);
    assert_int_equal(open_text(&a, "# only\n\n", 8, "x", &e), ERR_FORMAT);
    assert_null(a);
    assert_non_null(strstr(e.text, "no API key"));
    assert_int_equal(open_text(&a, "a\0b\n", 4, NULL, &e), ERR_FORMAT);
    char *big = malloc(2000);
    memset(big, 'k', 2000);
    assert_int_equal(open_text(&a, big, 2000, NULL, &e), ERR_FORMAT);
    free(big);
    unlink(path);
    assert_int_equal(auth_open(&a, path, NULL, &e), ERR_FORMAT);
}

int main(void) {
    if (!mkdtemp(folder)) return 1;
    snprintf(path, sizeof path, "%s/keys", folder);
    const struct CMUnitTest tests[] = {cmocka_unit_test(keys_are_read), cmocka_unit_test(without_keys_everybody_may),
                                       cmocka_unit_test(files_that_protect_nothing_are_refused)};
    int failed = cmocka_run_group_tests_name("server/auth", tests, NULL, NULL);
    unlink(path);
    rmdir(folder);
    return failed;
}
