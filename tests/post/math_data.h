/* The reference values of group advantages and losses in double precision (HADAL_SHARED/data/golden/grpo_math.json). */
#ifndef TESTS_POST_MATH_DATA_H
#define TESTS_POST_MATH_DATA_H

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/json.h"
#include "base/str.h"
#include "post/loss.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h> /* after the headers of the program: it makes a macro of `fail` */

enum { MOST_NUMBERS = 100 };

typedef struct math_data {
    json_t *all;
    int64_t n; /* completions */
    double reward[MOST_NUMBERS], length[MOST_NUMBERS];
} math_data;

static inline int64_t math_numbers(const json_t *list, double *out) {
    const int64_t n = (int64_t)json_array_size(list);
    assert_in_range(n, 1, MOST_NUMBERS);
    for (int64_t i = 0; i < n; i++) out[i] = json_number_value(json_array_get(list, (size_t)i));
    return n;
}

/* Skips the test where the file is not there. */
static inline math_data math_open(void) {
    const char *shared = getenv("HADAL_SHARED");
    math_data m = {0};
    str path = {0};
    error e;
    str_addf(&path, "%s/data/golden/grpo_math.json", shared ? shared : "../shared");
    status s = json_read(&m.all, path.p, 1 << 24, &e);
    str_free(&path);
    if (s != OK) {
        printf("skipped: %s\n", e.text);
        skip();
    }
    m.n = math_numbers(json_object_get(m.all, "rewards"), m.reward);
    assert_int_equal(math_numbers(json_object_get(m.all, "lengths"), m.length), m.n);
    return m;
}

static inline void math_close(math_data *m) {
    json_decref(m->all);
}

#endif
