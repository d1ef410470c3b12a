/* Queues: levels by name, bad arguments, scratch memory and its failure; and that measuring the machine gives numbers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include "kernels/machine.h"
#include "kernels/queue.h"
#include <cmocka.h> /* behind base/error.h: it has a fail of its own */

static void test_levels(void **state) {
    (void)state;
    level best = level_best();
    for (int l = 0; l < LEVEL_COUNT; l++) {
        queue *q;
        error e = {0};
        status s = queue_open(&q, 1, level_name((level)l), COMPUTE_F32, &e);
        if ((level)l <= best) {
            assert_int_equal(s, OK);
            assert_string_equal(queue_level(q), level_name((level)l));
            queue_close(q);
        } else {
            assert_int_equal(s, ERR_UNSUPPORTED);
            assert_null(q);
            assert_non_null(strstr(e.text, level_name((level)l)));
        }
    }
    printf("best level here: %s\n", level_name(best));
}

static void test_open(void **state) {
    (void)state;
    queue *q;
    error e = {0};
    assert_int_equal(queue_open(&q, 1, "sse9", COMPUTE_F32, &e), ERR_ARG);
    assert_non_null(strstr(e.text, "sse9"));
    assert_int_equal(queue_open(&q, 0, NULL, COMPUTE_F32, &e), ERR_ARG);
    assert_null(q);
    assert_int_equal(queue_open(&q, 3, NULL, COMPUTE_BF16, &e), OK);
    assert_int_equal(queue_threads(q), 3);
    assert_int_equal(queue_compute(q), COMPUTE_BF16);
    assert_string_equal(queue_level(q), level_name(level_best()));
    queue_close(q);
    queue_close(NULL);
}

static void mark(void *arg, int64_t task, int thread) {
    assert_in_range(thread, 0, 2);
    ((char *)arg)[task]++;
}

static void test_run(void **state) {
    (void)state;
    queue *q;
    error e;
    char seen[100] = {0};
    assert_int_equal(queue_open(&q, 3, NULL, COMPUTE_F32, &e), OK);
    queue_run(q, 100, mark, seen);
    for (int i = 0; i < 100; i++) assert_int_equal(seen[i], 1);
    queue_close(q);
}

static void test_scratch(void **state) {
    (void)state;
    queue *q;
    error e = {0};
    assert_int_equal(queue_open(&q, 1, NULL, COMPUTE_F32, &e), OK);
    char *a = queue_scratch(q, SLOT_ROWS, 1000);
    char *b = queue_scratch(q, SLOT_INDEX, 5 << 20);
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal((uintptr_t)a % 64, 0);
    assert_int_equal((uintptr_t)b % 64, 0);
    memset(a, 1, 1000);
    memset(b, 2, 5 << 20);
    assert_ptr_equal(queue_scratch(q, SLOT_ROWS, 10), a); /* stays */
    assert_int_equal(a[999], 1);
    assert_int_equal(queue_failed(q, &e), OK);

    assert_null(queue_scratch(q, SLOT_INDEX, SIZE_MAX)); /* more than there is */
    assert_null(queue_scratch(q, SLOT_ROWS, 10));        /* nothing works until the failure was noticed */
    float w = 2, x = 3, y = 7;
    tensor t = {.data = &w, .type = DT_F32, .ndim = 2, .dim = {1, 1}};
    product p = {.w = &t, .x = &x, .ldx = 1, .y = &y, .ldy = 1, .n = 1};
    op_linear(q, &p, 1);
    assert_true(y == 7);
    assert_int_equal(queue_failed(q, &e), ERR_NOMEM);
    assert_int_equal(queue_failed(q, &e), OK);
    op_linear(q, &p, 1);
    assert_true(y == 6);
    op_linear(q, NULL, 0);
    queue_close(q);
}

static void test_machine(void **state) {
    (void)state;
    machine_result r;
    error e = {0};
    assert_int_equal(machine_measure(1, "sse9", &r, &e), ERR_ARG);
    assert_int_equal(machine_measure(1, NULL, &r, &e), OK);
    printf("%s: read %.2f GB/s over %.2f GiB, F32 %.0f and BF16 %.0f GFLOP/s\n", r.level, r.read_gbs, r.read_gib,
           r.f32_gflops, r.bf16_gflops);
    assert_true(r.read_gbs > 0 && r.f32_gflops > 0 && r.bf16_gflops > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels),  cmocka_unit_test(test_open),    cmocka_unit_test(test_run),
        cmocka_unit_test(test_scratch), cmocka_unit_test(test_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
