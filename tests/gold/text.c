#include "text.h"

#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/json.h"
#include "text/chat.h"
#include "text/tokenizer.h"

/* Calls f for every line of a file of JSON lines; false when there is no such file. */
static bool each_line(const char *folder, const char *name, void (*f)(void *arg, size_t line, const json_t *j),
                      void *arg, error *e) {
    char *path = gold_path(folder, name);
    str s = {0};
    bool ok = file_read(&s, path, (size_t)1 << 30, e) == OK;
    size_t at = 0;
    for (size_t line = 1; ok && at < s.n; line++) {
        const char *end = memchr(s.p + at, '\n', s.n - at);
        const size_t n = end ? (size_t)(end - s.p) - at : s.n - at;
        json_t *j = NULL;
        ok = json_parse(&j, s.p + at, n, name, e) == OK;
        if (ok) f(arg, line, j);
        json_decref(j);
        at += n + 1;
    }
    str_free(&s);
    free(path);
    return ok;
}

/* --- tokenizers ------------------------------------------------------------------------------------------------- */

/* tokenizer.json, or what gzip makes of tokenizer.json.gz. */
static status read_tokenizer(tokenizer **t, const char *folder, error *e) {
    char *plain = gold_path(folder, "tokenizer.json"), *packed = gold_path(folder, "tokenizer.json.gz");
    status st = OK;
    if (file_exists(plain)) st = tokenizer_open(t, folder, e);
    else if (strchr(packed, '\'') || !file_exists(packed)) st = fail(e, ERR_IO, "%s: cannot be read", packed);
    else {
        char command[4200], part[65536];
        str s = {0};
        snprintf(command, sizeof command, "gzip -dc '%.4000s'", packed);
        FILE *f = popen(command, "r");
        for (size_t n; f && (n = fread(part, 1, sizeof part, f)) > 0;) str_add(&s, part, n);
        if (!f || pclose(f) != 0) st = fail(e, ERR_IO, "%s: gzip cannot unpack it", packed);
        else st = tokenizer_parse(t, s.p, s.n, NULL, 0, e);
        str_free(&s);
    }
    free(plain);
    free(packed);
    return st;
}

typedef struct token_case {
    const tokenizer *t;
    int lines, wrong[4]; /* ids, text, text without special tokens, bytes */
    size_t first;        /* line that failed */
} token_case;

static bool is_text(const str *s, const json_t *wanted) {
    return !s->failed && s->n == json_string_length(wanted) &&
           !memcmp(s->p ? s->p : "", json_string_value(wanted), s->n);
}

static void add_hex(str *s, const char *p, size_t n) {
    for (size_t i = 0; i < n; i++) str_addf(s, "%02x", (unsigned char)p[i]);
}

static void token_line(void *arg, size_t line, const json_t *j) {
    token_case *c = arg;
    const json_t *text = json_object_get(j, "text"), *golden = json_object_get(j, "ids");
    const size_t n = json_array_size(golden);
    int32_t *ids = malloc((n + 1) * sizeof *ids), *made = NULL;
    size_t made_n = 0;
    bool wrong[4] = {false};
    if (!ids) abort();
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)json_integer_value(json_array_get(golden, i));
    if (text) {
        error e;
        wrong[0] = tokenizer_encode(c->t, json_string_value(text), json_string_length(text), TOK_PARSE_SPECIAL, &made,
                                    &made_n, &e) != OK ||
                   made_n != n || memcmp(made, ids, n * sizeof *ids) != 0;
    }
    static const char *const keys[] = {"decoded", "decoded_skip_special"};
    for (int k = 0; k < 2; k++) {
        const json_t *wanted = json_object_get(j, keys[k]);
        str s = {0};
        if (wanted) tokenizer_decode(c->t, ids, n, k == 1, &s);
        if (wanted) wrong[1 + k] = !is_text(&s, wanted);
        str_free(&s);
    }
    str hex = {0};
    for (size_t i = 0; i < n; i++) {
        size_t length;
        const char *p = tokenizer_bytes(c->t, ids[i], &length);
        if (p) add_hex(&hex, p, length);
    }
    wrong[3] = json_object_get(j, "bytes_hex") && !is_text(&hex, json_object_get(j, "bytes_hex"));
    str_free(&hex);
    for (int k = 0; k < 4; k++) {
        c->wrong[k] += wrong[k];
        if (wrong[k] && !c->first) c->first = line;
    }
    c->lines++;
    free(ids);
    free(made);
}

void gold_tokenizer(gold *g, const char *folder, const char *file) {
    static const char *const files[] = {"encode.jsonl", "decode.jsonl"};
    tokenizer *t = NULL;
    error e = {0};
    if (read_tokenizer(&t, folder, &e) != OK) {
        gold_say(g, false, file, "open", "%s", e.text);
        return;
    }
    for (int i = 0; i < 2; i++) {
        token_case c = {.t = t};
        if (!each_line(folder, files[i], token_line, &c, &e)) {
            gold_say(g, false, file, files[i], "%s", e.text);
            continue;
        }
        char where[40] = "";
        if (c.first) snprintf(where, sizeof where, "; first: line %zu", c.first);
        gold_say(g, c.lines && !c.first, file, files[i],
                 "%d lines; ids %d, text %d, without special %d, bytes %d wrong%s", c.lines, c.wrong[0], c.wrong[1],
                 c.wrong[2], c.wrong[3], where);
    }
    tokenizer_close(t);
}

/* --- chats ------------------------------------------------------------------------------------------------------ */

enum { TEMPLATES = 40 };

typedef struct chat_case { /* of one template */
    char name[40];
    chat_template *t;
    bool v32;
    int lines, refused, wrong;
    size_t first;
    char why[300];
} chat_case;

typedef struct chat_cases {
    chat_case list[TEMPLATES];
    int count;
    const json_t *templates;
} chat_cases;

static chat_case *case_of(chat_cases *all, const char *name) {
    for (int i = 0; i < all->count; i++)
        if (!strcmp(all->list[i].name, name)) return &all->list[i];
    if (all->count == TEMPLATES) return NULL;
    chat_case *c = &all->list[all->count++];
    const json_t *source = json_object_get(json_object_get(all->templates, name), "template");
    error e = {0};
    *c = (chat_case){.v32 = !source};
    snprintf(c->name, sizeof c->name, "%s", name);
    if (source && template_open(&c->t, json_string_value(source), json_string_length(source), &e) != OK) {
        c->wrong++;
        snprintf(c->why, sizeof c->why, "; %.250s", e.text);
    }
    return c;
}

static void chat_line(void *arg, size_t line, const json_t *j) {
    const char *name = json_string_value(json_object_get(j, "template"));
    chat_case *c = name ? case_of(arg, name) : NULL;
    if (!c || (!c->t && !c->v32)) return;
    json_t *flags = json_object_get(j, "flags"), *tools = json_object_get(j, "tools"),
           *options = flags ? json_copy(flags) : json_object(), *wanted = json_object_get(j, "expected");
    str s = {0};
    error e = {0};
    json_object_set_new(options, "bos_token", json_string("<｜begin▁of▁sentence｜>"));
    json_object_set_new(options, "eos_token", json_string("<｜end▁of▁sentence｜>"));
    if (tools && !c->v32) json_object_set(options, "tools", tools); /* V3.2: they are in the messages */
    status st =
        chat_render(c->t, c->v32 ? "deepseek_v32" : "deepseek_v3", json_object_get(j, "messages"), options, &s, &e);
    const bool right = wanted ? st == OK && is_text(&s, wanted) : st == ERR_ARG;
    c->lines++;
    c->refused += !wanted;
    c->wrong += !right;
    if (!right && !c->first) {
        c->first = line;
        snprintf(c->why, sizeof c->why, "; first: line %zu, case %s: %.200s", line,
                 json_string_value(json_object_get(j, "case")),
                 st == OK ? wanted ? "another text" : "rendered, but the reference refuses it" : e.text);
    }
    str_free(&s);
    json_decref(options);
}

/* test_input_NAME.json and test_output_NAME.txt of the published V3.2 encoder. */
static void published(gold *g, const char *folder, const char *name) {
    char in[100], out[100];
    snprintf(in, sizeof in, "test_input_%s.json", name);
    snprintf(out, sizeof out, "test_output_%s.txt", name);
    char *in_path = gold_path(folder, in), *out_path = gold_path(folder, out);
    json_t *j = NULL;
    str wanted = {0}, s = {0};
    error e = {0};
    status st = OK;
    if (file_exists(in_path)) {
        st = json_read(&j, in_path, 1 << 26, &e);
        if (st == OK) st = file_read(&wanted, out_path, 1 << 26, &e);
        json_t *given = json_object_get(j, "template_kwargs"), *options = given ? json_copy(given) : json_object();
        if (!json_object_get(options, "thinking")) json_object_set_new(options, "thinking", json_true());
        if (json_object_get(j, "tools")) json_object_set(options, "tools", json_object_get(j, "tools"));
        if (st == OK) st = chat_render(NULL, "deepseek_v32", json_object_get(j, "messages"), options, &s, &e);
        gold_say(g, st == OK && s.n == wanted.n && !memcmp(s.p, wanted.p, s.n), "chat/published_v32", name, "%s",
                 st == OK ? "text against the published one" : e.text);
        json_decref(options);
    }
    json_decref(j);
    str_free(&wanted);
    str_free(&s);
    free(in_path);
    free(out_path);
}

void gold_chat(gold *g, const char *dir) {
    char *folder = gold_path(dir, "chat"), *path = gold_path(folder, "templates.json"),
         *v32 = gold_path(folder, "published_v32");
    json_t *templates = NULL;
    error e = {0};
    if (is_directory(folder)) {
        chat_cases *all = calloc(1, sizeof *all);
        if (!all) abort();
        if (json_read(&templates, path, 1 << 26, &e) == OK) {
            all->templates = templates;
            if (!each_line(folder, "rendered.jsonl", chat_line, all, &e))
                gold_say(g, false, "chat", "rendered.jsonl", "%s", e.text);
        } else gold_say(g, false, "chat", "templates.json", "%s", e.text);
        for (int i = 0; i < all->count; i++) {
            const chat_case *c = &all->list[i];
            gold_say(g, c->lines && !c->wrong, "chat", c->name, "%d conversations (%d to be refused), %d wrong%s",
                     c->lines, c->refused, c->wrong, c->why);
            template_close(all->list[i].t);
        }
        free(all);
        published(g, v32, "developer_tools");
        published(g, v32, "search_wo_date");
    }
    json_decref(templates);
    free(folder);
    free(path);
    free(v32);
}
