#include "text/json_text.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_INDENT = 32, FULLWIDTH_BAR = 0xff5c };

/* ---- characters ---- */

static int32_t hex(rules *r, int low, int high, int32_t next) {
    int32_t start = NEVER;
    if (low <= 9) start = rules_bytes(r, (uint8_t)('0' + low), (uint8_t)('0' + (high < 9 ? high : 9)), next);
    if (high <= 9) return start;
    int a = low > 10 ? low - 10 : 0, b = high - 10;
    start = rules_either(r, start, rules_bytes(r, (uint8_t)('a' + a), (uint8_t)('a' + b), next));
    return rules_either(r, start, rules_bytes(r, (uint8_t)('A' + a), (uint8_t)('A' + b), next));
}

static int32_t any_hex(rules *r, int n, int32_t next) {
    while (n--) next = hex(r, 0, 15, next);
    return next;
}

/* What follows \u: not 0000, no half of a pair alone. */
static int32_t hex_escape(rules *r) {
    int32_t two = any_hex(r, 2, RETURN), three = any_hex(r, 3, RETURN);
    int32_t low = rules_literal(r, "\\u", 2, hex(r, 13, 13, hex(r, 12, 15, two)));
    int32_t pair = hex(r, 13, 13, hex(r, 8, 11, any_hex(r, 2, low)));
    int32_t plain = hex(r, 13, 13, hex(r, 0, 7, two));
    int32_t zero = hex(r, 0, 0, hex(r, 1, 15, RETURN)); /* 000x, 00xx, 0xxx but 0000 */
    zero = rules_either(r, zero, hex(r, 1, 15, any_hex(r, 1, RETURN)));
    zero = rules_either(r, hex(r, 0, 0, zero), hex(r, 1, 15, two));
    int32_t start = rules_either(r, hex(r, 0, 0, zero), hex(r, 1, 12, three));
    return rules_either(r, rules_either(r, start, hex(r, 14, 15, three)), rules_either(r, pair, plain));
}

/* A character as it is, of those that need no escape. */
static int32_t plain_chars(const json_text *t, uint32_t low, uint32_t high, int32_t next) {
    static const uint32_t holes[] = {'"', '\\', FULLWIDTH_BAR};
    for (int i = 0; i < (t->in_call ? 3 : 2); i++)
        if (low <= holes[i] && holes[i] <= high) {
            int32_t start = low < holes[i] ? plain_chars(t, low, holes[i] - 1, next) : NEVER;
            return rules_either(t->r, start, holes[i] < high ? plain_chars(t, holes[i] + 1, high, next) : NEVER);
        }
    return rules_chars(t->r, low, high, next);
}

/* The letter of c's short escape; 0: it has none. */
static char short_escape(uint32_t c) {
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *at = c && c < 0x80 ? strchr(from, (int)c) : NULL;
    return (char)(at ? to[at - from] : 0);
}

static void spell_char(const json_text *t, spelling how, uint32_t c, str *out) {
    if (how == QUOTED && short_escape(c)) {
        str_putc(out, '\\');
        str_putc(out, short_escape(c));
    } else if (how == QUOTED && (c < 0x20 || (t->in_call && c == FULLWIDTH_BAR))) str_addf(out, "\\u%04x", c);
    else utf8_add(out, c);
}

/* Characters that have an escape of their own. */
static int32_t escaped_char(const json_text *t, uint32_t c, int32_t next) {
    str s = {0};
    spell_char(t, QUOTED, c, &s);
    if (s.failed) t->r->failed = ERR_NOMEM;
    else next = rules_literal(t->r, s.p, s.n, next);
    str_free(&s);
    return next;
}

int32_t json_chars(const json_text *t, spelling how, uint32_t low, uint32_t high, int32_t next) {
    if (low == 0) low = 1;
    if (low > high) return NEVER;
    if (how == RAW) {
        if (!t->in_call || high < FULLWIDTH_BAR || low > FULLWIDTH_BAR) return rules_chars(t->r, low, high, next);
        int32_t below = low < FULLWIDTH_BAR ? rules_chars(t->r, low, FULLWIDTH_BAR - 1, next) : NEVER;
        return rules_either(t->r, below,
                            high > FULLWIDTH_BAR ? rules_chars(t->r, FULLWIDTH_BAR + 1, high, next) : NEVER);
    }
    int32_t start = high >= 0x20 ? plain_chars(t, low < 0x20 ? 0x20 : low, high, next) : NEVER;
    for (uint32_t c = low; c <= high && c < 0x20; c++) start = rules_either(t->r, start, escaped_char(t, c, next));
    static const uint32_t others[] = {'"', '\\', FULLWIDTH_BAR};
    for (int i = 0; i < (t->in_call ? 3 : 2); i++)
        if (low <= others[i] && others[i] <= high) start = rules_either(t->r, start, escaped_char(t, others[i], next));
    return start;
}

status json_spell(const json_text *t, spelling how, text s, str *out, error *e) {
    for (size_t i = 0; i < s.n;) {
        uint32_t c = utf8_point(s.p + i, s.n - i);
        if (c == 0) return fail(e, ERR_UNSUPPORTED, "a text with a zero character");
        spell_char(t, how, c, out);
        i += utf8_size(s.p + i, s.n - i);
    }
    return str_check(out, e);
}

/* ---- keys ---- */

static int32_t colon(const json_text *t, int32_t next) {
    return rules_word(t->r, "\":", rules_either(t->r, rules_word(t->r, " ", next), next));
}

int32_t json_key(const json_text *t, const char *key, size_t n, int32_t next) {
    str s = {0};
    int32_t start = NEVER;
    str_putc(&s, '"');
    if (json_spell(t, QUOTED, (text){key, n}, &s, NULL) == OK) start = rules_literal(t->r, s.p, s.n, colon(t, next));
    str_free(&s);
    return start;
}

/* keys[0 .. n) are sorted and agree in their first `at` bytes, which are written. tail: any more characters and the
 * closing quote; end: the closing quote. */
static int32_t other_key(const json_text *t, const text *keys, size_t n, size_t at, int32_t tail, int32_t end) {
    size_t i = 0;
    int32_t start = NEVER;
    uint32_t free_from = 0x20;
    while (i < n && keys[i].n == at) i++;
    if (i == 0) start = end;
    while (i < n) {
        size_t size = utf8_size(keys[i].p + at, keys[i].n - at), k = i + 1;
        uint32_t c = utf8_point(keys[i].p + at, keys[i].n - at);
        while (k < n && keys[k].n >= at + size && !memcmp(keys[k].p + at, keys[i].p + at, size)) k++;
        int32_t sub = other_key(t, keys + i, k - i, at + size, tail, end);
        if (c >= 0x20) {
            if (c > free_from) start = rules_either(t->r, start, json_chars(t, QUOTED, free_from, c - 1, tail));
            start = rules_either(t->r, start, json_chars(t, QUOTED, c, c, sub));
            free_from = c + 1;
        }
        i = k;
    }
    if (free_from > LAST_CHAR) return start;
    return rules_either(t->r, start, json_chars(t, QUOTED, free_from, LAST_CHAR, tail));
}

static int by_bytes(const void *left, const void *right) {
    const text *a = left, *b = right;
    int order = memcmp(a->p, b->p, a->n < b->n ? a->n : b->n);
    return order ? order : (a->n > b->n) - (a->n < b->n);
}

int32_t json_other_key(const json_text *t, text *keys, size_t n, int32_t next) {
    int32_t end = colon(t, next), tail = rules_repeat(t->r, t->key_character, 0, UNBOUNDED, end);
    if (n) qsort(keys, n, sizeof *keys, by_bytes);
    return rules_word(t->r, "\"", n ? other_key(t, keys, n, 0, tail, end) : tail);
}

/* ---- values ---- */

int32_t json_space(const json_text *t, int32_t next) {
    return rules_call(t->r, t->space, next);
}

int32_t json_value(const json_text *t, int32_t next) {
    return rules_call(t->r, t->value, next);
}

static int32_t make_space(rules *r) {
    int32_t indent = rules_rule_of(r, false, rules_either(r, rules_word(r, " ", RETURN), rules_word(r, "\t", RETURN)));
    int32_t line = rules_word(r, "\n", rules_repeat(r, indent, 0, MAX_INDENT, RETURN));
    return rules_rule_of(r, false, rules_either(r, RETURN, rules_either(r, rules_word(r, " ", RETURN), line)));
}

static int32_t make_character(const json_text *t) {
    rules *r = t->r;
    int32_t escape = rules_word(r, "u", hex_escape(r));
    for (const char *c = "\"\\/bfnrt"; *c; c++)
        escape = rules_either(r, escape, rules_bytes(r, (uint8_t)*c, (uint8_t)*c, RETURN));
    return rules_either(r, plain_chars(t, 0x20, LAST_CHAR, RETURN), rules_word(r, "\\", escape));
}

static int32_t digits(const json_text *t, int32_t digit, int min, int max, int32_t next) {
    return rules_repeat(t->r, digit, min, max, next);
}

/* -? (0 | [1-9][0-9]*) next */
static int32_t whole(const json_text *t, int32_t digit, int32_t next) {
    rules *r = t->r;
    int32_t start = rules_bytes(r, '1', '9', digits(t, digit, 0, JSON_DIGITS - 1, next));
    start = rules_either(r, start, rules_word(r, "0", next));
    return rules_either(r, start, rules_word(r, "-", start));
}

static void make_numbers(json_text *t) {
    rules *r = t->r;
    int32_t digit = rules_rule_of(r, false, rules_bytes(r, '0', '9', RETURN));
    int32_t power = digits(t, digit, 1, 2, RETURN);
    power = rules_either(r, power, rules_either(r, rules_word(r, "+", power), rules_word(r, "-", power)));
    power = rules_either(r, rules_word(r, "e", power), rules_word(r, "E", power));
    int32_t end = rules_either(r, RETURN, power);
    int32_t fraction = rules_word(r, ".", digits(t, digit, 1, JSON_DIGITS, end));
    t->number = rules_rule_of(r, false, whole(t, digit, rules_either(r, fraction, end)));
    t->integer = rules_rule_of(r, false, whole(t, digit, RETURN));
}

/* open ws ( item (, ws item)* ws )? close */
static int32_t list_of(const json_text *t, const char *open, int32_t item, const char *close) {
    rules *r = t->r;
    int32_t more = rules_rule_of(r, false, rules_word(r, ",", json_space(t, rules_call(r, item, RETURN))));
    int32_t end = rules_word(r, close, RETURN);
    int32_t items = rules_call(r, item, rules_repeat(r, more, 0, UNBOUNDED, json_space(t, end)));
    return rules_word(r, open, json_space(t, rules_either(r, end, items)));
}

void json_text_open(json_text *t, rules *r, bool in_call) {
    *t = (json_text){.r = r, .in_call = in_call};
    t->space = make_space(r);
    t->character = rules_rule_of(r, false, make_character(t));
    t->key_character = rules_rule_of(r, false, json_chars(t, QUOTED, 0x20, LAST_CHAR, RETURN));
    int32_t inside = rules_repeat(r, t->character, 0, UNBOUNDED, rules_word(r, "\"", RETURN));
    t->string = rules_rule_of(r, false, rules_word(r, "\"", inside));
    make_numbers(t);
    t->value = rules_rule(r, false);
    t->object = rules_rule(r, true);
    int32_t member = rules_rule_of(r, false, json_other_key(t, NULL, 0, json_value(t, RETURN)));
    int32_t array = rules_rule_of(r, true, list_of(t, "[", t->value, "]"));
    rules_start(r, t->object, list_of(t, "{", member, "}"));
    int32_t start = rules_either(r, rules_call(r, t->object, RETURN), rules_call(r, array, RETURN));
    start = rules_either(r, start, rules_call(r, t->string, RETURN));
    start = rules_either(r, start, rules_call(r, t->number, RETURN));
    text words[] = {{"true", 4}, {"false", 5}, {"null", 4}};
    rules_start(r, t->value, rules_either(r, start, rules_words(r, words, 3, RETURN)));
}
