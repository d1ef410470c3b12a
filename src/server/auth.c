#include "server/auth.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "base/file.h"
#include "base/str.h"

enum { MAX_FILE = 1 << 20, MOST_KEY = 1024 };

struct auth {
    int n;
    char **keys;
};

static status add(auth *a, const char *key, size_t n, const char *where, error *e) {
    while (n && strchr(" \t\r", key[n - 1])) n--;
    while (n && strchr(" \t", *key)) key++, n--;
    if (!n) return OK;
    if (n > MOST_KEY) return fail(e, ERR_FORMAT, "%s: an API key longer than %d characters", where, MOST_KEY);
    char **keys = realloc(a->keys, (size_t)(a->n + 1) * sizeof *keys);
    if (keys) a->keys = keys;
    if (!keys || !(keys[a->n] = strndup(key, n))) return fail(e, ERR_NOMEM, "memory is out");
    a->n++;
    return OK;
}

static status add_all(auth *a, const char *text, char between, const char *where, error *e) {
    for (const char *p = text; *p;) {
        const char *end = strchr(p, between);
        size_t n = end ? (size_t)(end - p) : strlen(p);
        if (*p != '#') TRY(add(a, p, n, where, e));
        p += n + (end != NULL);
    }
    return OK;
}

static status read_keys(auth *a, const char *file, error *e) {
    str s = {0};
    status st = file_read(&s, file, MAX_FILE, e);
    if (st == OK && s.n && strlen(s.p) != s.n) st = fail(e, ERR_FORMAT, "%s: zero bytes in a file of API keys", file);
    if (st == OK && s.n) st = add_all(a, s.p, '\n', file, e);
    if (st == OK && !a->n) st = fail(e, ERR_FORMAT, "%s: no API key in it; write one a line", file);
    if (s.n) explicit_bzero(s.p, s.n);
    str_free(&s);
    return st;
}

status auth_open(auth **out, const char *file, const char *more, error *e) {
    auth *a = calloc(1, sizeof *a);
    *out = NULL;
    if (!a) return fail(e, ERR_NOMEM, "memory is out");
    status st = file ? read_keys(a, file, e) : OK;
    if (st == OK && more) st = add_all(a, more, ',', "HADAL_API_KEY", e);
    if (st == OK) *out = a;
    else auth_close(a);
    return st;
}

void auth_close(auth *a) {
    if (!a) return;
    for (int i = 0; i < a->n; i++) {
        explicit_bzero(a->keys[i], strlen(a->keys[i]));
        free(a->keys[i]);
    }
    free(a->keys);
    free(a);
}

int auth_keys(const auth *a) {
    return a->n;
}

/* In a time that tells the length of `given` at most. */
static bool same(const char *key, const char *given, size_t n) {
    size_t length = strlen(key);
    unsigned differs = length != n;
    for (size_t i = 0; i < n; i++) differs |= (unsigned char)given[i] ^ (unsigned char)key[i % length];
    return !differs;
}

static bool known(const auth *a, const char *given) {
    bool found = false;
    size_t n = strlen(given);
    for (int i = 0; i < a->n; i++) found |= same(a->keys[i], given, n);
    return found;
}

bool auth_allows(const auth *a, const char *authorization, const char *api_key) {
    if (!a->n) return true;
    bool found = false;
    if (authorization && strncasecmp(authorization, "Bearer ", 7) == 0) {
        authorization += 7;
        found |= known(a, authorization + strspn(authorization, " "));
    }
    if (api_key) found |= known(a, api_key);
    return found;
}
