/* The server with a model: before it, with it, and after it; what tells about it; tokens; the log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/clock.h"
#include "base/json.h"
#include "raw.h"
#include "server/server.h"
#include <cmocka.h>

static hadal_model *model;

static void keep_line(void *arg, const char *line) {
    str *s = arg;
    str_puts(s, line);
    str_putc(s, '\n');
}

static server *begin(const server_options *o) {
    server *s = NULL;
    error e;
    if (server_open(&s, o, &e) != OK) fail_msg("%s", e.text);
    return s;
}

static server *begin_with_model(const server_options *more) {
    error e;
    server_options o = more ? *more : (server_options){0};
    o.engine.cache_bytes = 16 << 20;
    server *s = begin(&o);
    if (server_serve(s, model, "models/tiny/", &e) != OK) fail_msg("%s", e.text);
    return s;
}

/* The answer to a request as JSON. */
static json_t *ask_json(server *s, const char *method, const char *path, const char *body, int want) {
    reply r = {0};
    json_t *v = NULL;
    error e;
    ask(server_port(s), method, path, NULL, body, &r);
    if (r.status != want) print_error("%s %s: %s\n", method, path, r.body.n ? r.body.p : "");
    assert_int_equal(r.status, want);
    assert_true(reply_has(&r, "Content-Type: application/json"));
    assert_int_equal(json_parse(&v, r.body.p, r.body.n, path, &e), OK);
    reply_clear(&r);
    return v;
}

static const char *text_at(const json_t *o, const char *key) {
    return json_string_value(json_object_get(o, key));
}

static int number_at(const json_t *o, const char *key) {
    return (int)json_integer_value(json_object_get(o, key));
}

static void expect_health(server *s, int want, const char *state_name) {
    json_t *v = ask_json(s, "GET", "/health", NULL, want);
    assert_string_equal(text_at(v, "status"), state_name);
    json_decref(v);
}

static void wait_for_drain(server *s) {
    double until = clock_seconds() + 30;
    while (server_drain(s) && clock_seconds() < until) nanosleep(&(struct timespec){0, 5000000}, NULL);
    assert_int_equal(server_drain(s), 0);
}

static void from_loading_to_the_end(void **state) {
    (void)state;
    error e;
    server *s = begin(&(server_options){.engine = {.cache_bytes = 16 << 20}});
    expect_health(s, 503, "loading");
    json_decref(ask_json(s, "GET", "/v1/models", NULL, 503));
    json_decref(ask_json(s, "GET", "/metrics", NULL, 503));
    json_t *v = ask_json(s, "GET", "/version", NULL, 200);
    assert_string_equal(text_at(v, "version"), HADAL_VERSION);
    json_decref(v);
    assert_int_equal(server_serve(s, model, "models/tiny/", &e), OK);
    expect_health(s, 200, "ok");
    json_decref(ask_json(s, "GET", "/v1/models", NULL, 200));
    wait_for_drain(s);
    expect_health(s, 503, "draining");
    json_decref(ask_json(s, "POST", "/tokenize", "{\"prompt\":\"1\"}", 503));
    server_close(s);
    s = begin(&(server_options){0}); /* closing without ever having had a model */
    server_close(s);
}

static void a_drain_during_loading_stays_one(void **state) {
    (void)state;
    error e;
    server *s = begin(&(server_options){.engine = {.cache_bytes = 16 << 20}});
    server_drain(s);
    assert_int_equal(server_serve(s, model, "models/tiny", &e), OK);
    expect_health(s, 503, "draining");
    server_close(s);
}

static void models_are_listed(void **state) {
    (void)state;
    server *s = begin_with_model(NULL);
    static const char *const lists[] = {"/v1/models", "/models", "/beta/models", "/beta/v1/models/"};
    for (int i = 0; i < 4; i++) {
        json_t *v = ask_json(s, "GET", lists[i], NULL, 200), *data = json_object_get(v, "data");
        assert_string_equal(text_at(v, "object"), "list");
        assert_int_equal(json_array_size(data), 1);
        const json_t *one = json_array_get(data, 0);
        assert_string_equal(text_at(one, "id"), "tiny");
        assert_string_equal(text_at(one, "object"), "model");
        assert_string_equal(text_at(one, "owned_by"), "hadal");
        assert_int_equal(number_at(one, "created"), server_started(s));
        assert_int_equal(number_at(one, "max_model_len"), 256);
        json_decref(v);
    }
    json_t *v = ask_json(s, "GET", "/v1/models/tiny", NULL, 200);
    assert_string_equal(text_at(v, "id"), "tiny");
    json_decref(v);
    v = ask_json(s, "GET", "/v1/models/huge", NULL, 404);
    assert_string_equal(text_at(json_object_get(v, "error"), "code"), "model_not_found");
    json_decref(v);
    server_close(s);
    s = begin_with_model(&(server_options){.model_id = "org/some model"});
    v = ask_json(s, "GET", "/v1/models/org/some%20model", NULL, 200);
    assert_string_equal(text_at(v, "id"), "org/some model");
    json_decref(v);
    json_decref(ask_json(s, "GET", "/v1/models/org%2Fsome%20model", NULL, 200));
    json_decref(ask_json(s, "GET", "/v1/models/org", NULL, 404));
    server_close(s);
}

static void texts_become_tokens_and_texts(void **state) {
    (void)state;
    server *s = begin_with_model(NULL);
    static const char *const forms[] = {"{\"prompt\":\"12+30=42\"}", "{\"content\":\"12+30=42\"}",
                                        "{\"prompt\":\"12+30=42\",\"add_special_tokens\":false,\"model\":\"tiny\"}"};
    for (int i = 0; i < 3; i++) {
        json_t *v = ask_json(s, "POST", i ? "/tokenize" : "/v1/tokenize", forms[i], 200);
        json_t *tokens = json_object_get(v, "tokens");
        assert_int_equal(number_at(v, "count"), 8);
        assert_int_equal(number_at(v, "max_model_len"), 256);
        assert_int_equal(json_array_size(tokens), 8);
        json_t *body = json_pack("{s:O}", "tokens", tokens);
        char *text = json_dumps(body, 0);
        json_t *back = ask_json(s, "POST", "/detokenize", text, 200);
        assert_string_equal(text_at(back, "prompt"), "12+30=42");
        assert_string_equal(text_at(back, "content"), "12+30=42");
        json_decref(back);
        json_decref(body);
        free(text);
        json_decref(v);
    }
    json_t *v = ask_json(s, "POST", "/tokenize", "{\"prompt\":\"<eos>\"}", 200); /* as lm-evaluation-harness asks */
    assert_int_equal(number_at(v, "count"), 1);
    json_decref(v);
    v = ask_json(s, "POST", "/tokenize", "{\"content\":\"1+\",\"with_pieces\":true,\"return_token_strs\":true}", 200);
    assert_string_equal(text_at(json_array_get(json_object_get(v, "tokens"), 1), "piece"), "+");
    assert_string_equal(json_string_value(json_array_get(json_object_get(v, "token_strs"), 0)), "1");
    json_decref(v);
    v = ask_json(s, "POST", "/tokenize", "{\"messages\":[{\"role\":\"user\",\"content\":\"1\"}]}", 200);
    int with = number_at(v, "count");
    json_decref(v);
    v = ask_json(s, "POST", "/tokenize",
                 "{\"messages\":[{\"role\":\"user\",\"content\":\"1\"}],\"add_generation_prompt\":false}", 200);
    assert_int_equal(number_at(v, "count"), with - 1);
    json_decref(v);
    v = ask_json(s, "POST", "/detokenize", "{\"tokens\":[]}", 200);
    assert_string_equal(text_at(v, "prompt"), "");
    json_decref(v);
    v = ask_json(s, "GET", "/tokenizer_info", NULL, 200);
    assert_string_equal(text_at(v, "eos_token"), "<eos>");
    assert_non_null(text_at(v, "chat_template"));
    json_decref(v);
    server_close(s);
}

static void mistakes_about_tokens_are_told(void **state) {
    (void)state;
    static const struct {
        const char *path, *body;
        int status;
        const char *param;
    } all[] = {{"/tokenize", "{}", 400, "prompt"},
               {"/tokenize", "{\"prompt\":5}", 400, "prompt"},
               {"/tokenize", "{\"content\":[]}", 400, "content"},
               {"/tokenize", "{\"prompt\":\"1\",\"add_special_tokens\":1}", 400, "add_special_tokens"},
               {"/tokenize", "{\"messages\":[]}", 400, "messages"},
               {"/tokenize", "{\"messages\":{}}", 400, "messages"},
               {"/tokenize", "{\"messages\":[5]}", 400, NULL},
               {"/tokenize", "[1]", 400, NULL},
               {"/tokenize", "{\"prompt\":", 400, NULL},
               {"/tokenize", "{\"prompt\":\"\xff\"}", 400, NULL},
               {"/tokenize", "", 400, NULL},
               {"/detokenize", "{}", 400, "tokens"},
               {"/detokenize", "{\"tokens\":5}", 400, "tokens"},
               {"/detokenize", "{\"tokens\":[\"a\"]}", 400, "tokens"},
               {"/detokenize", "{\"tokens\":[1.5]}", 400, "tokens"},
               {"/detokenize", "{\"tokens\":[-1]}", 422, "tokens"},
               {"/detokenize", "{\"tokens\":[1000000]}", 422, "tokens"},
               {"/embeddings", "{\"input\":\"a\"}", 501, NULL}};
    server *s = begin_with_model(NULL);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        json_t *v = ask_json(s, "POST", all[i].path, all[i].body, all[i].status), *e = json_object_get(v, "error");
        assert_non_null(text_at(e, "message"));
        if (all[i].param) assert_string_equal(text_at(e, "param"), all[i].param);
        json_decref(v);
    }
    server_close(s);
}

/* A client may have its answer before it is counted. */
static void wait_for_metric(server *s, const char *line) {
    reply r = {0};
    str want = {0};
    str_addf(&want, "\n%s\n", line);
    for (double until = clock_seconds() + 20;;) {
        ask(server_port(s), "GET", "/metrics", NULL, NULL, &r);
        assert_int_equal(r.status, 200);
        assert_true(reply_has(&r, "Content-Type: text/plain; version=0.0.4; charset=utf-8"));
        if (strstr(r.body.p, want.p)) break;
        if (clock_seconds() > until) fail_msg("no line '%s' in\n%s", line, r.body.p);
    }
    str_free(&want);
    reply_clear(&r);
}

static const char endless[] =
    "{\"model\":\"tiny\",\"prompt\":\"1+1=\",\"max_tokens\":250,\"ignore_eos\":true,\"stream\":true}";

static void what_is_running_is_told(void **state) {
    (void)state;
    server *s = begin_with_model(NULL);
    json_t *v = ask_json(s, "GET", "/status", NULL, 200);
    assert_string_equal(text_at(v, "model"), "tiny");
    assert_string_equal(text_at(v, "status"), "ok");
    assert_int_equal(json_array_size(json_object_get(v, "requests")), 0);
    assert_true(number_at(json_object_get(v, "engine"), "pages_total") > 0);
    json_decref(v);
    reply r = {0};
    ask(server_port(s), "POST", "/v1/completions", NULL, endless, &r);
    assert_int_equal(r.status, 200);
    assert_non_null(strstr(r.body.p, "data: [DONE]\n\n"));
    wait_for_metric(s, "hadal_generated_tokens_total 250");
    wait_for_metric(s, "hadal_time_to_first_token_seconds_count 1");
    wait_for_metric(s, "hadal_requests_total{path=\"/completions\",status=\"200\"} 1");
    reply_clear(&r);
    server_close(s);
}

static void answers_of_who_left_are_not_written(void **state) {
    (void)state;
    server *s = begin_with_model(&(server_options){.engine = {.sequences = 2}});
    str t = {0};
    str_addf(&t, "POST /v1/completions HTTP/1.1\r\nHost: here\r\nContent-Length: %zu\r\n\r\n%s", strlen(endless),
             endless);
    for (int i = 0; i < 30; i++) {
        raw c;
        raw_open(&c, server_port(s));
        raw_send_n(&c, t.p, t.n);
        if (i % 2) raw_until(&c, "data:");
        raw_close(&c);
    }
    wait_for_drain(s);
    hadal_engine_stats e = {.size = sizeof e};
    hadal_engine_get_stats(server_engine(s), &e);
    assert_int_equal(e.running, 0);
    assert_int_equal(e.waiting, 0);
    str_free(&t);
    server_close(s);
}

static void closing_ends_answers(void **state) {
    (void)state;
    server *s = begin_with_model(NULL);
    raw c[4];
    str t = {0};
    str_addf(&t, "POST /v1/completions HTTP/1.1\r\nHost: here\r\nContent-Length: %zu\r\n\r\n%s", strlen(endless),
             endless);
    for (int i = 0; i < 4; i++) {
        raw_open(&c[i], server_port(s));
        raw_send_n(&c[i], t.p, t.n);
    }
    assert_true(raw_until(&c[0], "data:"));
    server_close(s);
    for (int i = 0; i < 4; i++) {
        assert_true(raw_is_closed(&c[i]));
        raw_close(&c[i]);
    }
    str_free(&t);
}

static void one_line_a_request(void **state) {
    (void)state;
    str lines = {0};
    reply r = {0};
    server *s = begin_with_model(&(server_options){.log = keep_line, .log_arg = &lines});
    ask(server_port(s), "POST", "/v1/completions", NULL,
        "{\"model\":\"tiny\",\"prompt\":\"1+1=\",\"max_tokens\":5,\"ignore_eos\":true}", &r);
    ask(server_port(s), "GET", "/a%1b%5b31m%c2%9b%0a", NULL, NULL, &r); /* would colour a terminal */
    server_close(s);
    assert_int_equal(lines.p[2], ':');
    assert_non_null(strstr(lines.p, " POST /v1/completions 200  prompt 4  5 tokens  first "));
    assert_non_null(strstr(lines.p, "  length\n"));
    assert_non_null(strstr(lines.p, " GET /a\\x1b[31m\\u009b\\x0a 404  "));
    assert_null(strchr(lines.p, 27));
    str_free(&lines);
    s = begin_with_model(&(server_options){.log = keep_line, .log_arg = &lines, .json_log = true});
    ask(server_port(s), "POST", "/v1/completions", NULL,
        "{\"model\":\"tiny\",\"prompt\":\"1+1=\",\"max_tokens\":5,\"ignore_eos\":true}", &r);
    server_close(s);
    json_t *v;
    error e;
    assert_int_equal(json_parse(&v, lines.p, lines.n, "line", &e), OK);
    assert_string_equal(text_at(v, "path"), "/v1/completions");
    assert_string_equal(text_at(v, "finish"), "length");
    assert_int_equal(number_at(v, "status"), 200);
    assert_int_equal(number_at(v, "prompt_tokens"), 4);
    assert_int_equal(number_at(v, "tokens"), 5);
    json_decref(v);
    str_free(&lines);
    s = begin_with_model(&(server_options){.log = keep_line, .log_arg = &lines, .quiet = true});
    ask(server_port(s), "GET", "/health", NULL, NULL, &r);
    server_close(s);
    assert_int_equal(lines.n, 0);
    reply_clear(&r);
}

int main(void) {
    hadal_error e;
    hadal_model_options o = {.size = sizeof o, .threads = 2, .attention = "absorbed"};
    if (hadal_model_open(&model, "models/tiny", &o, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(from_loading_to_the_end),
        cmocka_unit_test(a_drain_during_loading_stays_one),
        cmocka_unit_test(models_are_listed),
        cmocka_unit_test(texts_become_tokens_and_texts),
        cmocka_unit_test(mistakes_about_tokens_are_told),
        cmocka_unit_test(what_is_running_is_told),
        cmocka_unit_test(answers_of_who_left_are_not_written),
        cmocka_unit_test(closing_ends_answers),
        cmocka_unit_test(one_line_a_request),
    };
    int failed = cmocka_run_group_tests_name("server/server", tests, NULL, NULL);
    hadal_model_close(model);
    return failed;
}
