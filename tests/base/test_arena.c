/* Arenas: alignment, growth, what stays after a reset, and sizes that no memory has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/arena.h"
#include <cmocka.h>

static void pieces_are_aligned_and_apart(void **state) {
    (void)state;
    enum { PIECES = 300 };
    static const size_t sizes[] = {1, 63, 64, 65, 200, 0, 1000, 5000};
    arena *a = arena_open(0);
    assert_non_null(a);
    assert_int_equal(arena_bytes(a), 0);
    unsigned char *p[PIECES];
    for (int i = 0; i < PIECES; i++) {
        size_t n = sizes[i % 8];
        p[i] = arena_take(a, n);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % 64, 0);
        if (n) memset(p[i], i & 255, n);
    }
    for (int i = 0; i < PIECES; i++)
        for (size_t k = 0; k < sizes[i % 8]; k++)
            if (p[i][k] != (i & 255)) fail_msg("piece %d was overwritten at byte %zu", i, k);
    arena_close(a);
    arena_close(NULL);
}

static void blocks_grow(void **state) {
    (void)state;
    arena *a = arena_open(1024);
    assert_non_null(arena_take(a, 1));
    assert_int_equal(arena_bytes(a), 1024);
    assert_non_null(arena_take(a, 1024)); /* does not fit: a block of twice the size */
    assert_int_equal(arena_bytes(a), 1024 + 2048);
    assert_non_null(arena_take(a, 100000)); /* larger than the next block would be */
    assert_int_equal(arena_bytes(a), 1024 + 2048 + 100032);
    arena_close(a);
}

/* After a reset the memory is one block that holds all that was held, so the same calls need no further memory. */
static void reset_keeps_memory_as_one_block(void **state) {
    (void)state;
    arena *a = arena_open(256);
    for (int i = 0; i < 100; i++) assert_non_null(arena_take(a, 100));
    size_t held = arena_bytes(a);
    assert_true(held >= 100 * 128);
    arena_reset(a);
    assert_int_equal(arena_bytes(a), held);
    char *before = NULL;
    for (int i = 0; i < 100; i++) {
        char *p = arena_take(a, 100);
        if (before) assert_ptr_equal(p, before + 128);
        before = p;
    }
    assert_int_equal(arena_bytes(a), held);
    arena_reset(a);
    assert_non_null(arena_take(a, held)); /* in one piece */
    assert_int_equal(arena_bytes(a), held);
    arena_close(a);
    a = arena_open(256);
    arena_reset(a); /* of an arena that never took anything */
    assert_int_equal(arena_bytes(a), 0);
    arena_close(a);
}

static void zero_and_copy(void **state) {
    (void)state;
    arena *a = arena_open(256);
    memset(arena_take(a, 256), 0xff, 256);
    arena_reset(a);
    unsigned char *p = arena_zero(a, 25, 10);
    for (int i = 0; i < 250; i++) assert_int_equal(p[i], 0);
    const char text[] = "a\0b";
    char *copy = arena_copy(a, text, 3);
    assert_memory_equal(copy, text, 4);
    assert_string_equal(arena_copy(a, text, 0), "");
    assert_non_null(arena_zero(a, 0, 8));
    assert_non_null(arena_zero(a, 8, 0));
    arena_close(a);
}

static void sizes_beyond_memory(void **state) {
    (void)state;
    arena *a = arena_open(256);
    assert_null(arena_zero(a, SIZE_MAX / 2, 3)); /* the product is small modulo 2^64 */
    assert_null(arena_zero(a, (size_t)1 << 32, (size_t)1 << 32));
    assert_null(arena_take(a, SIZE_MAX));
    assert_null(arena_take(a, SIZE_MAX - 63));
    assert_null(arena_take(a, SIZE_MAX - 64));
    assert_null(arena_take(a, SIZE_MAX - 128));
    assert_null(arena_copy(a, "", SIZE_MAX));
    assert_non_null(arena_take(a, 10)); /* still of use */
    arena_close(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(pieces_are_aligned_and_apart), cmocka_unit_test(blocks_grow),
                                       cmocka_unit_test(reset_keeps_memory_as_one_block),
                                       cmocka_unit_test(zero_and_copy), cmocka_unit_test(sizes_beyond_memory)};
    return cmocka_run_group_tests_name("base/arena", tests, NULL, NULL);
}
