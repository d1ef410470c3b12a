/* Log-probabilities in the two forms of the OpenAI API. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include "api_test.h"
#include "server/logprobs.h"
#include <cmocka.h>

/* In this vocabulary 0 is BOS, 40 F, 41 G, 100 the byte A3, 449 nothing. */
static hadal_tokenizer *t;

static int open_tokenizer(void **state) {
    (void)state;
    return hadal_tokenizer_open(&t, "tests/data/models/v3_mtp/checkpoint", NULL);
}

static int close_tokenizer(void **state) {
    (void)state;
    hadal_tokenizer_close(t);
    return 0;
}

static bool is_called(int32_t id, const char *name) {
    json_t *j = token_name(t, id);
    bool same = j && !strcmp(json_string_value(j), name);
    if (!same) print_message("%d is %s\n", (int)id, json_string_value(j));
    json_decref(j);
    return same;
}

static int32_t byte_token(void) {
    for (int32_t id = 3; id < 300; id++) {
        size_t n;
        const char *p = hadal_token_bytes(t, id, &n);
        if (p && n == 1 && (unsigned char)*p == 0xA3) return id;
    }
    return -1;
}

static void names(void **state) {
    (void)state;
    assert_true(is_called(40, "F"));
    assert_true(is_called(0, "<｜begin▁of▁sentence｜>"));
    assert_true(is_called(byte_token(), "bytes:\\xa3"));
    assert_true(is_called(449, ""));
}

static void entries(void **state) {
    (void)state;
    const int32_t ids[] = {41, 40};
    const float logprobs[] = {-0.5F, -INFINITY};
    hadal_token token = {.id = 40, .logprob = -INFINITY, .top_ids = ids, .top_logprobs = logprobs, .n_top = 2};
    json_t *j = logprob_entry(t, &token);
    assert_true(json_is(j, "{'token': 'F', 'logprob': -9999.0, 'bytes': [70], 'top_logprobs': [{'token': 'G', "
                           "'logprob': -0.5, 'bytes': [71]}, {'token': 'F', 'logprob': -9999.0, 'bytes': [70]}]}"));
    json_decref(j);
}

static void lists(void **state) {
    (void)state;
    token_lists l = {0}, more = {0};
    json_t *nothing = token_lists_take(&l);
    assert_true(json_is_null(nothing));
    json_decref(nothing);
    const int32_t ids[] = {41, 41};
    const float logprobs[] = {-0.5F, -0.75F};
    const hadal_token f = {.logprob = -2, .id = 40, .top_ids = ids, .top_logprobs = logprobs, .n_top = 2};
    token_lists_add(&l, t, 0, NULL);
    token_lists_add(&l, t, 40, &f);
    token_lists_copy(&more, &l);
    token_lists_add(&more, t, byte_token(), &(hadal_token){.id = byte_token(), .logprob = -1});
    token_lists_add(&more, t, 41, &(hadal_token){.id = 41, .logprob = -1});
    json_t *all = token_lists_take(&more);
    assert_true(json_is(all, "{'tokens': ['<｜begin▁of▁sentence｜>', 'F', 'bytes:\\\\xa3', 'G'], 'token_logprobs': "
                             "[null, -2.0, -1.0, -1.0], 'top_logprobs': [null, {'G': -0.5, 'F': -2.0}, "
                             "{'bytes:\\\\xa3': -1.0}, {'G': -1.0}], 'text_offset': [0, 0, 1, 1]}"));
    json_decref(all);
    all = token_lists_take(&l); /* is as it was */
    assert_int_equal(json_array_size(json_object_get(all, "tokens")), 2);
    json_decref(all);
    token_lists_free(&l);
    token_lists_free(&more);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(entries),
        cmocka_unit_test(lists),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
