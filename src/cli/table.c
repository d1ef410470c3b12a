#include "cli/table.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/str.h"
#include "cli/term.h"

typedef enum unit { PLAIN, BYTES, COUNT, SECONDS } unit;

/* What a number counts is in its name, or in the name of the object that holds it. */
static unit unit_of(const char *key, unit outer) {
    if (strstr(key, "bytes") || strcmp(key, "memory") == 0) return BYTES;
    if (strstr(key, "parameters")) return COUNT;
    if (strstr(key, "seconds")) return SECONDS;
    return outer;
}

/* 671026419200 -> "671,026,419,200" */
static void add_exact(str *out, json_int_t v) {
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%lld", (long long)v);
    for (int i = 0; i < n; i++) {
        str_putc(out, digits[i]);
        if ((n - i - 1) % 3 == 0 && i + 1 < n && digits[i] != '-') str_putc(out, ',');
    }
}

/* Large integers exactly, with the round figure behind. */
static void add_number(str *out, const json_t *v, unit u) {
    double d = json_number_value(v);
    if (json_is_integer(v) && fabs(d) >= 1024 && (u == BYTES || u == COUNT)) {
        add_exact(out, json_integer_value(v));
        str_puts(out, " (");
        (u == BYTES ? human_bytes : human_count)(out, d);
        str_putc(out, ')');
    } else if (u == BYTES) human_bytes(out, d);
    else if (u == COUNT && fabs(d) >= 1000) human_count(out, d);
    else if (json_is_integer(v)) str_addf(out, "%lld", (long long)json_integer_value(v));
    else if (u == SECONDS) str_addf(out, "%.3g s", d);
    else str_addf(out, "%.6g", d);
}

static void add_value(str *out, const json_t *v, unit u) {
    size_t i;
    const json_t *item;
    if (json_is_string(v)) str_puts(out, json_string_value(v));
    else if (json_is_number(v)) add_number(out, v, u);
    else if (json_is_boolean(v)) str_puts(out, json_is_true(v) ? "yes" : "no");
    else if (json_is_null(v)) str_puts(out, "-");
    else if (json_is_array(v)) json_array_foreach(v, i, item) {
            if (i) str_puts(out, ", ");
            if (json_is_object(item)) str_puts(out, "{..}");
            else add_value(out, item, u);
        }
}

/* "read_gbs" -> "read GB/s": spaces for underscores, and units as they are written. */
static void add_name(str *out, const char *key) {
    static const char *const units[][2] = {
        {"gbs", "GB/s"}, {"gib", "GiB"}, {"gflops", "GFLOP/s"}, {"tps", "tokens/s"}, {"kl", "KL"}};
    for (const char *p = key; *p;) {
        size_t n = strcspn(p, "_"), i = 0;
        while (i < sizeof units / sizeof *units && (strlen(units[i][0]) != n || memcmp(p, units[i][0], n) != 0)) i++;
        if (i < sizeof units / sizeof *units) str_puts(out, units[i][1]);
        else str_add(out, p, n);
        p += n;
        if (*p) {
            str_putc(out, ' ');
            p++;
        }
    }
}

enum { MOST_DEPTH = 8 };

static void print_rows(const json_t *object, int depth, unit outer) {
    const char *key;
    const json_t *v;
    int width = 28 - 2 * depth;
    json_object_foreach((json_t *)(uintptr_t)object, key, v) { /* the macro of jansson wants it mutable */
        str s = {0};
        unit u = unit_of(key, outer);
        bool inner = json_is_object(v) && depth < MOST_DEPTH;
        str_addf(&s, "%*s", 2 * depth, "");
        add_name(&s, key);
        if (!inner) {
            str_addf(&s, "%*s", s.n < (size_t)(width + 2 * depth) ? width + 2 * depth - (int)s.n : 2, "");
            add_value(&s, v, u);
        }
        str_putc(&s, '\n');
        if (!s.failed) term_write(stdout, s.p, s.n, false);
        str_free(&s);
        if (inner) print_rows(v, depth + 1, u);
    }
}

void print_table(const json_t *object) {
    print_rows(object, 0, PLAIN);
}

void print_row(const json_t *object) {
    enum { MOST = 40 };
    const char *key;
    const json_t *v;
    str line = {0};
    json_object_foreach((json_t *)(uintptr_t)object, key, v) {
        str value = {0};
        if (json_is_object(v)) continue;
        add_value(&value, v, unit_of(key, PLAIN));
        for (size_t i = 0; i < value.n; i++)
            if (value.p[i] == '\n') value.p[i] = ' ';
        size_t n = value.n > MOST ? MOST : value.n;
        while (n && n < value.n && ((unsigned char)value.p[n] & 0xc0) == 0x80) n--; /* whole characters */
        if (line.n) str_puts(&line, "  ");
        add_name(&line, key);
        str_putc(&line, ' ');
        if (json_is_string(v)) str_putc(&line, '"');
        str_add(&line, value.p, n);
        if (json_is_string(v)) str_puts(&line, n < value.n ? "..\"" : "\"");
        str_free(&value);
    }
    str_putc(&line, '\n');
    if (!line.failed) term_write(stdout, line.p, line.n, false);
    str_free(&line);
}
