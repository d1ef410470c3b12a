/* A thin door to PCRE2 for names: a list of regular expressions (Perl's syntax), searched for anywhere in a text; ^ and
 * $ anchor. Constant after opening: shared by threads. */
#ifndef HADAL_BASE_REGEX_H
#define HADAL_BASE_REGEX_H

#include "base/error.h"

typedef struct regex_list regex_list;

/* ERR_FORMAT names the expression that is not one, and the place in it. */
status regex_list_open(regex_list **out, const char *const *patterns, int n, error *e);
void regex_list_close(regex_list *r); /* accepts NULL */

/* The number of the first expression that is found in the text; -1: none. An expression that takes too long on it is
 * ERR_FORMAT. */
status regex_list_find(const regex_list *r, const char *text, int *which, error *e);

#endif
