/* UTF-8 after RFC 3629 and Unicode 15 section 3.9 (table 3-7 says which bytes may follow which). Normalization form C
 * is Unicode Standard Annex 15; the tables are utf8proc's. */
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* Length of the character that begins with this byte; 0 when none does. */
static size_t length_of(uint8_t lead) {
    if (lead < 0x80) return 1;
    if (lead < 0xC2) return 0;
    if (lead < 0xE0) return 2;
    if (lead < 0xF0) return 3;
    return lead < 0xF5 ? 4 : 0;
}

/* May byte stand at index i >= 1 of a character that begins with lead? */
static bool follows(uint8_t lead, size_t i, uint8_t byte) {
    uint8_t low = 0x80, high = 0xBF;
    if (i == 1) {
        if (lead == 0xE0) low = 0xA0;       /* overlong */
        else if (lead == 0xED) high = 0x9F; /* surrogates */
        else if (lead == 0xF0) low = 0x90;  /* overlong */
        else if (lead == 0xF4) high = 0x8F; /* past 10FFFF */
    }
    return byte >= low && byte <= high;
}

size_t utf8_valid(const char *p, size_t n) {
    const uint8_t *b = (const uint8_t *)p;
    size_t at = 0;
    while (at < n) {
        size_t k = length_of(b[at]);
        if (k == 0 || k > n - at) return at;
        for (size_t i = 1; i < k; i++)
            if (!follows(b[at], i, b[at + i])) return at;
        at += k;
    }
    return n;
}

size_t utf8_get(const char *p, uint32_t *c) {
    const uint8_t *b = (const uint8_t *)p;
    size_t k = length_of(b[0]);
    switch (k) {
    case 2: *c = (b[0] & 0x1Fu) << 6 | (b[1] & 0x3Fu); break;
    case 3: *c = (b[0] & 0x0Fu) << 12 | (b[1] & 0x3Fu) << 6 | (b[2] & 0x3Fu); break;
    case 4: *c = (b[0] & 0x07u) << 18 | (b[1] & 0x3Fu) << 12 | (b[2] & 0x3Fu) << 6 | (b[3] & 0x3Fu); break;
    default: *c = b[0]; k = 1;
    }
    return k;
}

size_t utf8_put(char *p, uint32_t c) {
    if (c < 0x80) {
        p[0] = (char)c;
        return 1;
    }
    size_t k = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = k - 1; i > 0; i--, c >>= 6) p[i] = (char)(0x80 | (c & 0x3F));
    p[0] = (char)((k == 2 ? 0xC0 : k == 3 ? 0xE0 : 0xF0) | c);
    return k;
}

static void replacement(str *out) {
    str_add(out, "\xEF\xBF\xBD", 3);
}

void utf8_lossy(str *out, utf8_tail *tail, const char *p, size_t n) {
    for (size_t at = 0; at < n; at++) {
        uint8_t byte = (uint8_t)p[at];
        if (tail->n && !follows((uint8_t)tail->p[0], tail->n, byte)) utf8_lossy_end(out, tail);
        size_t whole = tail->n ? length_of((uint8_t)tail->p[0]) : length_of(byte);
        if (whole == 0) replacement(out);
        else if (tail->n + 1u < whole) tail->p[tail->n++] = (char)byte;
        else {
            str_add(out, tail->p, tail->n);
            str_putc(out, (char)byte);
            tail->n = 0;
        }
    }
}

void utf8_lossy_end(str *out, utf8_tail *tail) {
    if (tail->n) replacement(out);
    tail->n = 0;
}

uint32_t byte_to_letter(uint8_t byte) {
    if (byte <= ' ') return 0x100u + byte;
    if (byte >= 0x7F && byte <= 0xA0) return 0x121u + (byte - 0x7Fu);
    return byte == 0xAD ? 0x143 : byte;
}

int letter_to_byte(uint32_t c) {
    if (c >= 0x100 && c <= 0x120) return (int)(c - 0x100);
    if (c >= 0x121 && c <= 0x142) return (int)(c - 0x121 + 0x7F);
    if (c == 0x143) return 0xAD;
    return c < 0x100 && byte_to_letter((uint8_t)c) == c ? (int)c : -1;
}

bool is_white_space(uint32_t c) {
    return c == ' ' || (c >= '\t' && c <= '\r') || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/* Alphabetic, marks, decimal digits, connecting punctuation and the two joiners. Alphabetic is letters, letter numbers
 * and Other_Alphabetic, of which all but the circled and squared Latin letters are marks. */
bool is_word(uint32_t c) {
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default: break;
    }
    return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
           (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
}

/* Blocks whose characters neither change nor combine with what stands before them: up to the combining marks,
 * general punctuation but its two quads, CJK punctuation before its tone marks, kana letters that carry no separate
 * mark, the unified ideographs, the fullwidth forms. */
bool text_is_nfc(const char *p, size_t n) {
    for (size_t at = 0; at < n;) {
        if ((uint8_t)p[at] < 0x80) {
            at++;
            continue;
        }
        uint32_t c;
        at += utf8_get(p + at, &c);
        bool plain = c < 0x300 || (c >= 0x2010 && c <= 0x2027) || (c >= 0x3000 && c <= 0x3029) ||
                     (c >= 0x3041 && c <= 0x3096) || (c >= 0x309D && c <= 0x30FF) || (c >= 0x4E00 && c <= 0x9FFF) ||
                     (c >= 0xFF00 && c <= 0xFF9D);
        if (!plain) return false;
    }
    return true;
}

/* Canonical order: in every run of marks, by combining class, equal ones staying as they are. A merge sort, because
 * a hostile run may be as long as the text; spare has the room of the run. */
typedef struct mark {
    utf8proc_int32_t c;
    int class;
} mark;

static void sort_marks(mark *m, mark *spare, size_t n) {
    if (n < 2) return;
    size_t half = n / 2;
    sort_marks(m, spare, half);
    sort_marks(m + half, spare, n - half);
    memcpy(spare, m, half * sizeof *m);
    for (size_t i = 0, j = half, k = 0; i < half; k++)
        m[k] = j < n && m[j].class < spare[i].class ? m[j++] : spare[i++];
}

static status order_marks(utf8proc_int32_t *c, size_t n, error *e) {
    for (size_t at = 0; at < n;) {
        size_t end = at;
        while (end < n && utf8proc_get_property(c[end])->combining_class) end++;
        size_t run = end - at;
        if (run > 1) {
            mark *m = malloc(2 * run * sizeof *m);
            if (!m) return fail(e, ERR_NOMEM, "memory is out");
            for (size_t i = 0; i < run; i++)
                m[i] = (mark){c[at + i], utf8proc_get_property(c[at + i])->combining_class};
            sort_marks(m, m + run, run);
            for (size_t i = 0; i < run; i++) c[at + i] = m[i].c;
            free(m);
        }
        at = end + 1;
    }
    return OK;
}

status nfc(str *out, const char *p, size_t n, error *e) {
    enum { LONGEST = 18 }; /* characters in the longest decomposition */
    size_t cap = n + LONGEST, count = 0;
    utf8proc_int32_t *c = malloc(cap * sizeof *c);
    if (!c) return fail(e, ERR_NOMEM, "memory is out");
    for (size_t at = 0; at < n;) {
        if (cap - count < LONGEST) {
            cap *= 2;
            utf8proc_int32_t *more = realloc(c, cap * sizeof *c);
            if (!more) {
                free(c);
                return fail(e, ERR_NOMEM, "memory is out");
            }
            c = more;
        }
        uint32_t one;
        int boundary = 0;
        at += utf8_get(p + at, &one);
        utf8proc_ssize_t k =
            utf8proc_decompose_char((utf8proc_int32_t)one, c + count, LONGEST, UTF8PROC_DECOMPOSE, &boundary);
        if (k >= 0 && k <= LONGEST) count += (size_t)k;
    }
    status s = order_marks(c, count, e);
    if (s == OK) {
        utf8proc_ssize_t composed =
            utf8proc_normalize_utf32(c, (utf8proc_ssize_t)count, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
        for (utf8proc_ssize_t i = 0; i < composed; i++) {
            char bytes[4];
            str_add(out, bytes, utf8_put(bytes, (uint32_t)c[i]));
        }
        s = composed < 0 ? fail(e, ERR_FORMAT, "normalization failed: %s", utf8proc_errmsg(composed))
                         : str_check(out, e);
    }
    free(c);
    return s;
}
