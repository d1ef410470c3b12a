/* hadal run: one answer to each prompt. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli/answer.h"
#include "cli/commands.h"
#include "cli/conversation.h"
#include "cli/generate.h"
#include "cli/term.h"

typedef struct settings {
    texts prompts;
    const char *file, *system, *think, *tools;
    bool raw, chat, hide_thinking, json, stats;
    int logprobs, context;
    sampling_options sampling;
    machine_options machine;
} settings;
static const settings defaults = {.logprobs = -1, .sampling = SAMPLING_DEFAULTS};

#define AT(field) offsetof(settings, field)
static const option rows[] = {
    {"prompt", 'p', "TEXT", OPT_TEXTS, AT(prompts), 0, 0, "the prompt; several are answered as one batch"},
    {"file", 'f', "FILE", OPT_TEXT, AT(file), 0, 0, "the prompt from a file; -: standard input"},
    {"chat", 0, NULL, OPT_SWITCH, AT(chat), 0, 0, "the prompt is a message (default with a chat template)"},
    {"raw", 0, NULL, OPT_SWITCH, AT(raw), 0, 0, "the prompt is a text to be continued"},
    {"system", 0, "TEXT", OPT_TEXT, AT(system), 0, 0, "the system message"},
    {"think", 0, "on|off", OPT_TEXT, AT(think), 0, 0, "reasoning before the answer, where the model has the choice"},
    {"hide-thinking", 0, NULL, OPT_SWITCH, AT(hide_thinking), 0, 0, "leaves the reasoning out of the output"},
    {"tools", 0, "FILE", OPT_TEXT, AT(tools), 0, 0, "JSON list of tools that the model may call"},
    {"context", 'c', "N", OPT_INT, AT(context), 0, 1 << 30, "most tokens of prompt and answer; 0: the model's"},
    {"logprobs", 0, "N", OPT_INT, AT(logprobs), 0, 20, "log-probability of each token, and of the N most likely ones"},
    {"json", 0, NULL, OPT_SWITCH, AT(json), 0, 0, "one JSON object for each prompt, a line each"},
    {"stats", 0, NULL, OPT_SWITCH, AT(stats), 0, 0, "speed on stderr, also when it is no terminal"},
    {0},
};
#undef AT

typedef struct prompt {
    const char *text;
    size_t n;
    int32_t *ids;
    size_t count;
    int thinking;     /* HADAL_PLAIN ... */
    json_t *logprobs; /* of the answer, or NULL */
} prompt;

typedef struct job {
    const settings *o;
    const char *folder;
    hadal_model *model;
    json_t *options; /* of the template */
    json_t *tools;
    bool chat;
    hadal_sampling sampling;
    char *from_file;
    prompt *prompts;
    int n;
    answer answer;     /* of the single prompt, while it streams */
    progress progress; /* of the prompts; then of a batch, which shows nothing until it is done */
    uint64_t tokens;
    char last; /* the last character shown */
} job;

/* ---- input ----------------------------------------------------------------------------------------------------- */

static int read_prompts(job *j) {
    const settings *o = j->o;
    if (o->file && o->prompts.n) return wrong("--prompt and --file exclude each other; try 'hadal run --help'");
    if (o->raw && o->chat) return wrong("--raw and --chat exclude each other; try 'hadal run --help'");
    if (o->raw && (o->system || o->think || o->tools))
        return wrong("--raw knows no --system, --think or --tools; try 'hadal run --help'");
    if (!o->file && !o->prompts.n && term_is(stdin))
        return wrong("a prompt is missing: -p TEXT, -f FILE, or through a pipe; try 'hadal run --help'");
    j->n = o->prompts.n ? o->prompts.n : 1;
    j->prompts = calloc((size_t)j->n, sizeof *j->prompts);
    if (!j->prompts) return no_memory();
    for (int i = 0; i < o->prompts.n; i++)
        j->prompts[i] = (prompt){.text = o->prompts.v[i], .n = strlen(o->prompts.v[i])};
    if (o->prompts.n) return EXIT_FINE;
    int code = read_text(o->file ? o->file : "-", &j->from_file, &j->prompts[0].n);
    j->prompts[0].text = j->from_file;
    return code;
}

static int read_options(job *j) {
    error e = {0};
    const settings *o = j->o;
    if (!(j->options = json_object())) return no_memory();
    if (o->think) json_object_set_new(j->options, "thinking", json_boolean(strcmp(o->think, "on") == 0));
    if (!o->tools) return EXIT_FINE;
    int code = need_file(o->tools);
    if (code) return code;
    if (json_read(&j->tools, o->tools, 16 << 20, &e)) return report_base(&e);
    if (!json_is_array(j->tools)) return wrong("%s: wanted a JSON list of tools", o->tools);
    return json_object_set(j->options, "tools", j->tools) ? no_memory() : EXIT_FINE;
}

static int encode_chat(job *j, prompt *p) {
    json_t *messages = json_array();
    int code = EXIT_FINE;
    if (!messages) return no_memory();
    if ((j->o->system && !add_message(messages, "system", j->o->system, strlen(j->o->system))) ||
        !add_message(messages, "user", p->text, p->n))
        code = wrong("the prompt is not valid UTF-8");
    if (!code) code = conversation_ids(j->model, messages, j->options, &p->ids, &p->count, &p->thinking);
    json_decref(messages);
    return code;
}

static int encode(job *j, prompt *p) {
    hadal_error e = {0};
    int code = EXIT_FINE;
    if (j->chat) code = encode_chat(j, p);
    else if (hadal_tokenize(hadal_model_tokenizer(j->model), p->text, p->n, HADAL_PARSE_SPECIAL | HADAL_ADD_SPECIAL,
                            &p->ids, &p->count, &e))
        code = report(&e);
    if (!code && !p->count) code = wrong("the prompt is empty");
    if (!code && p->count > INT_MAX) code = wrong("the prompt is too long: %zu tokens", p->count);
    if (!code && j->sampling.logprobs && !(p->logprobs = json_array())) code = no_memory();
    return code;
}

/* ---- tokens as they come --------------------------------------------------------------------------------------- */

static json_t *token_json(const hadal_tokenizer *t, int32_t id, double logprob) {
    char *text = NULL;
    json_t *o = json_object();
    json_object_set_new(o, "id", json_integer(id));
    if (hadal_token_text(t, id, &text, NULL) == HADAL_OK) json_object_set_new(o, "text", json_string(text));
    json_object_set_new(o, "logprob", json_real(logprob));
    hadal_free(text);
    return o;
}

static void keep_logprobs(const job *j, const hadal_token *t) {
    const hadal_tokenizer *tokenizer = hadal_model_tokenizer(j->model);
    json_t *o = token_json(tokenizer, t->id, (double)t->logprob);
    if (t->n_top) {
        json_t *top = json_array();
        for (int i = 0; i < t->n_top; i++)
            json_array_append_new(top, token_json(tokenizer, t->top_ids[i], (double)t->top_logprobs[i]));
        json_object_set_new(o, "top", top);
    }
    json_array_append_new(j->prompts[t->sequence].logprobs, o);
}

static int on_token(void *arg, const hadal_token *t) {
    job *j = arg;
    if (j->sampling.logprobs) keep_logprobs(j, t);
    j->tokens++;
    if (j->n > 1 || j->o->json) {
        progress_call(&j->progress, j->tokens, 0, "tokens generated");
        return term_interrupts > 0;
    }
    progress_end(&j->progress);
    if (t->n) {
        answer_add(&j->answer, t->text, t->n);
        j->last = t->text[t->n - 1];
    }
    return term_interrupts > 0 || ferror(stdout);
}

/* ---- output ---------------------------------------------------------------------------------------------------- */

static int result_json(const job *j, const prompt *p, const hadal_result *r) {
    json_t *o = json_pack("{s:s, s:o*, s:o*}", "model", j->folder, "prompt", json_stringn(p->text, p->n), "text",
                          json_stringn(r->text, r->n));
    json_t *parts = NULL, *ids = json_array();
    int code = !o || !ids ? no_memory() : EXIT_FINE;
    if (!code && j->chat) code = parse_answer(j->model, r->text, p->thinking, &parts);
    if (!code) {
        if (parts) json_object_update(o, parts);
        for (int i = 0; i < r->n_ids; i++) json_array_append_new(ids, json_integer(r->ids[i]));
        json_object_set(o, "ids", ids);
        json_object_set_new(o, "finish", json_string(r->finish));
        json_object_set_new(o, "prompt_tokens", json_integer(r->prompt_tokens));
        json_object_set_new(o, "cached_tokens", json_integer(r->cached_tokens));
        json_object_set_new(o, "answer_tokens", json_integer(r->n_ids));
        json_object_set_new(o, "prompt_seconds", json_real(r->prompt_seconds));
        json_object_set_new(o, "seconds", json_real(r->seconds));
        json_object_set_new(o, "draft_proposed", json_integer(r->draft_proposed));
        json_object_set_new(o, "draft_accepted", json_integer(r->draft_accepted));
        json_object_set_new(o, "seed", json_integer((json_int_t)j->sampling.seed));
        if (p->logprobs) json_object_set(o, "logprobs", p->logprobs);
        code = print_json_line(o);
    }
    json_decref(parts);
    json_decref(ids);
    json_decref(o);
    return code;
}

static void print_logprobs(const json_t *list) {
    size_t i, k;
    const json_t *t, *top;
    json_array_foreach(list, i, t) {
        printf("%8.4f  ", json_number_value(json_object_get(t, "logprob")));
        term_puts(stdout, json_string_value(json_object_get(t, "text")));
        json_array_foreach(json_object_get(t, "top"), k, top) {
            printf("%s", k ? ", " : "    of ");
            term_puts(stdout, json_string_value(json_object_get(top, "text")));
            printf(" %.4f", json_number_value(json_object_get(top, "logprob")));
        }
        putchar('\n');
    }
}

static void heading(int i, const prompt *p) {
    size_t n = strcspn(p->text, "\n"), width = n > 60 ? 60 : n;
    while (width < n && width && ((unsigned char)p->text[width] & 0xc0) == 0x80) width--; /* whole characters */
    printf("%s--- %d: ", i ? "\n" : "", i + 1);
    term_write(stdout, p->text, width, false);
    printf("%s\n", width < p->n ? " ..." : "");
}

static void print_stats(const job *j, const hadal_result *r) {
    if (!j->o->stats && !term_is(stderr)) return;
    str s = {0};
    describe_result(&s, r);
    str_addf(&s, "; seed %llu\n", (unsigned long long)j->sampling.seed);
    fflush(stdout);
    if (!s.failed) term_write(stderr, s.p, s.n, true);
    str_free(&s);
}

static int print_result(job *j, int i, const hadal_result *r) {
    prompt *p = &j->prompts[i];
    if (j->o->json) return result_json(j, p, r);
    if (j->n > 1) {
        heading(i, p);
        answer_begin(&j->answer, p->thinking == HADAL_THINKS, j->o->hide_thinking);
        answer_add(&j->answer, r->text, r->n);
        if (r->n) j->last = r->text[r->n - 1];
    }
    answer_end(&j->answer);
    if (j->last != '\n') putchar('\n');
    j->last = 0;
    if (p->logprobs) print_logprobs(p->logprobs);
    print_stats(j, r);
    return EXIT_FINE;
}

/* ---- generating ------------------------------------------------------------------------------------------------ */

static int generate_one(job *j) {
    hadal_session *s = NULL;
    hadal_result r = {0};
    hadal_error e = {0};
    const prompt *p = &j->prompts[0];
    if (hadal_session_open(&s, j->model, j->o->context, &e)) return report(&e);
    answer_begin(&j->answer, p->thinking == HADAL_THINKS, j->o->hide_thinking);
    int st = hadal_generate(s, p->ids, (int)p->count, &j->sampling, on_token, j, &r, &e);
    progress_end(&j->progress);
    int code = st ? report(&e) : print_result(j, 0, &r);
    answer_end(&j->answer);
    hadal_result_clear(&r);
    hadal_session_close(s);
    return code;
}

static int batch(job *j, hadal_session **sessions, const int32_t **ids, int *n, hadal_result *r) {
    hadal_error e = {0};
    int code = EXIT_FINE;
    for (int i = 0; i < j->n && !code; i++) {
        if (hadal_session_open(&sessions[i], j->model, j->o->context, &e)) code = report(&e);
        ids[i] = j->prompts[i].ids;
        n[i] = (int)j->prompts[i].count;
    }
    if (code) return code;
    int st = hadal_generate_batch(sessions, j->n, ids, n, &j->sampling, on_token, j, r, &e);
    progress_end(&j->progress);
    if (st) return report(&e);
    for (int i = 0; i < j->n && !code; i++) code = print_result(j, i, &r[i]);
    return code;
}

static int generate_batch(job *j) {
    size_t many = (size_t)j->n;
    hadal_session **sessions = calloc(many, sizeof(hadal_session *));
    const int32_t **ids = calloc(many, sizeof(int32_t *));
    int *n = calloc(many, sizeof *n);
    hadal_result *r = calloc(many, sizeof *r);
    bool fine = sessions && ids && n && r;
    int code = fine ? batch(j, sessions, ids, n, r) : no_memory();
    for (int i = 0; fine && i < j->n; i++) {
        hadal_result_clear(&r[i]);
        hadal_session_close(sessions[i]);
    }
    free(sessions);
    free(ids);
    free(n);
    free(r);
    return code;
}

static int answer_all(job *j) {
    const settings *o = j->o;
    json_t *info;
    int code = need_model(j->folder);
    if (!code) code = read_prompts(j);
    if (!code) code = read_options(j);
    if (!code) code = model_info(j->folder, 0, &info);
    if (code) return code;
    j->chat = o->chat || (!o->raw && has_template(info));
    if (o->chat && !has_template(info)) code = wrong("%s: no chat template in this folder; use --raw", j->folder);
    else if (!j->chat && (o->system || o->think || o->tools))
        code = wrong("%s: no chat template in this folder, which --system, --think and --tools need", j->folder);
    json_decref(info);
    if (!code) code = open_model(&j->model, j->folder, &o->machine);
    if (code) return code;
    if (!hadal_model_tokenizer(j->model)) return wrong("%s: no tokenizer.json in this folder", j->folder);
    sampling_of(&j->sampling, j->model, &o->sampling);
    j->sampling.progress = progress_call;
    j->sampling.progress_arg = &j->progress;
    j->sampling.logprobs = o->logprobs > 0 ? o->logprobs : o->logprobs == 0 ? -1 : 0;
    for (int i = 0; i < j->n && !code; i++) code = encode(j, &j->prompts[i]);
    if (!code) code = j->n == 1 ? generate_one(j) : generate_batch(j);
    return code;
}

static int run(void *given, int n, char **args) {
    (void)n;
    job j = {.o = given, .folder = args[0]};
    term_catch_interrupt();
    int code = answer_all(&j);
    for (int i = 0; j.prompts && i < j.n; i++) {
        hadal_free(j.prompts[i].ids);
        json_decref(j.prompts[i].logprobs);
    }
    free(j.prompts);
    free(j.from_file);
    json_decref(j.options);
    json_decref(j.tools);
    hadal_model_close(j.model);
    return code ? code : term_interrupts ? EXIT_INTERRUPTED : EXIT_FINE;
}

const command command_run_model = {
    .name = "run",
    .arguments = "MODEL",
    .summary = "answers a prompt",
    .more = "MODEL is a Hugging Face folder: config.json, *.safetensors, tokenizer.json.\n"
            "Defaults of sampling come from its generation_config.json. One newline at the end of a file is dropped.",
    .examples = "hadal run ./DeepSeek-V2-Lite-Chat -p \"Why is the sea salty?\"\n"
                "git diff | hadal run ./DeepSeek-R1-Distill-Qwen-1.5B --system \"Review this.\" --hide-thinking\n"
                "hadal run ./DeepSeek-V2-Lite --raw -p \"Once upon a time\" -n 40 --temperature 0\n"
                "hadal run ./DeepSeek-V3 -p \"One?\" -p \"Two?\" --json --drafts 1",
    .groups = {{"Options", rows, 0},
               {"Sampling", sampling_rows, offsetof(settings, sampling)},
               {"Machine", machine_rows, offsetof(settings, machine)}},
    .min_args = 1,
    .max_args = 1,
    .size = sizeof(settings),
    .defaults = &defaults,
    .run = run,
};
