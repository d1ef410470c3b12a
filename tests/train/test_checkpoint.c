/* Saving beside training: by one rank and by several, killed at any moment, on a full disk. Element i of tensor t in
 * step s is s * 1000 + t * 100 + i, so a checkpoint that mixes steps is seen. */
#include "../format/scratch.h"
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include "base/clock.h"
#include "base/rng.h"
#include "train/checkpoint.h"

enum { ROWS = 13, COLS = 7, TENSORS = 3 }; /* 91 elements: no number of ranks from 2 to 4 divides them */

static const char *const names[TENSORS] = {"model.embed_tokens.weight", "lm_head.weight", "lm_head.weight.exp_avg"};

static float value(int64_t step, int t, int64_t i) {
    return (float)(step * 1000 + t * 100 + i);
}

/* This rank's share of every tensor, in memory that the next call overwrites. */
typedef struct share {
    float x[TENSORS][ROWS * COLS];
    native_slice list[TENSORS];
} share;

static void fill_share(share *s, int64_t step, int rank, int size) {
    for (int t = 0; t < TENSORS; t++) {
        int64_t first = ROWS * COLS * rank / size, end = ROWS * COLS * (rank + 1) / size;
        for (int64_t i = first; i < end; i++) s->x[t][i - first] = value(step, t, i);
        s->list[t] = (native_slice){.name = names[t],
                                    .type = DT_F32,
                                    .ndim = 2,
                                    .dim = {ROWS, COLS},
                                    .first = first,
                                    .n = end - first,
                                    .data = s->x[t]};
    }
}

static status save(checkpointer *c, const comm *world, int64_t step, double score, error *e) {
    share s;
    json_t *state = json_pack("{s:I}", "step", (json_int_t)step);
    fill_share(&s, step, world->rank, world->size);
    status st = checkpoint_save(c, step, s.list, TENSORS, state, score, e);
    memset(&s, 0xff, sizeof s); /* the writer must have its own copy */
    json_decref(state);
    return st;
}

/* The step in the newest checkpoint, all of it looked at; -1: none. */
static int64_t newest(const char *folder) {
    char *path;
    int64_t step;
    native_file *f;
    error e = {0};
    if (checkpoint_newest(folder, &path, &step, &e) != OK) fail_msg("%s", e.text);
    if (!path) return -1;
    if (native_open(&f, path, true, &e) != OK) fail_msg("%s", e.text);
    assert_int_equal(json_integer_value(json_object_get(native_state(f), "step")), step);
    assert_int_equal(native_count(f), TENSORS);
    for (int t = 0; t < TENSORS; t++) {
        float x[ROWS * COLS];
        if (native_read(f, names[t], 0, ROWS * COLS, x, &e) != OK) fail_msg("%s", e.text);
        for (int64_t i = 0; i < ROWS * COLS; i++) assert_true(x[i] == value(step, t, i));
    }
    native_close(f);
    free(path);
    return step;
}

/* The folders' names, sorted: "3 5 6", and anything else that lies there. */
static void listing(const char *folder, const char *wanted) {
    struct dirent **list;
    str s = {0};
    int n = scandir(folder, &list, NULL, alphasort);
    assert_in_range(n, 0, 1000);
    for (int i = 0; i < n; i++) {
        const char *name = list[i]->d_name;
        if (*name != '.')
            str_addf(&s, "%s%s", s.n ? " " : "", strncmp(name, "step-0000000", 12) == 0 ? name + 12 : name);
        free(list[i]);
    }
    free(list);
    assert_string_equal(s.p ? s.p : "", wanted);
    str_free(&s);
}

static checkpointer *open_one(const char *folder, int keep_last, bool keep_best, bool async, comm *world) {
    checkpointer *c;
    error e = {0};
    if (checkpointer_open(&c, folder, keep_last, keep_best, async, world, &e) != OK) fail_msg("%s", e.text);
    return c;
}

static comm alone(void) {
    comm world;
    error e;
    assert_int_equal(comm_self(&world, &e), OK);
    return world;
}

static void good(checkpointer *c, const comm *world, int64_t step, double score) {
    error e = {0};
    if (save(c, world, step, score, &e) != OK) fail_msg("%s", e.text);
}

static void closes(checkpointer *c) {
    error e = {0};
    if (checkpointer_close(c, &e) != OK) fail_msg("%s", e.text);
}

/* --- one rank --------------------------------------------------------------------------------------------------- */

static void last_and_best_stay(void **unused) {
    (void)unused;
    for (int async = 0; async < 2; async++) {
        scratch d = scratch_open();
        char *folder = scratch_path(&d, "run");
        comm world = alone();
        checkpointer *c = open_one(folder, 2, true, async, &world);
        assert_int_equal(newest(folder), -1);
        good(c, &world, 1, 3.0);
        good(c, &world, 2, 2.0); /* the best */
        good(c, &world, 3, NAN);
        good(c, &world, 4, 2.5);
        good(c, &world, 5, 2.0); /* not better */
        closes(c);
        listing(folder, "2 4 5");
        c = open_one(folder, 2, true, async, &world); /* the best is known after a restart */
        good(c, &world, 6, 2.2);
        good(c, &world, 7, INFINITY);
        closes(c);
        listing(folder, "2 6 7");
        c = open_one(folder, 1, true, async, &world);
        good(c, &world, 8, 1.5);
        good(c, &world, 9, 1.6);
        closes(c);
        listing(folder, "8 9");
        assert_int_equal(newest(folder), 9);
        c = open_one(folder, 1, false, async, &world);
        good(c, &world, 3, NAN); /* older than what is there: it stays nevertheless */
        closes(c);
        listing(folder, "3 9");
        c = open_one(folder, 9, false, async, &world); /* the same step is replaced */
        good(c, &world, 9, NAN);
        good(c, &world, 6, NAN);
        closes(c);
        listing(folder, "3 6 9");
        assert_int_equal(newest(folder), 9);
        free(folder);
        scratch_close(&d);
    }
}

static void scores_are_remembered(void **unused) {
    (void)unused;
    scratch d = scratch_open();
    comm world = alone();
    checkpointer *c = open_one(d.dir, 5, true, false, &world);
    good(c, &world, 1, 2.25);
    good(c, &world, 2, 2.5);
    closes(c);
    char *path = native_step_folder(d.dir, 2);
    native_file *f;
    error e = {0};
    assert_int_equal(native_open(&f, path, true, &e), OK);
    const json_t *o = json_object_get(native_state(f), "checkpoint");
    assert_int_equal(json_integer_value(json_object_get(o, "step")), 2);
    assert_true(json_real_value(json_object_get(o, "score")) == 2.5);
    assert_int_equal(json_integer_value(json_object_get(o, "best_step")), 1);
    assert_true(json_real_value(json_object_get(o, "best_score")) == 2.25);
    native_close(f);
    free(path);
    scratch_close(&d);
}

static void leftovers_are_ignored_and_removed(void **unused) {
    (void)unused;
    scratch d = scratch_open();
    comm world = alone();
    checkpointer *c = open_one(d.dir, 5, true, true, &world);
    good(c, &world, 3, NAN);
    closes(c);
    scratch_write(&d, "step-00000004.tmp/state.json", "{", 1);
    scratch_write(&d, "step-00000005/state.json", "{", 1); /* nothing of ours: stays, is not taken */
    assert_int_equal(newest(d.dir), 3);
    closes(open_one(d.dir, 5, true, true, &world));
    listing(d.dir, "3 5");
    assert_int_equal(checkpointer_close(NULL, NULL), OK);
    scratch_close(&d);
}

/* --- several ranks ---------------------------------------------------------------------------------------------- */

typedef struct ranks_call {
    const char *folder;
    int64_t steps;
} ranks_call;

static status save_steps(void *arg, comm *world, error *e) {
    const ranks_call *k = arg;
    checkpointer *c;
    TRY(checkpointer_open(&c, k->folder, 2, false, true, world, e));
    status s = OK;
    for (int64_t step = 1; s == OK && step <= k->steps; step++) s = save(c, world, step, NAN, e);
    error late;
    status closed = checkpointer_close(c, s == OK ? e : &late);
    return s == OK ? closed : s;
}

static void ranks_save_together(void **unused) {
    (void)unused;
    for (int ranks = 1; ranks <= 4; ranks++) {
        scratch d = scratch_open();
        error e = {0};
        if (comm_run_threads(ranks, save_steps, &(ranks_call){d.dir, 5}, &e) != OK) fail_msg("%s", e.text);
        listing(d.dir, "4 5");
        assert_int_equal(newest(d.dir), 5);
        scratch_close(&d);
    }
}

/* Rank 1's shard cannot be written (a slice beyond its tensor). All ranks learn it by the next call; the call after
 * that saves again. */
static status one_rank_fails(void *arg, comm *world, error *e) {
    const ranks_call *k = arg;
    checkpointer *c;
    share s;
    TRY(checkpointer_open(&c, k->folder, 9, false, true, world, e));
    status st = save(c, world, 1, NAN, e);
    json_t *state = json_object();
    fill_share(&s, 2, world->rank, world->size);
    if (world->rank == 1) s.list[2].dim[0] = 1;
    if (st == OK) st = checkpoint_save(c, 2, s.list, TENSORS, state, NAN, e);
    json_decref(state);
    error why = {0};
    status failed = st == OK ? save(c, world, 3, NAN, &why) : OK;
    if (st == OK && (failed == OK || !why.text[0])) st = (fail)(e, ERR_ARG, "rank %d: not told", world->rank);
    if (st == OK && world->rank == 0 && !strstr(why.text, "rank 1: tensor \"lm_head.weight.exp_avg\""))
        st = (fail)(e, ERR_ARG, "rank 0 says: %s", why.text);
    if (st == OK) st = save(c, world, 4, NAN, e);
    error late;
    status closed = checkpointer_close(c, st == OK ? e : &late);
    return st == OK ? closed : st;
}

static void a_rank_that_fails(void **unused) {
    (void)unused;
    scratch d = scratch_open();
    error e = {0};
    if (comm_run_threads(3, one_rank_fails, &(ranks_call){d.dir, 0}, &e) != OK) fail_msg("%s", e.text);
    listing(d.dir, "1 4");
    assert_int_equal(newest(d.dir), 4);
    scratch_close(&d);
}

/* --- kill -9 ---------------------------------------------------------------------------------------------------- */

static status save_for_ever(void *arg, comm *world, error *e) {
    const ranks_call *k = arg;
    checkpointer *c;
    TRY(checkpointer_open(&c, k->folder, 2, false, true, world, e));
    for (int64_t step = k->steps;; step++) TRY(save(c, world, step, NAN, e));
}

static void killed_at_any_moment(void **unused) {
    (void)unused;
    enum { ROUNDS = 30, BEFORE = 4 };
    scratch d = scratch_open();
    error none;
    double start = clock_seconds();
    assert_int_equal(comm_run_threads(2, save_steps, &(ranks_call){d.dir, BEFORE}, &none), OK);
    const double most = 3 * (clock_seconds() - start) / BEFORE; /* seconds until the kill: about three saves */
    int64_t last = BEFORE, grew = 0;
    for (uint64_t i = 0; i < ROUNDS; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            error e;
            comm_run_threads(2, save_for_ever, &(ranks_call){d.dir, last + 1}, &e);
            _exit(1);
        }
        double wait = rng_uniform(5, 0, i) * most;
        nanosleep(&(struct timespec){(time_t)wait, (long)((wait - floor(wait)) * 1e9)}, NULL);
        kill(child, SIGKILL);
        int how;
        assert_int_equal(waitpid(child, &how, 0), child);
        assert_true(WIFSIGNALED(how)); /* it did not fail by itself */
        int64_t now = newest(d.dir);
        assert_true(now >= last); /* what was whole once stays */
        grew += now > last;
        last = now;
    }
    printf("  %d kills, %d rounds brought steps, %d steps saved\n", ROUNDS, (int)grew, (int)last - BEFORE);
    comm world = alone();
    closes(open_one(d.dir, 2, false, true, &world));
    DIR *dir = opendir(d.dir);
    for (const struct dirent *x; (x = readdir(dir));) assert_null(strstr(x->d_name, ".tmp"));
    closedir(dir);
    scratch_close(&d);
}

/* --- no space left ---------------------------------------------------------------------------------------------- */

/* Saves in `folder` until it is full: step 1 fits, step 2 with `big` more bytes does not. */
static void fill_up(const char *folder, int64_t big, bool async) {
    comm world = alone();
    checkpointer *c = open_one(folder, 5, false, async, &world);
    good(c, &world, 1, NAN);
    share s;
    fill_share(&s, 2, 0, 1);
    uint8_t *bytes = calloc(1, (size_t)big);
    native_slice list[TENSORS + 1] = {s.list[0], s.list[1], s.list[2], {"big", DT_U8, 1, {big}, 0, big, bytes}};
    json_t *state = json_object();
    error e = {0};
    status st = checkpoint_save(c, 2, list, TENSORS + 1, state, NAN, &e);
    if (async) {
        assert_int_equal(st, OK);
        st = save(c, &world, 3, NAN, &e);
    }
    assert_int_equal(st, ERR_IO);
    if (!strstr(e.text, "step-00000002")) fail_msg("%s", e.text);
    listing(folder, "1");
    assert_int_equal(newest(folder), 1);
    good(c, &world, 3, NAN); /* a small one fits again */
    closes(c);
    assert_int_equal(newest(folder), 3);
    c = open_one(folder, 5, false, true, &world); /* the failure of the last save is said at the end */
    assert_int_equal(checkpoint_save(c, 4, list, TENSORS + 1, state, NAN, &e), OK);
    assert_int_equal(checkpointer_close(c, &e), ERR_IO);
    assert_int_equal(newest(folder), 3);
    json_decref(state);
    free(bytes);
}

/* A limit on the length of files stands for a disk that refuses. */
static void files_too_long(void **unused) {
    (void)unused;
    struct rlimit was, low;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    low = was;
    low.rlim_cur = 1 << 16;
    signal(SIGXFSZ, SIG_IGN);
    for (int async = 0; async < 2; async++) {
        scratch d = scratch_open();
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
        fill_up(d.dir, 1 << 17, async);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
        scratch_close(&d);
    }
}

static void disk_full(void **unused) {
    (void)unused;
    for (int async = 0; async < 2; async++) {
        scratch d = scratch_open();
        if (mount("tmpfs", d.dir, "tmpfs", 0, "size=1m") != 0) {
            printf("SKIP disk full: cannot mount a small file system: %s\n", strerror(errno));
            scratch_close(&d);
            skip();
        }
        fill_up(d.dir, 3 << 20, async);
        assert_int_equal(umount(d.dir), 0);
        scratch_close(&d);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(last_and_best_stay),
        cmocka_unit_test(scores_are_remembered),
        cmocka_unit_test(leftovers_are_ignored_and_removed),
        cmocka_unit_test(ranks_save_together),
        cmocka_unit_test(a_rank_that_fails),
        cmocka_unit_test(killed_at_any_moment),
        cmocka_unit_test(files_too_long),
        cmocka_unit_test(disk_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
