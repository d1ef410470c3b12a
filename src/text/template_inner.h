/* What the files of the template interpreter share: values, the syntax tree, and the state of one rendering.
 *
 * template_lex.c    text -> tokens (whitespace control lives here)
 * template_parse.c  tokens -> tree
 * template_value.c  values: making, comparing, printing, JSON
 * template_text.c   operations on strings that Python has and C lacks
 * template_call.c   filters, tests, methods and functions
 * template_run.c    walks the tree
 *
 * All values of a rendering live in one arena and die with it. They are immutable, as in Hugging Face's sandbox; only
 * a namespace can be assigned to. */
#ifndef HADAL_TEXT_TEMPLATE_INNER_H
#define HADAL_TEXT_TEMPLATE_INNER_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include "base/arena.h"
#include "text/template.h"
#include "text/template_text.h"

enum {
    LIMIT_SOURCE = 512 << 10, /* bytes of a template; real ones have up to 40 KB */
    LIMIT_OUTPUT = 16 << 20,  /* bytes of one rendered text */
    LIMIT_MEMORY = 128 << 20, /* bytes of values */
    LIMIT_STEPS = 20000000,   /* nodes visited plus elements and 16-byte pieces touched: a fraction of a second */
    LIMIT_NESTING = 200,      /* brackets and blocks within each other */
    LIMIT_DEPTH = 400,        /* evaluations within each other, macros included; values within values */
    LIMIT_RANGE = 100000,     /* as jinja2's sandbox */
    LIMIT_ARGS = 64,
    NAME_LOOP = 0 /* number of the name `loop` */
};

typedef enum value_kind {
    V_MISSING, /* an argument that was not given; never seen by templates */
    V_UNDEFINED,
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_STRING,
    V_LIST,
    V_TUPLE,
    V_DICT,
    V_NAMESPACE,
    V_LOOP,     /* the variable `loop` */
    V_MACRO,    /* {% macro %} */
    V_FUNCTION, /* range, namespace, ... */
    V_METHOD    /* "a".split, before it is called */
} value_kind;

typedef struct value {
    value_kind kind;
    union {
        bool b;
        int64_t i;
        double d;
        text s; /* V_STRING; of V_UNDEFINED the name that was looked for */
        struct list *list;
        struct dict *dict;
        struct loop *loop;
        const struct macro *macro;
        const struct builtin *function;
        const struct method *method;
    };
} value;

typedef struct list {
    size_t n;
    value *at;
} list;

typedef struct dict { /* in order of insertion */
    size_t n, cap;
    value *key, *val;
} dict;

typedef struct loop {
    const value *items;
    size_t n, index;
} loop;

/* ---- the tree ---- */

typedef enum node_kind {
    N_CONST,    /* v */
    N_NAME,     /* name */
    N_LIST,     /* a: items */
    N_TUPLE,    /* a: items */
    N_DICT,     /* a: N_PAIRs */
    N_PAIR,     /* a: key, b: value */
    N_ATTR,     /* a.(v) */
    N_ITEM,     /* a[b] */
    N_SLICE,    /* a[b:c:d], each of them or NULL */
    N_CALL,     /* a(b) */
    N_KEYWORD,  /* v=a, among arguments */
    N_FILTER,   /* a | v(b) */
    N_TEST,     /* a is v(b) */
    N_NOT,      /* not a */
    N_NEGATE,   /* -a */
    N_PLUS,     /* +a */
    N_AND,      /* a and b */
    N_OR,       /* a or b */
    N_BINARY,   /* a op b, and ~ */
    N_COMPARE,  /* a, then the chain b of N_OPERANDs */
    N_OPERAND,  /* op a */
    N_CONDEXPR, /* a if b else c */
    S_TEXT,     /* v */
    S_PRINT,    /* {{ a }} */
    S_FOR,      /* for a in b if c: body, or_else; flag: recursive */
    S_IF,       /* if a: body, or_else */
    S_SET,      /* a = b */
    S_CAPTURE,  /* {% set a | b %}body{% endset %}; b: the filters over an N_CONST that stands for the body's text */
    S_MACRO,    /* name, a: parameters (N_NAME, its a: default), body */
    S_BREAK,
    S_CONTINUE
} node_kind;

typedef enum op {
    OP_NONE,
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOORDIV,
    OP_MOD,
    OP_POW,
    OP_TILDE,
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_ASSIGN,
    OP_DOT,
    OP_COMMA,
    OP_COLON,
    OP_PIPE,
    OP_SEMICOLON,
    OP_LPAREN,
    OP_RPAREN,
    OP_LBRACKET,
    OP_RBRACKET,
    OP_LBRACE,
    OP_RBRACE,
    OP_IN,
    OP_NOT_IN
} op;

typedef struct node {
    node_kind kind;
    op op;
    int line;
    int name;  /* number of the name in chat_template.names */
    bool elif; /* of S_IF: or_else is one S_IF, written {% elif %} */
    struct node *next, *a, *b, *c, *d, *body, *or_else;
    value v;
    const struct builtin *builtin; /* filter or test; NULL: there is none of that name */
} node;

struct chat_template {
    arena *mem; /* tree and texts */
    node *body;
    text *names;
    int n_names;
};

/* ---- tokens ---- */

typedef enum token_kind {
    T_DATA,        /* text outside of tags */
    T_PRINT_BEGIN, /* {{ */
    T_PRINT_END,
    T_BLOCK_BEGIN, /* {% */
    T_BLOCK_END,
    T_NAME,
    T_STRING, /* with quotes, escapes not yet read */
    T_INT,
    T_FLOAT,
    T_OP,
    T_EOF
} token_kind;

typedef struct token {
    token_kind kind;
    op op;
    int line;
    text s;
} token;

/* The tokens of a template; source must stay. The array is the caller's (free()), also when it fails. */
status template_lex(token **out, size_t *n, text source, error *e);

/* ---- one rendering ---- */

typedef struct scope {
    struct scope *parent;
    size_t n, cap;
    struct binding {
        int name;
        value v;
    } * at;
} scope;

typedef struct macro {
    const node *def;
    scope *closure;
} macro;

typedef struct run {
    const chat_template *t;
    arena *mem;
    size_t taken; /* bytes */
    uint64_t steps;
    int depth;
    scope *scope;
    str out;
    char *grow, *grow_end; /* behind the text that was joined last: joining more to it needs no copy */
    time_t now;
    bool located;      /* err says its line already */
    bool leave, again; /* a {% break %} or {% continue %} is on its way to its loop */
    error err;
} run;

/* A filter, test, function or method: its arguments are put in the order of `params` (names with spaces between;
 * NULL: any number of them, `many` is called with what was given). */
typedef struct args {
    size_t n, n_named;
    value *at, *named;
    text *names;
} args;
typedef struct builtin {
    const char *name, *params;
    status (*few)(run *r, const value *self, const value *a, value *out);
    status (*many)(run *r, const value *self, const args *a, value *out);
} builtin;
typedef struct method {
    value self;
    const builtin *f;
} method;

/* template_value.c */
status run_refuse(run *r, const char *fmt, ...) __attribute__((format(printf, 2, 3))); /* ERR_ARG into r->err */
status run_spend(run *r, size_t work);            /* counts steps; ERR_ARG when there were too many */
status run_take(run *r, size_t bytes, void *out); /* *(void **)out = memory of the rendering */
status run_take_values(run *r, size_t n, value **out);
value value_undefined(text name);
value value_bool(bool b);
value value_int(int64_t i);
value value_float(double d);
value value_text(text s);
value value_name(const char *s);
status value_string(run *r, const char *p, size_t n, value *out); /* copies */
status value_from_str(run *r, str *s, value *out);                /* copies and frees s */
status value_list(run *r, value_kind kind, size_t n, value **at, value *out);
status value_dict(run *r, size_t cap, value *out);
status dict_put(run *r, dict *d, value key, value val);
status dict_find(run *r, const dict *d, const value *key, value **out); /* *out NULL: not there */
status value_from_json(run *r, const json_t *j, value *out);
const char *value_kind_name(const value *v); /* as Python calls it */
bool value_is_number(const value *v);        /* bool, int, float */
bool value_is(const value *v, const char *s);
double value_as_float(const value *v);
bool value_truth(const value *v);
status values_equal(run *r, const value *a, const value *b, bool *out);
status values_order(run *r, const value *a, const value *b, int *out); /* < 0, 0, > 0 */
status value_print(run *r, str *s, const value *v);                    /* str() */
status value_repr(run *r, str *s, const value *v);                     /* repr() */
status value_to_text(run *r, const value *v, text *out);               /* str(), without a copy for strings */
status value_join(run *r, text a, text b, value *out);
status value_items(run *r, const value *v, const value **at, size_t *n); /* what a for loop goes through */
typedef struct json_style {
    bool ascii, sort;
    text indent, comma, colon;
    bool has_indent;
} json_style;
status value_dump_json(run *r, str *s, const value *v, const json_style *style, int level);

/* template_string.c */
extern const builtin string_methods[];

/* template_call.c, template_predicate.c; *_find: NULL if there is none of that name */
const builtin *filter_find(text name);
const builtin *test_find(text name);
const builtin *function_find(text name); /* range, namespace, ... */
status builtin_call(run *r, const builtin *f, const value *self, const args *a, value *out);
status value_attr(run *r, const value *v, text name, value *out);        /* v.name */
status value_item(run *r, const value *v, const value *key, value *out); /* v[key] */
status value_contains(run *r, const value *all, const value *one, bool *out);

#endif
