#include "server/params.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COMPLETION_TOKENS = 16, MAX_TOP = 20 }; /* the first is the OpenAI API's default of /v1/completions */

status mistaken(mistake *m, int http, const char *param, const char *fmt, ...) {
    va_list ap;
    *m = (mistake){.http = http};
    snprintf(m->param, sizeof m->param, "%s", param ? param : "");
    va_start(ap, fmt);
    vsnprintf(m->text, sizeof m->text, fmt, ap);
    va_end(ap);
    return ERR_ARG;
}

const json_t *param(const json_t *o, const char *name) {
    const json_t *v = json_object_get(o, name);
    return json_is_null(v) ? NULL : v;
}

status param_bool(const json_t *o, const char *name, bool fallback, bool *out, mistake *m) {
    const json_t *v = param(o, name);
    *out = v ? json_is_true(v) : fallback;
    return !v || json_is_boolean(v) ? OK : mistaken(m, 400, name, "%s should be true or false", name);
}

status param_int(const json_t *o, const char *name, int64_t fallback, int64_t least, int64_t most, int64_t *out,
                 mistake *m) {
    const json_t *v = param(o, name);
    *out = fallback;
    if (!v) return OK;
    double r = json_is_real(v) ? json_real_value(v) : 0.5;
    if (json_is_integer(v)) *out = json_integer_value(v);
    else if (r == floor(r) && fabs(r) < 9e15) *out = (int64_t)r; /* 1.0 is an integer to some writers */
    else return mistaken(m, 400, name, "%s should be an integer", name);
    if (*out >= least && *out <= most) return OK;
    return mistaken(m, 422, name, "%s is %lld, it should be between %lld and %lld", name, (long long)*out,
                    (long long)least, (long long)most);
}

/* ---- numbers ---- */

static const struct {
    const char *name;
    double least, most;
    bool above; /* the least itself is not allowed */
    size_t at;
} reals[] = {{"temperature", 0, 2, false, offsetof(hadal_sampling, temperature)},
             {"top_p", 0, 1, true, offsetof(hadal_sampling, top_p)},
             {"min_p", 0, 1, false, offsetof(hadal_sampling, min_p)},
             {"presence_penalty", -2, 2, false, offsetof(hadal_sampling, presence_penalty)},
             {"frequency_penalty", -2, 2, false, offsetof(hadal_sampling, frequency_penalty)},
             {"repetition_penalty", 0, 2, true, offsetof(hadal_sampling, repetition_penalty)}};

static status read_reals(params *p, const json_t *body, mistake *m) {
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        const json_t *v = param(body, reals[i].name);
        if (!v) continue;
        if (!json_is_number(v)) return mistaken(m, 400, reals[i].name, "%s should be a number", reals[i].name);
        double x = json_number_value(v);
        if (!(x >= reals[i].least && x <= reals[i].most) || (reals[i].above && x == reals[i].least))
            return mistaken(m, 422, reals[i].name, "%s is %g, it should be %s %g and at most %g", reals[i].name, x,
                            reals[i].above ? "above" : "at least", reals[i].least, reals[i].most);
        float f = (float)x;
        if (reals[i].above && f < FLT_MIN) f = FLT_MIN; /* 0 would mean something else */
        memcpy((char *)&p->sampling + reals[i].at, &f, sizeof f);
    }
    return OK;
}

static status read_length(params *p, const json_t *body, endpoint which, mistake *m) {
    bool chat = which == ENDPOINT_CHAT;
    const char *name = param(body, "max_completion_tokens") ? "max_completion_tokens" : "max_tokens";
    int64_t n;
    TRY(param_int(body, name, chat ? 0 : COMPLETION_TOKENS, chat || !p->echo, INT_MAX, &n, m));
    p->sampling.max_tokens = n || chat ? (int)n : -1;
    return OK;
}

static status read_counts(params *p, const json_t *body, const params_limits *l, mistake *m) {
    int64_t n, best, top_k, seed;
    TRY(param_int(body, "n", 1, 1, l->max_samples, &n, m));
    TRY(param_int(body, "best_of", n, 1, INT_MAX, &best, m));
    if (best != n) return mistaken(m, 400, "best_of", "best_of is only supported when it equals n");
    TRY(param_int(body, "top_k", p->sampling.top_k, -1, INT_MAX, &top_k, m));
    TRY(param_int(body, "seed", 0, INT64_MIN, INT64_MAX, &seed, m));
    p->samples = (int)n;
    p->sampling.top_k = top_k < 0 ? 0 : (int)top_k;
    p->seeded = param(body, "seed") != NULL;
    p->sampling.seed = (uint64_t)seed;
    return OK;
}

/* ---- lists ---- */

static status add_stop(params *p, const json_t *v, mistake *m) {
    const char *s = json_string_value(v);
    if (!s) return mistaken(m, 400, "stop", "stop should be a text or a list of texts");
    if (strlen(s) != json_string_length(v)) return mistaken(m, 400, "stop", "a stop text holds a zero byte");
    if (!*s) return mistaken(m, 422, "stop", "a stop text is empty");
    p->stop[p->sampling.n_stop++] = s;
    return OK;
}

static status read_stop(params *p, const json_t *body, mistake *m) {
    const json_t *stop = param(body, "stop");
    p->sampling.stop = p->stop;
    p->sampling.n_stop = 0;
    if (!stop) return OK;
    if (!json_is_array(stop)) return add_stop(p, stop, m);
    if (json_array_size(stop) > MAX_STOPS)
        return mistaken(m, 422, "stop", "there are %zu stop texts, at most %d are possible", json_array_size(stop),
                        MAX_STOPS);
    for (size_t i = 0; i < json_array_size(stop); i++) TRY(add_stop(p, json_array_get(stop, i), m));
    return OK;
}

static status add_bias(params *p, const char *key, const json_t *v, int vocab, mistake *m) {
    static const char name[] = "logit_bias";
    char *end;
    long id = strtol(key, &end, 10);
    if (*end || end == key || strspn(key, "0123456789") != strlen(key))
        return mistaken(m, 400, name, "logit_bias: \"%.40s\" is not a token id", key);
    if (id >= vocab)
        return mistaken(m, 422, name, "logit_bias: there is no token %.40s, ids end at %d", key, vocab - 1);
    if (!json_is_number(v)) return mistaken(m, 400, name, "logit_bias: the bias of token %ld should be a number", id);
    double bias = json_number_value(v);
    if (!(bias >= -100 && bias <= 100))
        return mistaken(m, 422, name, "logit_bias: the bias of token %ld is %g, it should be between -100 and 100", id,
                        bias);
    p->bias[p->n_bias++] = (hadal_bias){(int32_t)id, (float)bias};
    return OK;
}

static status read_bias(params *p, const json_t *body, int vocab, mistake *m) {
    json_t *all = (json_t *)(uintptr_t)param(body, "logit_bias"), *v;
    const char *key;
    if (!all) return OK;
    size_t n = json_object_size(all);
    if (!json_is_object(all))
        return mistaken(m, 400, "logit_bias", "logit_bias should be an object of token ids and numbers");
    if (n > MAX_BIASES)
        return mistaken(m, 422, "logit_bias", "logit_bias has %zu tokens, at most %d are possible", n, MAX_BIASES);
    if (n && !(p->bias = malloc(n * sizeof *p->bias))) return mistaken(m, 500, NULL, "memory is out");
    json_object_foreach(all, key, v) TRY(add_bias(p, key, v, vocab, m));
    return OK;
}

/* ---- the rest ---- */

/* chat: logprobs says whether, top_logprobs how many; completions: logprobs is the number. */
static status read_logprobs(params *p, const json_t *body, endpoint which, mistake *m) {
    bool wanted = param(body, "logprobs") != NULL;
    int64_t top;
    if (which == ENDPOINT_CHAT) {
        TRY(param_bool(body, "logprobs", false, &wanted, m));
        TRY(param_int(body, "top_logprobs", 0, 0, MAX_TOP, &top, m));
        if (top && !wanted) return mistaken(m, 400, "top_logprobs", "top_logprobs needs logprobs: true");
    } else TRY(param_int(body, "logprobs", 0, 0, MAX_TOP, &top, m));
    p->sampling.logprobs = !wanted ? 0 : top ? (int)top : -1;
    return OK;
}

static status read_stream(params *p, const json_t *body, mistake *m) {
    const json_t *o = param(body, "stream_options");
    TRY(param_bool(body, "stream", false, &p->stream, m));
    if (o && !json_is_object(o)) return mistaken(m, 400, "stream_options", "stream_options should be an object");
    TRY(param_bool(o, "include_usage", false, &p->include_usage, m));
    return param_bool(o, "continuous_usage_stats", false, &p->continuous_usage, m);
}

static status read_switches(params *p, const json_t *body, mistake *m) {
    bool ignore_eos, skip;
    TRY(param_bool(body, "ignore_eos", false, &ignore_eos, m));
    TRY(param_bool(body, "skip_special_tokens", true, &skip, m));
    if (!skip) return mistaken(m, 400, "skip_special_tokens", "answers come without special tokens");
    p->sampling.ignore_eos = ignore_eos;
    return OK;
}

static status read_completion(params *p, const json_t *body, mistake *m) {
    const json_t *suffix = param(body, "suffix");
    TRY(param_bool(body, "echo", false, &p->echo, m));
    TRY(param_bool(body, "add_special_tokens", true, &p->add_special, m));
    TRY(param_bool(body, "parse_special", false, &p->parse_special, m));
    TRY(param_bool(body, "return_token_ids", false, &p->token_ids, m));
    if (suffix && !json_is_string(suffix)) return mistaken(m, 400, "suffix", "suffix should be a text");
    p->suffix_n = json_string_length(suffix);
    p->suffix = p->suffix_n ? json_string_value(suffix) : NULL;
    return OK;
}

static status read_model(const json_t *body, const params_limits *l, mistake *m) {
    const json_t *v = param(body, "model");
    const char *name = json_string_value(v);
    if (!v) return OK;
    if (!name) return mistaken(m, 400, "model", "model should be a text");
    if (!strcmp(name, l->model_id) || (l->folder && !strcmp(name, l->folder))) return OK;
    mistaken(m, 404, "model", "there is no model \"%.100s\" here, only \"%s\"", name, l->model_id);
    m->code = "model_not_found";
    return ERR_ARG;
}

status params_read(params *p, const json_t *body, endpoint which, const params_limits *l, mistake *m) {
    *p = (params){.sampling = l->defaults};
    /* without a word of the checkpoint answers are drawn as the OpenAI API's are */
    if (p->sampling.temperature == 0) p->sampling.temperature = 1;
    if (!json_is_object(body)) return mistaken(m, 400, NULL, "the body should be a JSON object");
    TRY(read_model(body, l, m));
    if (which == ENDPOINT_COMPLETIONS) TRY(read_completion(p, body, m));
    TRY(read_reals(p, body, m));
    TRY(read_length(p, body, which, m));
    TRY(read_counts(p, body, l, m));
    TRY(read_stop(p, body, m));
    TRY(read_logprobs(p, body, which, m));
    TRY(read_stream(p, body, m));
    TRY(read_switches(p, body, m));
    return read_bias(p, body, l->vocab, m);
}

void params_free(params *p) {
    free(p->bias);
    *p = (params){0};
}
