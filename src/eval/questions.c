#include "eval/questions.h"

#include <stdlib.h>
#include <string.h>
#include "text/chat.h"

static status no_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

status questions_shot(questions *q, const char *asked, const char *answer, error *e) {
    if (!q->shots) q->shots = json_array();
    json_t *shot = json_pack("{s:s, s:s}", "question", asked, "answer", answer);
    return json_array_append_new(q->shots, shot) ? no_memory(e) : OK;
}

static const char *text_of(const json_t *shot, const char *member) {
    return json_string_value(json_object_get(shot, member));
}

static void plain(const questions *q, const char *asked, str *out) {
    size_t i;
    const json_t *shot;
    if (q->description) str_puts(out, q->description);
    json_array_foreach(q->shots, i, shot)
        str_addf(out, "%s %s\n\n", text_of(shot, "question"), text_of(shot, "answer"));
    str_puts(out, asked);
}

/* --- conversations ------------------------------------------------------------------------------------------------ */

static bool say(json_t *list, const char *role, const char *content) {
    return json_array_append_new(list, json_pack("{s:s, s:s}", "role", role, "content", content)) != 0;
}

static json_t *turns(const questions *q, const char *asked) {
    json_t *list = json_array();
    size_t i;
    const json_t *shot;
    bool bad = !list;
    if (q->description) bad |= say(list, "system", q->description);
    json_array_foreach(q->shots, i, shot) bad |=
        say(list, "user", text_of(shot, "question")) || say(list, "assistant", text_of(shot, "answer"));
    bad |= say(list, "user", asked);
    if (!bad) return list;
    json_decref(list);
    return NULL;
}

static status conversation_text(const questions *q, const json_t *messages, str *out, error *e) {
    json_t *options = q->o->chat_options ? json_copy((json_t *)(uintptr_t)q->o->chat_options) : json_object();
    bool bad = !options || json_object_set_new(options, "add_generation_prompt", json_true());
    status s = bad ? no_memory(e) : chat_add_tokens(options, q->t, e);
    if (s == OK) s = chat_render(q->o->format->template, q->o->format->model_type, messages, options, out, e);
    json_decref(options);
    return s;
}

static status chat(const questions *q, const char *asked, const json_t *messages, str *out, error *e) {
    if (messages) return conversation_text(q, messages, out, e);
    json_t *list = turns(q, asked);
    status s = list ? conversation_text(q, list, out, e) : no_memory(e);
    json_decref(list);
    return s;
}

/* --- questions ---------------------------------------------------------------------------------------------------- */

static status encode(const questions *q, question *x, size_t n, error *e) {
    size_t count;
    const int32_t eos = tokenizer_eos(q->t);
    TRY(tokenizer_encode(q->t, x->prompt, n, q->o->chat ? TOK_PARSE_SPECIAL : TOK_ADD_SPECIAL, &x->ids, &count, e));
    if (!q->o->chat && count && eos >= 0 && x->ids[count - 1] == eos) count--; /* some tokenizers end every text */
    x->n = (int64_t)count;
    return count ? OK : fail(e, ERR_FORMAT, "an empty prompt");
}

static status grow(questions *q, error *e) {
    if (q->n < q->room) return OK;
    const int64_t room = q->room ? 2 * q->room : 256;
    question *list = realloc(q->list, (size_t)room * sizeof *list);
    if (!list) return no_memory(e);
    q->list = list;
    q->room = room;
    return OK;
}

status questions_add(questions *q, const new_question *x, error *e) {
    str text = {0};
    status s = OK;
    TRY(grow(q, e));
    if (x->messages && !q->o->chat) return fail(e, ERR_ARG, "the prompt is a list of messages: it needs --chat");
    if (q->o->chat) s = chat(q, x->asked, x->messages, &text, e);
    else plain(q, x->asked, &text);
    if (s == OK) s = str_check(&text, e);
    if (s != OK) {
        str_free(&text);
        return s;
    }
    const size_t n = text.n;
    question *y = &q->list[q->n++];
    *y = (question){.number = x->number,
                    .prompt = str_take(&text),
                    .answer = strdup(x->answer),
                    .choices = x->choices,
                    .row = json_incref((json_t *)(uintptr_t)x->row),
                    .subject = q->subject,
                    .category = q->category};
    return y->prompt && y->answer ? encode(q, y, n, e) : no_memory(e);
}

void questions_close(questions *q) {
    for (int64_t i = 0; i < q->n; i++) {
        free(q->list[i].prompt);
        free(q->list[i].ids);
        free(q->list[i].answer);
        json_decref((json_t *)(uintptr_t)q->list[i].row);
    }
    free(q->list);
    json_decref(q->shots);
    q->list = NULL;
    q->shots = NULL;
    q->n = q->room = 0;
}

int64_t question_shared(const question *a, const question *b) {
    int64_t n = 0;
    while (n < a->n - 1 && n < b->n - 1 && a->ids[n] == b->ids[n]) n++;
    return n;
}
