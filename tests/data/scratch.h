/* Files in a folder of their own for one test, and the small tokenizer of tests/data/models. */
#ifndef HADAL_TESTS_DATA_SCRATCH_H
#define HADAL_TESTS_DATA_SCRATCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "data/dataset.h"
#include <cmocka.h>

#define TOKENIZER "tests/data/models/v3_mtp/checkpoint"
#define BOS "<｜begin▁of▁sentence｜>"
#define EOS "<｜end▁of▁sentence｜>"
#define USER "<｜User｜>"
#define ASSISTANT "<｜Assistant｜>"

enum { MOST_FILES = 16 };
typedef struct scratch {
    char folder[32];
    char *path[MOST_FILES];
    int n;
} scratch;

/* What an opening was heard to say; told to cancel, it does. */
typedef struct heard {
    char last[300];
    int n;
    bool cancel;
} heard;

static inline void heard_note(void *arg, const char *line) {
    heard *h = arg;
    h->n++;
    snprintf(h->last, sizeof h->last, "%s", line);
}

static inline int heard_progress(void *arg, uint64_t done, uint64_t total, const char *what) {
    (void)what;
    assert_true(done <= total);
    return ((heard *)arg)->cancel;
}

static inline scratch scratch_open(void) {
    scratch s = {.folder = "/tmp/hadal-data-XXXXXX"};
    assert_non_null(mkdtemp(s.folder));
    return s;
}

/* A file of the folder; it is removed with it. */
static inline const char *scratch_path(scratch *s, const char *name) {
    assert_true(s->n < MOST_FILES);
    char *path = path_join(s->folder, name);
    assert_non_null(path);
    return s->path[s->n++] = path;
}

static inline const char *scratch_file(scratch *s, const char *name, const void *p, size_t n) {
    error e;
    const char *path = scratch_path(s, name);
    assert_int_equal(file_save(path, p, n, &e), OK);
    return path;
}

static inline const char *scratch_text(scratch *s, const char *name, const char *text) {
    return scratch_file(s, name, text, strlen(text));
}

/* The file packed with gzip or zstd by their own programs. */
static inline const char *scratch_packed(scratch *s, const char *name, const char *program, const char *suffix) {
    char command[256], packed[64];
    snprintf(command, sizeof command, "%s -q -c '%s/%s' > '%s/%s%s'", program, s->folder, name, s->folder, name,
             suffix);
    assert_int_equal(system(command), 0);
    snprintf(packed, sizeof packed, "%s%s", name, suffix);
    return scratch_path(s, packed);
}

static inline void scratch_close(scratch *s) {
    for (int i = 0; i < s->n; i++) {
        unlink(s->path[i]);
        free(s->path[i]);
    }
    assert_int_equal(rmdir(s->folder), 0); /* nothing else was left */
}

static inline tokenizer *small_tokenizer(void) {
    tokenizer *t;
    error e = {0};
    if (tokenizer_open(&t, TOKENIZER, &e) != OK) fail_msg("%s", e.text);
    return t;
}

/* A file of HADAL_SHARED; skips the test where it is not there. */
static inline str shared_file(const char *name) {
    const char *shared = getenv("HADAL_SHARED");
    str path = {0}, s = {0};
    error e;
    str_addf(&path, "%s/%s", shared ? shared : "../shared", name);
    status st = file_read(&s, path.p, (size_t)1 << 28, &e);
    str_free(&path);
    if (st == OK) return s;
    printf("SKIP: %s\n", e.text);
    skip();
    return s;
}

#endif
