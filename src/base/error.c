#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void clean(char *s) {
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f) *s = '?';
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
