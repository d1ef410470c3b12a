/* The order of an epoch is a permutation for every size, differs between epochs and seeds, and is not the identity. */
#include "data/order.h"
#include "scratch.h"

static void test_permutation(void **state) {
    (void)state;
    static const int64_t sizes[] = {1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4096, 5000};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
        for (int64_t epoch = 0; epoch < 3; epoch++) {
            int64_t n = sizes[k];
            bool *seen = calloc((size_t)n, 1);
            for (int64_t i = 0; i < n; i++) {
                int64_t at = order_at(7, epoch, n, i);
                assert_in_range(at, 0, n - 1);
                assert_false(seen[at]);
                seen[at] = true;
            }
            free(seen);
        }
}

/* How many of n places two orders share. A random pair shares 1 in the mean, with variance 1; 12 or more have a chance
 * of about 1/12! = 2e-9, and the seeds are fixed. */
static void test_differs(void **state) {
    (void)state;
    const int64_t n = 3000;
    int same_epoch = 0, same_seed = 0, fixed = 0, follows = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t a = order_at(1, 0, n, i);
        same_epoch += a == order_at(1, 1, n, i);
        same_seed += a == order_at(2, 0, n, i);
        fixed += a == i;
        follows += i > 0 && a == order_at(1, 0, n, i - 1) + 1;
    }
    assert_true(same_epoch < 12);
    assert_true(same_seed < 12);
    assert_true(fixed < 12);
    assert_true(follows < 12);
}

/* Each of three things comes to each of three places equally often: 6000 draws, mean 2000, standard deviation
 * sqrt(6000 * 1/3 * 2/3) = 36.5; 6 of these are 220. */
static void test_small_is_fair(void **state) {
    (void)state;
    int count[3][3] = {{0}};
    for (int64_t epoch = 0; epoch < 6000; epoch++)
        for (int64_t i = 0; i < 3; i++) count[i][order_at(3, epoch, 3, i)]++;
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 3; k++) assert_in_range(count[i][k], 2000 - 220, 2000 + 220);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_permutation), cmocka_unit_test(test_differs),
                                       cmocka_unit_test(test_small_is_fair)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
