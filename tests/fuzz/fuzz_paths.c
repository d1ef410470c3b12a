/* Paths of requests: decoding never grows, what is normal stays so, and every path has a route or none. */
#include <stdlib.h>
#include <string.h>
#include "server/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool fine) {
    if (!fine) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *path = malloc(size + 1), *normal = malloc(size + 1), *again = malloc(size + 1);
    if (!path || !normal || !again) abort();
    memcpy(path, data, size);
    path[size] = 0;
    size_t n = strlen(path);
    if (path_decode(path)) {
        const char *tail = NULL;
        str allow = {0};
        need(strlen(path) <= n);
        path_normal(path, normal);
        need(strlen(normal) <= strlen(path));
        const route *r = route_find(size % 2 ? "GET" : "POST", normal, &tail, &allow);
        if (r) need(tail >= normal && tail <= normal + strlen(normal));
        str_free(&allow);
        path_normal(normal, again);
        need(strlen(again) <= strlen(normal));
    } else need(strlen(path) == n);
    free(path);
    free(normal);
    free(again);
    return 0;
}
