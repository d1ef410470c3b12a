/* Upper and lower case cover ASCII, Latin-1, Greek and Cyrillic letters; other letters stay as they are. */
#define _GNU_SOURCE /* memmem: linear, whatever the template looks for */
#include "text/template_text.h"
#include "text/unicode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- UTF-8 ---- */

size_t utf8_size(const char *p, size_t n) {
    const unsigned char *s = (const unsigned char *)p;
    size_t k = s[0] < 0x80                   ? 1
               : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
               : (s[0] & 0xf0) == 0xe0       ? 3
               : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
                                             : 1;
    if (k > n) return 1;
    for (size_t i = 1; i < k; i++)
        if ((s[i] & 0xc0) != 0x80) return 1;
    if (k == 3 && ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0))) return 1; /* overlong, surrogate */
    if (k == 4 && ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] >= 0x90))) return 1;
    return k;
}

uint32_t utf8_point(const char *p, size_t n) {
    const unsigned char *s = (const unsigned char *)p;
    switch (utf8_size(p, n)) {
    case 2: return (s[0] & 0x1fu) << 6 | (s[1] & 0x3fu);
    case 3: return (s[0] & 0xfu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);
    case 4: return (s[0] & 7u) << 18 | (s[1] & 0x3fu) << 12 | (s[2] & 0x3fu) << 6 | (s[3] & 0x3fu);
    default: return s[0];
    }
}

void utf8_add(str *s, uint32_t c) {
    char b[4];
    str_add(s, b, utf8_put(b, c));
}

size_t utf8_count(text s) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) n += (s.p[i] & 0xc0) != 0x80;
    return n;
}

bool utf8_is_space(uint32_t c) {
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* What repr() writes as an escape: controls, separators, formats, private use. */
static bool is_printable(uint32_t c) {
    if (c == ' ') return true;
    return !(utf8_is_space(c) || c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0xad || (c >= 0x200b && c <= 0x200f) ||
             (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || (c >= 0xe000 && c <= 0xf8ff) ||
             c == 0xfeff || (c >= 0xfff0 && c <= 0xfffb) || c == 0xfffe || c == 0xffff || c >= 0xe0000);
}

/* ---- pieces ---- */

bool text_eq(text a, text b) {
    return a.n == b.n && (a.n == 0 || !memcmp(a.p, b.p, a.n));
}

bool text_is(text a, const char *b) {
    return text_eq(a, (text){b, strlen(b)});
}

bool text_find(text s, text what, size_t from, size_t *at) {
    if (what.n == 0) {
        *at = from;
        return from <= s.n;
    }
    if (from >= s.n) return false;
    const char *p = memmem(s.p + from, s.n - from, what.p, what.n);
    if (p) *at = (size_t)(p - s.p);
    return p != NULL;
}

static bool strips(text s, size_t i, const text *chars) {
    size_t n = utf8_size(s.p + i, s.n - i), at;
    if (!chars) return utf8_is_space(utf8_point(s.p + i, n));
    return text_find(*chars, (text){s.p + i, n}, 0, &at);
}

text text_strip(text s, const text *chars, bool left, bool right) {
    while (left && s.n && strips(s, 0, chars)) {
        size_t n = utf8_size(s.p, s.n);
        s.p += n;
        s.n -= n;
    }
    while (right && s.n) {
        size_t i = s.n - 1;
        while (i && s.n - i < 4 && (s.p[i] & 0xc0) == 0x80) i--;
        if (!strips(s, i, chars)) break;
        s.n = i;
    }
    return s;
}

static uint32_t upper(uint32_t c) {
    if ((c >= 'a' && c <= 'z') || (c >= 0xe0 && c <= 0xfe && c != 0xf7)) return c - 32;
    if (c >= 0x3b1 && c <= 0x3c9 && c != 0x3c2) return c - 32;
    if (c >= 0x430 && c <= 0x44f) return c - 32;
    return c >= 0x450 && c <= 0x45f ? c - 80 : c;
}

static uint32_t lower(uint32_t c) {
    if ((c >= 'A' && c <= 'Z') || (c >= 0xc0 && c <= 0xde && c != 0xd7)) return c + 32;
    if (c >= 0x391 && c <= 0x3a9 && c != 0x3a2) return c + 32;
    if (c >= 0x410 && c <= 0x42f) return c + 32;
    return c >= 0x400 && c <= 0x40f ? c + 80 : c;
}

static bool is_letter(uint32_t c) {
    return upper(c) != c || lower(c) != c;
}

void text_case(str *out, text s, int how) {
    bool start = true;
    for (size_t i = 0, n; i < s.n; i += n) {
        n = utf8_size(s.p + i, s.n - i);
        uint32_t c = utf8_point(s.p + i, n);
        utf8_add(out, how == 'u' || (start && how != 'l') ? upper(c) : lower(c));
        if (how == 't') start = !is_letter(c);
        else if (how == 'T') start = utf8_is_space(c) || (c < 0x80 && strchr("-({[<", (int)c));
        else start = false;
    }
}

/* ---- printing ---- */

/* repr(float): the fewest digits that read back the same; an exponent from 1e16 and below 1e-4 on. Only the digits
 * are taken from printf, which may write a decimal comma. */
void text_print_float(str *s, double d) {
    if (isnan(d) || isinf(d)) {
        str_puts(s, isnan(d) ? "nan" : d < 0 ? "-inf" : "inf");
        return;
    }
    char buf[40], digits[20];
    /* up to 15 digits survive the way through a double, so fewer are 15 with zeros at the end; not near 0, though */
    for (int precision = fabs(d) < 1e-300 ? 0 : 14; precision <= 16; precision++) {
        snprintf(buf, sizeof buf, "%.*e", precision, d);
        if (strtod(buf, NULL) == d) break;
    }
    int n = 0;
    const char *p = buf;
    for (; *p && *p != 'e'; p++)
        if (*p >= '0' && *p <= '9') digits[n++] = *p;
    int exp = *p ? atoi(p + 1) : 0;
    while (n > 1 && digits[n - 1] == '0') n--;
    if (signbit(d)) str_putc(s, '-');
    if (exp < -4 || exp >= 16) {
        str_putc(s, digits[0]);
        if (n > 1) str_putc(s, '.');
        str_add(s, digits + 1, (size_t)n - 1);
        str_addf(s, "e%c%02d", exp < 0 ? '-' : '+', abs(exp));
        return;
    }
    if (exp < 0) str_puts(s, "0.");
    for (int i = -1; i > exp; i--) str_putc(s, '0');
    for (int i = 0; i < n || i <= exp; i++) {
        str_putc(s, i < n ? digits[i] : '0');
        if (i == exp) str_putc(s, '.');
    }
    if (exp >= 0 && n <= exp + 1) str_putc(s, '0');
}

static bool has(text t, char c) {
    return t.n && memchr(t.p, c, t.n);
}

/* \x0a, \u4f60: printf would do, but texts can be long and all escapes */
static void add_escape(str *s, char kind, uint32_t c, int digits) {
    char b[10] = {'\\', kind};
    for (int i = digits; i > 0; i--, c >>= 4) b[1 + i] = "0123456789abcdef"[c & 15];
    str_add(s, b, (size_t)digits + 2);
}

void text_print_repr(str *s, text t) {
    char quote = has(t, '\'') && !has(t, '"') ? '"' : '\'';
    str_putc(s, quote);
    for (size_t i = 0, n; i < t.n; i += n) {
        n = utf8_size(t.p + i, t.n - i);
        uint32_t c = utf8_point(t.p + i, n);
        if (c == '\n') str_puts(s, "\\n");
        else if (c == '\r') str_puts(s, "\\r");
        else if (c == '\t') str_puts(s, "\\t");
        else if (c == '\\' || c == (uint32_t)quote) add_escape(s, (char)c, 0, 0);
        else if (is_printable(c)) str_add(s, t.p + i, n);
        else if (c < 0x100) add_escape(s, 'x', c, 2);
        else add_escape(s, c < 0x10000 ? 'u' : 'U', c, c < 0x10000 ? 4 : 8);
    }
    str_putc(s, quote);
}

void text_print_json(str *s, text t, bool ascii) {
    str_putc(s, '"');
    size_t plain = 0; /* what is not yet written begins here */
    for (size_t i = 0, n; i < t.n; i += n) {
        n = utf8_size(t.p + i, t.n - i);
        uint32_t c = utf8_point(t.p + i, n);
        if (c >= 0x20 && c != '"' && c != '\\' && (c < 0x80 || !ascii)) continue;
        str_add(s, t.p + plain, i - plain);
        plain = i + n;
        static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
        const char *k = c && c < 0x80 ? strchr(from, (int)c) : NULL;
        if (k) {
            add_escape(s, to[k - from], 0, 0);
        } else if (c < 0x10000) {
            add_escape(s, 'u', c, 4);
        } else { /* a pair of surrogates */
            add_escape(s, 'u', 0xd7c0 + (c >> 10), 4);
            add_escape(s, 'u', 0xdc00 | (c & 0x3ff), 4);
        }
    }
    str_add(s, t.p + plain, t.n - plain);
    str_putc(s, '"');
}

status text_read_json(json_t **out, text t, size_t flags, error *e) {
    json_error_t je;
    *out = json_loadb(t.p, t.n, flags | JSON_DECODE_ANY | JSON_ALLOW_NUL, &je);
    bool memory = !*out && (json_error_code(&je) == json_error_out_of_memory || !je.text[0]);
    return memory ? fail(e, ERR_NOMEM, "memory is out") : OK;
}

void text_print_json_value(str *s, const json_t *j) {
    const char *before = "";
    switch (json_typeof(j)) {
    case JSON_NULL: str_puts(s, "null"); break;
    case JSON_TRUE: str_puts(s, "true"); break;
    case JSON_FALSE: str_puts(s, "false"); break;
    case JSON_INTEGER: str_addf(s, "%lld", (long long)json_integer_value(j)); break;
    case JSON_REAL: text_print_float(s, json_real_value(j)); break; /* JSON has no infinities */
    case JSON_STRING: text_print_json(s, (text){json_string_value(j), json_string_length(j)}, false); break;
    case JSON_ARRAY:
        str_putc(s, '[');
        for (size_t i = 0; i < json_array_size(j); i++, before = ", ") {
            str_puts(s, before);
            text_print_json_value(s, json_array_get(j, i));
        }
        str_putc(s, ']');
        break;
    case JSON_OBJECT:
        str_putc(s, '{');
        for (void *it = json_object_iter((json_t *)(uintptr_t)j); it; before = ", ") {
            str_puts(s, before);
            text_print_json(s, (text){json_object_iter_key(it), json_object_iter_key_len(it)}, false);
            str_puts(s, ": ");
            text_print_json_value(s, json_object_iter_value(it));
            it = json_object_iter_next((json_t *)(uintptr_t)j, it);
        }
        str_putc(s, '}');
        break;
    }
}
