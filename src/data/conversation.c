/* With F the whole conversation's text, the answer in message i is F[begin..end):
 *   begin  the length of the prompt to which the model would answer: messages before i, add_generation_prompt. If F
 * does not go on from that prompt (R1's ends with <think>, its answers in a history have none), what stands before the
 * content of message i. end    the length of messages 0..i. If F does not go on from there (the last turn looks
 * different from others in some templates), the end of the content in F, found by a second rendering with another
 * content, and what follows the content when the conversation ends with it. Both are compared with F, so a template for
 * which this does not hold is an error, not a wrong mask.
 *
 * A template of the R1 family drops the thinking of every answer, also of the last one, which is to be learnt. The text
 * of the last turn then is what the model reads and writes: the prompt that opens <think>, the content, the end. */
#include "data/conversation.h"

#include <stdlib.h>
#include <string.h>
#include "text/chat.h"
#include "text/template_text.h"

#define OPEN "<think>"
#define CLOSE "</think>"
static const char mark[] = "\1the answer\1"; /* no template has it */

typedef struct renderer {
    const chat_format *f;
    json_t *messages, *options;
    size_t n;
    bool thinking;
    conversation *out;
    error *e;
} renderer;

static status no_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

static const json_t *message(const renderer *c, size_t i) {
    return json_array_get(c->messages, i);
}

static bool is_assistant(const json_t *m) {
    const char *role = json_string_value(json_object_get(m, "role"));
    return role && !strcmp(role, "assistant");
}

static text content_of(const json_t *m) {
    const json_t *v = json_object_get(m, "content");
    return (text){json_is_string(v) ? json_string_value(v) : "", json_string_length(v)};
}

static text as_text(const str *s) {
    return (text){s->p ? s->p : "", s->n};
}

static bool begins_with(text s, text with) {
    return s.n >= with.n && !memcmp(s.p, with.p, with.n);
}

static bool ends_with(text s, const char *end) {
    size_t n = strlen(end);
    return s.n >= n && !memcmp(s.p + s.n - n, end, n);
}

/* <think>...</think> at the head of a content; n is 0 when there is none. */
static text thinking_of(text content) {
    text t = text_strip(content, NULL, true, false);
    size_t at;
    if (!begins_with(t, (text){OPEN, strlen(OPEN)}) || !text_find(t, (text){CLOSE, strlen(CLOSE)}, 0, &at))
        return (text){t.p, 0};
    return (text){t.p, at + strlen(CLOSE)};
}

/* ---- rendering ---- */

#define UNMARKED SIZE_MAX

/* The first n messages; the content of message `marked` is the mark. NULL: memory is out. */
static json_t *beginning(const renderer *c, size_t n, size_t marked) {
    json_t *list = json_array();
    bool bad = !list;
    for (size_t i = 0; !bad && i < n; i++) {
        json_t *m = json_array_get(c->messages, i);
        if (i != marked) bad = json_array_append(list, m) != 0;
        else {
            json_t *copy = json_copy(m);
            bad = !copy || json_object_set_new(copy, "content", json_string(mark)) != 0;
            if (copy) json_object_del(copy, "tool_calls");
            bad = json_array_append_new(list, copy) != 0 || bad;
        }
    }
    if (!bad) return list;
    json_decref(list);
    return NULL;
}

static status render(renderer *c, size_t n, size_t marked, bool open, bool thinking, str *out) {
    json_t *list = beginning(c, n, marked), *options = json_copy(c->options);
    bool bad = !list || !options || json_object_set_new(options, "add_generation_prompt", json_boolean(open)) ||
               json_object_set_new(options, "thinking", json_boolean(thinking)) ||
               json_object_set_new(options, "enable_thinking", json_boolean(thinking));
    status s = bad ? no_memory(c->e) : chat_render(c->f->template, c->f->model_type, list, options, out, c->e);
    json_decref(list);
    json_decref(options);
    return s;
}

/* *length of a rendering (up to the mark) if the conversation's text begins with it, else 0. A beginning that the
 * template refuses is none. */
static status try_beginning(renderer *c, size_t n, size_t marked, bool open, bool thinking, size_t *length) {
    str s = {0};
    *length = 0;
    status st = render(c, n, marked, open, thinking, &s);
    text t = as_text(&s);
    bool found = st == OK && (marked >= n || text_find(t, (text){mark, strlen(mark)}, 0, &t.n));
    if (found && begins_with(as_text(&c->out->text), t)) *length = t.n;
    str_free(&s);
    return st == ERR_NOMEM ? st : OK;
}

/* ---- where an answer begins and ends ---- */

static status unclear(const renderer *c, size_t i) {
    return fail(c->e, ERR_FORMAT,
                "the chat template does not show which part of its text is message %zu; give another template, or "
                "count every token in the loss",
                i);
}

/* What stands behind the mark in a rendering of the first n messages. *out: free() its text. */
static status behind_mark(renderer *c, size_t n, size_t marked, str *s, text *out, size_t *at) {
    TRY(render(c, n, marked, false, c->thinking, s));
    text whole = as_text(s);
    if (!text_find(whole, (text){mark, strlen(mark)}, 0, at)) return unclear(c, marked);
    *out = (text){whole.p + *at + strlen(mark), whole.n - *at - strlen(mark)};
    return OK;
}

/* Where the content of message i is, with what ends its turn. */
static status find_content(renderer *c, size_t i, size_t *begin, size_t *end) {
    text full = as_text(&c->out->text), rest = {"", 0}, tail = rest;
    str all = {0}, cut = {0};
    size_t at, unused;
    status s = behind_mark(c, c->n, i, &all, &rest, &at);
    if (s == OK) {
        bool same =
            full.n >= at + rest.n && !memcmp(full.p, all.p, at) && !memcmp(full.p + full.n - rest.n, rest.p, rest.n);
        if (same) s = behind_mark(c, i + 1, i, &cut, &tail, &unused);
        *begin = at;
        if (s == OK && !begins_with(rest, tail))
            tail = text_strip(tail, NULL, false, true); /* written at the end only */
        if (s == OK && same && begins_with(rest, tail)) *end = full.n - rest.n + tail.n;
        else if (s == OK) s = unclear(c, i);
    }
    str_free(&all);
    str_free(&cut);
    return s;
}

static status find_begin(renderer *c, size_t i, size_t *begin) {
    for (int other = 0; other < 2; other++) {
        size_t closed = 0;
        TRY(try_beginning(c, i, UNMARKED, true, c->thinking != other, begin));
        if (*begin && c->f->template) TRY(try_beginning(c, i, UNMARKED, false, c->thinking != other, &closed));
        if (*begin && closed != *begin) return OK; /* equal: the template knows no prompt for an answer */
    }
    for (int other = 0; other < 2; other++) {
        TRY(try_beginning(c, i + 1, i, false, c->thinking != other, begin));
        if (*begin) return OK;
    }
    size_t end;
    return find_content(c, i, begin, &end);
}

static status find_end(renderer *c, size_t i, size_t *end) {
    *end = c->out->text.n;
    if (i + 1 == c->n) return OK;
    for (int other = 0; other < 2; other++) {
        TRY(try_beginning(c, i + 1, UNMARKED, false, c->thinking != other, end));
        if (*end) return OK;
    }
    size_t begin;
    return find_content(c, i, &begin, end);
}

static status find_answers(renderer *c, size_t first) {
    conversation *o = c->out;
    o->answers = calloc(c->n, sizeof *o->answers);
    if (!o->answers) return no_memory(c->e);
    for (size_t i = first; i < c->n; i++) {
        span *s = &o->answers[o->n];
        if (!is_assistant(message(c, i))) continue;
        TRY(find_begin(c, i, &s->begin));
        TRY(find_end(c, i, &s->end));
        if (s->begin >= s->end || (o->n && s[-1].end > s->begin)) return unclear(c, i);
        o->n++;
    }
    return OK;
}

/* ---- thinking ---- */

/* The V3.2 encoding wants thinking in a member of its own. */
static status split_thinking(renderer *c) {
    for (size_t i = 0; i < c->n; i++) {
        const json_t *m = message(c, i);
        text all = content_of(m), t = thinking_of(all);
        if (!is_assistant(m) || !t.n || json_object_get(m, "reasoning_content")) continue;
        json_t *copy = json_copy((json_t *)(uintptr_t)m);
        const char *rest = t.p + t.n;
        size_t tags = strlen(OPEN) + strlen(CLOSE);
        bool bad = !copy ||
                   json_object_set_new(copy, "reasoning_content", json_stringn(t.p + strlen(OPEN), t.n - tags)) ||
                   json_object_set_new(copy, "content", json_stringn(rest, (size_t)(all.p + all.n - rest)));
        if (json_array_set_new(c->messages, i, copy) || bad) return no_memory(c->e);
    }
    return OK;
}

/* The answer as the model writes it behind the prompt, with its thinking in tags. What the prompt ends with, an open
 * tag and a newline, is not repeated. */
static void add_answer(str *out, text reasoning, text content) {
    const text prompt = as_text(out), opened = text_strip(prompt, NULL, false, true);
    const bool open = ends_with(opened, OPEN);
    text gap = {opened.p + opened.n, prompt.n - opened.n};
    const char *line = open && !gap.n ? "" : "\n";
    if (reasoning.n) {
        if (!open) str_puts(out, OPEN "\n");
        str_add(out, reasoning.p, reasoning.n);
        str_addf(out, "%s" CLOSE "%s%s", line, line, line);
    } else if (open) {
        content = text_strip(content, NULL, true, false);
        content = (text){content.p + strlen(OPEN), content.n - strlen(OPEN)};
        if (begins_with(content, gap)) content = (text){content.p + gap.n, content.n - gap.n};
    }
    str_add(out, content.p, content.n);
}

static text reasoning_of(const json_t *m) {
    const json_t *v = json_object_get(m, "reasoning_content");
    return (text){json_is_string(v) ? json_string_value(v) : "", json_string_length(v)};
}

/* Whether the text has `what` behind byte `from`. */
static bool prints(const renderer *c, text what, size_t from) {
    size_t at;
    return text_find(as_text(&c->out->text), what, from, &at);
}

static size_t common_length(text a, text b) {
    size_t n = 0;
    while (n < a.n && n < b.n && a.p[n] == b.p[n]) n++;
    return n;
}

/* The last answer with its thinking, for templates that drop it. */
static status keep_thinking(renderer *c) {
    const json_t *last = message(c, c->n - 1);
    text content = content_of(last), reasoning = reasoning_of(last), tail;
    if (!reasoning.n && !thinking_of(content).n) return OK;
    if (c->n == 1 || json_object_get(last, "tool_calls")) return OK;
    str wanted = {0}, end = {0};
    size_t at;
    status s = render(c, c->n - 1, UNMARKED, true, true, &wanted);
    size_t common = common_length(as_text(&c->out->text), as_text(&wanted));
    bool printed = reasoning.n && prints(c, reasoning, common);
    if (s == OK && !printed) {
        add_answer(&wanted, reasoning, content);
        s = str_check(&wanted, c->e);
        printed = begins_with(as_text(&c->out->text), text_strip(as_text(&wanted), NULL, false, true));
    }
    if (s == OK && !printed) {
        s = behind_mark(c, c->n, c->n - 1, &end, &tail, &at);
        if (s == OK) {
            str_add(&wanted, tail.p, tail.n);
            s = str_check(&wanted, c->e);
        }
        str was = c->out->text;
        c->out->text = wanted;
        wanted = was;
        c->out->seen |= THINKING_KEPT;
    }
    str_free(&wanted);
    str_free(&end);
    return s;
}

/* Whether the text lacks thinking that the messages have. */
static void look_for_thinking(renderer *c) {
    for (size_t i = 0; i < c->n; i++) {
        const json_t *m = message(c, i);
        text t = thinking_of(content_of(m)), r = reasoning_of(m);
        if (t.n) t = (text){t.p + strlen(OPEN), t.n - strlen(OPEN)};
        t = text_strip(r.n ? r : t, NULL, true, true);
        if (is_assistant(m) && t.n && !prints(c, t, 0)) c->out->seen |= THINKING_LEFT_OUT;
    }
}

/* ---- all of it ---- */

static status check_messages(const renderer *c) {
    if (!c->n) return fail(c->e, ERR_FORMAT, "the conversation has no messages");
    for (size_t i = 0; i < c->n; i++)
        if (!json_is_string(json_object_get(message(c, i), "role")))
            return fail(c->e, ERR_FORMAT, "message %zu is no object with a \"role\"", i);
    return OK;
}

static status prepare_options(renderer *c, const json_t *options) {
    c->options = options ? json_copy((json_t *)(uintptr_t)options) : json_object();
    if (!c->options) return no_memory(c->e);
    TRY(chat_add_tokens(c->options, c->f->tokenizer, c->e));
    const json_t *last = message(c, c->n - 1);
    bool thinks = is_assistant(last) && (reasoning_of(last).n || thinking_of(content_of(last)).n);
    return chat_thinking(c->options, thinks, &c->thinking, c->e);
}

static status render_all(renderer *c, const json_t *options, size_t first, bool spans) {
    TRY(check_messages(c));
    TRY(prepare_options(c, options));
    if (!c->f->template) TRY(split_thinking(c));
    TRY(render(c, c->n, UNMARKED, false, c->thinking, &c->out->text));
    if (c->f->template && is_assistant(message(c, c->n - 1))) TRY(keep_thinking(c));
    look_for_thinking(c);
    return spans ? find_answers(c, first) : OK;
}

status conversation_render(conversation *out, const chat_format *f, const json_t *messages, const json_t *options,
                           size_t first, bool spans, error *e) {
    *out = (conversation){0};
    renderer c = {.f = f, .n = json_array_size(messages), .out = out, .e = e};
    c.messages = json_copy((json_t *)(uintptr_t)messages);
    status s = c.messages ? render_all(&c, options, first, spans) : no_memory(e);
    json_decref(c.messages);
    json_decref(c.options);
    return s;
}

void conversation_free(conversation *c) {
    str_free(&c->text);
    free(c->answers);
    *c = (conversation){0};
}
