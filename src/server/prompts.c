#include "server/prompts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Fill in the middle (DeepSeek-Coder, DeepSeek-V2 and later): what is before, what is behind, then the middle. */
static const char *const fim[] = {"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"};

/* ---- types ---- */

static status check_ids(const char *name, const json_t *list, int vocab, mistake *m) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v)) return mistaken(m, 400, name, "%s: element %zu should be a token id", name, i);
        if (json_integer_value(v) < 0 || json_integer_value(v) >= vocab)
            return mistaken(m, 422, name, "%s: there is no token %lld, ids end at %d", name,
                            (long long)json_integer_value(v), vocab - 1);
    }
    return json_array_size(list) ? OK : mistaken(m, 400, name, "%s is empty", name);
}

static bool is_list_of_prompts(const json_t *v) {
    const json_t *first = json_array_get(v, 0);
    return json_is_array(v) && !json_is_number(first);
}

static status check_prompt(const char *name, const json_t *v, int vocab, mistake *m) {
    if (json_is_string(v)) return OK;
    if (json_is_array(v)) return check_ids(name, v, vocab, m);
    return mistaken(m, 400, name, "%s should be a text or a list of token ids", name);
}

static void name_of(char name[48], size_t i) {
    snprintf(name, 48, "prompt[%zu]", i);
}

status prompts_check(const json_t *body, size_t most, int vocab, mistake *m) {
    const json_t *v = param(body, "prompt");
    if (!v) return mistaken(m, 400, "prompt", "prompt is missing");
    if (!is_list_of_prompts(v)) return check_prompt("prompt", v, vocab, m);
    size_t n = json_array_size(v);
    if (!n) return mistaken(m, 400, "prompt", "prompt is empty");
    if (n > most)
        return mistaken(m, 422, "prompt", "there are %zu prompts, at most %zu are possible at once with this n", n,
                        most);
    for (size_t i = 0; i < n; i++) {
        char name[48];
        name_of(name, i);
        TRY(check_prompt(name, json_array_get(v, i), vocab, m));
    }
    return OK;
}

/* ---- ids ---- */

static status no_memory(mistake *m) {
    return mistaken(m, 500, NULL, "memory is out");
}

/* Adds the ids of a text. */
static status add_text(prompt *p, const hadal_tokenizer *t, const char *text, size_t n, unsigned flags, mistake *m) {
    int32_t *ids;
    size_t count;
    hadal_error e;
    if (hadal_tokenize(t, text, n, flags, &ids, &count, &e)) return mistaken(m, 400, "prompt", "%s", e.text);
    int32_t *all = realloc(p->ids, (p->n + count + 1) * sizeof *all);
    if (all) {
        p->ids = all;
        if (count) memcpy(all + p->n, ids, count * sizeof *ids);
        p->n += count;
    }
    hadal_free(ids);
    return all ? OK : no_memory(m);
}

/* A control token of the vocabulary, alone or (add) with what the tokenizer puts before a text. */
static status add_control(prompt *p, const hadal_tokenizer *t, const char *text, bool add, mistake *m) {
    size_t before = p->n, n = 0;
    TRY(add_text(p, t, text, strlen(text), HADAL_PARSE_SPECIAL | (add ? HADAL_ADD_SPECIAL : 0), m));
    for (size_t i = before; i < p->n; i++) {
        const char *bytes = hadal_token_bytes(t, p->ids[i], &n);
        if (bytes && n == strlen(text) && !memcmp(bytes, text, n)) return OK;
    }
    return mistaken(m, 400, "suffix", "this model cannot fill in the middle: its vocabulary has no %s", text);
}

static status add_middle(prompt *p, const hadal_tokenizer *t, const params *how, const json_t *v, unsigned parse,
                         mistake *m) {
    TRY(add_control(p, t, fim[0], how->add_special, m));
    TRY(add_text(p, t, json_string_value(v), json_string_length(v), parse, m));
    TRY(add_control(p, t, fim[1], false, m));
    TRY(add_text(p, t, how->suffix, how->suffix_n, parse, m));
    return add_control(p, t, fim[2], false, m);
}

static status copy_ids(prompt *p, const hadal_tokenizer *t, const json_t *list, mistake *m) {
    hadal_error e;
    char *text;
    p->n = json_array_size(list);
    if (!(p->ids = malloc((p->n + 1) * sizeof *p->ids))) return no_memory(m);
    for (size_t i = 0; i < p->n; i++) p->ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    if (hadal_detokenize(t, p->ids, p->n, 1, &text, &p->echo_n, &e)) return no_memory(m);
    p->echo = text;
    return OK;
}

static status read_prompt(prompt *p, const hadal_tokenizer *t, const params *how, const json_t *v, mistake *m) {
    unsigned parse = how->parse_special ? HADAL_PARSE_SPECIAL : 0;
    if (!json_is_string(v)) {
        if (how->suffix) return mistaken(m, 400, "suffix", "suffix needs a prompt that is a text");
        return copy_ids(p, t, v, m);
    }
    p->echo_n = json_string_length(v);
    if (!(p->echo = malloc(p->echo_n + 1))) return no_memory(m);
    memcpy(p->echo, json_string_value(v), p->echo_n + 1);
    if (how->suffix) return add_middle(p, t, how, v, parse, m);
    return add_text(p, t, json_string_value(v), p->echo_n, parse | (how->add_special ? HADAL_ADD_SPECIAL : 0), m);
}

static status check_length(const prompt *p, const char *name, int context, mistake *m) {
    if (!p->n) return mistaken(m, 400, name, "%s is empty", name);
    if (p->n <= (size_t)context) return OK;
    mistaken(m, 400, name, "%s has %zu tokens, the context has room for %d", name, p->n, context);
    m->code = "context_length_exceeded";
    return ERR_ARG;
}

status prompts_read(prompts *out, const json_t *body, const params *p, const hadal_tokenizer *t, size_t most, int vocab,
                    int context, mistake *m) {
    const json_t *v = json_object_get(body, "prompt");
    *out = (prompts){0};
    TRY(prompts_check(body, most, vocab, m));
    bool several = is_list_of_prompts(v);
    size_t n = several ? json_array_size(v) : 1;
    if (!(out->list = calloc(n, sizeof *out->list))) return no_memory(m);
    out->n = n;
    for (size_t i = 0; i < n; i++) {
        char name[48] = "prompt";
        if (several) name_of(name, i);
        TRY(read_prompt(&out->list[i], t, p, several ? json_array_get(v, i) : v, m));
        TRY(check_length(&out->list[i], name, context, m));
    }
    return OK;
}

void prompts_free(prompts *p) {
    for (size_t i = 0; i < p->n; i++) {
        free(p->list[i].ids);
        hadal_free(p->list[i].echo);
    }
    free(p->list);
    *p = (prompts){0};
}
