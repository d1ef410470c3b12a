#include "train/tensorboard.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/str.h"

struct event_file {
    int fd;
    off_t size; /* bytes of whole records */
    char *path;
    str summary; /* the values of the present step */
};

/* --- records ---------------------------------------------------------------------------------------------------- */

uint32_t event_crc32c(const void *p, size_t n) {
    const uint8_t *at = p;
    uint32_t c = ~0u;
    for (size_t i = 0; i < n; i++) {
        c ^= at[i];
        for (int bit = 0; bit < 8; bit++) c = (c >> 1) ^ (c & 1 ? 0x82F63B78u : 0);
    }
    return ~c;
}

uint32_t event_crc32c_masked(const void *p, size_t n) {
    uint32_t c = event_crc32c(p, n);
    return (c >> 15 | c << 17) + 0xa282ead8u;
}

static void add_little(str *s, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++) str_putc(s, (char)(v >> (8 * i)));
}

static void add_record(str *s, const char *p, size_t n) {
    str length = {0};
    add_little(&length, n, 8);
    if (length.failed) s->failed = true;
    else {
        str_add(s, length.p, length.n);
        add_little(s, event_crc32c_masked(length.p, length.n), 4);
        str_add(s, p, n);
        add_little(s, event_crc32c_masked(p, n), 4);
    }
    str_free(&length);
}

/* --- messages --------------------------------------------------------------------------------------------------- */

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };
enum { EVENT_WALL_TIME = 1, EVENT_STEP = 2, EVENT_FILE_VERSION = 3, EVENT_SUMMARY = 5, EVENT_SESSION_LOG = 7 };
enum { SUMMARY_VALUE = 1, VALUE_TAG = 1, VALUE_SIMPLE = 2, SESSION_STATUS = 1, SESSION_START = 1 };

static void add_varint(str *s, uint64_t v) {
    for (; v >= 0x80; v >>= 7) str_putc(s, (char)(v | 0x80));
    str_putc(s, (char)v);
}

static void add_key(str *s, int field, int wire) {
    add_varint(s, (uint64_t)(field << 3 | wire));
}

static void add_bytes(str *s, int field, const char *p, size_t n) {
    add_key(s, field, WIRE_BYTES);
    add_varint(s, n);
    str_add(s, p, n);
}

void event_file_add(event_file *t, const char *tag, double value) {
    float f = (float)value;
    uint32_t bits;
    if (!isfinite(f)) return;
    memcpy(&bits, &f, sizeof bits);
    str v = {0};
    add_bytes(&v, VALUE_TAG, tag, strlen(tag));
    add_key(&v, VALUE_SIMPLE, WIRE_FIXED32);
    add_little(&v, bits, 4);
    if (v.failed) t->summary.failed = true;
    else add_bytes(&t->summary, SUMMARY_VALUE, v.p, v.n);
    str_free(&v);
}

/* --- the file --------------------------------------------------------------------------------------------------- */

static status write_all(event_file *t, const char *p, size_t n, error *e) {
    for (size_t done = 0; done < n;) {
        ssize_t k = write(t->fd, p + done, n - done);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) {
            status s = fail(e, ERR_IO, "%s: cannot write: %s", t->path, strerror(errno));
            if (ftruncate(t->fd, t->size) == 0) lseek(t->fd, t->size, SEEK_SET);
            return s;
        }
        done += (size_t)k;
    }
    t->size += (off_t)n;
    return OK;
}

static status write_event(event_file *t, int64_t step, int field, const char *p, size_t n, error *e) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    double wall = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    uint64_t bits;
    memcpy(&bits, &wall, sizeof bits);
    str event = {0}, record = {0};
    add_key(&event, EVENT_WALL_TIME, WIRE_FIXED64);
    add_little(&event, bits, 8);
    if (step) {
        add_key(&event, EVENT_STEP, WIRE_VARINT);
        add_varint(&event, (uint64_t)step);
    }
    add_bytes(&event, field, p, n);
    if (!event.failed) add_record(&record, event.p, event.n);
    status s =
        event.failed || record.failed ? fail(e, ERR_NOMEM, "memory is out") : write_all(t, record.p, record.n, e);
    str_free(&event);
    str_free(&record);
    return s;
}

status event_file_write(event_file *t, int64_t step, error *e) {
    status s = str_check(&t->summary, e);
    if (s == OK && t->summary.n) s = write_event(t, step, EVENT_SUMMARY, t->summary.p, t->summary.n, e);
    t->summary.n = 0;
    return s;
}

/* events.out.tfevents.SECONDS.HOST.PID.NUMBER: TensorBoard reads a folder's files in the order of their names. */
static status create(event_file *t, const char *folder, error *e) {
    char host[65] = "localhost";
    const long long now = (long long)time(NULL);
    if (gethostname(host, sizeof host - 1) != 0 || strchr(host, '/')) strcpy(host, "localhost");
    for (int number = 0; number < 1000; number++) {
        str path = {0};
        str_addf(&path, "%s/events.out.tfevents.%010lld.%s.%ld.%d", folder, now, host, (long)getpid(), number);
        free(t->path);
        if (!(t->path = str_take(&path))) return fail(e, ERR_NOMEM, "memory is out");
        t->fd = open(t->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (t->fd >= 0) return OK;
        if (errno != EEXIST) break;
    }
    return fail(e, ERR_IO, "%s: cannot create: %s", t->path, strerror(errno));
}

status event_file_open(event_file **out, const char *folder, int64_t first_step, error *e) {
    static const char version[] = "brain.Event:2", start[] = {SESSION_STATUS << 3 | WIRE_VARINT, SESSION_START};
    event_file *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t) return fail(e, ERR_NOMEM, "memory is out");
    t->fd = -1;
    status s = create(t, folder, e);
    if (s == OK) s = write_event(t, 0, EVENT_FILE_VERSION, version, sizeof version - 1, e);
    if (s == OK && first_step > 0) s = write_event(t, first_step, EVENT_SESSION_LOG, start, sizeof start, e);
    if (s == OK) *out = t;
    else event_file_close(t);
    return s;
}

void event_file_close(event_file *t) {
    if (!t) return;
    if (t->fd >= 0) close(t->fd);
    free(t->path);
    str_free(&t->summary);
    free(t);
}
