#include "eval/bench.h"

#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/rng.h"
#include "kernels/machine.h"

/* --- what one token costs --------------------------------------------------------------------------------------- */

typedef struct byte_count {
    const model *m;
    double bytes;
} byte_count;

static status add_bytes(void *arg, const weight_item *w) {
    byte_count *b = arg;
    const model_config *c = &b->m->cfg;
    const weights_entry *t = w->layer < c->num_hidden_layers ? weights_find(b->m->file, w->name) : NULL;
    if (!t || ((w->slot->flags & W_EMBEDDING) && !c->tie_word_embeddings)) return OK;
    double n = (double)tensor_count(&t->t), bytes = n * (double)dtype_size(t->t.type);
    if (t->t.type == DT_E4M3) bytes += n / (FP8_BLOCK * FP8_BLOCK) * sizeof(float);
    b->bytes += w->expert < 0 ? bytes : bytes * (double)c->num_experts_per_tok / (double)c->n_routed_experts;
    return OK;
}

/* Bytes of weights that one token reads. */
static double weight_bytes(const model *m) {
    byte_count b = {.m = m};
    model_each_weight(&m->cfg, add_bytes, &b);
    return b.bytes;
}

/* Bytes of cache that a token reads when `held` tokens are there. */
static double cache_bytes(const engine *g, double held) {
    const model_config *c = &g->m->cfg;
    const double size = queue_compute(g->ws.q) == COMPUTE_F32 ? 4 : 2;
    double rows = c->index_topk && held > (double)c->index_topk ? (double)c->index_topk : held;
    return size *
           (rows * (double)model_cache_width(c, CACHE_ATTENTION) + held * (double)model_cache_width(c, CACHE_INDEX));
}

/* Floating-point operations of a prompt of n tokens behind `depth` others: two for each active weight (the head once),
 * and the attention over the rows that each token sees, in its expanded form (deepseek-scale: 2 heads (qk + v) a row).
 */
static double prompt_flops(const model *m, double n, double depth) {
    const model_config *c = &m->cfg;
    model_counts k;
    model_count(c, &k);
    double head = (double)(c->vocab_size * c->hidden_size), v = (double)(c->kv_lora_rank ? c->v_head_dim : c->head_dim);
    double row = 2 * (double)c->num_attention_heads * ((double)config_qk_dim(c) + v) * (double)c->num_hidden_layers;
    return 2 * ((double)k.active - head) * n + 2 * head + row * n * (depth + n / 2);
}

/* --- measuring -------------------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void bench_sort(double *x, int64_t n) {
    qsort(x, (size_t)n, sizeof *x, by_size);
}

static double median(double *x, int n) {
    bench_sort(x, n);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

static status extend(session *s, const int32_t *tokens, int64_t n, error *e) {
    return sessions_extend(&s, 1, &tokens, &n, NULL, e);
}

/* Seconds for `n` tokens behind `depth`: in one go, or one by one. */
static status time_run(session *s, const int32_t *tokens, int64_t depth, int64_t n, bool one_by_one, double *seconds,
                       error *e) {
    session_truncate(s, depth);
    double start = clock_seconds();
    if (!one_by_one) TRY(extend(s, tokens + depth, n, e));
    for (int64_t i = 0; one_by_one && i < n; i++) TRY(extend(s, tokens + depth + i, 1, e));
    *seconds = clock_seconds() - start;
    return OK;
}

static status measure(session *s, const int32_t *tokens, const bench_options *o, double *prompt, double *generate,
                      error *e) {
    const int repeat = o->repeat;
    double *p = malloc(2 * (size_t)repeat * sizeof *p), *g = p ? p + repeat : NULL, warm;
    if (!p) return fail(e, ERR_NOMEM, "memory is out");
    int64_t done = 0, all = (int64_t)repeat * ((o->prompt > 0) + (o->generate > 0));
    status st = o->depth ? extend(s, tokens, o->depth, e) : OK;
    /* A first run that is not counted: pages of the mapping, clock speed. */
    if (st == OK && o->prompt) st = time_run(s, tokens, o->depth, o->prompt, false, &warm, e);
    if (st == OK && o->generate) st = time_run(s, tokens, o->depth, o->generate < 8 ? o->generate : 8, true, &warm, e);
    for (int i = 0; i < repeat && st == OK; i++) {
        if (o->prompt) st = time_run(s, tokens, o->depth, o->prompt, false, &p[i], e), done++;
        if (st == OK && o->generate) st = time_run(s, tokens, o->depth, o->generate, true, &g[i], e), done++;
        if (st == OK && o->progress && !o->progress(o->progress_arg, done, all))
            st = fail(e, ERR_CANCELLED, "cancelled");
    }
    if (st == OK && o->prompt) *prompt = median(p, repeat);
    if (st == OK && o->generate) *generate = median(g, repeat);
    free(p);
    return st;
}

static void put(json_t *o, const char *key, double x) {
    json_object_set_new(o, key, json_real(x));
}
static void put_int(json_t *o, const char *key, int64_t x) {
    json_object_set_new(o, key, json_integer(x));
}

static status describe(engine *g, const bench_options *o, double prompt, double generate, json_t *out, error *e) {
    const int threads = queue_threads(g->ws.q);
    const bool f32 = queue_compute(g->ws.q) == COMPUTE_F32;
    machine_result machine;
    TRY(machine_measure(threads, queue_level(g->ws.q), &machine, e));
    double weights = weight_bytes(g->m), middle = (double)o->depth + (double)o->generate / 2,
           peak = f32 ? machine.f32_gflops : machine.bf16_gflops;
    json_object_set_new(out, "model_type", json_string(g->m->cfg.arch->model_type));
    json_object_set_new(out, "kernels", json_string(queue_level(g->ws.q)));
    json_object_set_new(out, "compute", json_string(f32 ? "f32" : "bf16"));
    put_int(out, "threads", threads);
    put_int(out, "prompt", o->prompt);
    put_int(out, "generate", o->generate);
    put_int(out, "depth", o->depth);
    put(out, "read_gbs", machine.read_gbs);
    put(out, "peak_gflops", peak);
    if (o->prompt) {
        double gflops = prompt_flops(g->m, (double)o->prompt, (double)o->depth) / prompt / 1e9;
        put(out, "prompt_tps", (double)o->prompt / prompt);
        put(out, "prompt_gflops", gflops);
        put(out, "prompt_share_of_peak", gflops / peak);
    }
    if (o->generate) {
        double tps = (double)o->generate / generate, bytes = weights + cache_bytes(g, middle);
        put(out, "generate_tps", tps);
        put(out, "weight_bytes_per_token", weights);
        put(out, "cache_bytes_per_token", cache_bytes(g, middle));
        put(out, "generate_share_of_bandwidth", tps * bytes / 1e9 / machine.read_gbs);
    }
    put(out, "tps", o->generate ? (double)o->generate / generate : (double)o->prompt / prompt);
    return OK;
}

status bench_run(engine *g, const bench_options *o, json_t **out, error *e) {
    *out = NULL;
    if (o->prompt < 0 || o->generate < 0 || o->depth < 0 || o->repeat < 1 || o->prompt + o->generate == 0)
        return fail(e, ERR_ARG, "bench needs a prompt or tokens to generate, and at least one repetition");
    const int64_t longest = o->prompt > o->generate ? o->prompt : o->generate, n = o->depth + longest;
    double prompt = 0, generate = 0;
    session *s = NULL;
    int32_t *tokens = malloc((size_t)n * sizeof *tokens);
    *out = json_object();
    status st = tokens && *out ? session_open(&s, g, n, e) : fail(e, ERR_NOMEM, "memory is out");
    for (int64_t i = 0; i < n && st == OK; i++)
        tokens[i] = (int32_t)(rng_uniform(1, 0, (uint64_t)i) * (double)g->m->cfg.vocab_size);
    if (st == OK) st = measure(s, tokens, o, &prompt, &generate, e);
    if (st == OK) st = describe(g, o, prompt, generate, *out, e);
    if (st != OK) {
        json_decref(*out);
        *out = NULL;
    }
    session_close(s);
    free(tokens);
    return st;
}

status bench_machine(int threads, const char *level, json_t **out, error *e) {
    machine_result r;
    TRY(machine_measure(threads, level, &r, e));
    *out = json_object();
    if (!*out) return fail(e, ERR_NOMEM, "memory is out");
    put_int(*out, "threads", threads);
    put(*out, "read_gbs", r.read_gbs);
    put(*out, "f32_gflops", r.f32_gflops);
    put(*out, "bf16_gflops", r.bf16_gflops);
    return OK;
}
