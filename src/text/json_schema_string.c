#include <string.h>
#include "text/json_schema_pattern.h"

/* Formats as expressions. What is stricter than the format's own rules is on purpose: every reader takes it. */
#define HOUR "([01][0-9]|2[0-3])"
#define TIME HOUR ":[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]" HOUR ":[0-5][0-9])"
#define YEAR4 "[1-9][0-9]([02468][48]|[2468]0|[13579][26])" /* divisible by 4, but not by 100 */
#define DATE                                                                                                  \
    "([1-9][0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|" \
    "1[0-9]|2[0-8]))|" YEAR4 "-02-29)"
#define NAME "[A-Za-z0-9]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?"
#define BYTE "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
static const struct {
    const char *name, *pattern;
} formats[] = {{"date", "^" DATE "$"},
               {"time", "^" TIME "$"},
               {"date-time", "^" DATE "T" TIME "$"},
               {"uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
               {"email", "^[A-Za-z0-9_+-]{1,30}(\\.[A-Za-z0-9_+-]{1,30})?@" NAME "(\\." NAME ")?\\.[A-Za-z]{2,10}$"},
               {"ipv4", "^" BYTE "(\\." BYTE "){3}$"}};

/* The expression of "pattern" or "format"; NULL: neither restricts the string. */
static status find_pattern(const schema_compiler *c, const json_t *s, const char **pattern, size_t *n) {
    const json_t *p = json_object_get(s, "pattern"), *format = json_object_get(s, "format");
    *pattern = json_string_value(p);
    *n = json_string_length(p);
    if (p && !*pattern) return schema_fail(c, ERR_ARG, "\"pattern\" should be a string");
    if (format && !json_is_string(format)) return schema_fail(c, ERR_ARG, "\"format\" should be a string");
    for (size_t i = 0; format && i < sizeof formats / sizeof *formats; i++) {
        if (strcmp(formats[i].name, json_string_value(format))) continue;
        if (p) return schema_fail(c, ERR_UNSUPPORTED, "\"pattern\" beside \"format\"");
        *pattern = formats[i].pattern;
        *n = strlen(*pattern);
    }
    return OK;
}

status schema_string(schema_compiler *c, const json_t *s, spelling how, int32_t *start) {
    rules *r = c->t->r;
    const char *pattern;
    size_t n;
    int32_t min, max, end = how == QUOTED ? rules_word(r, "\"", RETURN) : RETURN;
    TRY(schema_count(c, s, "minLength", 0, &min));
    TRY(schema_count(c, s, "maxLength", UNBOUNDED, &max));
    TRY(find_pattern(c, s, &pattern, &n));
    *start = NEVER;
    if (max != UNBOUNDED && min > max) return OK;
    if (pattern) {
        nfa a;
        status st = pattern_parse(c, pattern, n, &a);
        if (st == OK) st = pattern_rules(c, &a, how, min, max, end, start);
        pattern_free(&a);
        TRY(st);
    } else {
        int32_t raw =
            how == QUOTED ? c->t->character : rules_rule_of(r, false, json_chars(c->t, RAW, 0, LAST_CHAR, RETURN));
        *start = rules_repeat(r, raw, min, max, end);
    }
    if (how == QUOTED) *start = rules_word(r, "\"", *start);
    return OK;
}
