/* A growing byte string. Invariant: p is terminated whenever p is not NULL. When memory runs out, `failed` is set,
 * later additions do nothing, and the owner looks at it once at the end (str_check). */
#ifndef HADAL_BASE_STR_H
#define HADAL_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include "base/error.h"

typedef struct str {
    char *p;
    size_t n, cap;
    bool failed;
} str;

void str_add(str *s, const char *p, size_t n);
void str_puts(str *s, const char *text); /* terminated text */
void str_putc(str *s, char c);
void str_addf(str *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
status str_check(const str *s, error *e); /* ERR_NOMEM when an addition failed */
char *str_take(str *s); /* hands the text over to the caller (free()); "" rather than NULL; s is empty then */
void str_free(str *s);

bool name_ends_with(const char *name, const char *end); /* terminated texts */

#endif
