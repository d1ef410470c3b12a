/* libFuzzer target: any bytes as a page of the cache. The first byte says how much of it is made right, so that the
 * parts behind get their turn: the key in file and name, and the checksum. What is found must be what the file says,
 * and what is read its payload; a page written beside it must be there afterwards. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include "infer/page_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

enum {
    TOKEN = 3,
    KEY = 32,
    TOKENS = 48,
    CHECKSUM = 1072,
    HEADER = 1076,
    MOST = HEADER + PAGE_FILE_TOKENS * TOKEN + 64
};

typedef struct one {
    const uint8_t *file;
    size_t n;
    int found;
    page_record r;
} one;

static uint64_t number(const uint8_t *p, int n) {
    uint64_t x = 0;
    for (int i = 0; i < n; i++) x |= (uint64_t)p[i] << (8 * i);
    return x;
}

static void put(uint8_t *p, int n, uint64_t x) {
    for (int i = 0; i < n; i++) p[i] = (uint8_t)(x >> (8 * i));
}

static void on_found(void *arg, const page_record *r) {
    one *x = arg;
    if (x->found++ || r->parent || r->n < 1 || r->n > PAGE_FILE_TOKENS) abort();
    if (x->n != HEADER + (size_t)r->n * TOKEN || number(x->file + KEY, 8) != r->key) abort();
    for (int32_t i = 0; i < r->n; i++)
        if (number(x->file + TOKENS + 4 * i, 4) != (uint32_t)r->tokens[i]) abort();
    x->r = *r;
}

static uint64_t make_right(uint8_t *file, size_t n, int how) { /* gives the key for the name */
    int32_t tokens[PAGE_FILE_TOKENS] = {0};
    if (n < HEADER) return 1;
    int32_t count = (int32_t)(number(file + 12, 4) % (PAGE_FILE_TOKENS + 1));
    for (int32_t i = 0; i < count; i++) tokens[i] = (int32_t)number(file + TOKENS + 4 * i, 4);
    if (how & 1) put(file + KEY, 8, page_key(number(file + 24, 8), tokens, count));
    if (how & 2) put(file + CHECKSUM, 4, crc32_z(crc32_z(0, file, CHECKSUM), file + HEADER, n - HEADER));
    return number(file + KEY, 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    char folder[64], path[128];
    uint8_t file[MOST], payload[PAGE_FILE_TOKENS * TOKEN] = {0};
    page_folder *f;
    error e;
    int damaged;
    if (n < 1 || n > MOST) return 0;
    memcpy(file, p + 1, n - 1);
    one x = {.file = file, .n = n - 1};
    uint64_t key = make_right(file, x.n, p[0]);
    uint64_t model = x.n < HEADER ? 0 : number(file + 16, 8);
    snprintf(folder, sizeof folder, "/tmp/hadal-fuzz-pages-%d", (int)getpid());
    mkdir(folder, 0700);
    snprintf(path, sizeof path, "%s/%016llx-%016llx.page", folder, (unsigned long long)model, (unsigned long long)key);
    FILE *out = fopen(path, "w");
    if (!out || fwrite(file, 1, x.n, out) != x.n || fclose(out) != 0) abort();
    if (page_folder_open(&f, folder, "m", TOKEN, 1 << 20, on_found, &x, &damaged, &e) != OK) abort();
    if (x.found && page_folder_read(f, &x.r, payload, &e) == OK && memcmp(payload, file + HEADER, x.n - HEADER) != 0)
        abort();
    page_record mine = {.n = 1, .tokens = {7}};
    mine.key = page_key(0, mine.tokens, 1);
    bool free = !x.found || x.r.key != mine.key; /* else the damaged payload may stand in its place */
    if (page_folder_write(f, &mine, "abc", &e) != OK) abort();
    if (free && (page_folder_read(f, &mine, payload, &e) != OK || memcmp(payload, "abc", TOKEN) != 0)) abort();
    page_folder_remove(f, mine.key);
    if (x.found) page_folder_remove(f, x.r.key);
    page_folder_close(f);
    unlink(path);
    snprintf(path, sizeof path, "%s/lock", folder);
    unlink(path);
    if (rmdir(folder) != 0) abort();
    return 0;
}
