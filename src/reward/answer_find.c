/* Where the answer stands in a text: the places of reward/answer.h. Each is looked for in one walk, from the end or
 * from the beginning, so that no text is too long. */
#include "reward/answer.h"

#include <stdint.h>
#include <string.h>
#include "reward/answer_chars.h"

/* *out becomes p[n] without blanks around it. */
static bool give(str *out, const char *p, size_t n) {
    while (n && is_blank(*p)) {
        p++;
        n--;
    }
    while (n && is_blank(p[n - 1])) n--;
    out->n = 0;
    str_add(out, p, n);
    return !out->failed;
}

/* The last place of `what` that begins in [text, end). */
static const char *last(const char *text, const char *end, const char *what) {
    size_t n = strlen(what);
    for (const char *p = end; p > text;)
        if (strncmp(--p, what, n) == 0) return p;
    return NULL;
}

const char *behind_reasoning(const char *text) {
    static const char mark[] = "</think>";
    const char *thought = last(text, text + strlen(text), mark);
    return thought ? thought + strlen(mark) : text;
}

/* --- places ------------------------------------------------------------------------------------------------------- */

/* Behind \boxed or \fbox at p and blanks: the brace; NULL: none. */
static const char *box_brace(const char *p) {
    size_t n = strncmp(p, "\\boxed", 6) == 0 ? 6 : strncmp(p, "\\fbox", 5) == 0 ? 5 : 0;
    if (!n) return NULL;
    for (p += n; is_blank(*p); p++) {}
    return *p == '{' ? p : NULL;
}

/* The brace that closes the one at p; NULL: none before end. */
static const char *closing(const char *p, const char *end) {
    for (int64_t depth = 0; p < end; p++) {
        if (*p == '\\' && p + 1 < end) p++;
        else if (*p == '{') depth++;
        else if (*p == '}' && --depth == 0) return p;
    }
    return NULL;
}

/* The last box whose braces balance. A box that does not close makes all around it not close: no byte is read twice. */
static bool find_box(const char *text, str *out) {
    const char *end = text + strlen(text);
    for (const char *p = end; p > text;) {
        const char *open = *--p == '\\' ? box_brace(p) : NULL, *close = open ? closing(open, end) : NULL;
        if (close) return give(out, open + 1, (size_t)(close - open - 1));
        if (open) end = p;
    }
    return false;
}

static bool find_hashes(const char *text, str *out) {
    const char *p = last(text, text + strlen(text), "#### ");
    return p && give(out, p + 5, strcspn(p + 5, "\n")) && out->n;
}

static bool find_tag(const char *text, str *out) {
    const char *close = last(text, text + strlen(text), "</answer>"),
               *open = close ? last(text, close, "<answer>") : NULL;
    return open && give(out, open + 8, (size_t)(close - open - 8));
}

static const char *answer_word(const char *p, const char *end) {
    static const char word[] = "answer";
    for (; p + 6 <= end; p++) {
        size_t i = 0;
        while (i < 6 && to_small(p[i]) == word[i]) i++;
        if (i == 6) return p;
    }
    return NULL;
}

enum { MARKS = 4 };

static const char *const marks[MARKS][2] = {{"$$", "$$"}, {"$", "$"}, {"\\(", "\\)"}, {"\\[", "\\]"}};

/* A formula at p: its end; NULL: none. closers[k] is the first closing mark k that has not been passed. */
static const char *formula_at(const char *p, const char *end, const char *closers[MARKS], size_t *mark) {
    for (size_t k = 0; k < MARKS; k++) {
        size_t n = strlen(marks[k][0]);
        if (strncmp(p, marks[k][0], n) != 0) continue;
        if (closers[k] < p + n) closers[k] = p + n;
        while (closers[k] < end && strncmp(closers[k], marks[k][1], n) != 0) closers[k]++;
        *mark = n;
        return closers[k] < end && closers[k] > p + n ? closers[k] : NULL;
    }
    return NULL;
}

/* The last formula that begins within 50 characters behind the word "answer". */
static bool find_formula(const char *text, str *out) {
    const char *end = text + strlen(text), *best = NULL, *best_end = NULL, *closers[MARKS] = {text, text, text, text};
    size_t mark = 0;
    for (const char *p = text; (p = answer_word(p, end)); p++) {
        const char *stop = end - p > 56 ? p + 56 : end, *close = NULL;
        const char *q = p + 6;
        while (q <= stop && q < end && !(close = formula_at(q, end, closers, &mark))) q++;
        if (!close) continue;
        best = q + mark;
        best_end = close;
        p = close - 1;
    }
    return best && give(out, best, (size_t)(best_end - best));
}

/* The last number: sign, digits with commas between thousands, a fraction after a point, /digits. */
static bool find_number(const char *text, str *out) {
    const char *p = text + strlen(text);
    while (p > text && !is_digit(p[-1])) p--;
    if (p == text) return false;
    const char *end = p;
    while (p > text && (is_digit(p[-1]) || (strchr(",./", p[-1]) && p - 1 > text && is_digit(p[-2]) && is_digit(*p))))
        p--;
    for (const char *c; (c = memchr(p, ',', (size_t)(end - p)));) { /* 1,234 is one number, 1,2 two */
        const char *q = c + 1;
        while (q < end && is_digit(*q)) q++;
        const char *before = c;
        while (before > p && is_digit(before[-1])) before--;
        if (q - c == 4 && c - before <= 3) {
            while (q < end && *q == ',' && end - q >= 4 && is_digit(q[1]) && is_digit(q[2]) && is_digit(q[3]) &&
                   (q + 4 == end || !is_digit(q[4])))
                q += 4;
            if (q == end || *q != ',') break;
            c = q; /* what these groups run into ends a number that begins with any of them */
        }
        p = c + 1;
    }
    if (p > text && p[-1] == '.' && (p - 1 == text || !is_letter(p[-2]))) p--; /* .5 */
    if (p > text && p[-1] == '-' && (p - 1 == text || (!is_digit(p[-2]) && !is_letter(p[-2]) && p[-2] != ')'))) p--;
    return give(out, p, (size_t)(end - p));
}

/* Behind the last "answer is", "answer:" or "answer =", to the end of the sentence. */
static bool find_sentence(const char *text, str *out) {
    const char *end = text + strlen(text), *from = NULL;
    for (const char *p = text; (p = answer_word(p, end)); p++) {
        const char *q = p + 6;
        while (*q == ' ' || *q == '*') q++;
        if (strncmp(q, "is ", 3) == 0 || strncmp(q, "is:", 3) == 0) from = q + 3;
        else if (*q == ':' || *q == '=') from = q + 1;
    }
    if (!from) return false;
    while (*from == ' ' || *from == ':' || *from == '*' || *from == '\n') from++;
    const char *to = from;
    while (*to && *to != '\n' && !(*to == '.' && (!to[1] || is_blank(to[1]) || to[1] == '*'))) to++;
    while (to > from && (to[-1] == '*' || to[-1] == ' ')) to--;
    return to > from && give(out, from, (size_t)(to - from));
}

/* --- multiple choice ---------------------------------------------------------------------------------------------- */

static bool choice(char c) {
    return c >= 'A' && c <= 'J';
}

/* A letter that stands alone at p, behind what may stand around it: "(B)", "**B**", "\text{(B)}", "$B$"; 0: none. */
static char lone_letter(const char *p, bool any_case) {
    for (;;) {
        if (strncmp(p, "\\text", 5) == 0 || strncmp(p, "\\mathrm", 7) == 0 || strncmp(p, "\\mathbf", 7) == 0 ||
            strncmp(p, "\\boxed", 6) == 0)
            for (p++; is_letter(*p); p++) {}
        else if (*p && strchr(" \t\n(*{$[\"'", *p)) p++;
        else break;
    }
    char c = any_case && *p >= 'a' && *p <= 'j' ? (char)(*p - 32) : *p;
    return choice(c) && !is_letter(p[1]) && !is_digit(p[1]) && p[1] != '_' && p[1] != '\'' ? c : 0;
}

/* "Answer: X", "the answer is (X)", the last of them. A letter that is a word of a sentence ("answer is A cat") is
 * none: behind it stands no other word, or it stands in brackets. */
static char letter_behind_answer(const char *text) {
    const char *end = text + strlen(text);
    char found = 0;
    for (const char *p = text; (p = answer_word(p, end)); p++) {
        const char *q = p + 6;
        while (*q == ' ' || *q == '*') q++;
        if (strncmp(q, "is", 2) == 0 && !is_letter(q[2])) q += 2;
        else if (*q != ':' && *q != '=') continue;
        while (*q == ' ' || *q == ':' || *q == '=' || *q == '*' || *q == '\n') q++;
        static const char *const words[] = {"option ", "choice ", "Option ", "Choice "};
        for (size_t i = 0; i < 4; i++)
            if (strncmp(q, words[i], 7) == 0) q += 7;
        char c = lone_letter(q, *q == '(');
        if (!c) continue;
        const char *behind = q;
        while (*behind && to_small(*behind) != to_small(c)) behind++;
        if (behind[1] == ' ' && is_letter(behind[2]) && *q != '(' && *q != '*') continue;
        found = c;
    }
    return found;
}

/* The text's last word is a letter. */
static char letter_at_end(const char *text) {
    const char *p = text + strlen(text);
    while (p > text && strchr(" \t\n\r.)*$}]\"'", p[-1])) p--;
    if (p == text || !choice(p[-1])) return 0;
    return p - 1 == text || strchr(" \t\n\r(*{$[\"':", p[-2]) ? p[-1] : 0;
}

static bool find_letter(const char *text, str *out) {
    char c = find_box(text, out) ? lone_letter(out->p, true) : 0;
    if (!c) c = letter_behind_answer(text);
    if (!c) c = letter_at_end(text);
    return c && give(out, &c, 1);
}

/* --- by the name of the place ------------------------------------------------------------------------------------- */

bool answer_find(const char *text, answer_place place, str *out) {
    const char *behind = behind_reasoning(text);
    if (place == ANSWER_TEXT || behind[strspn(behind, " \t\r\n")]) text = behind;
    switch (place) {
    case ANSWER_BOXED: return find_box(text, out);
    case ANSWER_HASHES: return find_hashes(text, out);
    case ANSWER_TAG: return find_tag(text, out);
    case ANSWER_LAST_NUMBER: return find_number(text, out);
    case ANSWER_LETTER: return find_letter(text, out);
    case ANSWER_LATEX: return find_box(text, out) || find_formula(text, out);
    case ANSWER_ANY:
        return find_box(text, out) || find_tag(text, out) || find_hashes(text, out) || find_sentence(text, out) ||
               find_number(text, out);
    case ANSWER_TEXT: return give(out, text, strlen(text)) && out->n;
    }
    return false;
}

bool answer_gold(const char *text, str *out) {
    return answer_find(text, ANSWER_HASHES, out) || answer_find(text, ANSWER_TEXT, out);
}

/* --- GSM8K -------------------------------------------------------------------------------------------------------- */

enum { GSM8K_CHARACTERS = 300 };

static bool of_number(char c) {
    return is_digit(c) || c == '.' || c == ',';
}

/* The last 300 characters (of UTF-8). */
static const char *tail(const char *text) {
    const char *p = text + strlen(text);
    for (int n = 0; p > text && n < GSM8K_CHARACTERS; n++)
        for (p--; p > text && ((unsigned char)*p & 0xc0) == 0x80;) p--;
    return p;
}

/* Behind -?[0-9.,]+ at p; NULL: none is there. */
static const char *match(const char *p) {
    p += *p == '-';
    const char *from = p;
    while (of_number(*p)) p++;
    return p > from ? p : NULL;
}

/* As verl's gsm8k.py: findall on the tail. The last match; flexible: the last that is not ".", or else the first. */
bool answer_gsm8k(const char *text, bool flexible, str *out) {
    const char *best = NULL, *best_end = NULL, *first = NULL, *first_end = NULL, *end;
    for (const char *p = tail(text); *p;) {
        const char *from = flexible ? p : strncmp(p, "#### ", 5) == 0 ? p + 5 : NULL;
        if (!from || !(end = match(from))) {
            p++;
            continue;
        }
        if (!first) {
            first = from;
            first_end = end;
        }
        if (!(flexible && end - from == 1 && *from == '.')) {
            best = from;
            best_end = end;
        }
        p = end;
    }
    if (!best) {
        best = first;
        best_end = first_end;
    }
    out->n = 0;
    if (!best) return false;
    for (const char *p = best; p < best_end; p++)
        if (flexible || *p != ',') str_putc(out, *p);
    if (!out->n) str_add(out, "", 0);
    return !out->failed;
}
