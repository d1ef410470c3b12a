/* Temporary folders and raw files for tests of file formats. To be included first. */
#ifndef HADAL_TESTS_SCRATCH_H
#define HADAL_TESTS_SCRATCH_H

#define _XOPEN_SOURCE 700 /* nftw */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/file.h" /* before cmocka.h, whose macro is called fail, too */
#include <cmocka.h>
#include <ftw.h>

typedef struct scratch {
    char dir[64];
} scratch;

static inline scratch scratch_open(void) {
    scratch s;
    snprintf(s.dir, sizeof s.dir, "/tmp/hadal-test-XXXXXX");
    assert_non_null(mkdtemp(s.dir));
    return s;
}

static inline int scratch_remove(const char *path, const struct stat *st, int kind, struct FTW *f) {
    (void)st, (void)kind, (void)f;
    return remove(path);
}

static inline void scratch_close(scratch *s) {
    nftw(s->dir, scratch_remove, 8, FTW_DEPTH | FTW_PHYS);
}

/* "dir/name"; freed by the caller */
static inline char *scratch_path(const scratch *s, const char *name) {
    char *p = path_join(s->dir, name);
    assert_non_null(p);
    return p;
}

static inline void scratch_write(const scratch *s, const char *name, const void *bytes, size_t n) {
    char *path = scratch_path(s, name);
    char *slash = strrchr(path, '/');
    error e = {0};
    *slash = 0;
    assert_int_equal(make_directory(path, &e), OK);
    *slash = '/';
    if (file_save(path, bytes, n, &e) != OK) fail_msg("%s", e.text);
    free(path);
}

/* A safetensors file with this header text and n data bytes 0, 1, 2, ...; malloc'ed exactly, so that a sanitizer sees
 * the first byte read beyond it. */
static inline uint8_t *raw_file(const char *header, size_t n, size_t *size) {
    size_t h = strlen(header);
    uint8_t *p = malloc(8 + h + n);
    assert_non_null(p);
    for (int i = 0; i < 8; i++) p[i] = (uint8_t)((uint64_t)h >> (8 * i));
    memcpy(p + 8, header, h);
    for (size_t i = 0; i < n; i++) p[8 + h + i] = (uint8_t)i;
    *size = 8 + h + n;
    return p;
}

static inline void scratch_raw(const scratch *s, const char *name, const char *header, size_t n) {
    size_t size;
    uint8_t *p = raw_file(header, n, &size);
    scratch_write(s, name, p, size);
    free(p);
}

/* The shared folder with reference data, or NULL. */
static inline const char *shared_folder(void) {
    const char *p = getenv("HADAL_SHARED");
    if (!p) p = "../shared";
    if (is_directory(p)) return p;
    printf("skipped: no reference data at %s\n", p);
    return NULL;
}

#endif
