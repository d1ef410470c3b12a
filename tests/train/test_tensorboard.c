/* Event files: the checksum's known answers, and records and messages read back by a reader of our own. */
#include "../format/scratch.h"
#include <dirent.h>
#include <math.h>
#include "base/str.h"
#include "train/tensorboard.h"

static void known_checksums(void **state) {
    (void)state;
    uint8_t bytes[32];
    memset(bytes, 0, sizeof bytes);
    assert_int_equal(event_crc32c(bytes, 32), 0x8a9136aa); /* RFC 3720, B.4 */
    memset(bytes, 0xff, sizeof bytes);
    assert_int_equal(event_crc32c(bytes, 32), 0x62a8ab43);
    for (int i = 0; i < 32; i++) bytes[i] = (uint8_t)i;
    assert_int_equal(event_crc32c(bytes, 32), 0x46dd794e);
    assert_int_equal(event_crc32c("123456789", 9), 0xe3069283); /* the check value of the catalogues */
    assert_int_equal(event_crc32c("", 0), 0);
    assert_int_equal(event_crc32c_masked("", 0), 0xa282ead8u);
    /* rotated right by 15: 0xe3069283 -> 0x2507c60d */
    assert_int_equal(event_crc32c_masked("123456789", 9), 0x2507c60du + 0xa282ead8u);
}

/* --- a reader --------------------------------------------------------------------------------------------------- */

typedef struct event {
    double wall;
    int64_t step, start_status;
    char version[32];
    int n;
    char tag[8][32];
    float value[8];
} event;

static uint64_t little(const uint8_t *p, int n) {
    uint64_t v = 0;
    for (int i = 0; i < n; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static uint64_t varint(const uint8_t **p) {
    uint64_t v = 0;
    for (int shift = 0;; shift += 7) {
        uint8_t b = *(*p)++;
        v |= (uint64_t)(b & 127) << shift;
        if (!(b & 128)) return v;
    }
}

static void read_value(event *e, const uint8_t *p, const uint8_t *end) {
    assert_true(e->n < 8);
    while (p < end) {
        uint64_t key = varint(&p);
        if (key == (1 << 3 | 2)) {
            size_t n = varint(&p);
            assert_true(n < sizeof e->tag[0] && n <= (size_t)(end - p));
            memcpy(e->tag[e->n], p, n);
            p += n;
        } else {
            assert_int_equal(key, 2 << 3 | 5);
            uint32_t bits = (uint32_t)little(p, 4);
            memcpy(&e->value[e->n], &bits, 4);
            p += 4;
        }
    }
    assert_true(p == end);
    e->n++;
}

static void read_event(event *e, const uint8_t *p, const uint8_t *end) {
    *e = (event){0};
    while (p < end) {
        uint64_t key = varint(&p);
        if (key == (1 << 3 | 1)) {
            uint64_t bits = little(p, 8);
            memcpy(&e->wall, &bits, 8);
            p += 8;
        } else if (key == (2 << 3 | 0)) e->step = (int64_t)varint(&p);
        else {
            assert_int_equal(key & 7, 2);
            size_t n = varint(&p);
            const uint8_t *inner = p, *stop = p + n;
            assert_true(n <= (size_t)(end - p));
            p += n;
            if (key >> 3 == 3) {
                assert_true(n < sizeof e->version);
                memcpy(e->version, inner, n);
            } else if (key >> 3 == 7) {
                assert_int_equal(varint(&inner), 1 << 3);
                e->start_status = (int64_t)varint(&inner);
            } else {
                assert_int_equal(key >> 3, 5);
                while (inner < stop) {
                    assert_int_equal(varint(&inner), 1 << 3 | 2);
                    size_t m = varint(&inner);
                    read_value(e, inner, inner + m);
                    inner += m;
                }
            }
        }
    }
    assert_true(p == end);
}

/* All events of a file whose checksums are right throughout. */
static int read_file(const char *path, event *out, int most) {
    str s = {0};
    int n = 0;
    assert_int_equal(file_read(&s, path, 1 << 20, NULL), OK);
    const uint8_t *p = (const uint8_t *)s.p, *end = p + s.n;
    while (p < end) {
        assert_true(end - p >= 16 && n < most);
        size_t length = little(p, 8);
        assert_int_equal(little(p + 8, 4), event_crc32c_masked(p, 8));
        assert_true(length + 16 <= (size_t)(end - p));
        assert_int_equal(little(p + 12 + length, 4), event_crc32c_masked(p + 12, length));
        read_event(&out[n++], p + 12, p + 12 + length);
        p += length + 16;
    }
    str_free(&s);
    return n;
}

/* The names of the event files in order. */
static int list_files(const scratch *s, char *paths[], int most) {
    struct dirent **names;
    int n = scandir(s->dir, &names, NULL, alphasort), found = 0;
    for (int i = 0; i < n; i++) {
        if (strstr(names[i]->d_name, "tfevents")) {
            assert_true(found < most);
            paths[found++] = scratch_path(s, names[i]->d_name);
        }
        free(names[i]);
    }
    free(names);
    return found;
}

/* --- tests ------------------------------------------------------------------------------------------------------ */

static void reads_back(void **state) {
    (void)state;
    scratch s = scratch_open();
    event_file *t;
    error e = {0};
    event got[8];
    char *path[2];
    if (event_file_open(&t, s.dir, 0, &e) != OK) fail_msg("%s", e.text);
    event_file_add(t, "loss", 2.5);
    event_file_add(t, "nothing", NAN);
    event_file_add(t, "too large for a float", 1e300);
    event_file_add(t, "memory", 123456789.0);
    assert_int_equal(event_file_write(t, 0, &e), OK);
    assert_int_equal(event_file_write(t, 1, &e), OK); /* nothing to tell: no record */
    event_file_add(t, "lr", -1e-4);
    assert_int_equal(event_file_write(t, 300000000000, &e), OK);
    event_file_close(t);
    assert_int_equal(list_files(&s, path, 2), 1);
    assert_int_equal(read_file(path[0], got, 8), 3);
    assert_string_equal(got[0].version, "brain.Event:2");
    assert_true(got[0].wall > 1e9 && got[0].n == 0 && got[0].step == 0);
    assert_true(got[1].step == 0 && got[1].n == 2 && got[1].wall >= got[0].wall);
    assert_string_equal(got[1].tag[0], "loss");
    assert_string_equal(got[1].tag[1], "memory");
    assert_true(got[1].value[0] == 2.5f && got[1].value[1] == 123456789.0f);
    assert_true(got[2].step == 300000000000 && got[2].n == 1 && got[2].value[0] == -1e-4f);
    free(path[0]);
    scratch_close(&s);
}

/* A run that goes on gets a file of its own that tells the reader to forget the steps it repeats. */
static void goes_on(void **state) {
    (void)state;
    scratch s = scratch_open();
    event_file *t;
    error e = {0};
    event got[8];
    char *path[4];
    assert_int_equal(event_file_open(&t, s.dir, 0, &e), OK);
    event_file_close(t);
    assert_int_equal(event_file_open(&t, s.dir, 7, &e), OK);
    event_file_add(t, "loss", 1);
    assert_int_equal(event_file_write(t, 7, &e), OK);
    event_file_close(t);
    assert_int_equal(list_files(&s, path, 4), 2);
    assert_int_equal(read_file(path[0], got, 8), 1);
    assert_int_equal(read_file(path[1], got, 8), 3);
    assert_true(got[1].step == 7 && got[1].start_status == 1 && got[2].step == 7 && got[2].n == 1);
    free(path[0]);
    free(path[1]);
    assert_int_equal(event_file_open(&t, "/proc/no such folder", 0, &e), ERR_IO);
    assert_null(t);
    assert_non_null(strstr(e.text, "/proc/no such folder/events.out.tfevents."));
    event_file_close(NULL);
    scratch_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_checksums), cmocka_unit_test(reads_back),
                                       cmocka_unit_test(goes_on)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
