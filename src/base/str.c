#include "base/str.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool room(str *s, size_t more) {
    if (s->failed || more > SIZE_MAX / 2 - s->n - 1) {
        s->failed = true;
        return false;
    }
    size_t want = s->n + more + 1;
    if (want > s->cap) {
        size_t cap = s->cap ? s->cap : 64;
        while (cap < want) cap *= 2;
        char *p = realloc(s->p, cap);
        if (!p) {
            s->failed = true;
            return false;
        }
        s->p = p;
        s->cap = cap;
    }
    return true;
}

void str_add(str *s, const char *p, size_t n) {
    if (!room(s, n)) return;
    if (n) memcpy(s->p + s->n, p, n);
    s->n += n;
    s->p[s->n] = 0;
}

void str_puts(str *s, const char *text) {
    str_add(s, text, strlen(text));
}

void str_putc(str *s, char c) {
    str_add(s, &c, 1);
}

void str_addf(str *s, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || !room(s, (size_t)n)) return;
    va_start(ap, fmt);
    vsnprintf(s->p + s->n, (size_t)n + 1, fmt, ap);
    va_end(ap);
    s->n += (size_t)n;
}

status str_check(const str *s, error *e) {
    return s->failed ? fail(e, ERR_NOMEM, "memory is out") : OK;
}

char *str_take(str *s) {
    if (!s->failed && !s->p) str_add(s, "", 0);
    char *p = s->failed ? NULL : s->p;
    if (s->failed) free(s->p);
    *s = (str){0};
    return p;
}

void str_free(str *s) {
    free(s->p);
    *s = (str){0};
}

bool name_ends_with(const char *name, const char *end) {
    size_t n = strlen(name), m = strlen(end);
    return n >= m && memcmp(name + n - m, end, m) == 0;
}
