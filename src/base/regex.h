/* A thin door to PCRE2 (Perl's syntax). Constant after opening: shared by threads. Whatever an expression does, a
 * search ends after a bounded number of steps. */
#ifndef HADAL_BASE_REGEX_H
#define HADAL_BASE_REGEX_H

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

/* --- one expression over texts of any length ------------------------------------------------------------------------
 */

enum {
    REGEX_UTF = 1,    /* characters are those of UTF-8, \d \w \s of Unicode; a byte that is no text matches nothing */
    REGEX_LINES = 2,  /* ^ and $ are the ends of lines, too (MULTILINE) */
    REGEX_DOTALL = 4, /* . is a newline, too */
    REGEX_START = 8   /* a match begins where the search begins (Python's re.match) */
};
typedef struct regex regex;

/* ERR_FORMAT names the expression that is not one, and the place in it. */
status regex_open(regex **out, const char *pattern, unsigned flags, error *e);
void regex_close(regex *r); /* accepts NULL */

/* Matches that do not overlap, from the left, at most max of them. ERR_FORMAT: it takes too long on this text. */
status regex_count(const regex *r, const char *text, size_t n, int64_t max, int64_t *count, error *e);

/* --- a list over names: searched for anywhere in a text; ^ and $ anchor ---------------------------------------------
 */

typedef struct regex_list regex_list;

status regex_list_open(regex_list **out, const char *const *patterns, int n, error *e);
void regex_list_close(regex_list *r); /* accepts NULL */

/* The number of the first expression that is found in the text; -1: none. An expression that takes too long on it is
 * ERR_FORMAT. */
status regex_list_find(const regex_list *r, const char *text, int *which, error *e);

#endif
