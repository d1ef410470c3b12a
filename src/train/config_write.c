/* A run file's keys as text: the effective configuration, which reads back to the same one, and the list of keys. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/yaml.h"
#include "train/config_table.h"

/* The shortest digits that read back to the same number. */
static void put_real(str *s, double x) {
    char text[40];
    if (isinf(x)) {
        str_puts(s, ".inf");
        return;
    }
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x) break;
    }
    str_puts(s, text);
}

static void put_word(str *s, const char *words, unsigned i) {
    for (; i; i--) words += strcspn(words, "|") + 1;
    str_add(s, words, strcspn(words, "|"));
}

static void put_list(str *s, const string_list *l) {
    str_putc(s, '[');
    for (int i = 0; i < l->n; i++) {
        if (i) str_puts(s, ", ");
        yaml_put_text(s, l->item[i]);
    }
    str_putc(s, ']');
}

static void put_phases(str *s, const phase *p, int n) {
    str_putc(s, '[');
    for (int i = 0; i < n; i++) {
        str_puts(s, i ? ", {until: " : "{until: ");
        put_real(s, p[i].until);
        str_puts(s, ", from: ");
        put_real(s, p[i].from);
        str_puts(s, ", to: ");
        put_real(s, p[i].to);
        str_puts(s, ", shape: ");
        put_word(s, config_shapes, p[i].shape);
        str_putc(s, '}');
    }
    str_putc(s, ']');
}

static void put_groups(str *s, const lr_group *g, int n) {
    str_putc(s, '[');
    for (int i = 0; i < n; i++) {
        str_puts(s, i ? ", {match: " : "{match: ");
        yaml_put_text(s, g[i].match);
        str_puts(s, ", scale: ");
        put_real(s, g[i].scale);
        str_putc(s, '}');
    }
    str_putc(s, ']');
}

static void put_text(str *s, const char *text) {
    if (text) yaml_put_text(s, text);
    else str_puts(s, "null");
}

static void put_range(str *s, const double *x) {
    for (int i = 0; i < 4; i++) {
        str_puts(s, i ? ", " : "[");
        put_real(s, x[i]);
    }
    str_putc(s, ']');
}

void config_put(str *s, const config_option *o, const train_config *c) {
    const void *at = (const char *)c + o->at;
    const int *n = (const int *)(const void *)((const char *)c + o->count);
    unsigned word;
    switch (o->type) {
    case O_INT: str_addf(s, "%lld", (long long)*(const int64_t *)at); return;
    case O_INT32: str_addf(s, "%d", *(const int *)at); return;
    case O_SEED: str_addf(s, "%llu", (unsigned long long)*(const uint64_t *)at); return;
    case O_EOS:
        if (*(const int32_t *)at >= 0) str_addf(s, "%d", (int)*(const int32_t *)at);
        else str_puts(s, *(const int32_t *)at == EOS_AUTO ? "auto" : "none");
        return;
    case O_AUTO:
        if (isnan(*(const double *)at)) str_puts(s, "auto");
        else put_real(s, *(const double *)at);
        return;
    case O_REAL: put_real(s, *(const double *)at); return;
    case O_BOOL: str_puts(s, *(const bool *)at ? "true" : "false"); return;
    case O_CHOICE:
        memcpy(&word, at, sizeof word);
        put_word(s, o->words, word);
        return;
    case O_WORD:
    case O_TEXT: put_text(s, *(const char *const *)at); return;
    case O_JSON: str_puts(s, *(const char *const *)at ? *(const char *const *)at : "[]"); return; /* JSON is YAML */
    case O_RANGE: put_range(s, at); return;
    case O_LIST:
    case O_WORDS:
    case O_MASKS: put_list(s, at); return;
    case O_PHASES: put_phases(s, at, *n); return;
    case O_GROUPS: put_groups(s, at, *n); return;
    case O_PRESET: str_puts(s, "null"); return;
    }
}

status train_config_write(const train_config *c, str *out, error *e) {
    const char *section = "";
    for (const config_option *o = config_options; o->section; o++) {
        if (strcmp(o->section, section) != 0) str_addf(out, "%s:\n", section = o->section);
        if (o->type == O_PRESET) continue;
        str_addf(out, "  %s: ", o->key);
        config_put(out, o, c);
        str_putc(out, '\n');
    }
    return str_check(out, e);
}

static const char *type_name(const config_option *o) {
    switch (o->type) {
    case O_INT:
    case O_INT32:
    case O_SEED: return "integer";
    case O_EOS: return "token id";
    case O_REAL:
    case O_AUTO: return "number";
    case O_BOOL: return "true|false";
    case O_TEXT: return "text";
    case O_JSON: return "list of objects";
    case O_RANGE: return "four numbers";
    case O_LIST: return "list of texts";
    case O_WORDS:
    case O_CHOICE:
    case O_WORD:
    case O_PRESET: return o->words;
    case O_MASKS: return "list of regular expressions";
    case O_PHASES: return "list of phases";
    case O_GROUPS: return "list of groups";
    }
    return "";
}

status train_config_help(str *out) {
    train_config c;
    const char *section = "";
    train_config_default(&c);
    for (const config_option *o = config_options; o->section; o++) {
        if (strcmp(o->section, section) != 0) str_addf(out, "%s%s\n", *section ? "\n" : "", o->section);
        section = o->section;
        str_addf(out, "  %s: ", o->key);
        config_put(out, o, &c);
        str_addf(out, "    (%s%s)\n      %s\n", type_name(o), o->type == O_WORDS ? ", a list" : "", o->help);
    }
    return str_check(out, NULL);
}
