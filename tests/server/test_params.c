#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "api_test.h"
#include "server/params.h"
#include <cmocka.h>

static const params_limits limits = {.model_id = "tiny",
                                     .folder = "folder",
                                     .vocab = 100,
                                     .max_samples = 4,
                                     .defaults = {.temperature = 0.6F, .top_p = 0.95F, .top_k = 7}};

/* The parameters of a body in which ' stands for ". Released by the caller, with the body in *body. */
static status read_as(params *p, json_t **body, endpoint which, const char *text, mistake *m) {
    *body = json_quoted(text);
    assert_non_null(*body);
    return params_read(p, *body, which, &limits, m);
}

static void refused(endpoint which, const char *text, int http, const char *param_name) {
    params p;
    json_t *body;
    mistake m = {0};
    status s = read_as(&p, &body, which, text, &m);
    if (s == OK || m.http != http || strcmp(m.param, param_name))
        fail_msg("%s: %d %s: %s", text, m.http, m.param, m.text);
    params_free(&p);
    json_decref(body);
}

static void accepted(endpoint which, const char *text) {
    params p;
    json_t *body;
    mistake m = {0};
    if (read_as(&p, &body, which, text, &m) != OK) fail_msg("%s: %d %s: %s", text, m.http, m.param, m.text);
    params_free(&p);
    json_decref(body);
}

static void with(endpoint which, const char *text, void (*look)(const params *p)) {
    params p;
    json_t *body;
    mistake m;
    assert_int_equal(read_as(&p, &body, which, text, &m), OK);
    look(&p);
    params_free(&p);
    json_decref(body);
}

static void are_of_the_checkpoint(const params *p) {
    assert_float_equal(p->sampling.temperature, 0.6F, 0);
    assert_float_equal(p->sampling.top_p, 0.95F, 0);
    assert_int_equal(p->sampling.top_k, 7);
    assert_int_equal(p->sampling.max_tokens, 0);
    assert_int_equal(p->samples, 1);
    assert_int_equal(p->sampling.n_stop, 0);
    assert_int_equal(p->sampling.logprobs, 0);
    assert_false(p->stream || p->seeded || p->echo || p->include_usage || p->sampling.ignore_eos);
}

static void are_of_completions(const params *p) {
    assert_int_equal(p->sampling.max_tokens, 16);
    assert_true(p->add_special && !p->parse_special && !p->suffix);
}

static void defaults(void **state) {
    (void)state;
    with(ENDPOINT_CHAT, "{}", are_of_the_checkpoint);
    with(ENDPOINT_CHAT, "{'temperature': null, 'n': null, 'stop': null, 'top_k': null}", are_of_the_checkpoint);
    with(ENDPOINT_COMPLETIONS, "{}", are_of_completions);
}

static void without_a_word_of_the_checkpoint_answers_are_drawn(void **state) {
    (void)state;
    params p;
    mistake m;
    params_limits l = limits;
    l.defaults.temperature = 0;
    json_t *body = json_object();
    assert_int_equal(params_read(&p, body, ENDPOINT_CHAT, &l, &m), OK);
    assert_float_equal(p.sampling.temperature, 1, 0);
    json_decref(body);
}

static void all_are_there(const params *p) {
    const hadal_sampling *s = &p->sampling;
    assert_float_equal(s->temperature, 0, 0);
    assert_float_equal(s->top_p, 0.5F, 0);
    assert_float_equal(s->min_p, 0.25F, 0);
    assert_float_equal(s->presence_penalty, -2, 0);
    assert_float_equal(s->frequency_penalty, 2, 0);
    assert_float_equal(s->repetition_penalty, 1.5F, 0);
    assert_int_equal(s->top_k, 0);
    assert_int_equal(s->max_tokens, 9);
    assert_int_equal(s->logprobs, 5);
    assert_true(s->ignore_eos);
    assert_true(p->seeded);
    assert_int_equal(s->seed, (uint64_t)-3);
    assert_int_equal(p->samples, 4);
    assert_int_equal(s->n_stop, 2);
    assert_string_equal(s->stop[0], "a");
    assert_string_equal(s->stop[1], "bc");
    assert_int_equal(p->n_bias, 2);
    assert_int_equal(p->bias[0].id + p->bias[1].id, 99);
    assert_float_equal(p->bias[0].bias + p->bias[1].bias, -100 + 5.5F, 0);
    assert_true(p->stream && p->include_usage && p->continuous_usage);
}

static void each_is_read(void **state) {
    (void)state;
    with(ENDPOINT_CHAT,
         "{'model': 'tiny', 'temperature': 0, 'top_p': 0.5, 'min_p': 0.25, 'presence_penalty': -2, "
         "'frequency_penalty': 2.0, 'repetition_penalty': 1.5, 'top_k': -1, 'max_tokens': 3, "
         "'max_completion_tokens': 9, 'logprobs': true, 'top_logprobs': 5, 'ignore_eos': true, 'seed': -3, 'n': 4.0, "
         "'stop': ['a', 'bc'], 'logit_bias': {'0': -100, '99': 5.5}, 'stream': true, "
         "'stream_options': {'include_usage': true, 'continuous_usage_stats': true}, 'nonsense': [{}]}",
         all_are_there);
}

static void completions_are_there(const params *p) {
    assert_true(p->echo && !p->add_special && p->parse_special && p->token_ids);
    assert_int_equal(p->sampling.max_tokens, -1);
    assert_int_equal(p->sampling.logprobs, -1);
    assert_string_equal(p->suffix, "end");
    assert_int_equal(p->suffix_n, 3);
}

static void has_logprobs(const params *p) {
    assert_int_equal(p->sampling.logprobs, 20);
}

static void only_the_chosen(const params *p) {
    assert_int_equal(p->sampling.logprobs, -1);
}

static void each_of_completions_is_read(void **state) {
    (void)state;
    with(ENDPOINT_COMPLETIONS,
         "{'model': 'folder', 'max_tokens': 0, 'echo': true, 'logprobs': 0, 'add_special_tokens': false, "
         "'parse_special': true, 'suffix': 'end', 'return_token_ids': true, 'best_of': 1}",
         completions_are_there);
    with(ENDPOINT_COMPLETIONS, "{'logprobs': 20}", has_logprobs);
    with(ENDPOINT_CHAT, "{'logprobs': true}", only_the_chosen);
}

static void wrong_types(void **state) {
    (void)state;
    static const char *const names[] = {
        "temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "top_k",
        "max_tokens",  "n",     "seed",  "stream",           "stream_options",    "logprobs",           "logit_bias",
        "ignore_eos",  "model"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char text[80];
        snprintf(text, sizeof text, "{'%s': ['x']}", names[i]);
        refused(ENDPOINT_CHAT, text, 400, names[i]);
        refused(ENDPOINT_COMPLETIONS, text, 400, names[i]);
    }
    refused(ENDPOINT_CHAT, "[]", 400, "");
    refused(ENDPOINT_CHAT, "'text'", 400, "");
    refused(ENDPOINT_CHAT, "{'n': 1.5}", 400, "n");
    refused(ENDPOINT_CHAT, "{'n': 1e300}", 400, "n");
    refused(ENDPOINT_CHAT, "{'n': true}", 400, "n");
    refused(ENDPOINT_CHAT, "{'stop': [1]}", 400, "stop");
    refused(ENDPOINT_CHAT, "{'logprobs': 1}", 400, "logprobs");
    refused(ENDPOINT_CHAT, "{'top_logprobs': 1}", 400, "top_logprobs");
    refused(ENDPOINT_CHAT, "{'stream_options': {'include_usage': 1}}", 400, "include_usage");
    refused(ENDPOINT_COMPLETIONS, "{'logprobs': true}", 400, "logprobs");
    refused(ENDPOINT_COMPLETIONS, "{'suffix': 1}", 400, "suffix");
    refused(ENDPOINT_COMPLETIONS, "{'echo': 1}", 400, "echo");
    refused(ENDPOINT_COMPLETIONS, "{'best_of': 2}", 400, "best_of");
    refused(ENDPOINT_CHAT, "{'skip_special_tokens': false}", 400, "skip_special_tokens");
}

static void a_stop_text_has_no_zero_byte(void **state) {
    (void)state;
    params p;
    mistake m;
    json_t *body = json_pack("{s:o}", "stop", json_stringn("a\0b", 3));
    assert_int_equal(params_read(&p, body, ENDPOINT_CHAT, &limits, &m), ERR_ARG);
    assert_int_equal(m.http, 400);
    assert_string_equal(m.param, "stop");
    json_decref(body);
}

static void out_of_range(void **state) {
    (void)state;
    static const struct {
        const char *name, *good[2], *bad[3];
    } rows[] = {{"temperature", {"0", "2"}, {"-0.1", "2.1", "1e300"}},
                {"top_p", {"0.001", "1"}, {"0", "1.001", "-1"}},
                {"min_p", {"0", "1"}, {"-0.1", "1.1", "2"}},
                {"presence_penalty", {"-2", "2"}, {"-2.1", "2.1", "9"}},
                {"frequency_penalty", {"-2", "2"}, {"-2.1", "2.1", "9"}},
                {"repetition_penalty", {"0.1", "2"}, {"0", "2.1", "-1"}},
                {"top_k", {"0", "2147483647"}, {"-2", "2147483648", "-100"}},
                {"n", {"1", "4"}, {"0", "5", "-1"}},
                {"max_tokens", {"1", "2147483647"}, {"0", "-1", "2147483648"}},
                {"max_completion_tokens", {"1", "5"}, {"0", "-1", "2147483648"}},
                {"seed", {"-9223372036854775808", "9223372036854775807"}, {NULL, NULL, NULL}},
                {"stop", {"'x'", "[]"}, {"''", "['a', '']", NULL}},
                {"logit_bias", {"{}", "{'99': 100}"}, {"{'100': 1}", "{'1': 100.1}", "{'1': -101}"}}};
    char text[120];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (int k = 0; k < 2; k++) {
            snprintf(text, sizeof text, "{'%s': %s}", rows[i].name, rows[i].good[k]);
            accepted(ENDPOINT_CHAT, text);
        }
        for (int k = 0; k < 3 && rows[i].bad[k]; k++) {
            snprintf(text, sizeof text, "{'%s': %s}", rows[i].name, rows[i].bad[k]);
            refused(ENDPOINT_CHAT, text, 422, rows[i].name);
        }
    }
    refused(ENDPOINT_CHAT, "{'logprobs': true, 'top_logprobs': 21}", 422, "top_logprobs");
    refused(ENDPOINT_COMPLETIONS, "{'logprobs': 21}", 422, "logprobs");
    refused(ENDPOINT_COMPLETIONS, "{'max_tokens': 0}", 422, "max_tokens");
    refused(ENDPOINT_CHAT, "{'stop': ['1','2','3','4','5','6','7','8','9','10','11','12','13','14','15','16','17']}",
            422, "stop");
    accepted(ENDPOINT_CHAT, "{'stop': ['1','2','3','4','5','6','7','8','9','10','11','12','13','14','15','16']}");
    accepted(ENDPOINT_COMPLETIONS, "{'max_tokens': 0, 'echo': true}");
}

static void bias_keys(void **state) {
    (void)state;
    static const char *const bad[] = {"dog", "", "-1", "+1", " 1", "1.0", "1x", "0x1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[80];
        snprintf(text, sizeof text, "{'logit_bias': {'%s': 1}}", bad[i]);
        refused(ENDPOINT_CHAT, text, 400, "logit_bias");
    }
    refused(ENDPOINT_CHAT, "{'logit_bias': {'99999999999999999999999': 1}}", 422, "logit_bias");
    refused(ENDPOINT_CHAT, "{'logit_bias': {'1': 1, '2': '3'}}", 400, "logit_bias");
}

static void too_many_biases(void **state) {
    (void)state;
    params p;
    mistake m;
    params_limits l = limits;
    l.vocab = 1 << 20;
    json_t *body = json_object(), *all = json_object();
    for (int i = 0; i <= MAX_BIASES; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        json_object_set_new(all, key, json_integer(1));
    }
    json_object_set_new(body, "logit_bias", all);
    assert_int_equal(params_read(&p, body, ENDPOINT_CHAT, &l, &m), ERR_ARG);
    assert_int_equal(m.http, 422);
    json_object_del(all, "0");
    params_free(&p);
    assert_int_equal(params_read(&p, body, ENDPOINT_CHAT, &l, &m), OK);
    assert_int_equal(p.n_bias, MAX_BIASES);
    params_free(&p);
    json_decref(body);
}

static void is_not_off(const params *p) {
    assert_true(p->sampling.top_p > 0 && p->sampling.repetition_penalty > 0);
}

static void tiny_values_are_not_zero(void **state) {
    (void)state;
    with(ENDPOINT_CHAT, "{'top_p': 1e-300, 'repetition_penalty': 1e-300}", is_not_off);
}

static void models(void **state) {
    (void)state;
    params p;
    json_t *body;
    mistake m;
    assert_int_equal(read_as(&p, &body, ENDPOINT_CHAT, "{'model': 'gpt-4'}", &m), ERR_ARG);
    assert_int_equal(m.http, 404);
    assert_string_equal(m.code, "model_not_found");
    assert_string_equal(m.param, "model");
    json_decref(body);
    refused(ENDPOINT_CHAT, "{'model': ''}", 404, "model");
    accepted(ENDPOINT_CHAT, "{'model': null}");
    accepted(ENDPOINT_CHAT, "{'model': 'folder'}");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),        cmocka_unit_test(without_a_word_of_the_checkpoint_answers_are_drawn),
        cmocka_unit_test(each_is_read),    cmocka_unit_test(each_of_completions_is_read),
        cmocka_unit_test(wrong_types),     cmocka_unit_test(a_stop_text_has_no_zero_byte),
        cmocka_unit_test(out_of_range),    cmocka_unit_test(bias_keys),
        cmocka_unit_test(too_many_biases), cmocka_unit_test(tiny_values_are_not_zero),
        cmocka_unit_test(models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
