#include "base/regex.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* Some tenths of a second: a search through a text of a million characters ends by itself, an exponential one does
 * not. */
enum { MATCH_STEPS = 10000000, HEAP_KIB = 65536 };

struct regex {
    char *text;
    pcre2_code *code;
    pcre2_match_context *limits;
};

struct regex_list {
    int n;
    regex *list[];
};

static status out_of_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

/* --- one expression ---------------------------------------------------------------------------------------------- */

static uint32_t options(unsigned flags) {
    return PCRE2_NEVER_BACKSLASH_C | (flags & REGEX_UTF ? PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF : 0) |
           (flags & REGEX_LINES ? PCRE2_MULTILINE : 0) | (flags & REGEX_DOTALL ? PCRE2_DOTALL : 0) |
           (flags & REGEX_START ? PCRE2_ANCHORED : 0);
}

static status compile(regex *r, const char *pattern, unsigned flags, error *e) {
    int why;
    PCRE2_SIZE place;
    r->text = strdup(pattern);
    r->limits = pcre2_match_context_create(NULL);
    if (!r->text || !r->limits) return out_of_memory(e);
    pcre2_set_match_limit(r->limits, MATCH_STEPS);
    pcre2_set_heap_limit(r->limits, HEAP_KIB);
    r->code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, options(flags), &why, &place, NULL);
    if (r->code) return OK;
    PCRE2_UCHAR text[128];
    pcre2_get_error_message(why, text, sizeof text);
    return fail(e, ERR_FORMAT, "regular expression \"%.200s\", character %zu: %s", pattern, (size_t)place + 1,
                (const char *)text);
}

status regex_open(regex **out, const char *pattern, unsigned flags, error *e) {
    *out = NULL;
    regex *r = calloc(1, sizeof *r);
    if (!r) return out_of_memory(e);
    status s = compile(r, pattern, flags, e);
    if (s == OK) *out = r;
    else regex_close(r);
    return s;
}

void regex_close(regex *r) {
    if (!r) return;
    free(r->text);
    pcre2_code_free(r->code);
    pcre2_match_context_free(r->limits);
    free(r);
}

/* The first match at or behind `from`. */
static status search(const regex *r, const char *text, size_t n, size_t from, pcre2_match_data *m, bool *found,
                     error *e) {
    int rc = pcre2_match(r->code, (PCRE2_SPTR)text, n, from, 0, m, r->limits);
    *found = rc >= 0;
    if (rc >= 0 || rc == PCRE2_ERROR_NOMATCH) return OK;
    if (rc == PCRE2_ERROR_NOMEMORY) return out_of_memory(e);
    return fail(e, ERR_FORMAT, "regular expression \"%.200s\" takes too long on \"%.*s\"", r->text,
                n < 160 ? (int)n : 160, text);
}

status regex_count(const regex *r, const char *text, size_t n, int64_t max, int64_t *count, error *e) {
    *count = 0;
    pcre2_match_data *m = pcre2_match_data_create(1, NULL);
    status s = m ? OK : out_of_memory(e);
    bool found = true;
    for (size_t at = 0; s == OK && found && at <= n && *count < max;) {
        s = search(r, text, n, at, m, &found, e);
        if (s != OK || !found) break;
        const PCRE2_SIZE *span = pcre2_get_ovector_pointer(m);
        (*count)++;
        at = span[1] + (span[1] == span[0]);
        while (at > span[1] && at < n && ((unsigned char)text[at] & 0xc0) == 0x80) at++;
    }
    pcre2_match_data_free(m);
    return s;
}

/* --- a list ------------------------------------------------------------------------------------------------------ */

status regex_list_open(regex_list **out, const char *const *patterns, int n, error *e) {
    regex_list *r = calloc(1, sizeof *r + (size_t)n * sizeof *r->list);
    *out = NULL;
    if (!r) return out_of_memory(e);
    status s = OK;
    for (; s == OK && r->n < n; r->n++) s = regex_open(&r->list[r->n], patterns[r->n], 0, e);
    if (s == OK) *out = r;
    else regex_list_close(r);
    return s;
}

void regex_list_close(regex_list *r) {
    if (!r) return;
    for (int i = 0; i < r->n; i++) regex_close(r->list[i]);
    free(r);
}

status regex_list_find(const regex_list *r, const char *text, int *which, error *e) {
    *which = -1;
    pcre2_match_data *m = pcre2_match_data_create(1, NULL);
    status s = m ? OK : out_of_memory(e);
    for (int i = 0; s == OK && i < r->n && *which < 0; i++) {
        bool found = false;
        s = search(r->list[i], text, strlen(text), 0, m, &found, e);
        if (found) *which = i;
    }
    pcre2_match_data_free(m);
    return s;
}
