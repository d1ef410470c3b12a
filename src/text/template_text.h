/* Text as Python treats it: code points, white space, letter case, and how floats, strings and JSON are printed. */
#ifndef HADAL_TEXT_TEMPLATE_TEXT_H
#define HADAL_TEXT_TEMPLATE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/json.h"
#include "base/str.h"

typedef struct text { /* a piece of UTF-8, not terminated */
    const char *p;
    size_t n;
} text;

size_t utf8_size(const char *p, size_t n);    /* bytes of the first character, 1..4; n > 0; 1 if it is not UTF-8 */
uint32_t utf8_point(const char *p, size_t n); /* its code point */
void utf8_add(str *s, uint32_t c);            /* adds it as UTF-8 */
size_t utf8_count(text s);
bool utf8_is_space(uint32_t c); /* str.isspace */

bool text_eq(text a, text b);
bool text_is(text a, const char *b);
bool text_find(text s, text what, size_t from, size_t *at);        /* in linear time */
text text_strip(text s, const text *chars, bool left, bool right); /* chars NULL: white space */
void text_case(str *out, text s, int how); /* 'u'pper, 'l'ower, 'c'apitalize, 't'itle (str.title), 'T' (the filter) */

void text_print_float(str *s, double d);          /* repr */
void text_print_repr(str *s, text t);             /* repr */
void text_print_json(str *s, text t, bool ascii); /* json.dumps of a string */
/* Any JSON value; flags are jansson's. *out is NULL, and the status OK, when it is not JSON. */
status text_read_json(json_t **out, text t, size_t flags, error *e);
void text_print_json_value(str *s, const json_t *j); /* json.dumps(ensure_ascii=False) */

#endif
