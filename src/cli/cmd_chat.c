/* hadal chat: a conversation. The session keeps its cache between turns: a turn computes only what is new. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "cli/answer.h"
#include "cli/commands.h"
#include "cli/conversation.h"
#include "cli/generate.h"
#include "cli/line.h"
#include "cli/term.h"

typedef struct settings {
    const char *system, *think, *load;
    bool hide_thinking;
    int context;
    sampling_options sampling;
    machine_options machine;
} settings;
static const settings defaults = {.sampling = SAMPLING_DEFAULTS};

#define AT(field) offsetof(settings, field)
static const option rows[] = {
    {"system", 0, "TEXT", OPT_TEXT, AT(system), 0, 0, "the system message"},
    {"think", 0, "on|off", OPT_TEXT, AT(think), 0, 0, "reasoning before the answer, where the model has the choice"},
    {"hide-thinking", 0, NULL, OPT_SWITCH, AT(hide_thinking), 0, 0, "does not show the reasoning"},
    {"load", 0, "FILE", OPT_TEXT, AT(load), 0, 0, "goes on with a conversation that /save wrote"},
    {"context", 'c', "N", OPT_INT, AT(context), 0, 1 << 30, "most tokens of the conversation; 0: the model's"},
    {0},
};
#undef AT

typedef struct chat {
    const settings *o;
    hadal_model *model;
    hadal_session *session;
    int context;
    json_t *messages, *options;
    line_reader in;
    answer answer;
    progress progress; /* of the prompt */
    char last;         /* the last character shown */
    uint64_t answers;  /* so far: each has a seed of its own */
    hadal_sampling sampling;
    int total_tokens;
    double total_seconds;
    bool leave;
} chat;

static void say(const char *text) {
    term_write(stdout, text, strlen(text), true);
    fflush(stdout);
}

/* ---- one turn -------------------------------------------------------------------------------------------------- */

static int on_token(void *arg, const hadal_token *t) {
    chat *c = arg;
    progress_end(&c->progress);
    if (t->n) {
        answer_add(&c->answer, t->text, t->n);
        c->last = t->text[t->n - 1];
    }
    return term_interrupts > 0 || ferror(stdout);
}

static void tell_result(chat *c, const hadal_result *r) {
    str s = {0};
    describe_result(&s, r);
    c->total_tokens += r->n_ids;
    c->total_seconds += r->prompt_seconds + r->seconds;
    str_addf(&s, "%s\n", strcmp(r->finish, "cancelled") == 0 ? "; stopped" : "");
    if (!s.failed && term_is(stdout)) say(s.p);
    str_free(&s);
    if (strcmp(r->finish, "length") != 0) return;
    if (r->prompt_tokens + r->n_ids >= c->context) say("The context is full: /reset begins anew.\n");
    else say("Stopped at --max-tokens.\n");
}

/* Generates an answer to the messages; false when none came, so that the last message is to be taken back. */
static bool generate(chat *c, const int32_t *ids, size_t n, int thinking) {
    hadal_result r = {0};
    hadal_error e = {0};
    hadal_sampling o = c->sampling;
    o.seed += c->answers++;
    o.progress = progress_call;
    o.progress_arg = &c->progress;
    c->progress = (struct progress){0};
    if (n >= (size_t)c->context) {
        printf("The conversation has %zu tokens and does not fit into the context of %d: /reset begins anew%s.\n", n,
               c->context, c->context < hadal_model_max_context(c->model) ? ", or start with a larger --context" : "");
        return false;
    }
    answer_begin(&c->answer, thinking == HADAL_THINKS, c->o->hide_thinking);
    c->last = '\n';
    int st = hadal_generate(c->session, ids, (int)n, &o, on_token, c, &r, &e);
    progress_end(&c->progress);
    answer_end(&c->answer);
    if (c->last != '\n') putchar('\n');
    bool fine = !st && r.n_ids > 0;
    if (!st && fine) {
        tell_result(c, &r);
        fine = add_answer(c->messages, c->model, r.text, thinking) == EXIT_FINE;
    } else if (st && st != HADAL_ERR_CANCELLED) report(&e);
    else say("Stopped before the answer began: the message is taken back.\n");
    hadal_result_clear(&r);
    return fine;
}

static bool answer_turn(chat *c) {
    int32_t *ids = NULL;
    size_t n = 0;
    int thinking;
    bool fine = conversation_ids(c->model, c->messages, c->options, &ids, &n, &thinking) == EXIT_FINE &&
                generate(c, ids, n, thinking);
    hadal_free(ids);
    term_interrupts = 0;
    return fine;
}

static void drop_last(chat *c) {
    json_array_remove(c->messages, json_array_size(c->messages) - 1);
}

static const char *last_role(const chat *c) {
    size_t n = json_array_size(c->messages);
    const char *role = n ? json_string_value(json_object_get(json_array_get(c->messages, n - 1), "role")) : NULL;
    return role ? role : "";
}

static void user_turn(chat *c, const char *text) {
    if (strcmp(last_role(c), "user") == 0) drop_last(c); /* of a loaded conversation that waits for an answer */
    if (!add_message(c->messages, "user", text, strlen(text))) {
        wrong("the message is not valid UTF-8");
        return;
    }
    if (!answer_turn(c)) drop_last(c);
}

/* ---- commands of the conversation ------------------------------------------------------------------------------ */

static void do_help(chat *c, const char *arg) {
    (void)c, (void)arg;
    printf("/reset          forgets the conversation (the system message stays)\n"
           "/regen          another answer to the last message\n"
           "/system TEXT    sets the system message; without TEXT removes it\n"
           "/think on|off   reasoning before the answer, where the model has the choice\n"
           "/save FILE      writes the conversation as JSON\n"
           "/load FILE      goes on with a written conversation\n"
           "/stats          tokens and speed so far\n"
           "/quit           leaves, as Ctrl-D does\n"
           "A line that ends with \\ goes on in the next one; \"\"\" begins and ends several lines.\n"
           "Ctrl-C stops an answer.\n");
}

static void set_system(chat *c, const char *text) {
    const json_t *first = json_array_get(c->messages, 0);
    const char *role = json_string_value(json_object_get(first, "role"));
    if (role && strcmp(role, "system") == 0) json_array_remove(c->messages, 0);
    if (!text || !*text) return;
    json_t *message = json_pack("{s:s, s:s}", "role", "system", "content", text);
    if (!message) wrong("the system message is not valid UTF-8");
    else json_array_insert_new(c->messages, 0, message);
}

static void do_system(chat *c, const char *arg) {
    set_system(c, arg);
    say(*arg ? "The system message is set.\n" : "There is no system message now.\n");
}

static void do_reset(chat *c, const char *arg) {
    (void)arg;
    const json_t *first = json_array_get(c->messages, 0);
    const char *role = json_string_value(json_object_get(first, "role"));
    size_t keep = role && strcmp(role, "system") == 0;
    while (json_array_size(c->messages) > keep) drop_last(c);
    say("The conversation begins anew.\n");
}

static void do_regen(chat *c, const char *arg) {
    (void)arg;
    json_t *old = NULL;
    if (strcmp(last_role(c), "assistant") == 0) {
        old = json_incref(json_array_get(c->messages, json_array_size(c->messages) - 1));
        drop_last(c);
    }
    if (strcmp(last_role(c), "user") != 0) {
        printf("There is no message to answer yet.\n");
        if (old) json_array_append(c->messages, old);
    } else if (!answer_turn(c) && old) json_array_append(c->messages, old);
    json_decref(old);
}

static void do_save(chat *c, const char *arg) {
    error e = {0};
    if (!*arg) {
        printf("/save wants the name of a file.\n");
        return;
    }
    json_t *all = json_copy(c->options);
    json_object_set(all, "messages", c->messages);
    str text = {0};
    char *dump = json_dumps(all, JSON_INDENT(1));
    json_decref(all);
    if (dump) str_addf(&text, "%s\n", dump);
    bool fine = dump && !text.failed;
    free(dump);
    if (!fine) no_memory();
    else if (file_save(arg, text.p, text.n, &e)) report_base(&e);
    else {
        printf("Saved %zu messages to ", json_array_size(c->messages));
        term_puts(stdout, arg);
        printf(".\n");
    }
    str_free(&text);
}

static int load(chat *c, const char *path) {
    json_t *messages, *options;
    int code = read_conversation(path, &messages, &options);
    if (code) return code;
    json_decref(c->messages);
    json_decref(c->options);
    c->messages = messages;
    c->options = options;
    return EXIT_FINE;
}

static void do_load(chat *c, const char *arg) {
    if (!*arg) printf("/load wants the name of a file.\n");
    else if (load(c, arg) == EXIT_FINE) printf("Loaded %zu messages.\n", json_array_size(c->messages));
}

static void do_think(chat *c, const char *arg) {
    bool on = strcmp(arg, "on") == 0;
    if (!on && strcmp(arg, "off") != 0) {
        printf("/think wants on or off.\n");
        return;
    }
    json_object_set_new(c->options, "thinking", json_boolean(on));
    say(on ? "Thinking is on.\n" : "Thinking is off.\n");
}

static void do_stats(chat *c, const char *arg) {
    (void)arg;
    str s = {0};
    human_bytes(&s, (double)hadal_session_cache_bytes(c->session));
    printf("%zu messages, %d of %d tokens in the cache (%s); answers: %llu of %d tokens in all, %.1f s; kernels %s\n",
           json_array_size(c->messages), hadal_session_length(c->session), c->context, s.p ? s.p : "",
           (unsigned long long)c->answers, c->total_tokens, c->total_seconds, hadal_model_kernels(c->model));
    str_free(&s);
}

static void do_quit(chat *c, const char *arg) {
    (void)arg;
    c->leave = true;
}

static void obey(chat *c, const char *line) {
    static const struct {
        const char *name;
        void (*act)(chat *, const char *);
    } acts[] = {{"/help", do_help},   {"/reset", do_reset}, {"/regen", do_regen}, {"/system", do_system},
                {"/think", do_think}, {"/save", do_save},   {"/load", do_load},   {"/stats", do_stats},
                {"/quit", do_quit},   {"/exit", do_quit}};
    size_t n = strcspn(line, " \t");
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++)
        if (strlen(acts[i].name) == n && memcmp(acts[i].name, line, n) == 0) {
            str arg = {0};
            str_puts(&arg, line + n + strspn(line + n, " \t"));
            while (arg.n && (arg.p[arg.n - 1] == ' ' || arg.p[arg.n - 1] == '\t')) arg.p[--arg.n] = 0;
            if (arg.p) acts[i].act(c, arg.p);
            str_free(&arg);
            return;
        }
    term_write(stdout, line, n, false);
    printf(" is no command; /help lists them.\n");
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* One message: a line, lines joined by a backslash at their end, or lines between two """. */
static line_kind read_message(chat *c, str *out, bool *empty) {
    bool quoted = false, more = true;
    for (int i = 0; more; i++) {
        char *line;
        line_kind kind = line_read(&c->in, i ? ". " : "> ", &line, empty);
        if (kind != LINE_TEXT) {
            if (i) *empty = false;
            return kind == LINE_END && out->n ? LINE_TEXT : kind;
        }
        const char *p = line;
        if (i == 0 && strncmp(p, "\"\"\"", 3) == 0) {
            quoted = true;
            p += 3;
        }
        size_t n = strlen(p);
        if (quoted) {
            const char *end = strstr(p, "\"\"\"");
            more = !end;
            if (end) n = (size_t)(end - p);
        } else {
            more = n && p[n - 1] == '\\';
            if (more) n--;
        }
        str_add(out, p, n);
        if (more && !(quoted && i == 0 && n == 0)) str_putc(out, '\n');
        free(line);
    }
    while (quoted && out->n && out->p[out->n - 1] == '\n') out->p[--out->n] = 0;
    return LINE_TEXT;
}

static void converse(chat *c) {
    bool warned = false;
    while (!c->leave && !ferror(stdout)) {
        str message = {0};
        bool empty;
        line_kind kind = read_message(c, &message, &empty);
        if (kind == LINE_END || (kind == LINE_INTERRUPTED && empty && warned)) c->leave = true;
        else if (kind == LINE_INTERRUPTED) {
            if (empty) say("Ctrl-C again or Ctrl-D leaves.\n");
            warned = empty;
        } else {
            warned = false;
            if (message.p && message.p[0] == '/') obey(c, message.p);
            else if (message.p && strspn(message.p, " \t\n") < message.n) user_turn(c, message.p);
        }
        str_free(&message);
    }
}

/* ---- the command ----------------------------------------------------------------------------------------------- */

static void banner(const char *folder, const json_t *info) {
    const char *kind = json_string_value(json_object_get(info, "kind"));
    const char *type = json_string_value(json_object_get(info, "model_type"));
    if (!term_is(stdin) || !term_is(stdout)) return;
    str s = {0};
    str_addf(&s, "%s: %s, ", folder, kind ? kind : type ? type : "model");
    human_count(&s, json_number_value(json_object_get(info, "parameters")));
    str_puts(&s, " parameters\n/help lists the commands, Ctrl-D leaves.\n");
    if (!s.failed) say(s.p);
    str_free(&s);
}

static int begin(chat *c, const char *folder) {
    const settings *o = c->o;
    hadal_error e = {0};
    json_t *info;
    int code = need_model(folder);
    if (!code) code = model_info(folder, 0, &info);
    if (code) return code;
    if (!has_template(info))
        code = wrong("%s: no chat template in this folder; 'hadal run --raw' continues text", folder);
    if (!code) code = open_model(&c->model, folder, &o->machine);
    if (!code && !hadal_model_tokenizer(c->model)) code = wrong("%s: no tokenizer.json in this folder", folder);
    if (!code && hadal_session_open(&c->session, c->model, o->context, &e)) code = report(&e);
    if (!code && !((c->messages = json_array()) && (c->options = json_object()))) code = no_memory();
    if (!code) {
        sampling_of(&c->sampling, c->model, &o->sampling);
        c->context = o->context ? o->context : hadal_model_max_context(c->model);
        if (o->load) code = load(c, o->load);
    }
    if (!code) {
        if (o->think) json_object_set_new(c->options, "thinking", json_boolean(strcmp(o->think, "on") == 0));
        if (o->system) set_system(c, o->system);
        banner(folder, info);
    }
    json_decref(info);
    return code;
}

static int run(void *given, int n, char **args) {
    (void)n;
    chat c = {.o = given};
    term_catch_interrupt();
    int code = begin(&c, args[0]);
    if (!code) {
        line_open(&c.in);
        converse(&c);
        line_close(&c.in);
    }
    json_decref(c.messages);
    json_decref(c.options);
    hadal_session_close(c.session);
    hadal_model_close(c.model);
    return code;
}

const command command_chat = {
    .name = "chat",
    .arguments = "MODEL",
    .summary = "holds a conversation",
    .more = "MODEL is a Hugging Face folder with a chat template. /help lists what can be said to hadal itself.\n"
            "Ctrl-C stops an answer. Messages may come through a pipe, one a line.",
    .examples = "hadal chat ./DeepSeek-R1-Distill-Qwen-1.5B\n"
                "hadal chat ./DeepSeek-V3.1 --think on --system \"Answer in French.\"\n"
                "hadal chat ./DeepSeek-V2-Lite-Chat --load yesterday.json",
    .groups = {{"Options", rows, 0},
               {"Sampling", sampling_rows, offsetof(settings, sampling)},
               {"Machine", machine_rows, offsetof(settings, machine)}},
    .min_args = 1,
    .max_args = 1,
    .size = sizeof(settings),
    .defaults = &defaults,
    .run = run,
};
