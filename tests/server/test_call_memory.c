#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <pthread.h>
#include <stdio.h>
#include "server/call_memory.h"
#include <cmocka.h>

static const char *const a[] = {"call_a"}, *const ab[] = {"call_a", "call_b"}, *const ba[] = {"call_b", "call_a"};
static const char *const joined[] = {"call_acall_b"};

static call_memory *open_memory(size_t most) {
    call_memory *c;
    error e;
    assert_int_equal(call_memory_open(&c, most, &e), OK);
    return c;
}

static bool finds(call_memory *c, const char *const *ids, int n, const int32_t *want, size_t want_n) {
    size_t found_n;
    int32_t *found = call_memory_find(c, ids, n, &found_n);
    bool same = found && found_n == want_n;
    for (size_t i = 0; same && i < want_n; i++) same = found[i] == want[i];
    free(found);
    return same;
}

static bool knows(call_memory *c, const char *const *ids, int n) {
    size_t found_n;
    int32_t *found = call_memory_find(c, ids, n, &found_n);
    free(found);
    return found != NULL;
}

static void finds_what_was_added(void **state) {
    (void)state;
    call_memory *c = open_memory(1000);
    const int32_t one[] = {1, 2, 3}, two[] = {4};
    assert_false(knows(c, a, 1));
    call_memory_add(c, a, 1, one, 3);
    call_memory_add(c, ab, 2, two, 1);
    assert_true(finds(c, a, 1, one, 3));
    assert_true(finds(c, ab, 2, two, 1));
    call_memory_close(c);
}

static void the_calls_are_all_of_them_in_order(void **state) {
    (void)state;
    call_memory *c = open_memory(1000);
    const int32_t ids[] = {1};
    call_memory_add(c, ab, 2, ids, 1);
    assert_false(knows(c, a, 1));
    assert_false(knows(c, ba, 2));
    assert_false(knows(c, joined, 1));
    assert_false(knows(c, NULL, 0));
    call_memory_close(c);
}

static void the_oldest_are_forgotten(void **state) {
    (void)state;
    call_memory *c = open_memory(2000);
    int32_t ids[400] = {0};
    char name[100][16];
    for (int i = 0; i < 100; i++) {
        snprintf(name[i], sizeof name[i], "call_%d", i);
        ids[0] = i;
        call_memory_add(c, (const char *const[]){name[i]}, 1, ids, 400);
    }
    int known = 0, oldest = 100;
    for (int i = 99; i >= 0; i--)
        if (knows(c, (const char *const[]){name[i]}, 1)) known++, oldest = i;
    assert_in_range(known, 2, 5);
    assert_int_equal(oldest, 100 - known);
    call_memory_close(c);
}

static void many_small_ones_are_bounded_too(void **state) {
    (void)state;
    call_memory *c = open_memory(2000);
    char name[1000][16];
    for (int i = 0; i < 1000; i++) {
        snprintf(name[i], sizeof name[i], "call_%d", i);
        call_memory_add(c, (const char *const[]){name[i]}, 1, NULL, 0);
    }
    int known = 0;
    for (int i = 0; i < 1000; i++) known += knows(c, (const char *const[]){name[i]}, 1);
    assert_in_range(known, 10, 300);
    call_memory_close(c);
}

static void one_too_large_is_not_kept_and_forgets_nothing(void **state) {
    (void)state;
    call_memory *c = open_memory(100);
    int32_t ids[100] = {7};
    call_memory_add(c, a, 1, ids, 1);
    call_memory_add(c, ab, 2, ids, 100);
    assert_false(knows(c, ab, 2));
    assert_true(finds(c, a, 1, ids, 1));
    call_memory_close(c);
}

static void *add_and_find(void *arg) {
    call_memory *c = arg;
    const int32_t ids[] = {1, 2, 3};
    long wrong = 0;
    for (int i = 0; i < 2000; i++) {
        call_memory_add(c, a, 1, ids, 3);
        size_t n;
        int32_t *found = call_memory_find(c, a, 1, &n);
        wrong += found && (n != 3 || found[2] != 3);
        free(found);
    }
    return (void *)wrong;
}

static void threads_share_it(void **state) {
    (void)state;
    call_memory *c = open_memory(500);
    pthread_t t[4];
    for (int i = 0; i < 4; i++) pthread_create(&t[i], NULL, add_and_find, c);
    for (int i = 0; i < 4; i++) {
        void *wrong;
        pthread_join(t[i], &wrong);
        assert_null(wrong);
    }
    call_memory_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_was_added),
        cmocka_unit_test(the_calls_are_all_of_them_in_order),
        cmocka_unit_test(the_oldest_are_forgotten),
        cmocka_unit_test(many_small_ones_are_bounded_too),
        cmocka_unit_test(one_too_large_is_not_kept_and_forgets_nothing),
        cmocka_unit_test(threads_share_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
