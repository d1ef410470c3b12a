/* The stages of pre-tokenization, after the Hugging Face tokenizers library (tokenizers/src/pre_tokenizers and
 * tokenizer/normalizer.rs). Its regular expressions are Oniguruma's, ours PCRE2's: onig_to_pcre rewrites what is
 * spelled differently and refuses what means something else, so that no text is ever cut silently otherwise.
 *
 * Stages work depth first: a piece that a stage has cut goes through the remaining stages before the next piece is
 * cut, so there are no lists of pieces. */
#include "text/pretokenize.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include "base/str.h"
#include "text/unicode.h"

enum { MAX_STAGES = 32, MAX_DEPTH = 8, MAX_PATTERN = 1 << 16 };
enum { MATCH_LIMIT = 10000000, HEAP_LIMIT = 64 << 10 /* KiB */ };

/* How the pieces between matches (gaps) and the matches become words. */
typedef enum join { ISOLATED, REMOVED, CONTIGUOUS, WITH_PREVIOUS, WITH_NEXT } join;

typedef struct stage {
    pcre2_code *code; /* NULL: the stage that puts a space before a piece */
    join join;
    bool invert; /* gaps count as matches and matches as gaps */
} stage;

struct pretokenizer {
    stage stage[MAX_STAGES];
    int stages;
};

struct word_cutter {
    const pretokenizer *p;
    pcre2_match_context *limits;
    pcre2_match_data *match;
};

/* ---- Regular expressions ---- */

/* White_Space, the meaning of \s for Oniguruma; PCRE2's \s also has U+180E. */
#define SPACES "\\t-\\r\\x20\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"

typedef struct translation {
    const char *p; /* what is left of the pattern, terminated */
    const char *whole;
    str out;
} translation;

static status refuse(const translation *t, const char *what, error *e) {
    return fail(e, ERR_UNSUPPORTED, "regular expression %.200s: %s at byte %zu is not supported", t->whole, what,
                (size_t)(t->p - t->whole));
}

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* \p{L}, \P{Lu}, \p{^Han}: general categories are the same here and there; a longer name is a script, which PCRE2
 * would take for Script_Extensions. */
static status property(translation *t, error *e) {
    const char *name = t->p + 2;
    if (*name++ != '{') return refuse(t, "a property without braces", e);
    bool negated = *name == '^';
    name += negated;
    size_t n = strcspn(name, "}");
    if (name[n] != '}' || n == 0 || n > 40) return refuse(t, "a property without a name", e);
    for (size_t i = 0; i < n; i++)
        if (!is_letter(name[i]) && name[i] != '_') return refuse(t, "this property", e);
    str_addf(&t->out, "\\%c{%s%s%.*s}", t->p[1], negated ? "^" : "", n > 2 ? "sc:" : "", (int)n, name);
    t->p = name + n + 1;
    return OK;
}

static status escape(translation *t, bool in_class, error *e) {
    char c = t->p[1];
    if (c == 'p' || c == 'P') return property(t, e);
    if (c == 's') str_addf(&t->out, in_class ? "%s" : "[%s]", SPACES);
    else if (c == 'S' && !in_class) str_addf(&t->out, "[^%s]", SPACES);
    else if (c == 'u' && strspn(t->p + 2, "0123456789abcdefABCDEF") >= 4) {
        str_addf(&t->out, "\\x{%.4s}", t->p + 2);
        t->p += 4;
    } else if (c && (strchr("dDnrtf", c) || (!is_letter(c) && !is_digit(c) && (uint8_t)c < 0x80)))
        str_add(&t->out, t->p, 2);
    else return refuse(t, "this escape", e);
    t->p += 2;
    return OK;
}

static status character_class(translation *t, error *e) {
    const char *open = t->p;
    str_putc(&t->out, *t->p++);
    if (*t->p == '^') str_putc(&t->out, *t->p++);
    if (*t->p == ']') return refuse(t, "an empty class", e);
    while (*t->p != ']') {
        if (*t->p == '\\') {
            TRY(escape(t, true, e));
            continue;
        }
        if (*t->p == '[') return refuse(t, "a class inside a class", e);
        if (t->p[0] == '&' && t->p[1] == '&') return refuse(t, "an intersection of classes", e);
        if (!*t->p) {
            t->p = open;
            return refuse(t, "a class without an end", e);
        }
        str_putc(&t->out, *t->p++);
    }
    str_putc(&t->out, *t->p++);
    return OK;
}

/* (?...) groups that mean the same; PCRE2's (*VERBS) mean nothing to Oniguruma. */
static status group(translation *t, error *e) {
    const char *const same[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:"};
    if (t->p[1] != '?' && t->p[1] != '*') {
        str_putc(&t->out, *t->p++);
        return OK;
    }
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        size_t n = strlen(same[i]);
        if (strncmp(t->p, same[i], n) != 0) continue;
        str_add(&t->out, same[i], n);
        t->p += n;
        return OK;
    }
    return refuse(t, "this group", e);
}

/* {n}, {n,}, {n,m}. What follows may turn it lazy; {n}? and {n}+ mean different things in the two languages. */
static status repetition(translation *t, error *e) {
    const char *p = t->p + 1;
    size_t low = strspn(p, "0123456789");
    p += low;
    bool exact = *p == '}';
    if (*p == ',') p += 1 + strspn(p + 1, "0123456789");
    if (low == 0 || *p != '}') return refuse(t, "this repetition", e);
    if (p[1] == '+' || (exact && p[1] == '?')) return refuse(t, "a sign after this repetition", e);
    p++;
    str_add(&t->out, t->p, (size_t)(p - t->p));
    t->p = p;
    return OK;
}

static status onig_to_pcre(translation *t, error *e) {
    while (*t->p) {
        if (*t->p == '\\') TRY(escape(t, false, e));
        else if (*t->p == '[') TRY(character_class(t, e));
        else if (*t->p == '(') TRY(group(t, e));
        else if (*t->p == '{') TRY(repetition(t, e));
        else str_putc(&t->out, *t->p++);
    }
    return str_check(&t->out, e);
}

/* `literal`: the pattern is plain text. */
static status compile(pcre2_code **out, const char *pattern, bool literal, error *e) {
    if (strlen(pattern) > MAX_PATTERN)
        return fail(e, ERR_UNSUPPORTED, "a regular expression of %zu bytes", strlen(pattern));
    translation t = {.p = pattern, .whole = pattern};
    status s = OK;
    /* deepseek-llm's \s+$ as it stands tries every start in a run of n spaces that does not end a line, n^2 steps.
     * Starts after a space can be left out: what ends a line for them would have done so for the run's first space. */
    if (literal) str_puts(&t.out, pattern);
    else if (strcmp(pattern, "\\s+$") == 0) str_puts(&t.out, "(?<![" SPACES "])[" SPACES "]+$");
    else s = onig_to_pcre(&t, e);
    pcre2_compile_context *c = pcre2_compile_context_create(NULL);
    if (s == OK && (!c || t.out.failed)) s = fail(e, ERR_NOMEM, "memory is out");
    if (s == OK) {
        pcre2_set_newline(c, PCRE2_NEWLINE_LF);
        int code;
        size_t at;
        /* In Oniguruma ^ and $ always mean lines. */
        *out =
            pcre2_compile((PCRE2_SPTR)t.out.p, t.out.n,
                          literal ? PCRE2_UTF | PCRE2_LITERAL : PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &code, &at, c);
        if (*out) (void)pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE); /* where there is no JIT, it is interpreted */
        else {
            unsigned char text[120] = "";
            pcre2_get_error_message(code, text, sizeof text);
            s = fail(e, code == PCRE2_ERROR_HEAP_FAILED ? ERR_NOMEM : ERR_FORMAT, "regular expression %.200s: %s",
                     pattern, (const char *)text);
        }
    }
    pcre2_compile_context_free(c);
    str_free(&t.out);
    return s;
}

/* ---- Reading the specification ---- */

static status add_split(pretokenizer *p, const char *pattern, bool literal, join how, bool invert, error *e) {
    if (p->stages == MAX_STAGES) return fail(e, ERR_UNSUPPORTED, "pre_tokenizer: more than %d stages", MAX_STAGES);
    stage *s = &p->stage[p->stages];
    *s = (stage){.join = how, .invert = invert};
    TRY(compile(&s->code, pattern, literal, e));
    p->stages++;
    return OK;
}

static status read_split(pretokenizer *p, const json_t *spec, error *e) {
    const char *const names[] = {"Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"};
    const char *behavior, *text = NULL;
    bool invert;
    TRY(json_get_string(spec, "behavior", "", &behavior, e));
    TRY(json_get_bool(spec, "invert", false, &invert, e));
    int how = 0;
    while (how < 5 && strcmp(behavior, names[how]) != 0) how++;
    if (how == 5) return fail(e, ERR_UNSUPPORTED, "Split: behavior \"%s\" is not known", behavior);
    const json_t *pattern = json_object_get(spec, "pattern");
    bool literal = json_object_get(pattern, "String") != NULL;
    TRY(json_get_string(pattern, literal ? "String" : "Regex", NULL, &text, e));
    if (!text) return fail(e, ERR_FORMAT, "Split: \"pattern\" should hold \"Regex\" or \"String\"");
    if (json_string_length(json_object_get(pattern, literal ? "String" : "Regex")) != strlen(text))
        return fail(e, ERR_UNSUPPORTED, "Split: a pattern that holds a zero byte");
    if (literal && !*text) return fail(e, ERR_UNSUPPORTED, "Split: an empty String pattern");
    return add_split(p, text, literal, (join)how, invert, e);
}

static status read_byte_level(pretokenizer *p, const json_t *spec, error *e) {
    bool prefix, regex;
    TRY(json_get_bool(spec, "add_prefix_space", true, &prefix, e));
    TRY(json_get_bool(spec, "use_regex", true, &regex, e));
    if (prefix) {
        if (p->stages == MAX_STAGES) return fail(e, ERR_UNSUPPORTED, "pre_tokenizer: more than %d stages", MAX_STAGES);
        p->stage[p->stages++] = (stage){.code = NULL};
    }
    const char gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    return regex ? add_split(p, gpt2, false, ISOLATED, false, e) : OK;
}

/* `done` tells that ByteLevel was there: after it the text is in another alphabet, so nothing may follow. */
static status read_stage(pretokenizer *p, const json_t *spec, bool *done, int depth, error *e) {
    const char *type;
    TRY(json_get_string(spec, "type", "", &type, e));
    if (*done) return fail(e, ERR_UNSUPPORTED, "pre_tokenizer: %.60s after ByteLevel is not supported", type);
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(spec, "pretokenizers"), *one;
        size_t i;
        if (!json_is_array(list)) return fail(e, ERR_FORMAT, "Sequence: \"pretokenizers\" should be a list");
        if (depth == MAX_DEPTH) return fail(e, ERR_UNSUPPORTED, "pre_tokenizer: Sequence nested too deep");
        json_array_foreach(list, i, one) TRY(read_stage(p, one, done, depth + 1, e));
        return OK;
    }
    if (strcmp(type, "Split") == 0) return read_split(p, spec, e);
    if (strcmp(type, "Digits") == 0) {
        bool single;
        TRY(json_get_bool(spec, "individual_digits", false, &single, e));
        return add_split(p, "\\p{N}", false, single ? ISOLATED : CONTIGUOUS, false, e);
    }
    if (strcmp(type, "ByteLevel") == 0) {
        *done = true;
        return read_byte_level(p, spec, e);
    }
    return fail(e, ERR_UNSUPPORTED, "pre_tokenizer of type \"%.60s\" is not supported", type);
}

status pretokenizer_open(pretokenizer **out, const json_t *spec, error *e) {
    pretokenizer *p = calloc(1, sizeof *p);
    *out = NULL;
    if (!p) return fail(e, ERR_NOMEM, "memory is out");
    bool done = false;
    status s = read_stage(p, spec, &done, 0, e);
    if (s == OK && !done)
        s = fail(e, ERR_UNSUPPORTED, "pre_tokenizer: only byte-level ones are supported, and ByteLevel is missing");
    if (s == OK) *out = p;
    else pretokenizer_close(p);
    return s;
}

void pretokenizer_close(pretokenizer *p) {
    if (!p) return;
    for (int i = 0; i < p->stages; i++) pcre2_code_free(p->stage[i].code);
    free(p);
}

/* ---- Cutting ---- */

status word_cutter_open(word_cutter **out, const pretokenizer *p, error *e) {
    word_cutter *c = calloc(1, sizeof *c);
    *out = NULL;
    if (!c) return fail(e, ERR_NOMEM, "memory is out");
    c->p = p;
    c->limits = pcre2_match_context_create(NULL);
    c->match = pcre2_match_data_create(1, NULL);
    if (!c->limits || !c->match) {
        word_cutter_close(c);
        return fail(e, ERR_NOMEM, "memory is out");
    }
    pcre2_set_match_limit(c->limits, MATCH_LIMIT);
    pcre2_set_heap_limit(c->limits, HEAP_LIMIT);
    *out = c;
    return OK;
}

void word_cutter_close(word_cutter *c) {
    if (!c) return;
    pcre2_match_context_free(c->limits);
    pcre2_match_data_free(c->match);
    free(c);
}

/* One piece on its way through the stages. */
typedef struct cutting {
    word_cutter *c;
    arena *keep;
    word_function *f;
    void *arg;
} cutting;

static status run_stage(const cutting *k, int i, const char *p, size_t n, error *e);

static status prefix_space(const cutting *k, int i, const char *p, size_t n, error *e) {
    if (p[0] == ' ') return run_stage(k, i + 1, p, n, e);
    char *with = arena_take(k->keep, n + 1);
    if (!with) return fail(e, ERR_NOMEM, "memory is out");
    with[0] = ' ';
    memcpy(with + 1, p, n);
    return run_stage(k, i + 1, with, n + 1, e);
}

/* The next match at or after *from. An empty match just where the last one ended does not count (as in Oniguruma's
 * iterator for Rust). *found false: no more. */
static status next_match(const cutting *k, const stage *s, const char *p, size_t n, size_t *from, size_t last_end,
                         size_t at[2], bool *found, error *e) {
    *found = false;
    while (*from <= n) {
        PCRE2_SPTR subject = (PCRE2_SPTR)p;
        int r = pcre2_match(s->code, subject, n, *from, PCRE2_NO_UTF_CHECK, k->c->match, k->c->limits);
        if (r == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter takes its memory from the heap */
            r = pcre2_match(s->code, subject, n, *from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, k->c->match, k->c->limits);
        if (r == PCRE2_ERROR_NOMATCH) return OK;
        if (r < 0) {
            unsigned char text[120] = "";
            pcre2_get_error_message(r, text, sizeof text);
            return fail(e, r == PCRE2_ERROR_NOMEMORY ? ERR_NOMEM : ERR_UNSUPPORTED,
                        "a regular expression of the tokenizer gave up on this text: %s", (const char *)text);
        }
        const size_t *v = pcre2_get_ovector_pointer(k->c->match);
        if (v[0] == v[1] && v[1] == last_end) {
            uint32_t skipped;
            *from += *from < n ? utf8_get(p + *from, &skipped) : 1;
            continue;
        }
        at[0] = v[0];
        at[1] = v[1];
        *from = v[1];
        *found = true;
        return OK;
    }
    return OK;
}

/* Matches and gaps come in order and touch each other; neighbours that the behavior joins leave as one word. */
typedef struct joiner {
    size_t start, end;
    bool any, match; /* match: of the last span that was joined */
} joiner;

static status flush(const cutting *k, int i, const char *p, const joiner *j, error *e) {
    if (!j->any || j->start == j->end) return OK;
    if (k->c->p->stage[i].join == REMOVED && j->match) return OK;
    return run_stage(k, i + 1, p + j->start, j->end - j->start, e);
}

static status span(const cutting *k, int i, const char *p, joiner *j, size_t start, size_t end, bool match, error *e) {
    const stage *s = &k->c->p->stage[i];
    if (s->invert) match = !match;
    bool joins = s->join == CONTIGUOUS      ? match == j->match
                 : s->join == WITH_PREVIOUS ? match && !j->match
                 : s->join == WITH_NEXT     ? !match && j->match
                                            : false;
    if (!j->any || !joins) {
        TRY(flush(k, i, p, j, e));
        j->start = start;
    }
    j->end = end;
    j->any = true;
    j->match = match;
    return OK;
}

static status split(const cutting *k, int i, const char *p, size_t n, error *e) {
    size_t from = 0, done = 0, last_end = SIZE_MAX, at[2];
    joiner j = {0};
    for (bool found;;) {
        TRY(next_match(k, &k->c->p->stage[i], p, n, &from, last_end, at, &found, e));
        if (!found) break;
        if (at[0] > done) TRY(span(k, i, p, &j, done, at[0], false, e));
        TRY(span(k, i, p, &j, at[0], at[1], true, e));
        done = last_end = at[1];
    }
    if (done < n) TRY(span(k, i, p, &j, done, n, false, e));
    return flush(k, i, p, &j, e);
}

static status run_stage(const cutting *k, int i, const char *p, size_t n, error *e) {
    if (i == k->c->p->stages) return k->f(k->arg, p, n, e);
    return k->c->p->stage[i].code ? split(k, i, p, n, e) : prefix_space(k, i, p, n, e);
}

status cut_words(word_cutter *c, const char *text, size_t n, arena *keep, word_function *f, void *arg, error *e) {
    const cutting k = {c, keep, f, arg};
    return n ? run_stage(&k, 0, text, n, e) : OK;
}
