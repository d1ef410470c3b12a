#include "cli/answer.h"

#include <stdio.h>
#include <string.h>
#include "cli/term.h"

void answer_begin(answer *a, bool thinking, bool hide) {
    *a = (answer){.state = thinking ? ANSWER_THINKING : ANSWER_START, .hide = hide};
}

static void drop(str *s, size_t n) {
    memmove(s->p, s->p + n, s->n - n + 1);
    s->n -= n;
}

static bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* Length of the longest end of s that begins `tag` without being all of it. */
static size_t partial(const str *s, const char *tag) {
    size_t k = strlen(tag) - 1;
    if (k > s->n) k = s->n;
    while (k && memcmp(s->p + s->n - k, tag, k) != 0) k--;
    return k;
}

static void emit(answer *a, size_t n, bool thinking) {
    if (!(thinking && a->hide)) term_write(stdout, a->held.p, n, thinking);
    drop(&a->held, n);
}

/* One step of the small machine; false when it waits for more text. */
static bool advance(answer *a, bool last) {
    str *h = &a->held;
    size_t blank = 0;
    if (!h->n) return false;
    switch (a->state) {
    case ANSWER_START: /* does the answer itself open the reasoning? */
        while (blank < h->n && is_space(h->p[blank])) blank++;
        if (strncmp(h->p + blank, "<think>", 7) == 0) a->state = ANSWER_THINKING;
        else if (!last && strncmp("<think>", h->p + blank, h->n - blank) == 0) return false;
        else a->state = ANSWER_SAYING;
        return true;
    case ANSWER_THINKING: {
        const char *close = strstr(h->p, "</think>");
        if (close) {
            emit(a, (size_t)(close - h->p) + 8, true);
            a->state = a->hide ? ANSWER_GAP : ANSWER_SAYING;
            return true;
        }
        emit(a, h->n - (last ? 0 : partial(h, "</think>")), true);
        return false;
    }
    case ANSWER_GAP: /* nothing was shown, so the empty lines after it say nothing */
        while (blank < h->n && is_space(h->p[blank])) blank++;
        drop(h, blank);
        if (h->n) a->state = ANSWER_SAYING;
        return h->n > 0;
    case ANSWER_SAYING: emit(a, h->n, false); return false;
    }
    return false;
}

void answer_add(answer *a, const char *p, size_t n) {
    str_add(&a->held, p, n);
    if (a->held.failed) return;
    while (advance(a, false)) {}
    fflush(stdout);
}

void answer_end(answer *a) {
    if (!a->held.failed)
        while (advance(a, true)) {}
    fflush(stdout);
    str_free(&a->held);
}
