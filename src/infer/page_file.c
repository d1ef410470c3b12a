#include "infer/page_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include "base/file.h"

/* Where things are in a file; numbers are little endian, tokens behind the n-th are 0. */
enum {
    AT_MAGIC = 0,
    AT_VERSION = 8,
    AT_N = 12,
    AT_MODEL = 16, /* hash of the model's text */
    AT_PARENT = 24,
    AT_KEY = 32,
    AT_BYTES = 40, /* of the payload */
    AT_TOKENS = 48,
    AT_CHECKSUM = AT_TOKENS + 4 * PAGE_FILE_TOKENS, /* CRC-32 of all before it and of the payload */
    HEADER = AT_CHECKSUM + 4
};

#define MAGIC "hadal kv" /* 8 bytes */
#define LOCK "lock"
#define NAME "%016" PRIx64 "-%016" PRIx64 ".page" /* model, key */
#define TEMPORARY ".tmp"
enum { NAME_LENGTH = 16 + 1 + 16 + 5, NAME_SIZE = 48 };

typedef enum state {
    ABSENT,   /* no file; known because it is a parent */
    FOREIGN,  /* a file of another model: takes room, is never read */
    UNSORTED, /* at opening: a good file whose parents have not been looked at */
    CLIMBED,  /* at opening: its parents are being looked at */
    ORPHAN,   /* at opening: a parent is missing */
    GOOD
} state;

typedef struct page {
    uint64_t model, key, bytes;
    int64_t used; /* when, in nanoseconds; only for the order at opening */
    state state;
    int children;
    struct page *parent, *chain; /* chain: next in the table's bucket */
    struct page *older, *newer;  /* all with a file, in the order of their last use */
    page_record *record;         /* at opening */
} page;

struct page_folder {
    char *path;
    int folder, lock; /* descriptors */
    uint64_t model, limit, bytes;
    size_t token_bytes;
    page **table, *oldest, *newest;
    size_t buckets, count, files;
};

/* --- hash -------------------------------------------------------------------------------------------------------- */

static uint64_t get(const uint8_t *p, int n) {
    uint64_t x = 0;
    for (int i = 0; i < n; i++) x |= (uint64_t)p[i] << (8 * i);
    return x;
}

static void put(uint8_t *p, int n, uint64_t x) {
    for (int i = 0; i < n; i++) p[i] = (uint8_t)(x >> (8 * i));
}

static void sip_round(uint64_t v[4]) {
#define TURN(x, by) ((x) << (by) | (x) >> (64 - (by)))
    v[0] += v[1], v[1] = TURN(v[1], 13) ^ v[0], v[0] = TURN(v[0], 32);
    v[2] += v[3], v[3] = TURN(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = TURN(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = TURN(v[1], 17) ^ v[2], v[2] = TURN(v[2], 32);
#undef TURN
}

/* SipHash-2-4 (Aumasson and Bernstein, 2012) with the key 00 01 .. 0f of its test vectors. Simple mixing would not do:
 * whoever chooses prompts could make one whose hash is that of another. */
static uint64_t siphash(const uint8_t *p, size_t n) {
    const uint64_t k0 = 0x0706050403020100, k1 = 0x0f0e0d0c0b0a0908;
    uint64_t v[4] = {k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261,
                     k1 ^ 0x7465646279746573};
    for (size_t at = 0; at <= n; at += 8) {
        uint64_t m = n - at >= 8 ? get(p + at, 8) : get(p + at, (int)(n - at)) | (uint64_t)(n & 255) << 56;
        v[3] ^= m;
        sip_round(v), sip_round(v);
        v[0] ^= m;
    }
    v[2] ^= 255;
    for (int i = 0; i < 4; i++) sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint64_t page_key(uint64_t parent, const int32_t *tokens, int32_t n) {
    uint8_t bytes[8 + 4 * PAGE_FILE_TOKENS];
    put(bytes, 8, parent);
    for (int32_t i = 0; i < n; i++) put(bytes + 8 + 4 * i, 4, (uint32_t)tokens[i]);
    uint64_t key = siphash(bytes, 8 + 4 * (size_t)n);
    return key ? key : 1;
}

/* --- header ------------------------------------------------------------------------------------------------------ */

static void encode(uint8_t h[HEADER], uint64_t model, const page_record *r, uint64_t payload_bytes) {
    memset(h, 0, HEADER);
    memcpy(h + AT_MAGIC, MAGIC, 8);
    put(h + AT_VERSION, 4, PAGE_FILE_VERSION);
    put(h + AT_N, 4, (uint32_t)r->n);
    put(h + AT_MODEL, 8, model);
    put(h + AT_PARENT, 8, r->parent);
    put(h + AT_KEY, 8, r->key);
    put(h + AT_BYTES, 8, payload_bytes);
    for (int32_t i = 0; i < r->n; i++) put(h + AT_TOKENS + 4 * i, 4, (uint32_t)r->tokens[i]);
}

static uint32_t checksum(const uint8_t h[HEADER], const void *payload, size_t n) {
    return (uint32_t)crc32_z(crc32_z(0, h, AT_CHECKSUM), payload, n);
}

/* The key is a hash of parent and tokens, so a header that was damaged there is recognized without the payload. */
static bool decode(page_record *r, const uint8_t h[HEADER], uint64_t model, uint64_t key, uint64_t file_bytes) {
    uint64_t n = get(h + AT_N, 4);
    if (memcmp(h + AT_MAGIC, MAGIC, 8) != 0 || get(h + AT_VERSION, 4) != PAGE_FILE_VERSION) return false;
    if (n < 1 || n > PAGE_FILE_TOKENS || get(h + AT_MODEL, 8) != model || get(h + AT_KEY, 8) != key) return false;
    *r = (page_record){.parent = get(h + AT_PARENT, 8), .key = key, .n = (int32_t)n};
    for (int32_t i = 0; i < r->n; i++) r->tokens[i] = (int32_t)get(h + AT_TOKENS + 4 * i, 4);
    return page_key(r->parent, r->tokens, r->n) == r->key && get(h + AT_BYTES, 8) == file_bytes - HEADER;
}

static uint64_t payload_of(const page_folder *f, const page_record *r) {
    return (uint64_t)r->n * f->token_bytes;
}

/* --- the table of pages ------------------------------------------------------------------------------------------- */

static page **place_of(const page_folder *f, uint64_t model, uint64_t key) {
    page **at = &f->table[(key ^ model) & (f->buckets - 1)];
    while (*at && ((*at)->key != key || (*at)->model != model)) at = &(*at)->chain;
    return at;
}

static bool grow(page_folder *f) {
    size_t n = f->buckets ? 2 * f->buckets : 1024;
    page **old = f->table, **more = calloc(n, sizeof *more);
    if (!more) return false;
    f->table = more;
    size_t was = f->buckets;
    f->buckets = n;
    for (size_t i = 0; i < was; i++)
        for (page *p = old[i], *next; p; p = next) {
            page **at = &f->table[(p->key ^ p->model) & (n - 1)];
            next = p->chain;
            p->chain = *at;
            *at = p;
        }
    free(old);
    return true;
}

static page *page_at(page_folder *f, uint64_t model, uint64_t key) { /* makes it; NULL: memory is out */
    if (f->count == f->buckets && !grow(f)) return NULL;
    page **at = place_of(f, model, key);
    if (*at) return *at;
    *at = calloc(1, sizeof **at);
    if (!*at) return NULL;
    (*at)->model = model;
    (*at)->key = key;
    f->count++;
    return *at;
}

static void forget(page_folder *f, page *p) { /* one that nothing speaks of any more */
    if (p->state != ABSENT || p->children) return;
    page **at = place_of(f, p->model, p->key);
    *at = p->chain;
    f->count--;
    free(p->record);
    free(p);
}

static void set_parent(page_folder *f, page *p, page *parent) {
    page *was = p->parent;
    if (parent) parent->children++;
    p->parent = parent;
    if (was && --was->children == 0) forget(f, was);
}

static void take_out(page_folder *f, page *p) { /* of the order of use */
    *(p->older ? &p->older->newer : &f->oldest) = p->newer;
    *(p->newer ? &p->newer->older : &f->newest) = p->older;
}

static void put_last(page_folder *f, page *p) {
    p->older = f->newest;
    p->newer = NULL;
    *(f->newest ? &f->newest->newer : &f->oldest) = p;
    f->newest = p;
}

static void add_file(page_folder *f, page *p, state s, uint64_t bytes) {
    p->state = s;
    p->bytes = bytes;
    f->bytes += bytes;
    f->files++;
    put_last(f, p);
}

static void name_of(char name[NAME_SIZE], uint64_t model, uint64_t key, const char *end) {
    snprintf(name, NAME_SIZE, NAME "%s", model, key, end);
}

static void remove_page(page_folder *f, page *p) { /* with its file */
    char name[NAME_SIZE];
    name_of(name, p->model, p->key, "");
    unlinkat(f->folder, name, 0);
    take_out(f, p);
    f->bytes -= p->bytes;
    f->files--;
    p->state = ABSENT;
    set_parent(f, p, NULL);
    forget(f, p);
}

/* Removes the least recently used pages, children before parents, until `more` bytes have room. */
static bool make_room(page_folder *f, uint64_t more) {
    while (f->bytes > f->limit || more > f->limit - f->bytes) {
        page *p = f->oldest;
        while (p && p->children) p = p->newer;
        if (!p || more > f->limit) return false;
        remove_page(f, p);
    }
    return true;
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

static status io_error(error *e, const page_folder *f, const char *what, const char *name) {
    return fail(e, ERR_IO, "%s/%s: cannot %s: %s", f->path, name, what, strerror(errno));
}

static status open_folder(page_folder *f, error *e) {
    TRY(make_directory(f->path, e));
    f->folder = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (f->folder < 0) return io_error(e, f, "open", "");
    f->lock = openat(f->folder, LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    if (f->lock < 0) return io_error(e, f, "open", LOCK);
    if (flock(f->lock, LOCK_EX | LOCK_NB) == 0) return OK;
    if (errno != EWOULDBLOCK) return io_error(e, f, "lock", LOCK);
    return fail(e, ERR_IO, "%s: another program keeps its cache here now: give each one a folder of its own", f->path);
}

/* "MODEL-KEY.page", with or without ".tmp", exactly as name_of writes it. */
static bool parse_name(const char *name, uint64_t *model, uint64_t *key, bool *temporary) {
    char again[NAME_SIZE];
    if (strlen(name) < NAME_LENGTH || sscanf(name, "%16" SCNx64 "-%16" SCNx64, model, key) != 2) return false;
    *temporary = name[NAME_LENGTH] != 0;
    name_of(again, *model, *key, *temporary ? TEMPORARY : "");
    return strcmp(name, again) == 0;
}

static ssize_t read_at(int fd, void *out, size_t n, off_t from) {
    size_t got = 0;
    while (got < n) {
        ssize_t k = pread(fd, (char *)out + got, n - got, from + (off_t)got);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return k < 0 ? -1 : (ssize_t)got;
        got += (size_t)k;
    }
    return (ssize_t)got;
}

static int open_page(const page_folder *f, const char *name, struct stat *st) { /* -1: not a file to be read */
    int fd = openat(f->folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, st) == 0 && S_ISREG(st->st_mode)) return fd;
    if (fd >= 0) close(fd);
    return -1;
}

/* A damaged page of our model is removed, so that it takes no room; whatever else is not a page stays. */
static status look_at(page_folder *f, const char *name, uint64_t model, uint64_t key, int *damaged, error *e) {
    struct stat st;
    uint8_t h[HEADER];
    page_record r;
    const bool ours = model == f->model;
    int fd = open_page(f, name, &st);
    bool there = fd >= 0, good = there && (uint64_t)st.st_size <= f->limit && read_at(fd, h, HEADER, 0) == HEADER;
    if (there) close(fd);
    good = good && decode(&r, h, model, key, (uint64_t)st.st_size);
    if (good && ours) good = (uint64_t)st.st_size == HEADER + payload_of(f, &r);
    if (!good) {
        *damaged += ours;
        if (there && ours) unlinkat(f->folder, name, 0);
        return OK;
    }
    page *p = page_at(f, model, key), *parent = r.parent && p ? page_at(f, model, r.parent) : NULL;
    if (!p || (r.parent && !parent)) return fail(e, ERR_NOMEM, "memory is out");
    if (ours && !(p->record = malloc(sizeof r))) return fail(e, ERR_NOMEM, "memory is out");
    if (ours) *p->record = r;
    p->used = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    set_parent(f, p, parent);
    add_file(f, p, ours ? UNSORTED : FOREIGN, (uint64_t)st.st_size);
    return OK;
}

static status scan(page_folder *f, int *damaged, error *e) {
    int fd = openat(f->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        status s = io_error(e, f, "read", "");
        if (fd >= 0) close(fd);
        return s;
    }
    status s = OK;
    for (struct dirent *entry; s == OK && (entry = readdir(d));) {
        uint64_t model, key;
        bool temporary;
        if (!parse_name(entry->d_name, &model, &key, &temporary)) continue;
        if (temporary) unlinkat(f->folder, entry->d_name, 0); /* of a process that was killed */
        else s = look_at(f, entry->d_name, model, key, damaged, e);
    }
    closedir(d);
    return s;
}

static int by_use(const void *a, const void *b) {
    int64_t x = (*(page *const *)a)->used, y = (*(page *const *)b)->used;
    return (x > y) - (x < y);
}

static void sort_by_use(page_folder *f, page **room) {
    size_t n = 0;
    for (page *p = f->oldest; p; p = p->newer) room[n++] = p;
    qsort(room, n, sizeof *room, by_use);
    f->oldest = f->newest = NULL;
    for (size_t i = 0; i < n; i++) put_last(f, room[i]);
}

/* Climbs from a page to one that is known to be good or bad, and passes that on to all on the way; room: for that way.
 * A file that names itself as its ancestor is an orphan, too. */
static void climb(page *p, page **room, void (*found)(void *arg, const page_record *r), void *arg) {
    size_t n = 0;
    for (; p && p->state == UNSORTED; p = p->parent) {
        p->state = CLIMBED;
        room[n++] = p;
    }
    state s = !p || p->state == GOOD ? GOOD : ORPHAN;
    while (n--) {
        room[n]->state = s;
        if (s == GOOD && found) found(arg, room[n]->record);
        free(room[n]->record);
        room[n]->record = NULL;
    }
}

status page_folder_open(page_folder **out, const char *folder, const char *model, size_t token_bytes, uint64_t limit,
                        void (*found)(void *arg, const page_record *r), void *arg, int *damaged, error *e) {
    int bad = 0;
    page **room = NULL;
    page_folder *f = *out = calloc(1, sizeof *f);
    if (!f) return fail(e, ERR_NOMEM, "memory is out");
    *f = (page_folder){.folder = -1, .lock = -1, .limit = limit, .token_bytes = token_bytes};
    f->model = siphash((const uint8_t *)model, strlen(model));
    f->path = strdup(folder);
    status s = f->path && grow(f) ? OK : fail(e, ERR_NOMEM, "memory is out");
    if (s == OK) s = open_folder(f, e);
    if (s == OK) s = scan(f, &bad, e);
    if (s == OK && !(room = malloc((f->files + 1) * sizeof *room))) s = fail(e, ERR_NOMEM, "memory is out");
    if (s == OK) {
        sort_by_use(f, room);
        make_room(f, 0);
        for (page *p = f->oldest; p; p = p->newer)
            if (p->state == UNSORTED) climb(p, room, found, arg);
        for (page *p = f->oldest, *next; p; p = next) {
            next = p->newer;
            if (p->state == ORPHAN) remove_page(f, p);
        }
    }
    free(room);
    if (damaged) *damaged = bad;
    if (s != OK) {
        page_folder_close(f);
        *out = NULL;
    }
    return s;
}

void page_folder_close(page_folder *f) {
    if (!f) return;
    for (size_t i = 0; i < f->buckets; i++)
        for (page *p = f->table[i], *next; p; p = next) {
            next = p->chain;
            free(p->record);
            free(p);
        }
    if (f->folder >= 0) close(f->folder);
    if (f->lock >= 0) close(f->lock); /* unlocks */
    free(f->table);
    free(f->path);
    free(f);
}

/* --- pages -------------------------------------------------------------------------------------------------------- */

static void mark_used(page_folder *f, page *p, const char *name) {
    utimensat(f->folder, name, NULL, AT_SYMLINK_NOFOLLOW);
    take_out(f, p);
    put_last(f, p);
}

static bool put_all(int fd, const void *p, size_t n) {
    for (const char *at = p; n;) {
        ssize_t k = write(fd, at, n);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return false;
        at += k;
        n -= (size_t)k;
    }
    return true;
}

static status write_file(page_folder *f, const page_record *r, const void *payload, const char *name, error *e) {
    char temporary[NAME_SIZE];
    uint8_t h[HEADER];
    size_t n = (size_t)payload_of(f, r);
    encode(h, f->model, r, n);
    put(h + AT_CHECKSUM, 4, checksum(h, payload, n));
    name_of(temporary, f->model, r->key, TEMPORARY);
    unlinkat(f->folder, temporary, 0);
    int fd = openat(f->folder, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600); /* prompts are private */
    if (fd < 0) return io_error(e, f, "create", temporary);
    status s = put_all(fd, h, HEADER) && put_all(fd, payload, n) ? OK : io_error(e, f, "write", temporary);
    if (close(fd) != 0 && s == OK) s = io_error(e, f, "write", temporary);
    if (s == OK && renameat(f->folder, temporary, f->folder, name) != 0) s = io_error(e, f, "make", name);
    if (s != OK) unlinkat(f->folder, temporary, 0);
    return s;
}

static status check_record(const page_record *r, error *e) {
    if (r->n >= 1 && r->n <= PAGE_FILE_TOKENS && r->key == page_key(r->parent, r->tokens, r->n)) return OK;
    return fail(e, ERR_ARG, "a page of %d tokens whose key is not theirs", r->n);
}

status page_folder_write(page_folder *f, const page_record *r, const void *payload, error *e) {
    char name[NAME_SIZE];
    TRY(check_record(r, e));
    name_of(name, f->model, r->key, "");
    page *p = page_at(f, f->model, r->key), *parent = NULL;
    if (!p || (r->parent && !(parent = page_at(f, f->model, r->parent)))) {
        if (p) forget(f, p);
        return fail(e, ERR_NOMEM, "memory is out");
    }
    if (p->state == GOOD) {
        mark_used(f, p, name);
        return OK;
    }
    const uint64_t bytes = HEADER + payload_of(f, r);
    set_parent(f, p, parent); /* from now on the ones before it are not the first to go */
    p->children++;            /* stays in the table */
    bool fits = make_room(f, bytes);
    status s = fits ? write_file(f, r, payload, name, e) : OK;
    p->children--;
    if (fits && s == OK) {
        add_file(f, p, GOOD, bytes);
        return OK;
    }
    set_parent(f, p, NULL);
    forget(f, p);
    return s;
}

bool page_folder_holds(const page_folder *f, uint64_t key) {
    const page *p = *place_of(f, f->model, key);
    return p && p->state == GOOD;
}

status page_folder_read(page_folder *f, const page_record *r, void *payload, error *e) {
    char name[NAME_SIZE];
    struct stat st;
    uint8_t h[HEADER], expected[HEADER];
    TRY(check_record(r, e));
    name_of(name, f->model, r->key, "");
    if (!page_folder_holds(f, r->key)) return fail(e, ERR_FORMAT, "%s/%s: not there", f->path, name);
    page *p = *place_of(f, f->model, r->key);
    const size_t n = (size_t)payload_of(f, r);
    encode(expected, f->model, r, n);
    int fd = open_page(f, name, &st);
    bool good = fd >= 0 && (uint64_t)st.st_size == HEADER + (uint64_t)n && read_at(fd, h, HEADER, 0) == HEADER;
    good = good && memcmp(h, expected, AT_CHECKSUM) == 0 && read_at(fd, payload, n, HEADER) == (ssize_t)n;
    good = good && checksum(h, payload, n) == get(h + AT_CHECKSUM, 4);
    if (fd >= 0) close(fd);
    if (good) {
        mark_used(f, p, name);
        return OK;
    }
    remove_page(f, p);
    return fail(e, ERR_FORMAT, "%s/%s: damaged or gone; it is not used", f->path, name);
}

void page_folder_remove(page_folder *f, uint64_t key) {
    if (page_folder_holds(f, key)) remove_page(f, *place_of(f, f->model, key));
}

uint64_t page_folder_bytes(const page_folder *f) {
    return f->bytes;
}
