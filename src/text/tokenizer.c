/* tokenizer.json and the files beside it, and the way of a text through its parts:
 *
 *   text -> added tokens that are looked for as they are -> normalizer -> added tokens in normalized text
 *        -> words (pretokenize.c) -> ids (bpe.c)
 *
 * The reference is the Hugging Face tokenizers library; for BOS and EOS transformers' LlamaTokenizerFast, the class
 * that DeepSeek's folders name. One difference is meant: a byte that has no token is an error here and silence there.
 */
#define _GNU_SOURCE /* memmem */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include "base/arena.h"
#include "base/file.h"
#include "base/json.h"
#include "text/added.h"
#include "text/bpe.h"
#include "text/pretokenize.h"

enum { MAX_FILE = 64 << 20, MAX_SMALL_FILE = 16 << 20, MAX_DEPTH = 8, MAX_AFFIX = 16 };
static const size_t max_text = (size_t)1 << 30; /* bpe.c counts bytes of a word in int32 */

/* Ids put before or after every text. */
typedef struct affix {
    int32_t id[MAX_AFFIX];
    int n;
} affix;

/* A token that the configuration gives a role. */
typedef struct role {
    const char *text; /* NULL: none */
    int32_t id;       /* -1: none, or not in the vocabulary */
} role;

struct tokenizer {
    vocab v;
    bpe *b;
    pretokenizer *words;
    bool to_nfc;
    added_set raw, normalized; /* added tokens to be found in the text as it is, and after normalization */
    affix before, after;
    role bos, eos, pad, unk;
    const char *class_name;    /* of the Hugging Face library; NULL: not said */
    int64_t model_max_length;  /* 0: not said */
    const char *chat_template; /* NULL: none */
    arena *memory;             /* texts */
};

/* The files of a folder; what is absent is NULL. */
typedef struct sources {
    json_t *main, *config, *special;
    str chat_template;
} sources;

/* ---- Opening ---- */

static status keep_text(tokenizer *t, const char **out, const char *text, size_t n, error *e) {
    *out = arena_copy(t->memory, text, n);
    return *out ? OK : fail(e, ERR_NOMEM, "memory is out");
}

/* Only form C, alone or in sequences. */
static status read_normalizer(tokenizer *t, const json_t *spec, int depth, error *e) {
    const char *type;
    if (!spec || json_is_null(spec)) return OK;
    TRY(json_get_string(spec, "type", "", &type, e));
    if (strcmp(type, "NFC") == 0) t->to_nfc = true;
    else if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(spec, "normalizers"), *one;
        size_t i;
        if (!json_is_array(list)) return fail(e, ERR_FORMAT, "normalizer: \"normalizers\" should be a list");
        if (depth == MAX_DEPTH) return fail(e, ERR_UNSUPPORTED, "normalizer: Sequence nested too deep");
        json_array_foreach(list, i, one) TRY(read_normalizer(t, one, depth + 1, e));
    } else return fail(e, ERR_UNSUPPORTED, "normalizer of type \"%.60s\" is not supported", type);
    return OK;
}

static status check_decoder(const json_t *spec, error *e) {
    const char *type;
    TRY(json_get_string(spec, "type", "", &type, e));
    if (strcmp(type, "ByteLevel") == 0) return OK;
    return fail(e, ERR_UNSUPPORTED, "decoder of type \"%.60s\" is not supported, only ByteLevel", type);
}

/* `spec`: an entry of added_tokens, or a role's value in tokenizer_config.json; `normalized` when it does not say. */
static status add_to_sets(tokenizer *t, int32_t id, const json_t *spec, bool normalized, error *e) {
    const token *k = &t->v.token[id];
    added_token a = {.text = k->text, .n = k->text_n, .id = id, .special = k->special};
    TRY(json_get_bool(spec, "single_word", false, &a.single_word, e));
    TRY(json_get_bool(spec, "lstrip", false, &a.lstrip, e));
    TRY(json_get_bool(spec, "rstrip", false, &a.rstrip, e));
    TRY(json_get_bool(spec, "normalized", normalized, &normalized, e));
    if (!a.n) return OK; /* an empty text is found nowhere */
    if (normalized && t->to_nfc && !text_is_nfc(a.text, a.n)) {
        str form = {0};
        status s = nfc(&form, a.text, a.n, e);
        a.n = form.n;
        if (s == OK) s = keep_text(t, &a.text, form.p, form.n, e);
        str_free(&form);
        TRY(s);
    }
    return added_add(normalized ? &t->normalized : &t->raw, &a, e);
}

static status read_added(tokenizer *t, const json_t *list, error *e) {
    size_t i;
    const json_t *one;
    json_array_foreach(list, i, one) {
        int32_t id = (int32_t)json_integer_value(json_object_get(one, "id")); /* vocab_open has checked it */
        status s = add_to_sets(t, id, one, !t->v.token[id].special, e);
        if (s != OK) return wrap(e, "added_tokens: entry %zu", i);
    }
    return OK;
}

/* bos_token and its like: a text, or an object with "content". A token of the vocabulary that has a role and is not an
 * added token becomes a special one, as in transformers. */
static status read_role(tokenizer *t, const sources *s, const char *key, role *r, error *e) {
    *r = (role){NULL, -1};
    const json_t *value = json_object_get(s->config, key);
    if (!value || json_is_null(value)) value = json_object_get(s->special, key);
    const json_t *text = json_is_object(value) ? json_object_get(value, "content") : value;
    if (!text || json_is_null(text)) return OK;
    if (!json_is_string(text)) return fail(e, ERR_FORMAT, "\"%s\" should be a string or hold \"content\"", key);
    TRY(keep_text(t, &r->text, json_string_value(text), json_string_length(text), e));
    r->id = vocab_find(&t->v, json_string_value(text), json_string_length(text));
    if (r->id < 0 || t->v.token[r->id].added) return OK;
    t->v.token[r->id].added = t->v.token[r->id].special = true;
    return add_to_sets(t, r->id, value, false, e);
}

static status affix_add(affix *a, int64_t id, const tokenizer *t, error *e) {
    if (id < 0 || id >= t->v.size || !tokenizer_token_text(t, (int32_t)id)) /* ids may have holes */
        return fail(e, ERR_FORMAT, "post_processor: no token has id %lld", (long long)id);
    if (a->n == MAX_AFFIX) return fail(e, ERR_UNSUPPORTED, "post_processor: more than %d tokens at one end", MAX_AFFIX);
    a->id[a->n++] = (int32_t)id;
    return OK;
}

/* "single": special tokens around one sequence. */
static status read_template(tokenizer *t, const json_t *spec, error *e) {
    const json_t *single = json_object_get(spec, "single"), *tokens = json_object_get(spec, "special_tokens"), *one;
    size_t i;
    affix *to = &t->before;
    if (!json_is_array(single)) return fail(e, ERR_FORMAT, "post_processor: \"single\" should be a list");
    if (t->before.n + t->after.n) return fail(e, ERR_UNSUPPORTED, "post_processor: two templates");
    json_array_foreach(single, i, one) {
        if (json_object_get(one, "Sequence")) {
            if (to == &t->after) return fail(e, ERR_UNSUPPORTED, "post_processor: the text stands twice in \"single\"");
            to = &t->after;
            continue;
        }
        const char *name = json_string_value(json_object_get(json_object_get(one, "SpecialToken"), "id"));
        const json_t *ids = name ? json_object_get(json_object_get(tokens, name), "ids") : NULL, *id;
        size_t k;
        if (!json_is_array(ids)) return fail(e, ERR_FORMAT, "post_processor: entry %zu of \"single\" has no ids", i);
        json_array_foreach(ids, k, id) TRY(affix_add(to, json_is_integer(id) ? json_integer_value(id) : -1, t, e));
    }
    return OK;
}

static status read_post_processor(tokenizer *t, const json_t *spec, int depth, error *e) {
    const char *type;
    if (!spec || json_is_null(spec)) return OK;
    TRY(json_get_string(spec, "type", "", &type, e));
    if (strcmp(type, "ByteLevel") == 0) return OK; /* it moves offsets, not ids */
    if (strcmp(type, "TemplateProcessing") == 0) return read_template(t, spec, e);
    if (strcmp(type, "Sequence") != 0)
        return fail(e, ERR_UNSUPPORTED, "post_processor of type \"%.60s\" is not supported", type);
    const json_t *list = json_object_get(spec, "processors"), *one;
    size_t i;
    if (!json_is_array(list)) return fail(e, ERR_FORMAT, "post_processor: \"processors\" should be a list");
    if (depth == MAX_DEPTH) return fail(e, ERR_UNSUPPORTED, "post_processor: Sequence nested too deep");
    json_array_foreach(list, i, one) TRY(read_post_processor(t, one, depth + 1, e));
    return OK;
}

/* add_bos_token or add_eos_token, when one of them is there, take the place of the post-processor. */
static status read_affixes(tokenizer *t, const sources *s, error *e) {
    bool bos, eos;
    if (!json_object_get(s->config, "add_bos_token") && !json_object_get(s->config, "add_eos_token"))
        return read_post_processor(t, json_object_get(s->main, "post_processor"), 0, e);
    TRY(json_get_bool(s->config, "add_bos_token", false, &bos, e));
    TRY(json_get_bool(s->config, "add_eos_token", false, &eos, e));
    if (bos && t->bos.id >= 0) TRY(affix_add(&t->before, t->bos.id, t, e));
    if (eos && t->eos.id >= 0) TRY(affix_add(&t->after, t->eos.id, t, e));
    return OK;
}

/* chat_template.jinja goes before tokenizer_config.json, where it is a text or a list of {name, template}. */
static status read_chat_template(tokenizer *t, const sources *s, error *e) {
    if (s->chat_template.p) return keep_text(t, &t->chat_template, s->chat_template.p, s->chat_template.n, e);
    const json_t *value = json_object_get(s->config, "chat_template"), *one;
    const char *name;
    size_t i;
    if (json_is_array(value)) {
        const json_t *list = value;
        value = NULL;
        json_array_foreach(list, i, one) {
            TRY(json_get_string(one, "name", "", &name, e));
            if (strcmp(name, "default") == 0) value = json_object_get(one, "template");
        }
    }
    if (!value || json_is_null(value)) return OK;
    if (!json_is_string(value)) return fail(e, ERR_FORMAT, "\"chat_template\" should be a string or a list");
    return keep_text(t, &t->chat_template, json_string_value(value), json_string_length(value), e);
}

/* What the configuration says of itself. Lengths beyond any text (transformers writes 10^30 for none) are none. */
static status read_description(tokenizer *t, const sources *s, error *e) {
    const json_t *name = json_object_get(s->config, "tokenizer_class");
    const json_t *length = json_object_get(s->config, "model_max_length");
    if (json_is_integer(length) && json_integer_value(length) > 0) t->model_max_length = json_integer_value(length);
    return json_is_string(name) ? keep_text(t, &t->class_name, json_string_value(name), json_string_length(name), e)
                                : OK;
}

static status read_all(tokenizer *t, const sources *s, error *e) {
    const json_t *model = json_object_get(s->main, "model"), *added = json_object_get(s->main, "added_tokens");
    if (!json_is_object(model)) return fail(e, ERR_FORMAT, "there is no \"model\"");
    if (s->config && !json_is_object(s->config)) return fail(e, ERR_FORMAT, "tokenizer_config.json is not an object");
    TRY(check_decoder(json_object_get(s->main, "decoder"), e));
    TRY(read_normalizer(t, json_object_get(s->main, "normalizer"), 0, e));
    TRY(pretokenizer_open(&t->words, json_object_get(s->main, "pre_tokenizer"), e));
    TRY(vocab_open(&t->v, json_object_get(model, "vocab"), added, e));
    TRY(read_added(t, added, e));
    TRY(read_role(t, s, "bos_token", &t->bos, e));
    TRY(read_role(t, s, "eos_token", &t->eos, e));
    TRY(read_role(t, s, "pad_token", &t->pad, e));
    TRY(read_role(t, s, "unk_token", &t->unk, e));
    added_sort(&t->raw);
    added_sort(&t->normalized);
    TRY(bpe_open(&t->b, &t->v, model, e)); /* after the roles: it leaves out special tokens */
    TRY(read_affixes(t, s, e));
    TRY(read_description(t, s, e));
    return read_chat_template(t, s, e);
}

static status build(tokenizer **out, const sources *s, error *e) {
    tokenizer *t = calloc(1, sizeof *t);
    if (t) t->memory = arena_open(4096);
    if (!t || !t->memory) {
        tokenizer_close(t);
        return fail(e, ERR_NOMEM, "memory is out");
    }
    status st = read_all(t, s, e);
    if (st == OK) *out = t;
    else tokenizer_close(t);
    return st;
}

static status read_optional(json_t **out, const char *folder, const char *name, error *e) {
    char *path = path_join(folder, name);
    if (!path) return fail(e, ERR_NOMEM, "memory is out");
    status s = file_exists(path) ? json_read(out, path, MAX_SMALL_FILE, e) : OK;
    free(path);
    return s;
}

static status read_files(sources *s, const char *folder, error *e) {
    TRY(read_optional(&s->config, folder, "tokenizer_config.json", e));
    TRY(read_optional(&s->special, folder, "special_tokens_map.json", e));
    char *path = path_join(folder, "chat_template.jinja");
    if (!path) return fail(e, ERR_NOMEM, "memory is out");
    status st = file_exists(path) ? file_read(&s->chat_template, path, MAX_SMALL_FILE, e) : OK;
    free(path);
    return st;
}

static void close_sources(sources *s) {
    json_decref(s->main);
    json_decref(s->config);
    json_decref(s->special);
    str_free(&s->chat_template);
}

status tokenizer_open(tokenizer **out, const char *folder, error *e) {
    sources s = {0};
    *out = NULL;
    char *path = path_join(folder, "tokenizer.json");
    if (!path) return fail(e, ERR_NOMEM, "memory is out");
    status st = json_read(&s.main, path, MAX_FILE, e);
    if (st == OK) st = read_files(&s, folder, e);
    if (st == OK) {
        st = build(out, &s, e);
        if (st != OK) wrap(e, "%s", path);
    }
    close_sources(&s);
    free(path);
    return st;
}

status tokenizer_parse(tokenizer **out, const char *json, size_t n, const char *config, size_t m, error *e) {
    sources s = {0};
    *out = NULL;
    status st = json_parse(&s.main, json, n, "tokenizer.json", e);
    if (st == OK && config) st = json_parse(&s.config, config, m, "tokenizer_config.json", e);
    if (st == OK) st = build(out, &s, e);
    close_sources(&s);
    return st;
}

void tokenizer_close(tokenizer *t) {
    if (!t) return;
    bpe_close(t->b);
    vocab_close(&t->v);
    pretokenizer_close(t->words);
    added_free(&t->raw);
    added_free(&t->normalized);
    arena_close(t->memory);
    free(t);
}

/* ---- Encoding ---- */

typedef struct encoding {
    const tokenizer *t;
    bool plain;  /* special tokens are text like any other */
    bool marked; /* marks are left out of words */
    id_list ids;
    arena *keep; /* texts that stages made */
    word_cutter *cutter;
    bpe_run *run;
} encoding;

static status one_word(void *arg, const char *word, size_t n, error *e) {
    return bpe_word(((encoding *)arg)->run, word, n, e);
}

static status between_tokens(encoding *x, bool normalized, const char *text, size_t n, error *e);

/* Finds the added tokens of one set; what lies between goes on. */
static status find_tokens(encoding *x, bool normalized, const char *text, size_t n, error *e) {
    const added_set *set = normalized ? &x->t->normalized : &x->t->raw;
    size_t from = 0, done = 0;
    added_match m;
    while (added_next(set, text, n, x->plain, &from, done, &m)) {
        if (done < m.start) TRY(between_tokens(x, normalized, text + done, m.start - done, e));
        id_list_add(&x->ids, &m.id, 1);
        done = m.end;
    }
    return done < n ? between_tokens(x, normalized, text + done, n - done, e) : OK;
}

/* The text without its marks, which lives as long as the encoding. */
static status without_marks(encoding *x, const char **text, size_t *n, error *e) {
    const size_t mark = strlen(TOK_MARK);
    const char *from = *text, *end = from + *n, *next = memmem(from, *n, TOK_MARK, mark);
    if (!next) return OK;
    str plain = {0};
    for (; next; next = memmem(from, (size_t)(end - from), TOK_MARK, mark)) {
        str_add(&plain, from, (size_t)(next - from));
        from = next + mark;
    }
    str_add(&plain, from, (size_t)(end - from));
    *n = plain.n;
    *text = plain.failed ? NULL : arena_copy(x->keep, plain.p, plain.n);
    str_free(&plain);
    return *text ? OK : fail(e, ERR_NOMEM, "memory is out");
}

static status between_tokens(encoding *x, bool normalized, const char *text, size_t n, error *e) {
    if (normalized) {
        if (x->marked) TRY(without_marks(x, &text, &n, e));
        return cut_words(x->cutter, text, n, x->keep, one_word, x, e);
    }
    if (!x->t->to_nfc || text_is_nfc(text, n)) return find_tokens(x, true, text, n, e);
    str form = {0};
    status s = nfc(&form, text, n, e);
    const char *kept = s == OK ? arena_copy(x->keep, form.p, form.n) : NULL;
    if (s == OK) s = kept ? find_tokens(x, true, kept, form.n, e) : fail(e, ERR_NOMEM, "memory is out");
    str_free(&form);
    return s;
}

static status encode(encoding *x, const char *text, size_t n, unsigned flags, error *e) {
    x->keep = arena_open(256);
    if (!x->keep) return fail(e, ERR_NOMEM, "memory is out");
    TRY(word_cutter_open(&x->cutter, x->t->words, e));
    TRY(bpe_begin(&x->run, x->t->b, &x->ids, n, e));
    if (flags & TOK_ADD_SPECIAL) id_list_add(&x->ids, x->t->before.id, (size_t)x->t->before.n);
    TRY(find_tokens(x, false, text, n, e));
    if (flags & TOK_ADD_SPECIAL) id_list_add(&x->ids, x->t->after.id, (size_t)x->t->after.n);
    if (!x->ids.p && !x->ids.failed) x->ids.failed = !(x->ids.p = malloc(sizeof *x->ids.p)); /* no ids is no NULL */
    return x->ids.failed ? fail(e, ERR_NOMEM, "memory is out") : OK;
}

status tokenizer_encode(const tokenizer *t, const char *text, size_t n, unsigned flags, int32_t **ids, size_t *count,
                        error *e) {
    *ids = NULL;
    *count = 0;
    if (n > max_text) return fail(e, ERR_ARG, "a text of %zu bytes, more than %zu", n, max_text);
    size_t valid = utf8_valid(text, n);
    if (valid < n) return fail(e, ERR_FORMAT, "the text is not valid UTF-8 at byte %zu", valid);
    encoding x = {.t = t, .plain = !(flags & TOK_PARSE_SPECIAL), .marked = flags & TOK_MARKED};
    status s = encode(&x, text, n, flags, e);
    bpe_end(x.run);
    word_cutter_close(x.cutter);
    arena_close(x.keep);
    if (s != OK) {
        free(x.ids.p);
        return s;
    }
    *ids = x.ids.p;
    *count = x.ids.n;
    return OK;
}

/* ---- Marking ---- */

static bool begins_with(const char *text, size_t n, const char *with, size_t with_n) {
    return n >= with_n && !memcmp(text, with, with_n);
}

static void mark_tokens(const tokenizer *t, const char *text, size_t n, token_keeps *keeps, str *out) {
    bool open = false; /* a token begins that may go on behind the text */
    for (size_t i = 0; i < n;) {
        uint32_t c;
        bool cut, cut2;
        size_t size = utf8_get(text + i, &c), left = n - i;
        size_t found = added_at(&t->raw, text + i, left, &cut), other = added_at(&t->normalized, text + i, left, &cut2);
        if (other > found) found = other;
        bool ours = begins_with(text + i, left, TOK_MARK, size) || begins_with(text + i, left, TOK_PLACE, size);
        if (ours) str_puts(out, "\xEF\xBF\xBD");
        else str_add(out, text + i, size);
        if (found && !(keeps && keeps(t, text + i, found))) str_puts(out, TOK_MARK);
        open = open || cut || cut2;
        i += size;
    }
    if (open) str_puts(out, TOK_MARK);
}

status tokenizer_mark(const tokenizer *t, const char *text, size_t n, token_keeps *keeps, str *out, error *e) {
    size_t valid = utf8_valid(text, n);
    str form = {0};
    if (valid < n) return fail(e, ERR_FORMAT, "the text is not valid UTF-8 at byte %zu", valid);
    if (t->to_nfc && !text_is_nfc(text, n)) TRY(nfc(&form, text, n, e)); /* normalizing may make tokens */
    if (form.p) mark_tokens(t, form.p, form.n, keeps, out);
    else mark_tokens(t, text, n, keeps, out);
    str_free(&form);
    return str_check(out, e);
}

/* ---- Decoding and questions ---- */

static const token *find(const tokenizer *t, int32_t id) {
    return id >= 0 && id < t->v.size && t->v.token[id].text ? &t->v.token[id] : NULL;
}

void tokenizer_decode_next(const tokenizer *t, tokenizer_decoding *d, int32_t id, bool skip_special, str *out) {
    const token *k = find(t, id);
    if (k && !(skip_special && k->special)) utf8_lossy(out, &d->tail, k->bytes, k->bytes_n);
}

void tokenizer_decode_end(tokenizer_decoding *d, str *out) {
    utf8_lossy_end(out, &d->tail);
}

void tokenizer_decode(const tokenizer *t, const int32_t *ids, size_t n, bool skip_special, str *out) {
    tokenizer_decoding d = {0};
    for (size_t i = 0; i < n; i++) tokenizer_decode_next(t, &d, ids[i], skip_special, out);
    tokenizer_decode_end(&d, out);
}

const char *tokenizer_bytes(const tokenizer *t, int32_t id, size_t *n) {
    const token *k = find(t, id);
    *n = !k ? 0 : k->added ? k->text_n : k->bytes_n;
    return !k ? NULL : k->added ? k->text : k->bytes;
}

const char *tokenizer_token_text(const tokenizer *t, int32_t id) {
    const token *k = find(t, id);
    return k ? k->text : NULL;
}

int32_t tokenizer_id(const tokenizer *t, const char *text) {
    int32_t id = vocab_find(&t->v, text, strlen(text));
    return id >= 0 && t->v.token[id].added ? id : -1;
}

bool tokenizer_is_special(const tokenizer *t, int32_t id) {
    const token *k = find(t, id);
    return k && k->special;
}

int32_t tokenizer_vocab_size(const tokenizer *t) {
    return t->v.size;
}

int32_t tokenizer_bos(const tokenizer *t) {
    return t->bos.id;
}

int32_t tokenizer_eos(const tokenizer *t) {
    return t->eos.id;
}

int32_t tokenizer_pad(const tokenizer *t) {
    return t->pad.id;
}

const char *tokenizer_bos_text(const tokenizer *t) {
    return t->bos.text;
}

const char *tokenizer_eos_text(const tokenizer *t) {
    return t->eos.text;
}

const char *tokenizer_pad_text(const tokenizer *t) {
    return t->pad.text;
}

static bool has_id(const affix *a, int32_t id) {
    for (int i = 0; i < a->n; i++)
        if (a->id[i] == id) return true;
    return false;
}

tokenizer_config tokenizer_configuration(const tokenizer *t) {
    return (tokenizer_config){.tokenizer_class = t->class_name,
                              .unk_token = t->unk.text,
                              .model_max_length = t->model_max_length,
                              .add_bos = has_id(&t->before, t->bos.id),
                              .add_eos = has_id(&t->after, t->eos.id)};
}

const char *tokenizer_chat_template(const tokenizer *t) {
    return t->chat_template;
}
