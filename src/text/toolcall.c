#include "text/toolcall.h"

#include <stdlib.h>
#include <string.h>
#include "base/json.h"
#include "text/template_text.h"

#define THINK "<think>"
#define END_THINK "</think>"
#define CALLS_BEGIN "<｜tool▁calls▁begin｜>"
#define CALLS_END "<｜tool▁calls▁end｜>"
#define CALL_BEGIN "<｜tool▁call▁begin｜>"
#define CALL_END "<｜tool▁call▁end｜>"
#define SEP "<｜tool▁sep｜>"
#define DSML_CALLS "<｜DSML｜function_calls>"
#define DSML_END_CALLS "</｜DSML｜function_calls>"
#define DSML_INVOKE "<｜DSML｜invoke name=\""
#define DSML_END_INVOKE "</｜DSML｜invoke>"
#define DSML_PARAMETER "<｜DSML｜parameter name=\""
#define DSML_END_PARAMETER "</｜DSML｜parameter>"

enum { MAX_NAME = 256 };

typedef enum place {
    AT_START, /* where <think> may stand */
    REASONING,
    CONTENT,
    OPENING, /* at a marker that should begin a tool call */
    ARGUMENTS,
    PARAMETERS, /* V3.2: between the parameters of a call */
    VALUE,      /* V3.2: in a parameter */
    BETWEEN     /* behind a call: another one, or the end of all */
} place;

struct answer_parser {
    const answer_format *f;
    answer_options how;
    answer_sink sink;
    void *user;
    error *e;
    place place;
    str text; /* what has come in and is not yet certain begins at `at` */
    size_t at;
    bool end;      /* nothing more will come */
    size_t calls;  /* begun so far */
    str arguments; /* of the call in progress */
    bool first_parameter, string_value;
};

/* What became of an attempt to read something at the front of the text. */
typedef enum outcome { NO, YES, MORE } outcome; /* MORE: it may still become one */

struct answer_format {
    const char *name;
    const char *opens[2];                                             /* markers that begin tool calls */
    bool newlines;                                                    /* two newlines before them belong to them */
    bool fenced;                                                      /* arguments end with a Markdown fence */
    place inside;                                                     /* where a call's name leads */
    outcome (*header)(const answer_parser *p, size_t *i, text *name); /* reads a call up to its arguments */
    const char *closes;                                               /* the marker behind all calls */
};

/* ---- reading at the front ---- */

static text rest(const answer_parser *p) {
    return (text){p->text.p + p->at, p->text.n - p->at};
}

static outcome skip(const answer_parser *p, size_t *i, const char *marker) {
    text t = rest(p);
    size_t n = strlen(marker), have = t.n - *i;
    if (have && memcmp(t.p + *i, marker, have < n ? have : n)) return NO;
    if (have < n) return p->end ? NO : MORE;
    *i += n;
    return YES;
}

static void skip_space(const answer_parser *p, size_t *i) {
    text t = rest(p);
    while (*i < t.n && strchr(" \t\r\n", t.p[*i]) && t.p[*i]) ++*i;
}

/* A name of 1 to MAX_NAME bytes up to the character `stop`, which is not read; no control characters. */
static outcome read_name(const answer_parser *p, size_t *i, char stop, text *out) {
    text t = rest(p);
    size_t from = *i;
    for (; *i < t.n && t.p[*i] != stop; ++*i)
        if (*i - from == MAX_NAME || (unsigned char)t.p[*i] < 0x20) return NO;
    if (*i == t.n) return p->end ? NO : MORE;
    *out = text_strip((text){t.p + from, *i - from}, NULL, true, true);
    return out->n ? YES : NO;
}

#define NEED(step)                \
    do {                          \
        outcome o_ = (step);      \
        if (o_ != YES) return o_; \
    } while (0)

/* ---- one function per format: the head of a call ---- */

/* <call begin>type<sep>NAME\n```json\n */
static outcome header_v3(const answer_parser *p, size_t *i, text *name) {
    text type;
    NEED(skip(p, i, CALL_BEGIN));
    NEED(read_name(p, i, '<', &type));
    NEED(skip(p, i, SEP));
    NEED(read_name(p, i, '\n', name));
    return skip(p, i, "\n```json\n");
}

/* <call begin>NAME<sep> */
static outcome header_v31(const answer_parser *p, size_t *i, text *name) {
    NEED(skip(p, i, CALL_BEGIN));
    NEED(read_name(p, i, '<', name));
    return skip(p, i, SEP);
}

/* <invoke name="NAME"> */
static outcome header_v32(const answer_parser *p, size_t *i, text *name) {
    NEED(skip(p, i, DSML_INVOKE));
    NEED(read_name(p, i, '"', name));
    return skip(p, i, "\">");
}

static const answer_format formats[] = {
    {"deepseek-v3.2", {DSML_CALLS, NULL}, true, false, PARAMETERS, header_v32, DSML_END_CALLS},
    {"deepseek-v3.1", {CALLS_BEGIN, CALL_BEGIN}, false, false, ARGUMENTS, header_v31, CALLS_END},
    {"deepseek-r1", {CALLS_BEGIN, CALL_BEGIN}, false, true, ARGUMENTS, header_v3, CALLS_END},
    {"deepseek-v3", {CALLS_BEGIN, CALL_BEGIN}, false, true, ARGUMENTS, header_v3, CALLS_END},
    {"plain", {NULL, NULL}, false, false, CONTENT, NULL, NULL}};

const answer_format *answer_format_named(const char *name) {
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (!strcmp(formats[i].name, name)) return formats + i;
    return NULL;
}

const char *answer_format_name(const answer_format *f) {
    return f->name;
}

const answer_format *answer_format_find(const char *t, const char *model_type) {
    if (!t) return answer_format_named(model_type && !strcmp(model_type, "deepseek_v32") ? "deepseek-v3.2" : "plain");
    if (strstr(t, "｜DSML｜")) return answer_format_named("deepseek-v3.2");
    if (!strstr(t, CALLS_BEGIN)) return answer_format_named("plain");
    if (!strstr(t, "```json")) return answer_format_named("deepseek-v3.1");
    return answer_format_named(strstr(t, "<｜Assistant｜>" THINK) ? "deepseek-r1" : "deepseek-v3");
}

static bool ends_with(const char *prompt, size_t n, const char *mark) {
    text t = text_strip((text){prompt, n}, NULL, false, true);
    size_t k = strlen(mark);
    return t.n >= k && !memcmp(t.p + t.n - k, mark, k);
}

bool answer_starts_thinking(const char *prompt, size_t n) {
    return ends_with(prompt, n, THINK);
}

bool answer_may_think(const char *prompt, size_t n) {
    return !ends_with(prompt, n, END_THINK);
}

/* ---- events ---- */

static status emit(answer_parser *p, answer_event_kind kind, const char *s, size_t n) {
    if (n == 0 && kind != ANSWER_CALL_END) return OK;
    answer_event ev = {.kind = kind, .text = s, .n = n, .call = p->calls ? p->calls - 1 : 0};
    if (kind == ANSWER_ARGUMENTS) str_add(&p->arguments, s, n);
    if (kind == ANSWER_CALL_END) {
        json_t *j;
        text arguments = {p->arguments.p ? p->arguments.p : "", p->arguments.n};
        TRY(text_read_json(&j, arguments, JSON_REJECT_DUPLICATES, p->e));
        ev.valid = json_is_object(j);
        json_decref(j);
        p->arguments.n = 0;
    }
    status st = p->sink(p->user, &ev);
    return st == OK ? str_check(&p->arguments, p->e) : fail(p->e, st, "the reader of the answer stopped it");
}

static status emit_front(answer_parser *p, answer_event_kind kind, size_t n) {
    status st = emit(p, kind, p->text.p + p->at, n);
    p->at += n;
    return st;
}

/* How many bytes at the end of t could be the beginning of the marker. */
static size_t begun(text t, const char *marker) {
    size_t n = strlen(marker) - 1;
    if (n > t.n) n = t.n;
    while (n && memcmp(t.p + t.n - n, marker, n)) n--;
    return n;
}

static bool find(text t, const char *marker, size_t *at) {
    return text_find(t, (text){marker, strlen(marker)}, 0, at);
}

/* ---- the places; each returns *go_on: whether the text can be read further now ---- */

static status at_start(answer_parser *p, bool *go_on) {
    size_t i = 0;
    skip_space(p, &i);
    outcome o = skip(p, &i, THINK);
    *go_on = o != MORE;
    if (o == MORE) return OK;
    if (o == YES) p->at += i;
    p->place = o == YES || p->how.thinking == ANSWER_THINKS ? REASONING : CONTENT;
    return OK;
}

static status in_reasoning(answer_parser *p, bool *go_on) {
    text t = rest(p);
    size_t at;
    *go_on = find(t, END_THINK, &at);
    if (!*go_on) return emit_front(p, ANSWER_REASONING, p->end ? t.n : t.n - begun(t, END_THINK));
    TRY(emit_front(p, ANSWER_REASONING, at));
    p->at += strlen(END_THINK);
    p->place = CONTENT;
    return OK;
}

/* Up to two newlines at the end of the first n bytes. */
static size_t newlines_before(const answer_parser *p, size_t n) {
    size_t k = 0;
    while (p->f->newlines && k < 2 && k < n && rest(p).p[n - 1 - k] == '\n') k++;
    return k;
}

static size_t opening_at(const answer_parser *p, size_t i) {
    text t = rest(p);
    for (int k = 0; k < 2 && p->f->opens[k]; k++) {
        size_t n = strlen(p->f->opens[k]);
        if (n <= t.n - i && !memcmp(t.p + i, p->f->opens[k], n)) return n;
    }
    return 0;
}

static bool find_opening(const answer_parser *p, size_t *at) {
    text t = rest(p);
    for (*at = 0; p->how.tools && text_find(t, (text){"<", 1}, *at, at); ++*at)
        if (opening_at(p, *at)) return true;
    return false;
}

static status in_content(answer_parser *p, bool *go_on) {
    text t = rest(p);
    size_t first, held = 0;
    *go_on = find_opening(p, &first);
    if (*go_on) {
        size_t newlines = newlines_before(p, first);
        TRY(emit_front(p, ANSWER_CONTENT, first - newlines));
        p->place = OPENING; /* the newlines stay in front, in case it is no call */
        return OK;
    }
    if (p->end) return emit_front(p, ANSWER_CONTENT, t.n);
    for (int i = 0; i < 2 && p->how.tools && p->f->opens[i]; i++) {
        size_t k = begun(t, p->f->opens[i]);
        if (k > held) held = k;
    }
    if (p->how.tools) held += newlines_before(p, t.n - held);
    return emit_front(p, ANSWER_CONTENT, t.n - held);
}

/* The opening marker was not one: it is content, and reading goes on behind it. */
static status reject_opening(answer_parser *p) {
    size_t i = 0;
    while (p->f->newlines && rest(p).p[i] == '\n') i++;
    p->place = CONTENT;
    return emit_front(p, ANSWER_CONTENT, i + opening_at(p, i));
}

static status begin_call(answer_parser *p, size_t header, text name) {
    p->calls++;
    p->first_parameter = true;
    p->place = p->f->inside;
    TRY(emit(p, ANSWER_CALL, name.p, name.n));
    p->at += header;
    return OK;
}

static status at_opening(answer_parser *p, bool *go_on) {
    size_t i = 0;
    text name;
    if (p->f->newlines) skip_space(p, &i);
    outcome o = skip(p, &i, p->f->opens[0]); /* V3's marker round all calls may be missing */
    if (o == YES) skip_space(p, &i);
    if (o == YES || (o == NO && p->f->opens[1])) o = p->f->header(p, &i, &name);
    *go_on = o != MORE;
    if (o == NO) return reject_opening(p);
    return o == YES ? begin_call(p, i, name) : OK;
}

static status end_call(answer_parser *p, place next) {
    p->place = next;
    return emit(p, ANSWER_CALL_END, "", 0);
}

/* The first n bytes without the fence and white space at their end. */
static size_t before_fence(const answer_parser *p, size_t n) {
    const char *s = rest(p).p;
    while (p->f->fenced && n && strchr(" \t\r\n`", s[n - 1]) && s[n - 1]) n--;
    return n;
}

static status in_arguments(answer_parser *p, bool *go_on) {
    text t = rest(p);
    size_t at;
    *go_on = find(t, CALL_END, &at);
    if (!*go_on) {
        size_t n = before_fence(p, p->end ? t.n : t.n - begun(t, CALL_END));
        TRY(emit_front(p, ANSWER_ARGUMENTS, n));
        if (!p->end) return OK;
        p->at = p->text.n;
        return end_call(p, CONTENT);
    }
    TRY(emit(p, ANSWER_ARGUMENTS, t.p, before_fence(p, at)));
    p->at += at + strlen(CALL_END);
    return end_call(p, BETWEEN);
}

/* name="KEY" string="true|false"> */
static outcome parameter_header(const answer_parser *p, size_t *i, text *key, bool *string) {
    NEED(skip(p, i, DSML_PARAMETER));
    NEED(read_name(p, i, '"', key));
    NEED(skip(p, i, "\" string=\""));
    size_t i_true = *i;
    outcome o = skip(p, &i_true, "true\">");
    *string = o == YES;
    if (o == NO) return skip(p, i, "false\">");
    *i = i_true;
    return o;
}

static status in_parameters(answer_parser *p, bool *go_on) {
    size_t i = 0;
    text key;
    bool string;
    skip_space(p, &i);
    size_t i_end = i;
    outcome end = skip(p, &i_end, DSML_END_INVOKE);
    if (end == YES) {
        p->at += i_end;
        const char *close = p->first_parameter ? "{}" : "}";
        TRY(emit(p, ANSWER_ARGUMENTS, close, strlen(close)));
        *go_on = true;
        return end_call(p, BETWEEN);
    }
    outcome o = parameter_header(p, &i, &key, &string);
    *go_on = o == YES || (o == NO && end == NO);
    if (!*go_on) return OK;
    if (o == NO) return end_call(p, CONTENT); /* neither: the call is broken off, what follows is content */
    str s = {0};
    str_puts(&s, p->first_parameter ? "{" : ", ");
    text_print_json(&s, key, false);
    str_puts(&s, string ? ": \"" : ": ");
    status st = s.failed ? str_check(&s, p->e) : emit(p, ANSWER_ARGUMENTS, s.p, s.n);
    str_free(&s);
    p->at += i;
    p->first_parameter = false;
    p->string_value = string;
    p->place = VALUE;
    return st;
}

/* The next n bytes of a parameter: as they are, or as the inside of a JSON string. */
static status emit_value(answer_parser *p, size_t n) {
    if (!p->string_value || n == 0) return emit_front(p, ANSWER_ARGUMENTS, n);
    str s = {0};
    text_print_json(&s, (text){rest(p).p, n}, false);
    status st = s.failed ? str_check(&s, p->e) : emit(p, ANSWER_ARGUMENTS, s.p + 1, s.n - 2);
    str_free(&s);
    p->at += n;
    return st;
}

static status in_value(answer_parser *p, bool *go_on) {
    text t = rest(p);
    size_t at;
    *go_on = find(t, DSML_END_PARAMETER, &at);
    if (!*go_on) {
        TRY(emit_value(p, p->end ? t.n : t.n - begun(t, DSML_END_PARAMETER)));
        return p->end ? end_call(p, CONTENT) : OK;
    }
    TRY(emit_value(p, at));
    if (p->string_value) TRY(emit(p, ANSWER_ARGUMENTS, "\"", 1));
    p->at += strlen(DSML_END_PARAMETER);
    p->place = PARAMETERS;
    return OK;
}

static status in_between(answer_parser *p, bool *go_on) {
    size_t i = 0;
    text name;
    skip_space(p, &i);
    size_t i_end = i;
    bool nothing = i == rest(p).n;
    outcome end = skip(p, &i_end, p->f->closes), o = p->f->header(p, &i, &name);
    *go_on = end == YES || o == YES || (end == NO && o == NO && !nothing);
    if (end == YES) {
        p->at += i_end;
        p->place = CONTENT;
        return OK;
    }
    if (o == YES) return begin_call(p, i, name);
    if (*go_on) p->place = CONTENT;
    else if (p->end) p->at = p->text.n; /* white space */
    return OK;
}

/* ---- driving ---- */

static status work(answer_parser *p) {
    static status (*const places[])(answer_parser *, bool *) = {
        [AT_START] = at_start,      [REASONING] = in_reasoning,   [CONTENT] = in_content, [OPENING] = at_opening,
        [ARGUMENTS] = in_arguments, [PARAMETERS] = in_parameters, [VALUE] = in_value,     [BETWEEN] = in_between};
    for (bool go_on = true; go_on;) TRY(places[p->place](p, &go_on));
    return OK;
}

status answer_open(answer_parser **out, const answer_format *f, answer_options how, answer_sink sink, void *user,
                   error *e) {
    answer_parser *p = *out = calloc(1, sizeof *p);
    if (!p) return fail(e, ERR_NOMEM, "memory is out");
    p->f = f;
    p->how = how;
    p->sink = sink;
    p->user = user;
    p->place = how.thinking ? AT_START : CONTENT;
    return OK;
}

status answer_feed(answer_parser *p, const char *s, size_t n, error *e) {
    p->e = e;
    if (p->at) { /* what is certain goes; what is held back is short */
        p->text.n -= p->at;
        memmove(p->text.p, p->text.p + p->at, p->text.n);
        p->at = 0;
    }
    str_add(&p->text, s, n);
    TRY(str_check(&p->text, e));
    return p->text.n ? work(p) : OK;
}

status answer_finish(answer_parser *p, error *e) {
    p->e = e;
    p->end = true;
    if (!p->text.p) str_add(&p->text, "", 0);
    TRY(str_check(&p->text, e));
    return work(p);
}

void answer_close(answer_parser *p) {
    if (!p) return;
    str_free(&p->text);
    str_free(&p->arguments);
    free(p);
}

/* ---- the whole text ---- */

typedef struct collector {
    str reasoning, content, arguments;
    answer *a;
} collector;

static status collect_call(collector *c, const answer_event *ev) {
    answer_call *calls = realloc(c->a->calls, (c->a->n_calls + 1) * sizeof *calls);
    if (!calls) return ERR_NOMEM;
    c->a->calls = calls;
    calls[c->a->n_calls] = (answer_call){.name = strndup(ev->text, ev->n)};
    return calls[c->a->n_calls++].name ? OK : ERR_NOMEM;
}

static status collect(void *user, const answer_event *ev) {
    collector *c = user;
    if (ev->kind == ANSWER_CALL) return collect_call(c, ev);
    if (ev->kind == ANSWER_CALL_END) {
        answer_call *call = c->a->calls + c->a->n_calls - 1;
        call->valid = ev->valid;
        call->arguments = str_take(&c->arguments);
        return call->arguments ? OK : ERR_NOMEM;
    }
    str *s = ev->kind == ANSWER_REASONING ? &c->reasoning : ev->kind == ANSWER_CONTENT ? &c->content : &c->arguments;
    str_add(s, ev->text, ev->n);
    return s->failed ? ERR_NOMEM : OK;
}

status answer_parse(answer *out, const answer_format *f, answer_options how, const char *s, size_t n, error *e) {
    *out = (answer){0};
    collector c = {.a = out};
    answer_parser *p;
    TRY(answer_open(&p, f, how, collect, &c, e));
    status st = answer_feed(p, s, n, e);
    if (st == OK) st = answer_finish(p, e);
    answer_close(p);
    out->reasoning_n = c.reasoning.n;
    out->content_n = c.content.n;
    if (c.reasoning.n) out->reasoning = str_take(&c.reasoning);
    if (c.content.n) out->content = str_take(&c.content);
    str_free(&c.reasoning);
    str_free(&c.content);
    str_free(&c.arguments);
    if (st != OK) answer_free(out);
    return st;
}

void answer_free(answer *a) {
    for (size_t i = 0; i < a->n_calls; i++) {
        free(a->calls[i].name);
        free(a->calls[i].arguments);
    }
    free(a->calls);
    free(a->reasoning);
    free(a->content);
    *a = (answer){0};
}
