#include "base/regex.h"

#include <stdlib.h>
#include <string.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { MATCH_STEPS = 1000000, HEAP_KIB = 16384 }; /* names are short: what takes more is a mistake */

typedef struct expression {
    char *text;
    pcre2_code *code;
} expression;

struct regex_list {
    pcre2_match_context *limits;
    int n;
    expression list[];
};

static status compile(expression *x, const char *pattern, error *e) {
    int why;
    PCRE2_SIZE place;
    x->text = strdup(pattern);
    if (!x->text) return fail(e, ERR_NOMEM, "memory is out");
    x->code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_NEVER_BACKSLASH_C, &why, &place, NULL);
    if (x->code) return OK;
    PCRE2_UCHAR text[128];
    pcre2_get_error_message(why, text, sizeof text);
    return fail(e, ERR_FORMAT, "regular expression \"%.200s\", character %zu: %s", pattern, (size_t)place + 1,
                (const char *)text);
}

status regex_list_open(regex_list **out, const char *const *patterns, int n, error *e) {
    regex_list *r = calloc(1, sizeof *r + (size_t)n * sizeof *r->list);
    *out = NULL;
    if (!r) return fail(e, ERR_NOMEM, "memory is out");
    r->limits = pcre2_match_context_create(NULL);
    status s = r->limits ? OK : fail(e, ERR_NOMEM, "memory is out");
    if (s == OK) {
        pcre2_set_match_limit(r->limits, MATCH_STEPS);
        pcre2_set_heap_limit(r->limits, HEAP_KIB);
    }
    for (; s == OK && r->n < n; r->n++) s = compile(&r->list[r->n], patterns[r->n], e);
    if (s == OK) *out = r;
    else regex_list_close(r);
    return s;
}

void regex_list_close(regex_list *r) {
    if (!r) return;
    for (int i = 0; i < r->n; i++) {
        free(r->list[i].text);
        pcre2_code_free(r->list[i].code);
    }
    pcre2_match_context_free(r->limits);
    free(r);
}

status regex_list_find(const regex_list *r, const char *text, int *which, error *e) {
    *which = -1;
    pcre2_match_data *m = pcre2_match_data_create(1, NULL);
    status s = m ? OK : fail(e, ERR_NOMEM, "memory is out");
    for (int i = 0; s == OK && i < r->n && *which < 0; i++) {
        int found = pcre2_match(r->list[i].code, (PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, 0, 0, m, r->limits);
        if (found >= 0) *which = i;
        else if (found != PCRE2_ERROR_NOMATCH)
            s = fail(e, ERR_FORMAT, "regular expression \"%.200s\" takes too long on \"%.160s\"", r->list[i].text,
                     text);
    }
    pcre2_match_data_free(m);
    return s;
}
