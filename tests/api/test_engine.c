/* The public engine: requests from several threads at once, events, limits, cancelling, closing. */
#include "../format/scratch.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "hadal.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static hadal_model *model;

static int set_up(void **state) {
    hadal_error e;
    (void)state;
    if (hadal_model_open(&model, "models/tiny",
                         &(hadal_model_options){.size = sizeof(hadal_model_options), .threads = 2}, &e)) {
        printf("%s\n", e.text);
        return -1;
    }
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    hadal_model_close(model);
    return 0;
}

/* --- one request, waited for ------------------------------------------------------------------------------------- */

typedef struct asked {
    pthread_mutex_t lock;
    pthread_cond_t news;
    int done, samples;
    int tokens, prompt_tokens, cached;
    char text[4][600], finish[4][12], streamed[4][600];
    int first_delay_ms;
} asked;

static void on_token(void *arg, const hadal_token *t) {
    asked *a = arg;
    a->tokens++;
    strncat(a->streamed[t->sequence], t->text, t->n);
    if (a->first_delay_ms) usleep((useconds_t)a->first_delay_ms * 1000);
}

static void on_done(void *arg, int sample, const hadal_result *r, const hadal_error *e) {
    asked *a = arg;
    snprintf(a->text[sample], sizeof a->text[sample], "%s", e ? e->text : r->text);
    snprintf(a->finish[sample], sizeof a->finish[sample], "%s", r->finish);
    a->prompt_tokens = r->prompt_tokens;
    a->cached += r->cached_tokens;
    pthread_mutex_lock(&a->lock);
    a->done++;
    pthread_cond_signal(&a->news);
    pthread_mutex_unlock(&a->lock);
}

static void asked_open(asked *a, int samples) {
    memset(a, 0, sizeof *a);
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->news, NULL);
    a->samples = samples;
}

static void wait_for(asked *a) {
    pthread_mutex_lock(&a->lock);
    while (a->done < a->samples) pthread_cond_wait(&a->news, &a->lock);
    pthread_mutex_unlock(&a->lock);
}

static int submit(hadal_engine *g, asked *a, const char *prompt, hadal_sampling s, uint64_t *ticket, hadal_error *e) {
    int32_t *ids;
    size_t n;
    assert_int_equal(
        hadal_tokenize(hadal_model_tokenizer(model), prompt, strlen(prompt), HADAL_ADD_SPECIAL, &ids, &n, e), 0);
    s.size = sizeof s;
    const int code = hadal_engine_submit(g,
                                         &(hadal_request){.size = sizeof(hadal_request),
                                                          .prompt = ids,
                                                          .n = (int)n,
                                                          .samples = a->samples,
                                                          .sampling = s,
                                                          .events = {.token = on_token, .done = on_done, .arg = a}},
                                         ticket, e);
    hadal_free(ids); /* the engine has its own */
    return code;
}

static hadal_engine *open_engine(hadal_engine_options o) {
    hadal_engine *g;
    hadal_error e;
    o.size = sizeof o;
    if (!o.cache_bytes) o.cache_bytes = 64 << 20;
    if (hadal_engine_open(&g, model, &o, &e)) fail_msg("%s", e.text);
    return g;
}

static void streams_and_samples(void **state) {
    (void)state;
    hadal_engine *g = open_engine((hadal_engine_options){0});
    const char *stop[] = {"never"};
    asked a;
    uint64_t ticket;
    hadal_error e;
    asked_open(&a, 3);
    assert_int_equal(submit(g, &a, "12+3=",
                            (hadal_sampling){.temperature = 1, .seed = 4, .max_tokens = 50, .stop = stop, .n_stop = 1},
                            &ticket, &e),
                     0);
    wait_for(&a);
    for (int k = 0; k < 3; k++) assert_string_equal(a.text[k], a.streamed[k]);
    assert_true(strcmp(a.text[0], a.text[1]) || strcmp(a.text[1], a.text[2]));
    hadal_engine_close(g);
}

/* The same engine asked by threads at once gives each what it gives alone. */
typedef struct asker {
    hadal_engine *g;
    int number;
    char text[600];
} asker;

static hadal_sampling way_of(int number) {
    return (hadal_sampling){.temperature = number % 2 ? 0.9f : 0, .seed = (uint64_t)number, .max_tokens = 30 + number};
}

static void *ask(void *arg) {
    asker *x = arg;
    char prompt[40];
    asked a;
    uint64_t ticket;
    hadal_error e;
    asked_open(&a, 1);
    snprintf(prompt, sizeof prompt, "%d+%d=", x->number * 7, x->number);
    if (submit(x->g, &a, prompt, way_of(x->number), &ticket, &e) == 0) wait_for(&a);
    memcpy(x->text, a.text[0], sizeof x->text);
    return NULL;
}

static void threads_ask_at_once(void **state) {
    (void)state;
    enum { N = 24 };
    hadal_engine *g = open_engine((hadal_engine_options){.sequences = 8, .cache_bytes = 1 << 20});
    asker alone[N], together[N];
    pthread_t thread[N];
    for (int i = 0; i < N; i++) {
        alone[i] = together[i] = (asker){.g = g, .number = i};
        ask(&alone[i]);
    }
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++) assert_int_equal(pthread_create(&thread[i], NULL, ask, &together[i]), 0);
        for (int i = 0; i < N; i++) pthread_join(thread[i], NULL);
        for (int i = 0; i < N; i++) assert_string_equal(alone[i].text, together[i].text);
    }
    hadal_engine_close(g);
}

static void cancelled_and_closed(void **state) {
    (void)state;
    hadal_engine *g = open_engine((hadal_engine_options){.sequences = 2});
    asked a[6];
    uint64_t ticket[6];
    hadal_error e;
    for (int i = 0; i < 6; i++) {
        asked_open(&a[i], 2);
        a[i].first_delay_ms = 2; /* tokens come slowly */
        assert_int_equal(submit(g, &a[i], "1+1=", (hadal_sampling){.max_tokens = 200, .ignore_eos = 1}, &ticket[i], &e),
                         0);
    }
    for (int i = 0; i < 3; i++) hadal_engine_cancel(g, ticket[2 * i]);
    hadal_engine_cancel(g, 12345); /* nobody's */
    wait_for(&a[4]);
    assert_string_equal(a[4].finish[0], "cancelled");
    hadal_engine_close(g);
    for (int i = 0; i < 6; i++) assert_int_equal(a[i].done, 2);
}

static void a_full_queue(void **state) {
    (void)state;
    hadal_engine *g = open_engine((hadal_engine_options){.sequences = 1, .queue = 3});
    asked a[40];
    uint64_t ticket;
    hadal_error e;
    int busy = 0;
    for (int i = 0; i < 40; i++) {
        asked_open(&a[i], 1);
        a[i].first_delay_ms = 1;
        const int code = submit(g, &a[i], "1+1=", (hadal_sampling){.max_tokens = 20, .ignore_eos = 1}, &ticket, &e);
        if (code == HADAL_ERR_BUSY) a[i].samples = 0, busy++;
        else assert_int_equal(code, 0);
    }
    assert_true(busy > 0);
    for (int i = 0; i < 40; i++) wait_for(&a[i]);
    hadal_engine_stats stats;
    hadal_engine_get_stats(g, &stats);
    assert_int_equal(stats.queue, 3);
    assert_true(stats.generated_tokens > 0);
    hadal_engine_close(g);
}

/* What one model left on disk is nothing to another of the same shapes. */
static int cached_from(hadal_model *m, const char *folder) {
    hadal_model *before = model;
    asked a;
    uint64_t ticket;
    hadal_error e;
    model = m;
    hadal_engine *g = open_engine((hadal_engine_options){.cache_folder = folder});
    asked_open(&a, 1);
    assert_int_equal(submit(g, &a, "c1+2+3+4+5+6+7+8+9+1+2+3+4+5", (hadal_sampling){.max_tokens = 2}, &ticket, &e), 0);
    wait_for(&a);
    hadal_engine_close(g);
    model = before;
    return a.cached;
}

static void models_do_not_share_a_folder(void **state) {
    (void)state;
    scratch s = scratch_open();
    hadal_model *other;
    hadal_error e;
    assert_int_equal(hadal_model_open(&other, "models/tiny-base", NULL, &e), 0);
    assert_int_equal(cached_from(model, s.dir), 0);
    assert_int_equal(cached_from(other, s.dir), 0);
    assert_true(cached_from(model, s.dir) > 16);
    hadal_model_close(other);
    scratch_close(&s);
}

static void refusals(void **state) {
    (void)state;
    hadal_engine *g;
    hadal_error e;
    uint64_t ticket;
    asked a;
    asked_open(&a, 1);
    assert_int_equal(
        hadal_engine_open(&g, model, &(hadal_engine_options){.size = sizeof(hadal_engine_options), .drafts = 2}, &e),
        HADAL_ERR_UNSUPPORTED);
    assert_int_equal(hadal_engine_open(
                         &g, model, &(hadal_engine_options){.size = sizeof(hadal_engine_options), .sequences = -1}, &e),
                     HADAL_ERR_ARG);
    assert_int_equal(hadal_engine_open(&g, model,
                                       &(hadal_engine_options){.size = sizeof(hadal_engine_options), .cache_bytes = 5},
                                       &e),
                     HADAL_ERR_ARG);
    g = open_engine((hadal_engine_options){.context = 20});
    assert_int_equal(submit(g, &a, "1+1=1+1=1+1=1+1=1+1=1+1=", (hadal_sampling){0}, &ticket, &e), HADAL_ERR_ARG);
    assert_int_equal(submit(g, &a, "1", (hadal_sampling){.temperature = -1}, &ticket, &e), HADAL_ERR_ARG);
    assert_int_equal(submit(g, &a, "1", (hadal_sampling){.logprobs = 21}, &ticket, &e), HADAL_ERR_ARG);
    assert_int_equal(hadal_engine_submit(g, &(hadal_request){.size = sizeof(hadal_request)}, &ticket, &e),
                     HADAL_ERR_ARG);
    assert_int_equal(hadal_engine_submit(NULL, NULL, NULL, &e), HADAL_ERR_ARG);
    hadal_engine_close(g);
    hadal_engine_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_and_samples),          cmocka_unit_test(threads_ask_at_once),
        cmocka_unit_test(cancelled_and_closed),         cmocka_unit_test(a_full_queue),
        cmocka_unit_test(models_do_not_share_a_folder), cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
