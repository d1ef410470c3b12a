#include "text/json_schema_pattern.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_PATTERN = 4096, /* characters */
    MAX_GROUPS = 100,   /* in one another */
    MAX_NODES = 20000,
    MAX_TURNS = 10000, /* of a repetition */
    MAX_STEPS = 200000 /* of the parser: repetitions of repetitions */
};

/* The parser works from the end: each function takes the node that its part leads to and gives the one where it
 * begins. A repeated part is parsed once for each copy. */
typedef struct parser {
    const schema_compiler *c;
    const uint32_t *p;
    nfa *a;
    int groups, steps;
    status st;
} parser;

static int32_t parse_alternatives(parser *s, size_t from, size_t to, int32_t next);

static int32_t refuse(parser *s, const char *what) {
    if (s->st == OK) s->st = schema_fail(s->c, ERR_UNSUPPORTED, "\"pattern\": %s", what);
    return 0;
}

static int32_t bad(parser *s, const char *what) {
    if (s->st == OK) s->st = schema_fail(s->c, ERR_ARG, "\"pattern\" is no regular expression: %s", what);
    return 0;
}

static int32_t add(parser *s, nfa_node n) {
    nfa *a = s->a;
    if (s->st != OK) return 0;
    if (a->n == MAX_NODES || ++s->steps > MAX_STEPS) return refuse(s, "it is too large");
    if (a->n == a->cap) {
        int32_t cap = a->cap ? 2 * a->cap : 64;
        nfa_node *more = realloc(a->node, (size_t)cap * sizeof *more);
        if (!more) return s->st = fail(s->c->e, ERR_NOMEM, "memory is out"), 0;
        a->node = more;
        a->cap = cap;
    }
    a->node[a->n] = n;
    return a->n++;
}

static void add_range(parser *s, uint32_t low, uint32_t high) {
    nfa *a = s->a;
    if (s->st != OK || low > high) return;
    if (++s->steps > MAX_STEPS) refuse(s, "it is too large");
    if (a->n_ranges == a->cap_ranges) {
        int32_t cap = a->cap_ranges ? 2 * a->cap_ranges : 64;
        char_range *more = realloc(a->range, (size_t)cap * sizeof *more);
        if (!more) {
            s->st = fail(s->c->e, ERR_NOMEM, "memory is out");
            return;
        }
        a->range = more;
        a->cap_ranges = cap;
    }
    a->range[a->n_ranges++] = (char_range){low, high};
}

/* ---- sets of characters ---- */

static int by_low(const void *left, const void *right) {
    const char_range *a = left, *b = right;
    return (a->low > b->low) - (a->low < b->low);
}

/* Turns the ranges from `from` on into those of all other characters. */
static void invert(parser *s, int32_t from) {
    nfa *a = s->a;
    int32_t n = a->n_ranges - from;
    char_range *old = n ? malloc((size_t)n * sizeof *old) : NULL;
    uint32_t low = 0;
    if (s->st != OK || (n && !old)) {
        if (s->st == OK) s->st = fail(s->c->e, ERR_NOMEM, "memory is out");
        free(old);
        return;
    }
    if (n) memcpy(old, a->range + from, (size_t)n * sizeof *old);
    if (n) qsort(old, (size_t)n, sizeof *old, by_low);
    a->n_ranges = from;
    for (int32_t i = 0; i < n; i++) {
        if (old[i].low > low) add_range(s, low, old[i].low - 1);
        if (old[i].high >= low) low = old[i].high + 1;
    }
    add_range(s, low, LAST_CHAR);
    free(old);
}

/* \d, \w, \s and their opposites; false: c is none of these. */
static bool add_class(parser *s, uint32_t c) {
    int32_t from = s->a->n_ranges;
    switch (c | 0x20) {
    case 'd': add_range(s, '0', '9'); break;
    case 'w':
        add_range(s, '0', '9');
        add_range(s, 'A', 'Z');
        add_range(s, '_', '_');
        add_range(s, 'a', 'z');
        break;
    case 's':
        add_range(s, '\t', '\r');
        add_range(s, ' ', ' ');
        break;
    default: return false;
    }
    if (c < 'a') invert(s, from);
    return true;
}

static int hex_value(uint32_t c) {
    if (c >= '0' && c <= '9') return (int)c - '0';
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (int)(c | 0x20) - 'a' + 10 : -1;
}

/* n hexadecimal digits at *i, which moves behind them. */
static uint32_t read_hex(parser *s, size_t *i, size_t to, int n) {
    uint32_t v = 0;
    for (; n--; ++*i) {
        if (*i >= to || hex_value(s->p[*i]) < 0) return (uint32_t)bad(s, "a hexadecimal number is expected");
        v = v << 4 | (uint32_t)hex_value(s->p[*i]);
    }
    return v;
}

/* Halves of pairs mean one character to some readers and two to others. */
static uint32_t read_unicode(parser *s, size_t *i, size_t to) {
    uint32_t c = read_hex(s, i, to, 4);
    return c < 0xd800 || c > 0xdfff ? c : (uint32_t)refuse(s, "a surrogate: write the character itself");
}

/* The character that the escape at *i (behind the backslash) stands for; *i moves behind it. */
static uint32_t read_escape(parser *s, size_t *i, size_t to) {
    static const char letters[] = "nrtfv", values[] = "\n\r\t\f\v";
    if (*i >= to) return (uint32_t)bad(s, "it ends with a backslash");
    uint32_t c = s->p[(*i)++];
    const char *at = c && c < 0x80 ? strchr(letters, (int)c) : NULL;
    if (at) return (uint32_t)values[at - letters];
    if (c == 'x') return read_hex(s, i, to, 2);
    if (c == 'u') return read_unicode(s, i, to);
    bool letter = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z' && c < 0x80);
    return letter ? (uint32_t)refuse(s, "an escape of this kind (such as \\b, \\1) cannot be enforced") : c;
}

/* [...] with its inside at from..to. */
static int32_t parse_set(parser *s, size_t from, size_t to, int32_t next) {
    int32_t first = s->a->n_ranges;
    bool inverted = from < to && s->p[from] == '^';
    if (from + inverted == to) return refuse(s, "an empty set of characters means different things to readers");
    for (size_t i = from + inverted; i < to && s->st == OK;) {
        uint32_t low = s->p[i++];
        if (low == '\\' && i < to && add_class(s, s->p[i])) {
            i++;
            continue;
        }
        if (low == '\\') low = read_escape(s, &i, to);
        uint32_t high = low;
        if (i + 1 < to && s->p[i] == '-') {
            high = s->p[i + 1];
            i += 2;
            if (high == '\\') high = read_escape(s, &i, to);
            if (high < low) bad(s, "a range of characters runs backwards");
        }
        add_range(s, low, high);
    }
    if (inverted) invert(s, first);
    return add(s, (nfa_node){.kind = NFA_CHARS, .next = next, .ranges = first, .n_ranges = s->a->n_ranges - first});
}

static int32_t parse_char(parser *s, uint32_t low, uint32_t high, int32_t next) {
    int32_t first = s->a->n_ranges;
    add_range(s, low, high);
    return add(s, (nfa_node){.kind = NFA_CHARS, .next = next, .ranges = first, .n_ranges = 1});
}

/* Any character but the ends of lines. */
static int32_t parse_dot(parser *s, int32_t next) {
    int32_t first = s->a->n_ranges;
    add_range(s, '\n', '\n');
    add_range(s, '\r', '\r');
    add_range(s, 0x2028, 0x2029);
    invert(s, first);
    return add(s, (nfa_node){.kind = NFA_CHARS, .next = next, .ranges = first, .n_ranges = s->a->n_ranges - first});
}

/* ---- extents ---- */

/* Where the atom at i ends. */
static size_t atom_end(parser *s, size_t i, size_t to) {
    size_t open = 0;
    bool set = false;
    for (size_t k = i; k < to; k++) {
        uint32_t c = s->p[k];
        if (c == '\\') {
            if (++k < to && !open && !set && (s->p[k] == 'x' || s->p[k] == 'u')) k += s->p[k] == 'x' ? 2 : 4;
            if (k >= to) return (void)bad(s, "an escape is cut off"), to;
        } else if (set) set = c != ']';
        else if (c == '[') {
            set = true;
        } else if (c == '(') open++;
        else if (c == ')' && open) open--;
        if (!open && !set) return k < to ? k + 1 : to;
    }
    bad(s, open || set ? "a bracket is open at the end" : "it ends with a backslash");
    return to;
}

typedef struct turns {
    int32_t min, max;
} turns;

static int32_t read_number(parser *s, size_t *i, size_t to) {
    int32_t v = 0;
    for (; *i < to && s->p[*i] >= '0' && s->p[*i] <= '9'; ++*i) {
        v = 10 * v + (int32_t)(s->p[*i] - '0');
        if (v > MAX_TURNS) return refuse(s, "a repetition of more than 10000 turns");
    }
    return v;
}

/* The quantifier at *i, which moves behind it. */
static turns read_turns(parser *s, size_t *i, size_t to) {
    turns t = {1, 1};
    size_t k = *i + 1;
    if (*i >= to || s->p[*i] >= 0x80 || !s->p[*i] || !strchr("*+?{", (int)s->p[*i])) return t;
    if (s->p[*i] == '*') t = (turns){0, UNBOUNDED};
    else if (s->p[*i] == '+') t = (turns){1, UNBOUNDED};
    else if (s->p[*i] == '?') t = (turns){0, 1};
    else {
        size_t first = k;
        t.min = t.max = read_number(s, &k, to);
        if (k == first) return (void)refuse(s, "a brace that is no number of turns: write \\{"), t;
        if (k < to && s->p[k] == ',') {
            first = ++k;
            t.max = read_number(s, &k, to);
            if (k == first) t.max = UNBOUNDED;
        }
        if (k >= to || s->p[k] != '}') return (void)bad(s, "a repetition's brace is open"), t;
        if (t.max != UNBOUNDED && t.max < t.min) bad(s, "a repetition's bounds are the wrong way round");
        k++;
    }
    if (k < to && s->p[k] == '?') k++; /* lazy: the same texts */
    if (k < to && s->p[k] < 0x80 && s->p[k] && strchr("*+?{", (int)s->p[k])) bad(s, "nothing to repeat");
    *i = k;
    return t;
}

/* ---- parts ---- */

static int32_t parse_group(parser *s, size_t from, size_t to, int32_t next) {
    if (from < to && s->p[from] == '?') {
        size_t i = from + 1;
        if (i < to && s->p[i] == 'P') i++;
        bool name = i + 1 < to && s->p[i] == '<' && s->p[i + 1] != '=' && s->p[i + 1] != '!';
        while (name && i < to && s->p[i] != '>') i++;
        if (i >= to || (!name && s->p[i] != ':')) return refuse(s, "look-around and flags cannot be enforced");
        from = i + 1;
    }
    if (++s->groups > MAX_GROUPS) return refuse(s, "groups in one another too deep");
    next = parse_alternatives(s, from, to, next);
    s->groups--;
    return next;
}

/* One copy of the atom at from..to. */
static int32_t parse_atom(parser *s, size_t from, size_t to, int32_t next) {
    uint32_t c = s->p[from];
    size_t i = from + 1;
    if (s->st != OK || ++s->steps > MAX_STEPS) return refuse(s, "it is too large");
    switch (c) {
    case '(': return parse_group(s, from + 1, to - 1, next);
    case '[': return parse_set(s, from + 1, to - 1, next);
    case '.': return parse_dot(s, next);
    case '^': return add(s, (nfa_node){.kind = NFA_BEGIN, .next = next});
    case '$': return add(s, (nfa_node){.kind = NFA_END, .next = next});
    case ')': return bad(s, "a bracket is closed that was not open");
    case '*':
    case '+':
    case '?':
    case '{': return bad(s, "nothing to repeat");
    case '\\': break;
    default: return parse_char(s, c, c, next);
    }
    int32_t first = s->a->n_ranges;
    if (i < to && add_class(s, s->p[i]))
        return add(s, (nfa_node){.kind = NFA_CHARS, .next = next, .ranges = first, .n_ranges = s->a->n_ranges - first});
    c = read_escape(s, &i, to);
    return parse_char(s, c, c, next);
}

static int32_t split(parser *s, int32_t a, int32_t b) {
    return add(s, (nfa_node){.kind = NFA_SPLIT, .next = a, .other = b});
}

static int32_t parse_turns(parser *s, size_t from, size_t to, turns t, int32_t next) {
    int32_t end = next;
    if (t.max == UNBOUNDED) {
        int32_t loop = split(s, next, next), body = parse_atom(s, from, to, loop);
        if (s->st == OK) s->a->node[loop].next = body;
        next = loop;
    }
    for (int32_t i = t.min; i < t.max && s->st == OK; i++) next = split(s, parse_atom(s, from, to, next), end);
    for (int32_t i = 0; i < t.min && s->st == OK; i++) next = parse_atom(s, from, to, next);
    return next;
}

static int32_t parse_sequence(parser *s, size_t from, size_t to, int32_t next) {
    if (from >= to || s->st != OK) return next;
    size_t end = atom_end(s, from, to), i = end;
    bool property = end - from == 2 && s->p[from] == '\\' && (s->p[from + 1] | 0x20) == 'p';
    if (property) return refuse(s, "\\p{...} cannot be enforced");
    turns t = read_turns(s, &i, to);
    next = parse_sequence(s, i, to, next);
    return s->st == OK ? parse_turns(s, from, end, t, next) : 0;
}

/* Where the next bar outside of brackets stands. */
static size_t find_bar(parser *s, size_t from, size_t to) {
    while (from < to && s->p[from] != '|' && s->st == OK) from = atom_end(s, from, to);
    return from;
}

static int32_t parse_alternatives(parser *s, size_t from, size_t to, int32_t next) {
    size_t bar = find_bar(s, from, to);
    int32_t start = parse_sequence(s, from, bar, next);
    while (bar < to && s->st == OK) {
        from = bar + 1;
        bar = find_bar(s, from, to);
        start = split(s, start, parse_sequence(s, from, bar, next));
    }
    return start;
}

/* ---- all of it ---- */

static size_t read_chars(const char *p, size_t n, uint32_t *out) {
    size_t chars = 0;
    for (size_t i = 0; i < n; i += utf8_size(p + i, n - i)) out[chars++] = utf8_point(p + i, n - i);
    return chars;
}

status pattern_parse(const schema_compiler *c, const char *pattern, size_t n, nfa *out) {
    *out = (nfa){0};
    if (n > MAX_PATTERN) return schema_fail(c, ERR_UNSUPPORTED, "\"pattern\": longer than %d bytes", MAX_PATTERN);
    uint32_t *chars = malloc((n + 1) * sizeof *chars);
    if (!chars) return fail(c->e, ERR_NOMEM, "memory is out");
    parser s = {.c = c, .p = chars, .a = out};
    add(&s, (nfa_node){.kind = NFA_MATCH});
    out->start = parse_alternatives(&s, 0, read_chars(pattern, n, chars), 0);
    int32_t search = split(&s, out->start, out->start), skip = parse_char(&s, 0, LAST_CHAR, search);
    if (s.st == OK) out->node[search].other = skip;
    out->start = search;
    free(chars);
    return s.st;
}

void pattern_free(nfa *a) {
    free(a->node);
    free(a->range);
    *a = (nfa){0};
}
