/* Public functions about text: tokenizers, chat templates, answers. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "api/internal.h"
#include "base/file.h"
#include "base/json.h"
#include "base/pool.h"
#include "data/corpus.h"
#include "text/chat_encode.h"

enum { CONFIG_LIMIT = 16 << 20 };

/* --- what a folder says ----------------------------------------------------------------------------------------- */

static void add_eos(folder_text *f, int64_t id) {
    for (int i = 0; i < f->n_eos; i++)
        if (f->eos[i] == id) return;
    if (f->n_eos < (int)(sizeof f->eos / sizeof *f->eos)) f->eos[f->n_eos++] = (int32_t)id;
}

static status add_all_eos(folder_text *f, const json_t *config, error *e) {
    int64_t ids[MOST_EOS];
    int n;
    TRY(config_read_eos(config, ids, &n, e));
    for (int i = 0; i < n; i++) add_eos(f, ids[i]);
    return OK;
}

/* A member of a folder's JSON file; a missing file is fine. */
static status read_optional(json_t **out, const char *folder, const char *name, error *e) {
    *out = NULL;
    char *path = path_join(folder, name);
    if (!path) return fail(e, ERR_NOMEM, "memory is out");
    status s = file_exists(path) ? json_read(out, path, CONFIG_LIMIT, e) : OK;
    free(path);
    return s;
}

static status read_generation_config(folder_text *f, const json_t *j, error *e) {
    bool sample;
    double temperature, top_p, min_p, repetition;
    int64_t top_k;
    if (!json_is_object(j)) return fail(e, ERR_FORMAT, "should be an object");
    TRY(json_get_bool(j, "do_sample", false, &sample, e));
    TRY(json_get_real(j, "temperature", 1, &temperature, e));
    TRY(json_get_real(j, "top_p", 1, &top_p, e));
    TRY(json_get_real(j, "min_p", 0, &min_p, e));
    TRY(json_get_real(j, "repetition_penalty", 1, &repetition, e));
    TRY(json_get_int(j, "top_k", 0, 0, INT32_MAX, &top_k, e));
    f->sampling = (sampling){.temperature = sample ? (float)temperature : 0,
                             .top_k = (int)top_k,
                             .top_p = top_p == 0 ? 1 : (float)top_p,
                             .min_p = (float)min_p,
                             .repetition_penalty = repetition == 0 ? 1 : (float)repetition};
    TRY(sampling_check(&f->sampling, e));
    return add_all_eos(f, j, e);
}

static status read_folder(folder_text *f, const char *folder, error *e) {
    json_t *config = NULL, *defaults = NULL;
    f->sampling = (sampling){.top_p = 1, .repetition_penalty = 1};
    status s = read_optional(&config, folder, "config.json", e);
    if (s == OK) s = read_optional(&defaults, folder, "generation_config.json", e);
    if (s == OK && defaults && (s = read_generation_config(f, defaults, e)) != OK)
        wrap(e, "%s/generation_config.json", folder);
    const char *type = json_string_value(json_object_get(config, "model_type"));
    if (s == OK && !(f->model_type = strdup(type ? type : ""))) s = fail(e, ERR_NOMEM, "memory is out");
    if (s == OK && config && (s = add_all_eos(f, config, e)) != OK) wrap(e, "%s/config.json", folder);
    json_decref(config);
    json_decref(defaults);
    char *path = s == OK ? path_join(folder, "tokenizer.json") : NULL;
    if (path && file_exists(path)) s = tokenizer_open(&f->tokenizer.t, folder, e);
    free(path);
    if (s != OK || !f->tokenizer.t) return s;
    if (tokenizer_eos(f->tokenizer.t) >= 0) add_eos(f, tokenizer_eos(f->tokenizer.t));
    const char *source = tokenizer_chat_template(f->tokenizer.t);
    error why;
    if (source && template_open(&f->template, source, strlen(source), &why) != OK &&
        !(f->template_error = strdup(why.text)))
        return fail(e, ERR_NOMEM, "memory is out");
    return OK;
}

status folder_text_open(folder_text *f, const char *folder, error *e) {
    *f = (folder_text){0};
    status s = read_folder(f, folder, e);
    if (s != OK) folder_text_close(f);
    return s;
}

void folder_text_close(folder_text *f) {
    tokenizer_close(f->tokenizer.t);
    template_close(f->template);
    free(f->template_error);
    free(f->model_type);
    *f = (folder_text){0};
}

/* The options with the defaults that every caller wants, and the texts of the tokens. */
static status chat_options(const folder_text *f, const char *options_json, json_t **out, error *e) {
    if (options_json) TRY(json_parse(out, options_json, strlen(options_json), "chat options", e));
    else *out = json_object();
    if (!*out) return fail(e, ERR_NOMEM, "memory is out");
    if (!json_is_object(*out)) return fail(e, ERR_ARG, "chat options should be a JSON object");
    TRY(chat_add_tokens(*out, f->tokenizer.t, e));
    bool open_end =
        json_is_true(json_object_get(*out, "continue_final_message")) || json_is_true(json_object_get(*out, "prefix"));
    if (!json_object_get(*out, "add_generation_prompt"))
        json_object_set_new(*out, "add_generation_prompt", json_boolean(!open_end));
    return OK;
}

/* A conversation as the callers give it. */
typedef struct request {
    json_t *messages, *options;
} request;

static void close_request(request *r) {
    json_decref(r->messages);
    json_decref(r->options);
}

static status open_request(request *r, const folder_text *f, const char *messages_json, const char *options_json,
                           error *e) {
    *r = (request){0};
    if (f->template_error)
        return fail(e, ERR_UNSUPPORTED, "the checkpoint's chat template cannot be used: %s", f->template_error);
    status s = json_parse(&r->messages, messages_json, strlen(messages_json), "messages", e);
    if (s == OK && !json_is_array(r->messages)) s = fail(e, ERR_ARG, "messages should be a JSON list");
    if (s == OK) s = chat_options(f, options_json, &r->options, e);
    if (s != OK) close_request(r);
    return s;
}

static chat_style style_of(const folder_text *f) {
    return (chat_style){f->template, f->model_type, folder_text_format(f), f->tokenizer.t};
}

status folder_text_render(const folder_text *f, const char *messages_json, const char *options_json, char **text,
                          error *e) {
    request r;
    str out = {0};
    TRY(open_request(&r, f, messages_json, options_json, e));
    const chat_style style = style_of(f);
    status s = chat_text(&out, &style, r.messages, r.options, e);
    if (s == OK && !(*text = str_take(&out))) s = fail(e, ERR_NOMEM, "memory is out");
    str_free(&out);
    close_request(&r);
    return s;
}

int hadal_chat_render(const hadal_model *m, const char *messages_json, const char *options_json, char **text,
                      hadal_error *e) {
    error why;
    *text = NULL;
    return api_result(folder_text_render(&m->text, messages_json, options_json, text, &why), &why, e);
}

int hadal_chat_render_folder(const char *folder, const char *messages_json, const char *options_json, char **text,
                             hadal_error *e) {
    error why;
    folder_text f;
    *text = NULL;
    status s = folder_text_open(&f, folder, &why);
    if (s == OK) {
        s = folder_text_render(&f, messages_json, options_json, text, &why);
        folder_text_close(&f);
    }
    return api_result(s, &why, e);
}

static status encode(const folder_text *f, const char *messages_json, const char *options_json, chat_prompt *out,
                     error *e) {
    request r;
    if (!f->tokenizer.t) return fail(e, ERR_UNSUPPORTED, "the model's folder has no tokenizer.json");
    TRY(open_request(&r, f, messages_json, options_json, e));
    const chat_style style = style_of(f);
    status s = chat_encode(out, &style, r.messages, r.options, e);
    close_request(&r);
    return s;
}

int hadal_chat_encode(const hadal_model *m, const char *messages_json, const char *options_json, int32_t **ids,
                      size_t *count, int *thinking, hadal_error *e) {
    error why;
    chat_prompt p = {0};
    status s = encode(&m->text, messages_json, options_json, &p, &why);
    *ids = p.ids;
    *count = p.count;
    if (thinking) *thinking = (int)p.thinking;
    return api_result(s, &why, e);
}

size_t hadal_chat_reasoning_ids(const hadal_model *m, const int32_t *ids, size_t count) {
    return m->text.tokenizer.t ? chat_reasoning_ids(m->text.tokenizer.t, ids, count) : 0;
}

int hadal_chat_is_thinking(const char *rendered) {
    static const char mark[] = "<think>";
    size_t n = strlen(rendered);
    while (n && isspace((unsigned char)rendered[n - 1])) n--;
    return n >= sizeof mark - 1 && memcmp(rendered + n - (sizeof mark - 1), mark, sizeof mark - 1) == 0;
}

/* --- tokens ----------------------------------------------------------------------------------------------------- */

int hadal_tokenizer_open(hadal_tokenizer **out, const char *folder, hadal_error *e) {
    error why;
    *out = NULL;
    hadal_tokenizer *h = calloc(1, sizeof *h);
    status s = h ? tokenizer_open(&h->t, folder, &why) : fail(&why, ERR_NOMEM, "memory is out");
    if (s == OK) *out = h;
    else free(h);
    return api_result(s, &why, e);
}

void hadal_tokenizer_close(hadal_tokenizer *h) {
    if (!h) return;
    tokenizer_close(h->t);
    free(h);
}

const hadal_tokenizer *hadal_model_tokenizer(const hadal_model *m) {
    return m->text.tokenizer.t ? &m->text.tokenizer : NULL;
}

int hadal_tokenize(const hadal_tokenizer *h, const char *text, size_t n, unsigned flags, int32_t **ids, size_t *count,
                   hadal_error *e) {
    error why;
    unsigned inner =
        (flags & HADAL_PARSE_SPECIAL ? TOK_PARSE_SPECIAL : 0) | (flags & HADAL_ADD_SPECIAL ? TOK_ADD_SPECIAL : 0);
    return api_result(tokenizer_encode(h->t, text, n, inner, ids, count, &why), &why, e);
}

int hadal_detokenize(const hadal_tokenizer *h, const int32_t *ids, size_t count, int skip_special, char **text,
                     size_t *n, hadal_error *e) {
    error why;
    str out = {0};
    tokenizer_decode(h->t, ids, count, skip_special != 0, &out);
    if (n) *n = out.n;
    *text = str_take(&out);
    return api_result(*text ? OK : fail(&why, ERR_NOMEM, "memory is out"), &why, e);
}

int hadal_tokenizer_size(const hadal_tokenizer *h) {
    return tokenizer_vocab_size(h->t);
}
int hadal_tokenizer_eos(const hadal_tokenizer *h) {
    return tokenizer_eos(h->t);
}

const char *hadal_token_bytes(const hadal_tokenizer *h, int32_t id, size_t *n) {
    return tokenizer_bytes(h->t, id, n);
}

int hadal_token_is_special(const hadal_tokenizer *h, int32_t id) {
    return tokenizer_is_special(h->t, id);
}

static json_t *word_or_null(const char *text) {
    return text ? json_string(text) : json_null();
}

int hadal_tokenizer_info(const hadal_tokenizer *h, char **json, hadal_error *e) {
    error why;
    const tokenizer *t = h->t;
    tokenizer_config c = tokenizer_configuration(t);
    json_t *limit = c.model_max_length ? json_integer(c.model_max_length) : json_null();
    json_t *j = json_pack("{s:o,s:i,s:o,s:o,s:o,s:o,s:o,s:b,s:b,s:o}", "tokenizer_class",
                          word_or_null(c.tokenizer_class), "vocab_size", (int)tokenizer_vocab_size(t),
                          "model_max_length", limit, "bos_token", word_or_null(tokenizer_bos_text(t)), "eos_token",
                          word_or_null(tokenizer_eos_text(t)), "pad_token", word_or_null(tokenizer_pad_text(t)),
                          "unk_token", word_or_null(c.unk_token), "add_bos_token", (int)c.add_bos, "add_eos_token",
                          (int)c.add_eos, "chat_template", word_or_null(tokenizer_chat_template(t)));
    return api_result(api_json(j, json, &why), &why, e);
}

int hadal_token_text(const hadal_tokenizer *h, int32_t id, char **text, hadal_error *e) {
    error why;
    size_t n;
    str out = {0};
    const char *bytes = tokenizer_bytes(h->t, id, &n);
    *text = NULL;
    if (!bytes) return api_result(fail(&why, ERR_ARG, "no token has the id %d", id), &why, e);
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)bytes[i];
        size_t length = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
        if (c >= 0x20 && c != 0x7f && length <= n - i && utf8_valid(bytes + i, length) == length) {
            str_add(&out, bytes + i, length);
            i += length;
        } else {
            if (c == '\n') str_puts(&out, "\\n");
            else str_addf(&out, "\\x%02x", c);
            i++;
        }
    }
    *text = str_take(&out);
    return api_result(*text ? OK : fail(&why, ERR_NOMEM, "memory is out"), &why, e);
}

/* --- answers ---------------------------------------------------------------------------------------------------- */

const answer_format *folder_text_format(const folder_text *f) {
    return answer_format_find(f->tokenizer.t ? tokenizer_chat_template(f->tokenizer.t) : NULL, f->model_type);
}

static json_t *text_or_null(const char *p, size_t n) {
    return p ? json_stringn(p, n) : json_null();
}

static status parse_answer(const folder_text *f, const char *text, int thinking, char **json, error *e) {
    answer a;
    TRY(answer_parse(&a, folder_text_format(f), (answer_options){(answer_thinking)thinking, true}, text, strlen(text),
                     e));
    json_t *calls = json_array(), *out = json_object();
    for (size_t i = 0; i < a.n_calls; i++)
        json_array_append_new(calls, json_pack("{s:s,s:s,s:b}", "name", a.calls[i].name, "arguments",
                                               a.calls[i].arguments, "valid", (int)a.calls[i].valid));
    json_object_set_new(out, "reasoning", text_or_null(a.reasoning, a.reasoning_n));
    json_object_set_new(out, "content", text_or_null(a.content, a.content_n));
    json_object_set_new(out, "tool_calls", calls);
    answer_free(&a);
    *json = json_dumps(out, 0);
    json_decref(out);
    return *json ? OK : fail(e, ERR_NOMEM, "memory is out");
}

int hadal_chat_parse(const hadal_model *m, const char *text, int thinking, char **json, hadal_error *e) {
    error why;
    *json = NULL;
    return api_result(parse_answer(&m->text, text, thinking, json, &why), &why, e);
}

/* --- corpora ---------------------------------------------------------------------------------------------------- */

static void on_note(void *arg, const char *line) {
    const hadal_corpus_options *o = arg;
    if (o->note) o->note(o->note_arg, line);
}

static int on_corpus_bytes(void *arg, uint64_t done, uint64_t total, const char *what) {
    const hadal_corpus_options *o = arg;
    return o->progress ? o->progress(o->progress_arg, done, total, what) : 0;
}

static status tokenize_corpus(const tokenizer *t, const char *const *files, int n, const char *out,
                              hadal_corpus_options *o, char **json, error *e) {
    corpus_options c = {.paths = files,
                        .n_paths = n,
                        .text_field = o->text_field,
                        .tokenizer = t,
                        .flags = (o->flags & HADAL_PARSE_SPECIAL ? TOK_PARSE_SPECIAL : 0u) |
                                 (o->flags & HADAL_ADD_SPECIAL ? TOK_ADD_SPECIAL : 0u),
                        .skip_damaged = o->skip_damaged != 0,
                        .threads = pool_size(o->threads),
                        .note = on_note,
                        .progress = on_corpus_bytes,
                        .arg = o};
    feed_result r;
    TRY(corpus_write(out, &c, &r, e));
    if (!json) return OK;
    return api_json(json_pack("{s:s,s:I,s:I,s:I,s:I}", "out", out, "documents", (json_int_t)r.documents, "tokens",
                              (json_int_t)r.tokens, "bytes", (json_int_t)r.bytes, "damaged", (json_int_t)r.damaged),
                    json, e);
}

int hadal_tokenize_corpus(const hadal_tokenizer *t, const char *const *files, int n_files, const char *out,
                          const hadal_corpus_options *o, char **json, hadal_error *e) {
    error why;
    hadal_corpus_options options = {0};
    if (json) *json = NULL;
    api_options(&options, sizeof options, o);
    if (!t || !files || n_files < 1 || !out)
        return api_result(fail(&why, ERR_ARG, "a corpus needs a tokenizer, files and a place to write to"), &why, e);
    return api_result(tokenize_corpus(t->t, files, n_files, out, &options, json, &why), &why, e);
}
