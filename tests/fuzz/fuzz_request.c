/* libFuzzer target: the body of a chat completion or of a completion, up to where a model is needed. What is accepted
 * is within its limits, what is refused is the client's mistake, and both hold for remembered tool calls, too. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "server/chat_request.h"
#include "server/prompts.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

enum { VOCAB = 1000, SAMPLES = 8, PROMPTS = 4 };

static void must(bool good) {
    if (!good) abort();
}

static void is_mistake(const mistake *m) {
    must(m->http == 400 || m->http == 404 || m->http == 422);
    must(*m->text && strlen(m->text) < sizeof m->text && strlen(m->param) < sizeof m->param);
}

static void is_within(const params *p) {
    const hadal_sampling *s = &p->sampling;
    must(s->temperature >= 0 && s->temperature <= 2 && s->top_p > 0 && s->top_p <= 1);
    must(s->min_p >= 0 && s->min_p <= 1 && s->repetition_penalty > 0 && s->repetition_penalty <= 2);
    must(s->presence_penalty >= -2 && s->presence_penalty <= 2);
    must(s->frequency_penalty >= -2 && s->frequency_penalty <= 2);
    must(s->top_k >= 0 && s->max_tokens >= -1 && s->logprobs >= -1 && s->logprobs <= 20);
    must(s->n_stop >= 0 && s->n_stop <= MAX_STOPS && p->samples >= 1 && p->samples <= SAMPLES);
    for (int i = 0; i < s->n_stop; i++) must(*s->stop[i]);
    must(p->n_bias >= 0 && p->n_bias <= MAX_BIASES);
    for (int i = 0; i < p->n_bias; i++) {
        must(p->bias[i].id >= 0 && p->bias[i].id < VOCAB);
        must(p->bias[i].bias >= -100 && p->bias[i].bias <= 100);
    }
}

static void read_params(const json_t *body, endpoint which) {
    const params_limits l = {.model_id = "m",
                             .vocab = VOCAB,
                             .max_samples = SAMPLES,
                             .defaults = {.temperature = 0.6F, .top_p = 0.95F, .repetition_penalty = 1}};
    params p;
    mistake m;
    if (params_read(&p, body, which, &l, &m) == OK) is_within(&p);
    else is_mistake(&m);
    params_free(&p);
}

/* Reads the conversation twice: what was remembered of the first time comes back in the second. */
static void read_chat(const json_t *body) {
    call_memory *c;
    chat_request r;
    mistake m;
    error e;
    must(call_memory_open(&c, 1000, &e) == OK);
    for (int i = 0; i < 2; i++) {
        if (chat_request_read(&r, body, c, &m) != OK) is_mistake(&m);
        else
            for (size_t k = 0; k < json_array_size(r.messages); k++) {
                const json_t *message = json_array_get(r.messages, k), *calls = json_object_get(message, "tool_calls");
                call_key *key = call_key_open(calls, json_object_get(message, "content"));
                if (key && i) must(json_array_size(json_object_get(message, "token_ids")) == 2);
                else if (key) call_memory_add(c, key->texts, key->n, (const int32_t[]){1, 2}, 2);
                call_key_free(key);
            }
        chat_request_free(&r);
    }
    call_memory_close(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    json_t *body;
    mistake m;
    if (json_cost((const char *)p, n) > 1 << 20 || json_parse(&body, (const char *)p, n, "body", NULL) != OK) return 0;
    read_params(body, ENDPOINT_CHAT);
    read_params(body, ENDPOINT_COMPLETIONS);
    if (json_is_object(body)) read_chat(body);
    if (prompts_check(body, PROMPTS, VOCAB, &m) != OK) is_mistake(&m);
    json_decref(body);
    return 0;
}
