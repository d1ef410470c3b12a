/* libFuzzer target: a native checkpoint out of any bytes. The first byte says how: the text up to a 0 is state.json
 * itself, or its "tensors" alone within a head that is right; what follows the 0 is the shard. What is accepted must be
 * readable to its last element, whole and in two halves. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/str.h"
#include "format/native.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void put(const char *folder, const char *name, const void *bytes, size_t n) {
    char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f) != 0) abort();
}

static void take_away(const char *folder) {
    char path[200];
    snprintf(path, sizeof path, "%s/state.json", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/shard-0", folder);
    unlink(path);
    rmdir(folder);
}

static void read_all(const native_file *f) {
    for (int64_t i = 0; i < native_count(f); i++) {
        const native_slice *x = native_tensor(f, i);
        size_t size = dtype_size(x->type), half = (size_t)(x->n / 2) * size, all = (size_t)x->n * size;
        uint8_t *whole = malloc(all + 1), *parts = malloc(all + 1);
        error e;
        if (!whole || !parts || native_find(f, x->name) != x) abort();
        if (native_read(f, x->name, 0, x->n, whole, &e) != OK) abort();
        if (native_read(f, x->name, 0, x->n / 2, parts, &e) != OK) abort();
        if (native_read(f, x->name, x->n / 2, x->n - x->n / 2, parts + half, &e) != OK) abort();
        if (memcmp(whole, parts, all) != 0) abort();
        free(whole);
        free(parts);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    char folder[64];
    if (!n) return 0;
    snprintf(folder, sizeof folder, "/tmp/hadal-fuzz-native-%d", (int)getpid());
    mkdir(folder, 0700);
    const uint8_t *text = p + 1, *zero = memchr(text, 0, n - 1);
    size_t length = zero ? (size_t)(zero - text) : n - 1, rest = zero ? n - 2 - length : 0;
    str state = {0};
    if (p[0] & 1)
        str_addf(&state,
                 "{\"format\":\"hadal-native\",\"version\":1,\"state\":{},\"shards\":[{\"file\":\"shard-0\",\"bytes\":"
                 "%zu}],\"tensors\":",
                 rest);
    str_add(&state, (const char *)text, length);
    if (p[0] & 1) str_putc(&state, '}');
    put(folder, "state.json", state.p, state.n);
    put(folder, "shard-0", zero ? zero + 1 : p, rest);
    str_free(&state);
    native_file *f;
    error e = {0};
    status s = native_open(&f, folder, p[0] & 2, &e);
    if (s == OK) read_all(f);
    else if (e.code != s || !e.text[0] || f) abort(); /* an error without its sentence */
    native_close(f);
    take_away(folder);
    return 0;
}
