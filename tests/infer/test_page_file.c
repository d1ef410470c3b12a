/* Pages of the cache in files: what was written comes back, and nothing else ever does. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/file.h"
#include "infer/page_file.h"
#include <cmocka.h>

#define MODEL "tiny bf16"
enum { TOKEN = 5, MOST = 300, PAYLOAD = PAGE_FILE_TOKENS * TOKEN, HEADER = 1076, PLENTY = 1 << 30 };

static char folder[64];
static page_folder *pages;
static page_record found[MOST];
static int n_found, damaged;

static void on_found(void *arg, const page_record *r) {
    assert_ptr_equal(arg, found);
    assert_true(n_found < MOST);
    found[n_found++] = *r;
}

static status try_open(const char *model, size_t token_bytes, uint64_t limit, error *e) {
    n_found = 0;
    return page_folder_open(&pages, folder, model, token_bytes, limit, on_found, found, &damaged, e);
}

static void open_limit(uint64_t limit) {
    error e = {0};
    if (try_open(MODEL, TOKEN, limit, &e) != OK) fail_msg("%s", e.text);
}

static void reopen(void) {
    page_folder_close(pages);
    open_limit(PLENTY);
}

static int set_up(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/hadal-pages-XXXXXX");
    assert_non_null(mkdtemp(folder));
    open_limit(PLENTY);
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *f) {
    (void)st, (void)kind, (void)f;
    return remove(path);
}

static int tear_down(void **state) {
    (void)state;
    page_folder_close(pages);
    pages = NULL;
    return nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static page_record make(uint64_t parent, int first, int n) {
    page_record r = {.parent = parent, .n = n};
    for (int i = 0; i < n; i++) r.tokens[i] = first + 3 * i;
    r.key = page_key(parent, r.tokens, n);
    return r;
}

static const uint8_t *payload_of(const page_record *r) {
    static uint8_t bytes[PAYLOAD];
    for (int i = 0; i < r->n * TOKEN; i++) bytes[i] = (uint8_t)((r->key >> (i % 8 * 8)) + (uint64_t)i * 7);
    return bytes;
}

static void write_page(const page_record *r) {
    error e = {0};
    if (page_folder_write(pages, r, payload_of(r), &e) != OK) fail_msg("%s", e.text);
}

static status read_page(const page_record *r) { /* also looks whether it is right */
    error e = {0};
    uint8_t *bytes = malloc((size_t)r->n * TOKEN); /* exactly: a sanitizer sees what is written beyond */
    assert_non_null(bytes);
    status s = page_folder_read(pages, r, bytes, &e);
    if (s == OK) assert_memory_equal(bytes, payload_of(r), (size_t)r->n * TOKEN);
    else assert_true(e.text[0] && s == ERR_FORMAT);
    free(bytes);
    return s;
}

static int place(const page_record *r) { /* in `found`; -1: not there */
    for (int i = 0; i < n_found; i++)
        if (found[i].key == r->key) return i;
    return -1;
}

/* The path of the n-th file (in no order) whose name ends so; NULL: fewer. */
static const char *file_named(const char *end, int n) {
    static char path[400];
    DIR *d = opendir(folder);
    assert_non_null(d);
    bool there = false;
    for (struct dirent *f; !there && (f = readdir(d));)
        if (name_ends_with(f->d_name, end) && n-- == 0) {
            snprintf(path, sizeof path, "%s/%s", folder, f->d_name);
            there = true;
        }
    closedir(d);
    return there ? path : NULL;
}

static const char *path_of(const page_record *r) {
    char end[32];
    snprintf(end, sizeof end, "-%016llx.page", (unsigned long long)r->key);
    return file_named(end, 0);
}

static void put_file(const char *path, const void *p, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void age(const page_record *r, int seconds) {
    struct timespec t[2];
    clock_gettime(CLOCK_REALTIME, &t[0]);
    t[0].tv_sec -= seconds;
    t[1] = t[0];
    assert_int_equal(utimensat(AT_FDCWD, path_of(r), t, 0), 0);
}

static void keys(void **state) {
    (void)state;
    /* The 12 bytes 00 .. 0b: SipHash-2-4's test vector number 12. */
    assert_true(page_key(0x0706050403020100, (const int32_t[]){0x0b0a0908}, 1) == 0x751e8fbc860ee5fb);
    const int32_t a[] = {1, 2, 3}, b[] = {1, 2, 4};
    assert_true(page_key(0, a, 3) != page_key(0, b, 3));
    assert_true(page_key(0, a, 2) == page_key(0, b, 2));
    assert_true(page_key(0, a, 2) != page_key(0, a, 3));
    assert_true(page_key(0, a, 3) != page_key(1, a, 3));
}

static void comes_back(void **state) {
    (void)state;
    page_record a = make(0, 1, 256), b = make(a.key, 7, 256), c = make(b.key, 9, 3), d = make(a.key, 11, 256);
    const page_record *const order[] = {&c, &d, &b, &a}; /* children first */
    for (int i = 0; i < 4; i++) write_page(order[i]);
    write_page(&a);
    const uint64_t bytes = 4 * HEADER + (3 * 256 + 3) * TOKEN;
    assert_true(page_folder_bytes(pages) == bytes);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(read_page(&a), OK);
        assert_int_equal(read_page(&b), OK);
        assert_int_equal(read_page(&c), OK);
        assert_int_equal(read_page(&d), OK);
        reopen();
        assert_true(n_found == 4 && damaged == 0 && page_folder_bytes(pages) == bytes);
        assert_true(place(&a) == 0 && place(&b) > 0 && place(&c) > place(&b) && place(&d) > 0);
        assert_memory_equal(&found[place(&c)], &c, sizeof c);
    }
    page_folder_remove(pages, d.key);
    page_folder_remove(pages, d.key);
    assert_int_equal(read_page(&d), ERR_FORMAT);
    assert_true(page_folder_bytes(pages) == bytes - HEADER - 256 * TOKEN);
    write_page(&d);
    assert_int_equal(read_page(&d), OK);
}

static void wrong_record(void **state) {
    (void)state;
    error e;
    page_record a = make(0, 1, 4);
    a.tokens[2]++;
    assert_int_equal(page_folder_write(pages, &a, NULL, &e), ERR_ARG);
    assert_int_equal(page_folder_read(pages, &a, NULL, &e), ERR_ARG);
    a.n = 257;
    assert_int_equal(page_folder_write(pages, &a, NULL, &e), ERR_ARG);
    a.n = 0;
    assert_int_equal(page_folder_write(pages, &a, NULL, &e), ERR_ARG);
    a = make(0, 1, 4);
    assert_int_equal(read_page(&a), ERR_FORMAT);
}

/* The page is in the folder as these bytes: it is not found, or reading it fails. Then it can be written again. */
static void refused(const page_record *r, const char *path, const uint8_t *bytes, size_t n) {
    page_folder_close(pages);
    put_file(path, bytes, n);
    open_limit(PLENTY);
    assert_int_equal(damaged, n_found ? 0 : 1);
    if (n_found) assert_int_equal(read_page(&found[0]), ERR_FORMAT);
    assert_false(file_exists(path));
    assert_true(page_folder_bytes(pages) == 0);
    write_page(r);
    assert_int_equal(read_page(r), OK);
}

static void damage(void **state) {
    (void)state;
    uint8_t bytes[HEADER + 3 * TOKEN + 1] = {0};
    page_record r = make(0, 77, 3);
    write_page(&r);
    char path[400];
    snprintf(path, sizeof path, "%s", path_of(&r));
    FILE *f = fopen(path, "rb");
    const size_t n = sizeof bytes - 1;
    assert_non_null(f);
    assert_int_equal(fread(bytes, 1, n + 1, f), n);
    fclose(f);
    for (size_t i = 0; i < n; i++) {
        bytes[i] ^= (uint8_t)(1 << i % 8);
        refused(&r, path, bytes, n);
        bytes[i] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t k = 0; k < n; k++) refused(&r, path, bytes, k);
    refused(&r, path, bytes, n + 1);
}

static void damaged_while_open(void **state) {
    (void)state;
    page_record a = make(0, 1, 10), b = make(a.key, 2, 10);
    write_page(&a);
    write_page(&b);
    assert_int_equal(truncate(path_of(&a), HEADER + 49), 0);
    assert_int_equal(read_page(&a), ERR_FORMAT);
    assert_null(path_of(&a));
    unlink(path_of(&b));
    assert_int_equal(read_page(&b), ERR_FORMAT);
    assert_true(page_folder_bytes(pages) == 0);
    write_page(&a);
    write_page(&b);
    reopen();
    assert_int_equal(n_found, 2);
}

static void other_models(void **state) {
    (void)state;
    error e = {0};
    char mine[400];
    page_record a = make(0, 1, 20);
    write_page(&a);
    snprintf(mine, sizeof mine, "%s", path_of(&a));
    page_folder_close(pages);
    assert_int_equal(try_open("another", TOKEN, PLENTY, &e), OK); /* left alone */
    assert_true(n_found == 0 && damaged == 0 && page_folder_bytes(pages) == HEADER + 20 * TOKEN);
    assert_int_equal(read_page(&a), ERR_FORMAT);
    write_page(&a); /* the same tokens: another file */
    assert_int_equal(read_page(&a), OK);
    reopen();
    assert_true(n_found == 1 && damaged == 0);
    assert_int_equal(read_page(&a), OK);

    char others[400]; /* takes the name of the other model's page */
    snprintf(others, sizeof others, "%s", file_named(".page", strcmp(file_named(".page", 0), mine) == 0));
    assert_int_equal(rename(mine, others), 0);
    page_folder_close(pages);
    assert_int_equal(try_open("another", TOKEN, PLENTY, &e), OK);
    assert_true(n_found == 0 && damaged == 1);

    page_folder_close(pages);
    open_limit(PLENTY);
    write_page(&a);
    page_folder_close(pages);
    assert_int_equal(try_open(MODEL, TOKEN + 1, PLENTY, &e), OK); /* sizes that cannot be */
    assert_true(n_found == 0 && damaged == 1);
}

static void orphans(void **state) {
    (void)state;
    page_record a = make(0, 1, 20), b = make(a.key, 2, 20), c = make(b.key, 3, 20), d = make(a.key, 4, 20);
    write_page(&a);
    write_page(&b);
    write_page(&c);
    write_page(&d);
    unlink(path_of(&b));
    reopen();
    assert_true(n_found == 2 && place(&a) == 0 && place(&d) == 1 && damaged == 0);
    assert_null(path_of(&c));
    page_folder_remove(pages, a.key);
    assert_int_equal(read_page(&d), OK); /* as long as the folder is open: the page before may come again */
    reopen();
    assert_true(n_found == 0 && page_folder_bytes(pages) == 0);
}

static void limit_of_bytes(void **state) {
    (void)state;
    error e = {0};
    const uint64_t one = HEADER + 20 * TOKEN;
    page_folder_close(pages);
    open_limit(4 * one + 3);
    page_record a = make(0, 1, 20), b = make(a.key, 2, 20), c = make(b.key, 3, 20), x = make(0, 4, 20),
                y = make(0, 5, 20), z = make(c.key, 6, 20);
    write_page(&a);
    write_page(&b);
    write_page(&x);
    write_page(&c);
    assert_int_equal(read_page(&x), OK);
    write_page(&y); /* c goes: the oldest without children, though a and b are older */
    assert_null(path_of(&c));
    assert_true(!page_folder_holds(pages, c.key) && page_folder_holds(pages, a.key));
    assert_true(path_of(&a) && path_of(&b) && path_of(&x) && path_of(&y));
    assert_true(page_folder_bytes(pages) == 4 * one);
    write_page(&c); /* x goes: b and a are older, but before c */
    write_page(&z); /* y goes */
    assert_true(path_of(&a) && path_of(&b) && path_of(&c) && path_of(&z) && !path_of(&x) && !path_of(&y));
    page_record more = make(z.key, 7, 20);
    write_page(&more); /* has no room beside its parents, and is not written */
    assert_true(page_folder_bytes(pages) == 4 * one && !path_of(&more));
    page_record large = make(0, 8, 256);
    page_folder_close(pages);
    open_limit(large.n * TOKEN);
    write_page(&large); /* larger than the limit */
    assert_true(!path_of(&large));

    page_folder_close(pages);
    open_limit(PLENTY);
    for (int i = 0; i < n_found; i++) page_folder_remove(pages, found[i].key);
    const page_record *const by_age[] = {&a, &x, &b, &y}; /* from the oldest */
    for (int i = 0; i < 4; i++) write_page(by_age[i]);
    for (int i = 0; i < 4; i++) age(by_age[i], 100 - i);
    page_folder_close(pages);
    open_limit(3 * one); /* a smaller limit than the last time; x is the oldest without children */
    assert_true(n_found == 3 && place(&x) < 0);
    age(&y, 50);
    age(&b, 200);
    assert_int_equal(read_page(&b), OK); /* which is remembered, */
    page_folder_close(pages);
    open_limit(2 * one); /* so that y goes */
    assert_true(n_found == 2 && place(&y) < 0 && place(&a) == 0 && place(&b) == 1);
    page_folder_close(pages);
    assert_int_equal(try_open("another", TOKEN, one, &e), OK); /* another model's make room, too, b before a */
    assert_true(page_folder_bytes(pages) == one && path_of(&a) && !path_of(&b));
}

static void strange_files(void **state) {
    (void)state;
    page_record a = make(0, 1, 20), b = make(a.key, 2, 20), c = make(0, 3, 20), d = make(0, 4, 20), g = make(0, 5, 20);
    const page_record *const all[] = {&a, &b, &c, &d, &g};
    char path[5][400], aside[100], text[100];
    for (int i = 0; i < 5; i++) {
        write_page(all[i]);
        snprintf(path[i], sizeof path[i], "%s", path_of(all[i]));
    }
    page_folder_close(pages);
    snprintf(aside, sizeof aside, "%s/elsewhere", folder); /* b: a symlink to the good file */
    snprintf(text, sizeof text, "%s/Read me.page", folder);
    put_file(text, "mine", 4);
    assert_int_equal(rename(path[1], aside), 0);
    assert_int_equal(symlink("elsewhere", path[1]), 0);
    assert_int_equal(unlink(path[2]), 0); /* c: a folder */
    assert_int_equal(mkdir(path[2], 0700), 0);
    assert_int_equal(unlink(path[3]), 0); /* d: a FIFO */
    assert_int_equal(mkfifo(path[3], 0600), 0);
    assert_int_equal(truncate(path[4], (off_t)1 << 40), 0); /* g: a file with a hole of a TB */
    open_limit(PLENTY);
    assert_true(n_found == 1 && place(&a) == 0 && damaged == 4);
    assert_true(file_exists(aside) && file_exists(text) && file_exists(path[1]) && is_directory(path[2]));
    assert_true(page_folder_bytes(pages) == HEADER + 20 * TOKEN);
    error e = {0};
    write_page(&b); /* takes the symlink's place */
    assert_int_equal(page_folder_write(pages, &c, payload_of(&c), &e), ERR_IO);
    assert_null(file_named(".tmp", 0));
    write_page(&d);
    assert_true(read_page(&a) == OK && read_page(&b) == OK && read_page(&d) == OK && read_page(&c) == ERR_FORMAT);
    reopen();
    assert_true(n_found == 3 && damaged == 1);
}

static void one_at_a_time(void **state) {
    (void)state;
    error e = {0};
    page_folder *second = pages, *first = pages;
    assert_int_equal(page_folder_open(&second, folder, MODEL, TOKEN, PLENTY, NULL, NULL, NULL, &e), ERR_IO);
    assert_null(second);
    assert_non_null(strstr(e.text, "another program"));
    pages = first;
    reopen();
    char inside[100];
    snprintf(inside, sizeof inside, "%s/lock/x", folder); /* under a file */
    assert_int_equal(page_folder_open(&second, inside, MODEL, TOKEN, PLENTY, NULL, NULL, NULL, &e), ERR_IO);
    snprintf(inside, sizeof inside, "%s/new/x", folder);
    assert_int_equal(page_folder_open(&second, inside, MODEL, TOKEN, PLENTY, NULL, NULL, NULL, &e), OK);
    page_folder_close(second);
}

static void full_disk(void **state) {
    (void)state;
    error e = {0};
    struct rlimit was, small;
    page_record a = make(0, 1, 20), b = make(a.key, 2, 20);
    write_page(&a);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    for (rlim_t bytes = 0; bytes < HEADER + 20 * TOKEN; bytes += 83) {
        small = (struct rlimit){bytes, was.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        status s = page_folder_write(pages, &b, payload_of(&b), &e);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
        assert_int_equal(s, ERR_IO);
        assert_non_null(strstr(e.text, "cannot write"));
        assert_null(file_named(".tmp", 0));
        assert_null(path_of(&b));
        assert_true(page_folder_bytes(pages) == HEADER + 20 * TOKEN);
    }
    assert_int_equal(read_page(&a), OK);
    write_page(&b);
    reopen();
    assert_true(n_found == 2 && damaged == 0);
}

static void write_for_ever(void) {
    error e;
    open_limit(40 * (HEADER + 250 * TOKEN));
    for (int i = 0;; i++) {
        page_record r = make(i % 7 ? found[0].key : 0, i, 250);
        if (page_folder_write(pages, &r, payload_of(&r), &e) != OK) _exit(1);
        found[0] = r;
    }
}

static void killed(void **state) {
    (void)state;
    int most = 0;
    for (int round = 0; round < 25; round++) {
        page_folder_close(pages);
        pages = NULL;
        pid_t child = fork();
        if (!child) write_for_ever();
        assert_true(child > 0);
        usleep((useconds_t)(1000 + round * 613));
        kill(child, SIGKILL);
        int how;
        waitpid(child, &how, 0);
        assert_true(WIFSIGNALED(how));
        open_limit(PLENTY);
        assert_int_equal(damaged, 0); /* the machine went on, so nothing is torn */
        assert_null(file_named(".tmp", 0));
        for (int i = 0; i < n_found; i++) assert_int_equal(read_page(&found[i]), OK);
        if (n_found > most) most = n_found;
    }
    assert_true(most > 3);
}

static void leftovers(void **state) {
    (void)state;
    page_record a = make(0, 1, 20);
    write_page(&a);
    char tmp[410], not_ours[100];
    snprintf(tmp, sizeof tmp, "%s.tmp", path_of(&a));
    snprintf(not_ours, sizeof not_ours, "%s/letter.tmp", folder);
    put_file(tmp, "half", 4);
    put_file(not_ours, "mine", 4);
    reopen();
    assert_true(!file_exists(tmp) && file_exists(not_ours) && n_found == 1);
}

static void many(void **state) { /* more than the table holds at first, in long chains */
    (void)state;
    enum { COUNT = 290 };
    page_record r[COUNT];
    for (int i = 0; i < COUNT; i++) {
        r[i] = make(i % 100 ? r[i - 1].key : 0, i, 1);
        write_page(&r[i]);
    }
    reopen();
    assert_int_equal(n_found, COUNT);
    for (int i = 0; i < COUNT; i++) assert_true(i % 100 == 0 || place(&r[i - 1]) < place(&r[i]));
    error e;
    for (int i = 0; i < 2500; i++) { /* the table of pages grows */
        page_record x = make((uint64_t)i + 1, i, 1);
        assert_int_equal(page_folder_write(pages, &x, payload_of(&x), &e), OK);
    }
    for (int i = 0; i < COUNT; i++) assert_int_equal(read_page(&r[i]), OK);
    reopen(); /* the 2500 have no parents */
    assert_int_equal(n_found, COUNT);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(keys),         T(comes_back), T(wrong_record),   T(damage),        T(damaged_while_open),
        T(other_models), T(orphans),    T(limit_of_bytes), T(strange_files), T(one_at_a_time),
        T(full_disk),    T(killed),     T(leftovers),      T(many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
