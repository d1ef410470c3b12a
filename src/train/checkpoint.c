/* Saving beside training. Ranks meet only in the calling thread, at the beginning of a save. After that each rank's
 * writer tells rank 0's by files in the unfinished folder how it went, which serves threads and processes alike:
 *
 *   rank-0003.saving   made by rank 0 for every rank before anybody writes
 *   rank-0003.json     the shard is written and synced: its part of state.json
 *   rank-0003.failed   it could not be written, and why: rank-0003.saving renamed, which a full disk allows
 *
 * Every writer ends with one of the last two, so rank 0 waits for all of them before it finishes or removes anything.
 */
#include "train/checkpoint.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/file.h"
#include "base/json.h"

enum { NOTE_MAX = 128 << 20, ALIGN = 64, POLL_NS = 2000000 };

typedef struct best { /* step -1: none */
    int64_t step;
    double score;
} best;

typedef struct save { /* a copy of what is to be written */
    int64_t step;
    double score;
    char *path; /* of the step */
    native_slice *list;
    int64_t count;
    char *names;
    uint8_t *data;
    json_t *state; /* rank 0 */
    error why;     /* why.code: how it went */
} save;

struct checkpointer {
    char *folder;
    int keep_last;
    bool keep_best, async;
    comm *world;
    best best; /* rank 0 */
    save s;
    bool writing;
    pthread_t thread;
};

static status out_of_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

/* --- notes between the ranks' writers ---------------------------------------------------------------------------- */

static char *note_path(const save *s, int rank, const char *end) { /* NULL: memory is out */
    str path = {0};
    str_addf(&path, "%s.tmp/rank-%04d.%s", s->path, rank, end);
    return str_take(&path);
}

static status make_notes(const checkpointer *c, error *e) {
    for (int r = 0; r < c->world->size; r++) {
        char *path = note_path(&c->s, r, "saving");
        FILE *f = path ? fopen(path, "w") : NULL;
        status s = f ? OK : path ? fail(e, ERR_IO, "%s: %s", path, strerror(errno)) : out_of_memory(e);
        if (f) fclose(f);
        free(path);
        TRY(s);
    }
    return OK;
}

static void note_failure(const checkpointer *c, const error *why) {
    char *from = note_path(&c->s, c->world->rank, "saving"), *to = note_path(&c->s, c->world->rank, "failed");
    FILE *f = from ? fopen(from, "r+") : NULL;
    if (f) {
        fputs(why->text, f); /* as far as the disk takes it */
        fclose(f);
    }
    if (from && to) rename(from, to);
    free(from);
    free(to);
}

static status note_success(const checkpointer *c, const native_shard *shard, error *e) {
    char *path = note_path(&c->s, c->world->rank, "json"), *text = json_dumps(shard->json, JSON_COMPACT);
    status s = path && text ? file_save(path, text, strlen(text), e) : out_of_memory(e);
    free(path);
    free(text);
    return s;
}

/* Waits for the note of one rank. */
static status take_note(const checkpointer *c, int rank, native_shard *out, error *e) {
    char *done = note_path(&c->s, rank, "json"), *failed = note_path(&c->s, rank, "failed");
    status s = done && failed ? OK : out_of_memory(e);
    while (s == OK && !file_exists(done) && !file_exists(failed))
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
    if (s == OK && file_exists(failed)) {
        str why = {0};
        bool known = file_read(&why, failed, sizeof e->text, NULL) == OK && why.n;
        s = fail(e, ERR_IO, "%s: rank %d: %s", c->s.path, rank, known ? why.p : "cannot write its shard");
        str_free(&why);
    } else if (s == OK) {
        s = json_read(&out->json, done, NOTE_MAX, e);
        unlink(done);
    }
    free(done);
    free(failed);
    return s;
}

static status remove_notes(const checkpointer *c, error *e) {
    for (int r = 0; r < c->world->size; r++) {
        char *path = note_path(&c->s, r, "saving");
        if (!path) return out_of_memory(e);
        unlink(path);
        free(path);
    }
    return OK;
}

/* --- the writer ------------------------------------------------------------------------------------------------- */

static status write_own(const checkpointer *c, error *e) {
    native_shard shard = {0};
    status s = native_write_shard(c->s.path, c->world->rank, c->s.list, c->s.count, &shard, e);
    if (s == OK) s = note_success(c, &shard, e);
    native_shard_free(&shard);
    if (s != OK) note_failure(c, e);
    return s;
}

static status remember(const checkpointer *c, best b, error *e) {
    json_t *o = json_pack("{s:I}", "step", (json_int_t)c->s.step);
    int bad = !o || json_object_set_new(c->s.state, "checkpoint", o);
    if (isfinite(c->s.score)) bad |= json_object_set_new(o, "score", json_real(c->s.score));
    if (b.step >= 0) bad |= json_object_set_new(o, "best_step", json_integer(b.step));
    if (b.step >= 0) bad |= json_object_set_new(o, "best_score", json_real(b.score));
    return bad ? out_of_memory(e) : OK;
}

static status prune(const checkpointer *c, error *e) {
    int64_t *steps, count;
    TRY(native_steps(c->folder, &steps, &count, e));
    status s = OK;
    for (int64_t i = 0; s == OK && i < count - c->keep_last; i++) {
        if (steps[i] == c->s.step || (c->keep_best && steps[i] == c->best.step)) continue;
        char *path = native_step_folder(c->folder, steps[i]);
        s = path ? native_remove(path, e) : out_of_memory(e);
        free(path);
    }
    free(steps);
    return s;
}

/* Rank 0: all shards together. */
static status finish(checkpointer *c, error *e) {
    int n = c->world->size;
    native_shard *shards = calloc((size_t)n, sizeof *shards);
    if (!shards) return out_of_memory(e);
    bool better = isfinite(c->s.score) && (c->best.step < 0 || c->s.score < c->best.score);
    best b = better ? (best){c->s.step, c->s.score} : c->best;
    status s = OK;
    for (int r = 0; r < n; r++) { /* waits for all, whatever the first ones say */
        error why;
        status one = take_note(c, r, &shards[r], s == OK ? e : &why);
        if (s == OK) s = one;
    }
    if (s == OK) s = remove_notes(c, e);
    if (s == OK) s = remember(c, b, e);
    if (s == OK) s = native_finish(c->s.path, shards, n, c->s.state, e);
    if (s == OK) {
        c->best = b;
        s = prune(c, e);
    } else native_abort(c->s.path);
    for (int r = 0; r < n; r++) native_shard_free(&shards[r]);
    free(shards);
    return s;
}

static void *write_save(void *arg) {
    checkpointer *c = arg;
    status s = write_own(c, &c->s.why);
    if (c->world->rank == 0) {
        error why = {0};
        status all = finish(c, &why);
        if (s == OK && all != OK) c->s.why = why; /* its own failure says more than its note */
    }
    return NULL;
}

/* --- the copy --------------------------------------------------------------------------------------------------- */

static void free_save(save *s) {
    json_decref(s->state);
    free(s->path);
    free(s->list);
    free(s->names);
    free(s->data);
    *s = (save){0};
}

static size_t aligned(const native_slice *x) {
    return ((size_t)x->n * dtype_size(x->type) + ALIGN - 1) / ALIGN * ALIGN;
}

static status copy_slices(save *s, const native_slice *list, int64_t count, error *e) {
    size_t names = 1, bytes = 1;
    for (int64_t i = 0; i < count; i++) {
        names += strlen(list[i].name) + 1;
        bytes += aligned(&list[i]);
    }
    s->list = malloc((size_t)(count + 1) * sizeof *s->list);
    s->names = malloc(names);
    s->data = malloc(bytes);
    if (!s->list || !s->names || !s->data) return out_of_memory(e);
    char *name = s->names;
    uint8_t *data = s->data;
    for (int64_t i = 0; i < count; i++) {
        s->list[i] = list[i];
        s->list[i].name = strcpy(name, list[i].name);
        s->list[i].data = data;
        if (list[i].n) memcpy(data, list[i].data, (size_t)list[i].n * dtype_size(list[i].type));
        name += strlen(name) + 1;
        data += aligned(&list[i]);
    }
    s->count = count;
    return OK;
}

static status prepare(checkpointer *c, int64_t step, const native_slice *list, int64_t count, const json_t *state,
                      double score, error *e) {
    save *s = &c->s;
    *s = (save){.step = step, .score = score, .path = native_step_folder(c->folder, step)};
    if (!s->path) return out_of_memory(e);
    TRY(copy_slices(s, list, count, e));
    if (c->world->rank != 0) return OK;
    if (!json_is_object(state)) return fail(e, ERR_ARG, "%s: the state is not a JSON object", s->path);
    if (!(s->state = json_deep_copy(state))) return out_of_memory(e);
    TRY(native_begin(s->path, e));
    return make_notes(c, e);
}

/* --- the ranks -------------------------------------------------------------------------------------------------- */

/* This rank came so far with status s (and its text in e): OK only when all did. */
static status agree(const checkpointer *c, status s, error *e) {
    double bad = s != OK;
    error why = {0};
    status met = c->world->kind->all_reduce_max(c->world, &bad, 1, &why);
    if (s != OK) return s;
    if (met != OK) {
        if (e) *e = why;
        return met;
    }
    return bad > 0 ? fail(e, ERR_IO, "%s: another rank could not save its part", c->folder) : OK;
}

static status wait_for_writer(checkpointer *c, error *e) {
    if (!c->writing) return OK;
    pthread_join(c->thread, NULL);
    c->writing = false;
    status s = c->s.why.code;
    if (s != OK && e) *e = c->s.why;
    free_save(&c->s);
    return s;
}

status checkpoint_save(checkpointer *c, int64_t step, const native_slice *list, int64_t count, const json_t *state,
                       double score, error *e) {
    TRY(agree(c, wait_for_writer(c, e), e));
    status s = agree(c, prepare(c, step, list, count, state, score, e), e);
    if (s == OK && pthread_create(&c->thread, NULL, write_save, c) != 0)
        s = fail(e, ERR_NOMEM, "cannot start a thread");
    else c->writing = s == OK;
    if (s != OK) { /* rank 0's writer may be waiting for this rank */
        if (c->s.path && c->world->rank == 0) native_abort(c->s.path);
        else if (c->s.path) note_failure(c, &(error){.code = s, .text = "cannot begin"});
        free_save(&c->s);
        return s;
    }
    return c->async ? OK : agree(c, wait_for_writer(c, e), e);
}

/* --- opening ---------------------------------------------------------------------------------------------------- */

/* The newest checkpoint says which was the best. */
static status find_best(checkpointer *c, error *e) {
    char *newest, *path;
    int64_t step;
    native_file *f = NULL;
    TRY(checkpoint_newest(c->folder, &newest, &step, e));
    if (!newest) return OK;
    status s = native_open(&f, newest, false, e);
    free(newest);
    TRY(s);
    const json_t *o = json_object_get(native_state(f), "checkpoint");
    best b = {-1, 0};
    s = json_get_int(o, "best_step", -1, -1, INT64_MAX, &b.step, e);
    if (s == OK) s = json_get_real(o, "best_score", NAN, &b.score, e);
    native_close(f);
    TRY(s);
    if (b.step < 0 || isnan(b.score)) return OK;
    if (!(path = native_step_folder(c->folder, b.step))) return out_of_memory(e);
    if (is_native(path)) c->best = b;
    free(path);
    return OK;
}

status checkpointer_open(checkpointer **out, const char *folder, int keep_last, bool keep_best, bool async, comm *world,
                         error *e) {
    *out = NULL;
    checkpointer *c = calloc(1, sizeof *c);
    if (!c || !(c->folder = strdup(folder))) {
        free(c);
        return out_of_memory(e);
    }
    c->keep_last = keep_last;
    c->keep_best = keep_best;
    c->async = async;
    c->world = world;
    c->best.step = -1;
    status s = OK;
    if (world->rank == 0) {
        s = make_directory(folder, e);
        if (s == OK) s = native_clean(folder, e);
        if (s == OK) s = find_best(c, e);
    }
    if (s == OK) *out = c;
    else checkpointer_close(c, NULL);
    return s;
}

status checkpointer_close(checkpointer *c, error *e) {
    if (!c) return OK;
    status s = wait_for_writer(c, e);
    free(c->folder);
    free(c);
    return s;
}

status checkpoint_newest(const char *folder, char **path, int64_t *step, error *e) {
    int64_t *steps, count;
    *path = NULL;
    TRY(native_steps(folder, &steps, &count, e));
    status s = OK;
    if (count) {
        *step = steps[count - 1];
        if (!(*path = native_step_folder(folder, *step))) s = out_of_memory(e);
    }
    free(steps);
    return s;
}
