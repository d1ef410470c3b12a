/* /v1/completions over an engine that says what the test wants. */
#include "fake_server.h"

static fake f;
static const int32_t ids[] = {40, 41, 42, 1};

static int open_model(void **state) {
    (void)state;
    fake_open(&f, "tests/data/models/v3_mtp/checkpoint");
    return 0;
}

static int close_model(void **state) {
    (void)state;
    fake_close(&f);
    return 0;
}

static int forget(void **state) {
    (void)state;
    fake_forget(&f);
    return 0;
}

static void ask(const char *body) {
    fake_request(&f, handle_completions, body);
}

static json_t *choice(int k) {
    return json_array_get(json_object_get(f.x.answer, "choices"), (size_t)k);
}

static void prompt_token(int request, int at, int32_t id, float logprob) {
    const hadal_request *r = &f.s.engine.requests[request];
    r->events.prompt(r->events.arg, at,
                     &(hadal_token){.id = id,
                                    .logprob = logprob,
                                    .top_ids = (const int32_t[]){50},
                                    .top_logprobs = (const float[]){-0.25F},
                                    .n_top = 1});
}

static void a_text(void **state) {
    (void)state;
    ask("{'prompt': 'Once', 'max_tokens': 3, 'temperature': 0, 'stop': 'xyz', 'seed': 5}");
    const hadal_request *r = f.s.engine.requests;
    assert_int_equal(f.s.engine.n, 1);
    assert_int_equal(r->prompt[0], 0); /* BOS */
    assert_int_equal(r->sampling.max_tokens, 3);
    assert_float_equal(r->sampling.temperature, 0, 0);
    assert_int_equal(r->sampling.seed, 5);
    assert_int_equal(r->sampling.n_stop, 1);
    assert_int_equal(r->prompt_logprobs, 0);
    fake_token(&f, 0, 0, 40, "a");
    fake_token(&f, 0, 0, 41, "");
    assert_int_equal(f.x.status, 0);
    fake_done(&f, 0, 0, "length", "abc", ids, 3, 2);
    assert_int_equal(f.x.status, 200);
    assert_true(f.x.released);
    assert_true(json_is(choice(0), "{'index': 0, 'text': 'abc', 'logprobs': null, 'finish_reason': 'length'}"));
    const json_t *usage = json_object_get(f.x.answer, "usage");
    assert_int_equal(json_integer_value(json_object_get(usage, "completion_tokens")), 3);
    assert_int_equal(json_integer_value(json_object_get(usage, "prompt_cache_hit_tokens")), 2);
    assert_int_equal(json_integer_value(json_object_get(usage, "prompt_tokens")), r->n);
    assert_int_equal(f.x.noted_tokens, 3);
    assert_int_equal(f.x.noted_cached, 2);
}

static void prompts_of_ids_are_taken_as_they_are(void **state) {
    (void)state;
    ask("{'prompt': [[5, 6], [0, 7, 8]], 'n': 2, 'max_tokens': 1}");
    assert_int_equal(f.s.engine.n, 2);
    assert_int_equal(f.s.engine.requests[0].n, 2);
    assert_int_equal(f.s.engine.requests[0].prompt[0], 5);
    assert_int_equal(f.s.engine.requests[1].n, 3);
    assert_int_equal(f.s.engine.requests[1].samples, 2);
    fake_done(&f, 1, 1, "length", "D", ids, 1, 0); /* in any order */
    fake_done(&f, 0, 0, "eos", "A", ids, 2, 1);
    fake_done(&f, 1, 0, "stop", "C", ids, 1, 3);
    assert_int_equal(f.x.status, 0);
    fake_done(&f, 0, 1, "length", "B", ids, 1, 2);
    const char *const texts[] = {"A", "B", "C", "D"};
    const char *const ends[] = {"stop", "length", "stop", "length"};
    for (int k = 0; k < 4; k++) {
        assert_int_equal(json_integer_value(json_object_get(choice(k), "index")), k);
        assert_string_equal(json_string_value(json_object_get(choice(k), "text")), texts[k]);
        assert_string_equal(json_string_value(json_object_get(choice(k), "finish_reason")), ends[k]);
    }
    assert_true(json_is(json_object_get(f.x.answer, "usage"),
                        "{'prompt_tokens': 5, 'completion_tokens': 5, 'total_tokens': 10, 'prompt_tokens_details': "
                        "{'cached_tokens': 1}, 'prompt_cache_hit_tokens': 1, 'prompt_cache_miss_tokens': 4, "
                        "'completion_tokens_details': {'reasoning_tokens': 0}}"));
}

/* Tokens 40, 41, 42 of this vocabulary are F, G, H; 50 is P. */
#define LISTS                                                                                                          \
    "{'tokens': ['F', 'G', '<｜end▁of▁sentence｜>', 'H'], 'token_logprobs': [null, -0.25, -3.0, -0.5], "         \
    "'top_logprobs': [null, {'P': -0.25, 'G': -0.25}, {'P': -0.25, '<｜end▁of▁sentence｜>': -3.0}, {'H': -0.5, " \
    "'F': -1.5}], 'text_offset': [0, 1, 2, 2]}"

static void echo_with_logprobs(void **state) {
    (void)state;
    ask("{'prompt': [40, 41, 1], 'echo': true, 'logprobs': 1, 'max_tokens': 1, 'n': 2}");
    assert_int_equal(f.s.engine.requests[0].prompt_logprobs, 1);
    prompt_token(0, 1, 41, -0.25F);
    prompt_token(0, 2, 1, -3);
    for (int k = 0; k < 2; k++) {
        fake_token(&f, 0, k, 42, "H");
        fake_done(&f, 0, k, "length", "H", ids + 2, 1, 0);
    }
    for (int k = 0; k < 2; k++) {
        assert_string_equal(json_string_value(json_object_get(choice(k), "text")), "FGH");
        assert_true(json_is(json_object_get(choice(k), "logprobs"), LISTS));
    }
}

static void no_token_at_all(void **state) {
    (void)state;
    ask("{'prompt': [40, 41], 'echo': true, 'logprobs': 0, 'max_tokens': 0}");
    assert_int_equal(f.s.engine.requests[0].sampling.max_tokens, -1);
    assert_int_equal(f.s.engine.requests[0].prompt_logprobs, -1);
    prompt_token(0, 1, 41, -0.25F);
    fake_done(&f, 0, 0, "length", "", ids, 0, 0);
    assert_string_equal(json_string_value(json_object_get(choice(0), "text")), "FG");
    assert_int_equal(json_array_size(json_object_get(json_object_get(choice(0), "logprobs"), "tokens")), 2);
}

static void the_end_has_a_probability(void **state) {
    (void)state;
    ask("{'prompt': [40], 'logprobs': 0, 'max_tokens': 4}");
    fake_token(&f, 0, 0, 41, "G");
    fake_token(&f, 0, 0, 1, "");
    fake_done(&f, 0, 0, "eos", "G", (const int32_t[]){41, 1}, 2, 0);
    assert_int_equal(json_array_size(json_object_get(json_object_get(choice(0), "logprobs"), "tokens")), 2);
    assert_string_equal(json_string_value(json_object_get(choice(0), "text")), "G");
}

static json_t *event_choice(size_t i) {
    return json_array_get(json_object_get(json_array_get(f.x.events, i), "choices"), 0);
}

static void a_stream(void **state) {
    (void)state;
    ask("{'prompt': [[40], [41]], 'stream': true, 'echo': true, 'stream_options': {'include_usage': true}, "
        "'return_token_ids': true}");
    assert_true(f.x.streams);
    fake_token(&f, 1, 0, 42, "x");
    fake_token(&f, 0, 0, 43, "");
    fake_done(&f, 1, 0, "eos", "xyz", (const int32_t[]){42, 1}, 2, 0);
    fake_done(&f, 0, 0, "length", "\xC3\xA9", (const int32_t[]){43, 44}, 2, 0);
    static const char *const want[] = {
        "{'index': 1, 'text': 'Gx', 'logprobs': null, 'finish_reason': null, 'token_ids': [42]}",
        "{'index': 0, 'text': 'F', 'logprobs': null, 'finish_reason': null, 'token_ids': [43]}",
        "{'index': 1, 'text': 'yz', 'logprobs': null, 'finish_reason': 'stop', 'token_ids': []}",
        "{'index': 0, 'text': 'é', 'logprobs': null, 'finish_reason': 'length', 'token_ids': []}"};
    for (size_t i = 0; i < 4; i++) assert_true(json_is(event_choice(i), want[i]));
    assert_int_equal(json_array_size(f.x.events), 6);
    const json_t *usage = json_object_get(json_array_get(f.x.events, 4), "usage");
    assert_int_equal(json_integer_value(json_object_get(usage, "completion_tokens")), 4);
    assert_int_equal(json_array_size(json_object_get(json_array_get(f.x.events, 4), "choices")), 0);
    assert_string_equal(json_string_value(json_array_get(f.x.events, 5)), "[DONE]");
    assert_true(f.x.ended);
}

static void a_full_queue_takes_all_or_nothing(void **state) {
    (void)state;
    f.s.engine.refuse_code = HADAL_ERR_BUSY;
    f.s.engine.refuse_at = 2;
    ask("{'prompt': ['a', 'b', 'c', 'd'], 'stream': true}");
    assert_int_equal(f.x.status, 429);
    assert_string_equal(f.x.code, "queue_full");
    assert_false(f.x.streams);
    assert_int_equal(f.s.engine.cancelled[0], 1);
    assert_int_equal(f.s.engine.cancelled[1], 1);
    assert_false(f.x.released);
    fake_token(&f, 0, 0, 40, "a"); /* what was written meanwhile is nobody's */
    fake_done(&f, 0, 0, "length", "a", ids, 1, 0);
    fake_done(&f, 1, 0, "cancelled", "", ids, 0, 0);
    assert_true(f.x.released);
    assert_int_equal(f.x.status, 429);
}

static void a_mistake_starts_nothing(void **state) {
    (void)state;
    static const struct {
        const char *body, *param;
        int status;
    } rows[] = {{"{'prompt': ['a', 'b', 5]}", "prompt[2]", 400},
                {"{'prompt': [[1], [449]]}", "prompt[1]", 422},
                {"{'prompt': [-1]}", "prompt", 422},
                {"{'prompt': ['a', '']}", "prompt[1]", 400},
                {"{'prompt': []}", "prompt", 400},
                {"{'prompt': {}}", "prompt", 400},
                {"{'prompt': ['a','b','c','d','e'], 'n': 2}", "prompt", 422},
                {"{'prompt': 'a', 'suffix': 'b'}", "suffix", 400},
                {"{'prompt': [5], 'suffix': 'b'}", "suffix", 400},
                {"{}", "prompt", 400},
                {"[]", "", 400}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ask(rows[i].body);
        if (i == 3) { /* with its BOS it is a prompt */
            assert_int_equal(f.s.engine.n, 2);
            fake_done(&f, 0, 0, "length", "", ids, 1, 0);
            fake_done(&f, 1, 0, "length", "", ids, 1, 0);
        } else {
            if (f.x.status != rows[i].status || strcmp(f.x.param, rows[i].param))
                fail_msg("%s: %d %s %s", rows[i].body, f.x.status, f.x.param, f.x.message);
            assert_int_equal(f.s.engine.n, 0);
            assert_false(f.x.kept);
        }
        fake_forget(&f);
    }
}

static void a_long_prompt(void **state) {
    (void)state;
    str body = {0};
    str_puts(&body, "{'prompt': [[5], [5");
    for (int i = 0; i < 2000; i++) str_puts(&body, ", 5");
    str_puts(&body, "]]}");
    ask(body.p);
    str_free(&body);
    assert_int_equal(f.x.status, 400);
    assert_string_equal(f.x.code, "context_length_exceeded");
    assert_string_equal(f.x.param, "prompt[1]");
}

static void a_fault_of_ours_ends_all(void **state) {
    (void)state;
    ask("{'prompt': ['a', 'b']}");
    fake_done(&f, 0, 0, "error", "", ids, 0, 0);
    assert_int_equal(f.x.status, 500);
    assert_string_equal(f.x.message, "the disk burns");
    assert_int_equal(f.s.engine.cancelled[1], 1);
    assert_false(f.x.released);
    fake_done(&f, 1, 0, "cancelled", "", ids, 0, 0);
    assert_true(f.x.released);
}

static void clients_leave(void **state) {
    (void)state;
    ask("{'prompt': ['a', 'b'], 'stream': true}");
    fake_token(&f, 0, 0, 40, "F");
    f.x.gone(f.x.gone_arg);
    assert_int_equal(f.s.engine.cancelled[0], 1);
    assert_int_equal(f.s.engine.cancelled[1], 1);
    size_t sent = json_array_size(f.x.events);
    fake_done(&f, 0, 0, "cancelled", "F", ids, 1, 0);
    fake_done(&f, 1, 0, "cancelled", "", ids, 0, 0);
    assert_int_equal(json_array_size(f.x.events), sent);
    assert_true(f.x.released);
}

static void answer_two(void) {
    for (int k = 0; k < 2; k++) {
        prompt_token(k, 1, 41, -0.25F);
        fake_token(&f, k, 0, 42, "H");
        fake_done(&f, k, 0, "length", "H", ids + 2, 1, 0);
    }
}

static void memory_runs_out_at_any_time(void **state) {
    (void)state;
    static const char *const bodies[] = {
        "{'prompt': [[40, 41], [40, 41]], 'echo': true, 'logprobs': 1, 'return_token_ids': true}",
        "{'prompt': [[40, 41], [40, 41]], 'echo': true, 'logprobs': 1, 'return_token_ids': true, 'stream': true}"};
    for (int i = 0; i < 2; i++) assert_true(fake_starve(&f, handle_completions, bodies[i], answer_two) > 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_text, forget),
        cmocka_unit_test_teardown(prompts_of_ids_are_taken_as_they_are, forget),
        cmocka_unit_test_teardown(echo_with_logprobs, forget),
        cmocka_unit_test_teardown(no_token_at_all, forget),
        cmocka_unit_test_teardown(the_end_has_a_probability, forget),
        cmocka_unit_test_teardown(a_stream, forget),
        cmocka_unit_test_teardown(a_full_queue_takes_all_or_nothing, forget),
        cmocka_unit_test_teardown(a_mistake_starts_nothing, forget),
        cmocka_unit_test_teardown(a_long_prompt, forget),
        cmocka_unit_test_teardown(a_fault_of_ours_ends_all, forget),
        cmocka_unit_test_teardown(clients_leave, forget),
        cmocka_unit_test_teardown(memory_runs_out_at_any_time, forget),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
