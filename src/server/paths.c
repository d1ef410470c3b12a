/* How what a client wrote becomes a path of the table: the same interface is found at the root, under /v1 (OpenAI's
 * base URL), /beta (DeepSeek's) and both. */
#include <string.h>
#include "server/http.h"

static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte that "%xx" stands for; -1: it is none, or zero. */
static int escaped(const char *p) {
    int high = hex(p[1]), low = high < 0 ? -1 : hex(p[2]);
    return low < 0 || high * 16 + low == 0 ? -1 : high * 16 + low;
}

bool path_decode(char *path) {
    for (const char *p = path; *p; p++)
        if (*p == '%' && escaped(p) < 0) return false;
    char *to = path;
    for (const char *p = path; *p; p++) {
        int byte = *p == '%' ? escaped(p) : *p;
        if (*p == '%') p += 2;
        *to++ = (char)byte;
    }
    *to = 0;
    return true;
}

/* Goes over the segment `name` at the path's head. */
static const char *skip(const char *path, const char *name) {
    size_t n = strlen(name);
    return strncmp(path, name, n) == 0 && (path[n] == '/' || !path[n]) ? path + n : path;
}

void path_normal(const char *path, char *normal) {
    char *to = normal;
    for (const char *p = path; *p; p++) /* base URLs that end with a slash make two of them */
        if (*p != '/' || to == normal || to[-1] != '/') *to++ = *p;
    if (to > normal + 1 && to[-1] == '/') to--;
    *to = 0;
    const char *rest = skip(normal, "/beta");
    rest = skip(rest, "/v1");
    rest = skip(rest, "/beta");
    memmove(normal, rest, strlen(rest) + 1);
}

/* What stands behind the route's path, or NULL: another path. */
static const char *behind(const route *r, const char *normal) {
    size_t n = strlen(r->path);
    if (strncmp(normal, r->path, n) != 0) return NULL;
    bool below = n > 1 && r->path[n - 1] == '/';
    return !normal[n] == !below ? normal + n : NULL;
}

const route *route_find(const char *method, const char *normal, const char **tail, str *allow) {
    if (strcmp(method, "HEAD") == 0) method = "GET";
    for (const route *r = routes; r->method; r++) {
        *tail = behind(r, normal);
        if (!*tail) continue;
        if (strcmp(r->method, method) == 0) return r;
        str_puts(allow, allow->n ? ", " : "");
        str_puts(allow, r->method);
        if (strcmp(r->method, "GET") == 0) str_puts(allow, ", HEAD");
    }
    if (allow->n) str_puts(allow, ", OPTIONS");
    return NULL;
}
