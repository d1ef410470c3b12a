/* hadal tokenize: text to token ids and back, conversations to the text that the model reads, corpora to token files.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli/commands.h"
#include "cli/conversation.h"
#include "cli/table.h"
#include "cli/term.h"

typedef struct text_settings {
    const char *file, *decode, *chat;
    bool ids, count, json, no_special, add_special, parse_special;
} text_settings;

typedef struct corpus_settings {
    const char *to_bin, *text_field;
    bool skip_damaged;
    int threads;
} corpus_settings;

typedef struct settings {
    text_settings text;
    corpus_settings corpus;
} settings;

#define AT(field) offsetof(text_settings, field)
static const option rows[] = {
    {"file", 'f', "FILE", OPT_TEXT, AT(file), 0, 0, "the text of a file; -: standard input"},
    {"chat", 0, "FILE", OPT_TEXT, AT(chat), 0, 0, "renders the conversation in a JSON file and prints the text"},
    {"decode", 0, "IDS", OPT_TEXT, AT(decode), 0, 0,
     "prints the text of these ids (\"1,2,3\" or \"1 2 3\"; - reads them)"},
    {"ids", 0, NULL, OPT_SWITCH, AT(ids), 0, 0, "only the ids, on one line"},
    {"count", 0, NULL, OPT_SWITCH, AT(count), 0, 0, "only the number of tokens"},
    {"json", 0, NULL, OPT_SWITCH, AT(json), 0, 0, "JSON"},
    {"no-special", 0, NULL, OPT_SWITCH, AT(no_special), 0, 0, "adds no BOS or EOS, and takes special tokens as text"},
    {"add-special", 0, NULL, OPT_SWITCH, AT(add_special), 0, 0, "only adds BOS or EOS as the tokenizer does"},
    {"parse-special", 0, NULL, OPT_SWITCH, AT(parse_special), 0, 0, "only recognises special tokens in the text"},
    {0},
};
#undef AT

#define AT(field) offsetof(corpus_settings, field)
static const option corpus_rows[] = {
    {"to-bin", 0, "OUT", OPT_TEXT, AT(to_bin), 0, 0, "writes the tokens of all FILEs to this token file"},
    {"text-field", 0, "NAME", OPT_TEXT, AT(text_field), 0, 0,
     "the member of a JSONL row with the text (default: text)"},
    {"skip-damaged", 0, NULL, OPT_SWITCH, AT(skip_damaged), 0, 0,
     "leaves damaged lines out; else the first one ends it"},
    {"threads", 't', "N", OPT_INT, AT(threads), 0, 1024, "threads; 0: one per processor (default)"},
    {0},
};
#undef AT

/* Without a switch both happen, as in transformers. */
static unsigned flags_of(const text_settings *o) {
    if (o->no_special) return 0;
    unsigned flags = (o->add_special ? HADAL_ADD_SPECIAL : 0u) | (o->parse_special ? HADAL_PARSE_SPECIAL : 0u);
    return flags ? flags : (unsigned)HADAL_ADD_SPECIAL | (unsigned)HADAL_PARSE_SPECIAL;
}

static int print_tokens_json(const hadal_tokenizer *t, const int32_t *ids, size_t count) {
    json_t *list = json_array(), *root = json_object();
    for (size_t i = 0; i < count; i++) {
        char *text = NULL;
        json_t *token = json_object();
        json_object_set_new(token, "id", json_integer(ids[i]));
        if (hadal_token_text(t, ids[i], &text, NULL) == HADAL_OK) json_object_set_new(token, "text", json_string(text));
        json_array_append_new(list, token);
        hadal_free(text);
    }
    json_object_set_new(root, "count", json_integer((json_int_t)count));
    json_object_set_new(root, "tokens", list);
    int code = print_json(root);
    json_decref(root);
    return code;
}

static int print_tokens(const text_settings *o, const hadal_tokenizer *t, const int32_t *ids, size_t count) {
    hadal_error e = {0};
    if (o->count) printf("%zu\n", count);
    else if (o->json) return print_tokens_json(t, ids, count);
    else if (o->ids) {
        for (size_t i = 0; i < count; i++) printf("%s%d", i ? " " : "", (int)ids[i]);
        putchar('\n');
    } else
        for (size_t i = 0; i < count; i++) {
            char *text = NULL;
            if (hadal_token_text(t, ids[i], &text, &e)) return report(&e);
            printf("%7d  ", (int)ids[i]);
            term_puts(stdout, text);
            putchar('\n');
            hadal_free(text);
        }
    return EXIT_FINE;
}

static int tokenize(const text_settings *o, const hadal_tokenizer *t, const char *text, size_t n, unsigned flags) {
    hadal_error e = {0};
    int32_t *ids = NULL;
    size_t count = 0;
    if (hadal_tokenize(t, text, n, flags, &ids, &count, &e)) return report(&e);
    int code = print_tokens(o, t, ids, count);
    hadal_free(ids);
    return code;
}

/* ---- ids to text ----------------------------------------------------------------------------------------------- */

/* Ids with anything of " ,[]\n" between them, so that a JSON list is fine too. *ids: free() it. */
static int parse_ids(const char *text, int32_t **ids, size_t *count) {
    *count = 0;
    *ids = malloc((strlen(text) / 2 + 1) * sizeof **ids);
    if (!*ids) return no_memory();
    for (const char *p = text; *(p += strspn(p, " ,[]\t\r\n"));) {
        char *end;
        errno = 0;
        long v = strtol(p, &end, 10);
        if (end == p || errno || v < 0 || v > INT32_MAX || !strchr(" ,[]\t\r\n", *end))
            return wrong("'%.*s' is no token id", (int)strcspn(p, " ,[]\t\r\n"), p);
        (*ids)[(*count)++] = (int32_t)v;
        p = end;
    }
    return EXIT_FINE;
}

static int check_ids(const hadal_tokenizer *t, const int32_t *ids, size_t count) {
    const int size = hadal_tokenizer_size(t);
    for (size_t i = 0; i < count; i++)
        if (ids[i] >= size) return wrong("%d is no token id: this tokenizer has 0 to %d", (int)ids[i], size - 1);
    return EXIT_FINE;
}

static int decode(const text_settings *o, const hadal_tokenizer *t) {
    hadal_error e = {0};
    int32_t *ids = NULL;
    char *text = NULL, *from = NULL;
    size_t n = 0, count = 0;
    int code = strcmp(o->decode, "-") == 0 ? read_text("-", &from, &n) : EXIT_FINE;
    if (!code) code = parse_ids(from ? from : o->decode, &ids, &count);
    if (!code) code = check_ids(t, ids, count);
    if (!code && (o->ids || o->count || o->json)) code = print_tokens(o, t, ids, count);
    else if (!code && hadal_detokenize(t, ids, count, o->no_special, &text, &n, &e)) code = report(&e);
    else if (!code) {
        term_write(stdout, text, n, false);
        putchar('\n');
    }
    hadal_free(text);
    free(ids);
    free(from);
    return code;
}

/* ---- conversations --------------------------------------------------------------------------------------------- */

static int render(const text_settings *o, const char *folder) {
    hadal_error e = {0};
    hadal_tokenizer *t = NULL;
    json_t *messages, *options;
    char *text = NULL;
    int code = read_conversation(o->chat, &messages, &options);
    if (code) return code;
    char *list = json_dumps(messages, 0), *others = json_dumps(options, 0);
    if (!list || !others) code = no_memory();
    else if (hadal_chat_render_folder(folder, list, others, &text, &e)) code = report(&e);
    else if (o->ids || o->count || o->json) {
        if (hadal_tokenizer_open(&t, folder, &e)) code = report(&e);
        else code = tokenize(o, t, text, strlen(text), HADAL_PARSE_SPECIAL);
    } else {
        term_puts(stdout, text);
        putchar('\n');
    }
    hadal_tokenizer_close(t);
    hadal_free(text);
    free(list);
    free(others);
    json_decref(messages);
    json_decref(options);
    return code;
}

static int encode(const text_settings *o, const hadal_tokenizer *t, const char *text) {
    if (text) return tokenize(o, t, text, strlen(text), flags_of(o));
    if (!o->file && term_is(stdin)) return wrong("TEXT is missing; try 'hadal tokenize --help'");
    char *from;
    size_t n;
    int code = read_text(o->file ? o->file : "-", &from, &n);
    if (!code) code = tokenize(o, t, from, n, flags_of(o));
    free(from);
    return code;
}

/* ---- corpora --------------------------------------------------------------------------------------------------- */

static void on_note(void *arg, const char *line) {
    progress_end(arg);
    str s = {0};
    term_escape(&s, line, strlen(line));
    fprintf(stderr, "hadal: %s\n", s.p ? s.p : "");
    str_free(&s);
}

static int write_corpus(const settings *o, const hadal_tokenizer *t, int n, char **files) {
    const corpus_settings *c = &o->corpus;
    hadal_error e = {0};
    char *text = NULL;
    json_t *done;
    if (!n) return wrong("--to-bin wants FILEs with text; try 'hadal tokenize --help'");
    term_catch_interrupt();
    progress p = {.what = "tokenizing", .bytes = true};
    hadal_corpus_options options = {.size = sizeof options,
                                    .text_field = c->text_field,
                                    .flags = (o->text.add_special ? HADAL_ADD_SPECIAL : 0u) |
                                             (o->text.parse_special ? HADAL_PARSE_SPECIAL : 0u),
                                    .skip_damaged = c->skip_damaged,
                                    .threads = c->threads,
                                    .note = on_note,
                                    .note_arg = &p,
                                    .progress = progress_call,
                                    .progress_arg = &p};
    int st = hadal_tokenize_corpus(t, (const char *const *)files, n, c->to_bin, &options, &text, &e);
    progress_end(&p);
    if (st) return report(&e);
    int code = parse_own_json(&done, text);
    if (code) return code;
    if (o->text.json) code = print_json(done);
    else print_table(done);
    json_decref(done);
    return code;
}

static int run(void *given, int n, char **args) {
    const settings *all = given;
    const text_settings *o = &all->text;
    const char *out = all->corpus.to_bin;
    hadal_error e = {0};
    hadal_tokenizer *t = NULL;
    if (!out && n > 2) return wrong("unexpected '%s' after the arguments; try 'hadal tokenize --help'", args[2]);
    if ((!out && n == 2) + (o->file != NULL) + (o->decode != NULL) + (o->chat != NULL) + (out != NULL) > 1)
        return wrong("TEXT, --file, --decode, --chat and --to-bin exclude each other; try 'hadal tokenize --help'");
    int code = need_file(args[0]);
    if (code) return code;
    if (o->chat) return render(o, args[0]);
    if (hadal_tokenizer_open(&t, args[0], &e)) return report(&e);
    if (out) code = write_corpus(all, t, n - 1, args + 1);
    else code = o->decode ? decode(o, t) : encode(o, t, n == 2 ? args[1] : NULL);
    hadal_tokenizer_close(t);
    return code;
}

const command command_tokenize = {
    .name = "tokenize",
    .arguments = "MODEL [TEXT | FILE...]",
    .summary = "turns text into tokens, tokens into text, conversations into prompts",
    .more = "MODEL is a folder with a tokenizer.json. Without TEXT it is read from standard input.\n"
            "A conversation is a JSON list of messages, or {\"messages\": [...], \"tools\": [...], ...}.\n"
            "A FILE of a corpus is .jsonl, or .txt (one document), either also with .gz or .zst behind it.",
    .examples = "hadal tokenize ./DeepSeek-V3 \"The deep sea\"\n"
                "hadal tokenize ./DeepSeek-V3 --count -f book.txt\n"
                "hadal tokenize ./DeepSeek-V3 --decode \"671,6531\"\n"
                "hadal tokenize ./DeepSeek-V3 --chat conversation.json\n"
                "hadal tokenize ./DeepSeek-V3 --to-bin corpus.bin part-*.jsonl.zst",
    .groups = {{"Options", rows, offsetof(settings, text)},
               {"Token files for training", corpus_rows, offsetof(settings, corpus)}},
    .min_args = 1,
    .max_args = INT_MAX,
    .size = sizeof(settings),
    .run = run,
};
