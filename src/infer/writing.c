#include "infer/writing.h"

#include <string.h>

int64_t writing_limit(int64_t capacity, int64_t n, int64_t max_tokens) {
    int64_t most = capacity > n ? capacity - n : 1;
    return max_tokens && max_tokens < most ? max_tokens : most;
}

status writing_plan(writing *w, int drafts, error *e) {
    int64_t room = w->limit - w->n - 1;
    int want = drafts < MAX_DRAFTS ? drafts : MAX_DRAFTS;
    if (room < want) want = (int)room;
    w->drafts = 0;
    if (want > 0) TRY(session_draft(w->s, w->next[0], want, w->next + 1, &w->drafts, e));
    w->proposed += w->drafts;
    return OK;
}

/* The first place at or after `from` where a stop text begins, or -1. */
static int64_t find_stop(const ending *d, const str *text, size_t from) {
    for (size_t i = from; i < text->n; i++)
        for (int k = 0; k < d->n_stop; k++) {
            size_t len = strlen(d->stop[k]);
            if (len && len <= text->n - i && memcmp(text->p + i, d->stop[k], len) == 0) return (int64_t)i;
        }
    return -1;
}

/* How much of the text is sure not to be the beginning of a stop text. */
static size_t sure(const ending *d, const str *text, size_t from) {
    for (size_t i = from; i < text->n; i++)
        for (int k = 0; k < d->n_stop; k++) {
            size_t len = strlen(d->stop[k]), rest = text->n - i;
            if (rest < len && memcmp(text->p + i, d->stop[k], rest) == 0) return i;
        }
    return text->n;
}

static void take_text(writing *w, const ending *d, int32_t id) {
    tokenizer_decode_next(d->tokenizer, &w->decoding, id, true, &w->text);
    if (w->done) tokenizer_decode_end(&w->decoding, &w->text);
    if (w->text.failed) return;
    int64_t stop = find_stop(d, &w->text, w->sure);
    if (stop >= 0) {
        w->text.n = (size_t)stop;
        w->text.p[stop] = 0;
        w->done = true;
        w->finish = FINISH_STOP;
    }
    w->sure = w->done ? w->text.n : sure(d, &w->text, w->sure);
}

void writing_take(writing *w, const ending *d, int32_t id) {
    w->next[0] = id;
    w->n++;
    bool end = false;
    for (int i = 0; i < d->n_eos; i++) end |= d->eos[i] == id;
    if (end || w->n >= w->limit) {
        w->done = true;
        w->finish = end ? FINISH_EOS : FINISH_LENGTH;
    }
    if (d->tokenizer) take_text(w, d, id);
}

void writing_cancel(writing *w) {
    w->done = true;
    w->finish = FINISH_CANCELLED;
    if (w->text.p) w->text.p[w->text.n = w->sure] = 0;
}

status writing_choose(writing *w, writing_row *row, void *arg, error *e) {
    session *s = w->s;
    const int64_t vocab = s->g->m->cfg.vocab_size, rows = s->rows, held = s->length;
    for (int64_t r = 0; r < rows && !w->done; r++) {
        const int64_t history = held - rows + r + 1;
        int32_t id;
        TRY(row(arg, w, s->logits + r * vocab, history, &id, e));
        bool drafted = r + 1 < rows && w->next[r + 1] == id;
        w->accepted += drafted;
        if (!drafted || w->done) { /* done: ended, perhaps amid accepted drafts */
            session_truncate(s, history);
            break;
        }
    }
    return OK;
}
