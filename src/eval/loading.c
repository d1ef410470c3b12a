#include "eval/loading.h"

#include <stdlib.h>
#include <string.h>

void item_free(item *x) {
    str_free(&x->asked);
    str_free(&x->worked);
    str_free(&x->answer);
}

static status read_item(const loader *l, const rows *r, int64_t i, const eval_options *o, item *x, error *e) {
    *x = (item){0};
    status s = l->item(r, i, o, x, e);
    if (s == OK) s = str_check(&x->asked, e);
    if (s == OK) s = str_check(&x->worked, e);
    if (s == OK) s = str_check(&x->answer, e);
    return s;
}

static const char *text(const str *s) {
    return s->p ? s->p : "";
}

static status open_rows(const loader *l, const char *path, const char *const *names, rows *r, error *e) {
    TRY(rows_open(r, path, names, e));
    status s = l->header ? rows_name_columns(r, l->header, e) : OK;
    if (s != OK) rows_close(r);
    return s;
}

/* The file with worked examples: named, or beside the data. */
static status open_examples(const loader *l, const eval_options *o, int n, rows *r, error *e) {
    char *folder = rows_folder(o->data);
    if (!folder) return fail(e, ERR_NOMEM, "memory is out");
    status s = open_rows(l, o->examples ? o->examples : folder, l->examples, r, e);
    free(folder);
    if (s != OK) return wrap(e, "worked examples (--examples FILE; none: --shots 0)");
    if (s == OK && strcmp(r->path, o->data) == 0)
        s = fail(e, ERR_ARG, "%s: worked examples cannot be the questions themselves", r->path);
    if (s == OK && rows_count(r) < n)
        s = fail(e, ERR_FORMAT, "%s: %lld rows, but %d worked examples are wanted", r->path, (long long)rows_count(r),
                 n);
    return s;
}

/* Instead of those of a file before. */
static status load_shots(const loader *l, const eval_options *o, questions *q, error *e) {
    const int n = o->shots < 0 ? l->shots : o->shots;
    rows r = {0};
    if (!l->examples)
        return o->examples ? fail(e, ERR_ARG, "this evaluation reads no worked examples: leave out --examples") : OK;
    json_array_clear(q->shots);
    if (n == 0) return OK;
    status s = open_examples(l, o, n, &r, e);
    for (int64_t i = 0; i < n && s == OK; i++) {
        item x;
        s = read_item(l, &r, i, o, &x, e);
        if (s == OK && x.messages) s = fail(e, ERR_FORMAT, "a conversation cannot be a worked example");
        if (s == OK) s = questions_shot(q, text(&x.asked), text(&x.worked), e);
        if (s != OK) rows_wrap(&r, i, e);
        item_free(&x);
    }
    rows_close(&r);
    return s;
}

status load_questions(const loader *l, const eval_options *o, questions *q, error *e) {
    rows r;
    TRY(load_shots(l, o, q, e));
    TRY(open_rows(l, o->data, l->names, &r, e));
    const int64_t n = rows_count(&r) < o->limit ? rows_count(&r) : o->limit;
    status s = OK;
    for (int64_t i = 0; i < n && s == OK; i++) {
        item x;
        s = read_item(l, &r, i, o, &x, e);
        const new_question y = {.number = q->rows + i,
                                .asked = text(&x.asked),
                                .messages = x.messages,
                                .answer = text(&x.answer),
                                .choices = x.choices,
                                .row = rows_at(&r, i)};
        if (s == OK) s = questions_add(q, &y, e);
        if (s != OK) rows_wrap(&r, i, e);
        item_free(&x);
    }
    q->rows += rows_count(&r);
    rows_close(&r);
    return s;
}
