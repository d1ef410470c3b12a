/* The conversation is rendered again with a place (a text that nobody else can write) for the message. If that is the
 * true rendering but for the place, the template puts the message there. Places are written
 *   1  as an answer without tool calls (V3.2's encoding: as an answer written already), all messages at once;
 *   2  as the content before the tool calls, which go up to the end token, for templates in which tool calls change how
 *      results are written (vLLM's); a mark at the head of the next message tells that it is this message's;
 *   3  as 1, but one by one, from the last to the first, for templates in which one message changes how later ones are
 *      written (V3, R1); what stands before the place may then also be the prompt to which the message was the answer.
 */
#include "text/chat_replay.h"

#include <stdlib.h>
#include <string.h>
#include "text/encoding_v32.h"
#include "text/template_text.h"

#define END_THINK "</think>"
#define NEXT TOK_MARK TOK_MARK                         /* head of the next message; tokenizer_mark never writes two */
static const size_t most_rendered = (size_t)128 << 20; /* bytes, for messages one by one; what is left stays text */

typedef struct replay {
    const chat_style *s;
    const chat_conversation *c;
    replayed *r;
    size_t n;        /* messages */
    bool *in;        /* [n] stands in the prompt as ids */
    bool calls;      /* places are written before tool calls */
    size_t rendered; /* bytes so far */
    error *e;
} replay;

static text whole(const str *s) {
    return (text){s->p ? s->p : "", s->n};
}

static bool begins_with(text s, text with) {
    return s.n >= with.n && !memcmp(s.p, with.p, with.n);
}

static bool ends_with(text s, text with) {
    return s.n >= with.n && !memcmp(s.p + s.n - with.n, with.p, with.n);
}

bool chat_next_place(const str *s, size_t n, size_t *at, size_t *begin, size_t *message) {
    const text mark = {TOK_PLACE, strlen(TOK_PLACE)};
    while (text_find(whole(s), mark, *at, begin)) {
        size_t i = *begin + mark.n, number = 0;
        *at = i;
        for (; s->p[i] >= '0' && s->p[i] <= '9' && number < n; i++) number = 10 * number + (size_t)(s->p[i] - '0');
        if (number >= n || !begins_with((text){s->p + i, s->n - i}, mark)) continue; /* what a template left of one */
        *message = number;
        *at = i + mark.n;
        return true;
    }
    return false;
}

/* ---- rendering ---- */

static bool has_calls(const replay *p, size_t i) {
    return json_object_get(json_array_get(p->c->messages, i), "tool_calls") != NULL;
}

/* Message i with a place for its ids. NULL: memory is out. */
static json_t *with_place(const replay *p, size_t i) {
    str place = {0};
    str_addf(&place, TOK_PLACE "%zu" TOK_PLACE, i);
    json_t *m = json_array_get(p->c->messages, i), *name = place.failed ? NULL : json_string(place.p), *out;
    if (!p->s->template) {
        out = json_copy(m);
        json_object_set(out, ENCODING_V32_WRITTEN, name);
    } else if (p->calls && has_calls(p, i)) {
        out = json_copy(m);
        json_object_set(out, "content", name);
    } else {
        json_t *prefix = json_object_get(m, "prefix");
        out = json_pack("{s:s,s:O}", "role", "assistant", "content", name);
        if (prefix) json_object_set(out, "prefix", prefix);
    }
    json_decref(name);
    str_free(&place);
    return out;
}

/* Message i with a mark at its head. NULL: memory is out. */
static json_t *with_head(const replay *p, size_t i) {
    json_t *out = json_copy(json_array_get(p->c->messages, i));
    const json_t *content = json_object_get(out, "content");
    str s = {0};
    str_puts(&s, NEXT);
    str_add(&s, json_string_value(content), json_string_length(content));
    json_object_set_new(out, "content", s.failed ? NULL : json_stringn(s.p, s.n));
    str_free(&s);
    return out;
}

/* The conversation with places for the messages in in[], and also[i]. */
static status render(replay *p, size_t also, str *out) {
    chat_conversation c = {json_array(), json_incref(p->c->options)};
    bool bad = !c.messages, thinking;
    for (size_t i = 0; !bad && i < p->n; i++) {
        bool place = p->in[i] || i == also;
        bool head = p->calls && i && p->in[i - 1] && has_calls(p, i - 1);
        json_t *m = place ? with_place(p, i) : head ? with_head(p, i) : json_incref(json_array_get(p->c->messages, i));
        bad = json_array_append_new(c.messages, m) != 0;
    }
    status s = bad ? fail(p->e, ERR_NOMEM, "memory is out") : chat_write(p->s, &c, out, &thinking, p->e);
    p->rendered += out->n;
    chat_conversation_free(&c);
    return s == ERR_NOMEM ? s : OK; /* what the template refuses has no places */
}

/* The prompt to which message i was the answer. */
static status render_prompt(replay *p, size_t i, str *out) {
    chat_conversation c = {json_array(), json_copy(p->c->options)};
    bool bad = !c.messages || !c.options || json_object_set_new(c.options, "add_generation_prompt", json_true()),
         thinking;
    json_object_del(c.options, "continue_final_message");
    for (size_t k = 0; !bad && k < i; k++) bad = json_array_append(c.messages, json_array_get(p->c->messages, k)) != 0;
    status s = bad ? fail(p->e, ERR_NOMEM, "memory is out") : chat_write(p->s, &c, out, &thinking, p->e);
    p->rendered += out->n;
    chat_conversation_free(&c);
    return s == ERR_NOMEM ? s : OK;
}

/* ---- comparing ---- */

/* A part without the end token at its head: some templates leave it away behind tool calls. */
static text without_end(const replay *p, text part) {
    const char *eos = p->s->tokenizer ? tokenizer_eos_text(p->s->tokenizer) : NULL;
    text end = {eos ? eos : "", eos ? strlen(eos) : 0};
    return begins_with(part, end) ? (text){part.p + end.n, part.n - end.n} : part;
}

/* Decides which ids of message i stand in the prompt: `before` is the text before them, `message` what the template
 * makes of the message. false: none do. */
static bool choose(const replay *p, size_t i, text before, text message) {
    replayed *r = p->r + i;
    const json_t *m = json_array_get(p->c->messages, i);
    bool last = i + 1 == p->n, opened = answer_starts_thinking(before.p, before.n);
    size_t at;
    bool kept = opened || text_find(message, (text){END_THINK, strlen(END_THINK)}, 0, &at);
    bool only_reasoning = !r->reasoning && json_string_length(json_object_get(m, "reasoning_content")) &&
                          !json_string_length(json_object_get(m, "content")) && !json_object_get(m, "tool_calls");
    r->from = kept ? 0 : r->reasoning;
    return kept ? r->reasoning || !opened || last : !only_reasoning;
}

/* Whether the rendering with all places is the true one but for them; takes messages out of in[] for which it does not
 * matter, since they have no ids that fit, and then sets *again. */
static bool all_fit(const replay *p, const str *placed, const str *truth, bool *again) {
    size_t at = 0, begin = 0, i = 0, done = 0, position = 0, previous = SIZE_MAX;
    text t = whole(truth), before = {"", 0};
    bool more;
    do {
        more = chat_next_place(placed, p->n, &at, &begin, &i);
        text part = {placed->p + done, (more ? begin : placed->n) - done}, short_part = without_end(p, part);
        text rest = {t.p + position, t.n - position};
        size_t found = 0;
        if (previous == SIZE_MAX) {
            if (!begins_with(rest, part)) return false;
        } else if (!more) {
            if (!ends_with(rest, part)) part = short_part;
            if (!ends_with(rest, part)) return false;
            found = rest.n - part.n;
        } else if (!text_find(rest, part, 0, &found)) {
            part = short_part;
            if (!part.n || !text_find(rest, part, 0, &found)) return false;
        }
        if (previous != SIZE_MAX && !choose(p, previous, before, (text){rest.p, found})) {
            p->in[previous] = false;
            *again = true;
        }
        position += found + part.n;
        before = (text){placed->p, begin};
        if (more && (!p->in[i] || (previous != SIZE_MAX && i <= previous))) return false;
        previous = i;
        done = at;
    } while (more);
    return true;
}

/* ---- all at once ---- */

static void add_without_heads(str *out, text t) {
    const text head = {NEXT, strlen(NEXT)};
    size_t from = 0, at;
    for (; text_find(t, head, from, &at); from = at + head.n) str_add(out, t.p + from, at - from);
    str_add(out, t.p + from, t.n - from);
}

/* Of a rendering with places before tool calls: `full` without the marks, `placed` without the tool calls, too. false:
 * they are not where they should be. */
static bool cut_calls(const replay *p, const str *rendered, str *full, str *placed) {
    const char *eos = p->s->tokenizer ? tokenizer_eos_text(p->s->tokenizer) : NULL;
    const text all = whole(rendered), end = {eos ? eos : "", eos ? strlen(eos) : 0}, head = {NEXT, strlen(NEXT)};
    size_t at = 0, done = 0, begin, i, places = 0, wanted = 0;
    while (chat_next_place(rendered, p->n, &at, &begin, &i)) {
        str part = {0};
        size_t stop = at, limit = all.n, next = at, unused;
        add_without_heads(&part, (text){all.p + done, begin - done});
        str_add(&part, all.p + begin, at - begin);
        str_add(full, part.p, part.n);
        str_add(placed, part.p, part.n);
        str_free(&part);
        if (has_calls(p, i)) {
            text here = {all.p, chat_next_place(rendered, p->n, &next, &limit, &unused) ? limit : all.n};
            if (text_find(here, head, at, &limit)) here.n = limit;
            if (!end.n || !text_find(here, end, at, &stop)) return false;
            str_add(full, all.p + at, stop - at);
        }
        done = stop;
        places++;
    }
    for (i = 0; i < p->n; i++) wanted += p->in[i];
    text rest = {all.p + done, all.n - done};
    add_without_heads(full, rest);
    add_without_heads(placed, rest);
    return places == wanted && !full->failed && !placed->failed;
}

/* One attempt with the messages of in[]. */
static status attempt(replay *p, str *truth, bool *fit, bool *again) {
    str rendered = {0}, full = {0}, placed = {0};
    status s = render(p, SIZE_MAX, &rendered);
    bool cut = s == OK && rendered.n && p->calls && cut_calls(p, &rendered, &full, &placed);
    *again = false;
    *fit = s == OK && rendered.n && (cut || !p->calls) && all_fit(p, cut ? &full : &rendered, truth, again);
    if (*fit && !*again) {
        str swap = *truth;
        *truth = cut ? placed : rendered;
        *(cut ? &placed : &rendered) = swap;
    }
    str_free(&rendered);
    str_free(&full);
    str_free(&placed);
    return s;
}

static status try_all(replay *p, bool calls, str *truth, bool *done) {
    bool fit = true, again = true;
    p->calls = calls;
    for (size_t i = 0; i < p->n; i++) p->in[i] = p->r[i].ids != NULL;
    for (int round = 0; fit && again && round < 3; round++) TRY(attempt(p, truth, &fit, &again));
    *done = fit && !again;
    return OK;
}

/* ---- one by one ---- */

/* Whether message i fits into its place; `truth` is the rendering so far. */
static status fits(replay *p, size_t i, const str *placed, const str *truth, bool *out) {
    size_t at = 0, begin, found;
    text t = whole(truth), message = {"", 0};
    *out = false;
    do {
        if (!chat_next_place(placed, p->n, &at, &begin, &found)) return OK;
    } while (found != i);
    text before = {placed->p, begin}, after = {placed->p + at, placed->n - at};
    if (!ends_with(t, after)) after = without_end(p, after);
    if (!ends_with(t, after)) return OK;
    if (begins_with(t, before) && before.n + after.n <= t.n) {
        message = (text){t.p + before.n, t.n - before.n - after.n};
    } else {
        str prompt = {0};
        status s = render_prompt(p, i, &prompt);
        bool same = s == OK && text_eq(whole(&prompt), before);
        str_free(&prompt);
        if (s != OK || !same) return s;
    }
    *out = choose(p, i, before, message);
    return OK;
}

static status try_each(replay *p, str *truth) {
    p->calls = false;
    memset(p->in, 0, p->n * sizeof *p->in);
    for (size_t i = p->n; i-- > 0 && p->rendered < most_rendered;) {
        str placed = {0};
        bool fit;
        if (!p->r[i].ids) continue;
        status s = render(p, i, &placed);
        if (s == OK) s = fits(p, i, &placed, truth, &fit);
        if (s == OK && fit) {
            str swap = *truth;
            *truth = placed;
            placed = swap;
            p->in[i] = true;
        }
        str_free(&placed);
        TRY(s);
    }
    return OK;
}

status chat_replay(const chat_style *s, const chat_conversation *c, replayed *r, str *prompt, error *e) {
    replay p = {.s = s, .c = c, .r = r, .n = json_array_size(c->messages), .e = e};
    bool any = false, done;
    for (size_t i = 0; i < p.n; i++) any = any || r[i].ids;
    if (!any) return OK;
    if (!(p.in = calloc(p.n, sizeof *p.in))) return fail(e, ERR_NOMEM, "memory is out");
    status st = try_all(&p, false, prompt, &done);
    if (st == OK && !done && s->template) st = try_all(&p, true, prompt, &done);
    if (st == OK && !done) st = try_each(&p, prompt);
    free(p.in);
    return st;
}
