#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Terminals obey the control characters U+0080 to U+009F, too: in UTF-8 they are C2 and a byte below A0. */
static void clean(char *s) {
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s, next = (unsigned char)s[1];
        if (c < 0x20 || c == 0x7f) *s = '?';
        if (c == 0xc2 && next >= 0x80 && next < 0xa0) s[0] = s[1] = '?';
    }
}

status fail(error *e, status code, const char *fmt, ...) {
    if (!e) return code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    clean(e->text);
    e->code = code;
    return code;
}

status wrap(error *e, const char *fmt, ...) {
    if (!e) return ERR_ARG;
    char context[256], rest[sizeof e->text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(context, sizeof context, fmt, ap);
    va_end(ap);
    clean(context);
    memcpy(rest, e->text, sizeof rest);
    int n = snprintf(e->text, sizeof e->text, "%s: ", context);
    if (n > 0 && (size_t)n < sizeof e->text) {
        size_t room = sizeof e->text - (size_t)n - 1, len = strlen(rest);
        if (len > room) len = room;
        memcpy(e->text + n, rest, len);
        e->text[(size_t)n + len] = 0;
    }
    return e->code;
}
