/* Counters and histograms as Prometheus reads them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "server/metrics.h"
#include <cmocka.h>

static void has(const str *s, const char *line) {
    str want = {0};
    str_addf(&want, "\n%s\n", line);
    if (!strstr(s->p, want.p)) fail_msg("no line '%s' in\n%s", line, s->p);
    str_free(&want);
}

static void events_are_counted(void **state) {
    (void)state;
    metrics *m;
    error e;
    str s = {0};
    assert_int_equal(server_metrics_open(&m, &e), OK);
    metrics_request(m, "/chat/completions", 200, 0.02);
    metrics_request(m, "/chat/completions", 200, 3);
    metrics_request(m, "/chat/completions", 429, 1e6);
    metrics_request(m, "other", 404, 0);
    metrics_first_token(m, 0.05); /* a bound belongs to its bucket */
    metrics_first_token(m, 0.0500001);
    metrics_next_token(m, 0.002);
    metrics_next_token(m, 100);
    metrics_tokens(m, 100, 50, 7);
    hadal_engine_stats g = {.size = sizeof g,
                            .running = 3,
                            .waiting = 2,
                            .pages_total = 100,
                            .pages_running = 25,
                            .pages_kept = 30,
                            .prompt_tokens = 12345678901234,
                            .preemptions = 4};
    server_metrics_write(m, &g, 17, &s);
    has(&s, "hadal_requests_total{path=\"/chat/completions\",status=\"200\"} 2");
    has(&s, "hadal_requests_total{path=\"/chat/completions\",status=\"429\"} 1");
    has(&s, "hadal_requests_total{path=\"other\",status=\"404\"} 1");
    has(&s, "hadal_request_seconds_bucket{le=\"0.05\"} 2");
    has(&s, "hadal_request_seconds_bucket{le=\"600\"} 3");
    has(&s, "hadal_request_seconds_bucket{le=\"+Inf\"} 4");
    has(&s, "hadal_time_to_first_token_seconds_bucket{le=\"0.05\"} 1");
    has(&s, "hadal_time_to_first_token_seconds_bucket{le=\"0.1\"} 2");
    has(&s, "hadal_time_to_first_token_seconds_count 2");
    has(&s, "hadal_inter_token_seconds_bucket{le=\"2.5\"} 1");
    has(&s, "hadal_inter_token_seconds_sum 100.002");
    has(&s, "hadal_request_prompt_tokens_sum 100");
    has(&s, "hadal_request_generated_tokens_count 1");
    has(&s, "hadal_requests_running 3");
    has(&s, "hadal_requests_waiting 2");
    has(&s, "hadal_cache_pages{use=\"free\"} 45");
    has(&s, "hadal_cache_usage_ratio 0.25");
    has(&s, "hadal_prompt_tokens_total 12345678901234");
    has(&s, "hadal_preemptions_total 4");
    has(&s, "hadal_connections_open 17");
    str_free(&s);
    server_metrics_close(m);
}

/* Every line is a comment or "name{labels} number", and every name was declared before. */
static void check_format(char *text) {
    char declared[64] = "";
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char name[64], rest[256];
        double v;
        if (sscanf(line, "# TYPE %63s %255s", name, rest) == 2) {
            memcpy(declared, name, sizeof declared);
            assert_true(strcmp(rest, "counter") == 0 || strcmp(rest, "gauge") == 0 || strcmp(rest, "histogram") == 0);
        } else if (*line != '#') {
            assert_int_equal(sscanf(line, "%63[a-z_]", name), 1);
            assert_memory_equal(name, declared, strlen(declared));
            const char *number = strrchr(line, ' ');
            char *end;
            assert_non_null(number);
            v = strtod(number, &end);
            assert_true(end > number && !*end);
            assert_true(v >= 0);
        }
    }
}

static void the_format_is_plain(void **state) {
    (void)state;
    metrics *m;
    error e;
    str s = {0};
    assert_int_equal(server_metrics_open(&m, &e), OK);
    for (int i = 0; i < 1000; i++) metrics_request(m, "/models", i, i); /* statuses without end stay bounded */
    server_metrics_write(m, &(hadal_engine_stats){0}, 0, &s);
    assert_true(s.n < 40000);
    check_format(s.p);
    str_free(&s);
    server_metrics_write(m, NULL, 0, &s); /* no engine yet */
    assert_null(strstr(s.p, "hadal_cache_pages"));
    check_format(s.p);
    str_free(&s);
    server_metrics_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(events_are_counted), cmocka_unit_test(the_format_is_plain)};
    return cmocka_run_group_tests_name("server/metrics", tests, NULL, NULL);
}
