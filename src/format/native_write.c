/* Writing of native checkpoints: everything goes into NAME.tmp, every file and folder is synced, then the folder takes
 * its name. A process that is killed anywhere in between leaves what was there before. */
#define _GNU_SOURCE /* renameat2, nftw */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include "base/file.h"
#include "base/json.h"
#include "format/native_inner.h"
#include "format/safetensors_write.h"

enum { PIECE = 1 << 20 /* elements that are made, summed and written at once */ };

static status out_of_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

static char *with_end(const char *folder, const char *end) { /* NULL: memory is out */
    str s = {0};
    str_addf(&s, "%s%s", folder, end);
    return str_take(&s);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *f) {
    (void)st, (void)kind, (void)f;
    return remove(path) != 0 && errno != ENOENT;
}

static status remove_tree(const char *path, error *e) {
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT) return OK;
    return fail(e, ERR_IO, "%s: cannot remove: %s", path, strerror(errno));
}

static status sync_parent(const char *path, error *e) {
    char *dir = strdup(path);
    if (!dir) return out_of_memory(e);
    char *slash = strrchr(dir, '/');
    if (slash) slash[slash == dir] = 0;
    int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    status s = OK;
    if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL)) s = fail(e, ERR_IO, "%s: cannot sync: %s", dir, strerror(errno));
    if (fd >= 0) close(fd);
    free(dir);
    return s;
}

status native_begin(const char *folder, error *e) {
    char *temporary = with_end(folder, ".tmp");
    status s = temporary ? remove_tree(temporary, e) : out_of_memory(e);
    if (s == OK) s = make_directory(temporary, e);
    free(temporary);
    return s;
}

void native_abort(const char *folder) {
    char *temporary = with_end(folder, ".tmp");
    if (temporary) remove_tree(temporary, NULL);
    free(temporary);
}

void native_shard_free(native_shard *s) {
    json_decref(s->json);
    s->json = NULL;
}

/* --- a shard ---------------------------------------------------------------------------------------------------- */

static status check_slice(const native_slice *x, error *e) {
    int64_t n = 1;
    bool good = *x->name && strlen(x->name) <= NATIVE_NAME_MAX && x->ndim >= 0 && x->ndim <= TENSOR_DIMS;
    for (int i = 0; good && i < x->ndim; i++) good = x->dim[i] >= 0 && !__builtin_mul_overflow(n, x->dim[i], &n);
    if (good && x->first >= 0 && x->n >= 0 && x->first <= n && x->n <= n - x->first) return OK;
    return fail(e, ERR_ARG, "tensor \"%.160s\": %lld elements from %lld on are not a slice of its shape", x->name,
                (long long)x->n, (long long)x->first);
}

static json_t *type_and_shape(const native_slice *x) {
    json_t *list = json_array();
    json_array_append_new(list, json_string(dtype_name(x->type)));
    for (int i = 0; i < x->ndim; i++) json_array_append_new(list, json_integer(x->dim[i]));
    return list;
}

static status add_tensor(json_t *all, const char *name, json_t *shape, error *e) { /* takes shape */
    const json_t *there = json_object_get(all, name);
    if (there && !json_equal(there, shape)) {
        json_decref(shape);
        return fail(e, ERR_ARG, "tensor \"%.160s\": two slices give it different types or shapes", name);
    }
    if (json_object_set_new(all, name, shape) == 0) return OK;
    return fail(e, ERR_ARG, "tensor \"%.160s\": its name is not UTF-8, or memory is out", name);
}

/* Plans the slices that have elements; planned[k] is the number of the k-th of them. */
static status plan_slices(shard_plan *p, const char *file, const native_slice *list, int64_t count, int64_t *planned,
                          json_t *tensors, error *e) {
    int64_t k = 0;
    for (int64_t i = 0; i < count; i++) {
        const native_slice *x = &list[i];
        char name[NATIVE_NAME_MAX + 24];
        TRY(check_slice(x, e));
        TRY(add_tensor(tensors, x->name, type_and_shape(x), e));
        if (!x->n) continue;
        snprintf(name, sizeof name, "%s@%lld", x->name, (long long)x->first);
        TRY(shard_plan_add(p, file, name, &(tensor){.type = x->type, .ndim = 1, .dim = {x->n}}, e));
        planned[k++] = i;
    }
    return k ? shard_plan_finish(p, 0, e) : OK;
}

typedef struct slice_source {
    const native_slice *list;
    native_fill *fill;
    void *arg;
    uint8_t *made; /* PIECE elements of the widest type */
    uLong crc;
} slice_source;

static status write_slice(shard_writer *w, slice_source *from, int64_t i, error *e) {
    const native_slice *x = &from->list[i];
    size_t size = dtype_size(x->type);
    for (int64_t at = 0, n; at < x->n; at += n) {
        n = x->n - at < PIECE ? x->n - at : PIECE;
        const uint8_t *p = x->data ? (const uint8_t *)x->data + (size_t)at * size : from->made;
        if (!x->data) TRY(from->fill(from->arg, i, x->first + at, n, from->made, e));
        from->crc = crc32_z(from->crc, p, (size_t)n * size);
        TRY(shard_write(w, p, (size_t)n * size, e));
    }
    return OK;
}

static status write_planned(const char *folder, const planned_shard *s, const int64_t *planned, slice_source *from,
                            error *e) {
    shard_writer w;
    TRY(shard_begin(&w, s, folder, e));
    from->crc = crc32_z(0, (const Bytef *)s->header, s->header_bytes);
    status st = OK;
    for (size_t k = 0; st == OK && k < s->count; k++) st = write_slice(&w, from, planned[s->tensors[k].added], e);
    if (st == OK) return shard_commit(&w, e);
    shard_abort(&w);
    return st;
}

static status describe(json_t *json, const planned_shard *s, uLong crc, error *e) {
    char hex[9];
    snprintf(hex, sizeof hex, "%08lx", crc & 0xffffffffu);
    int bad = json_object_set_new(json, "file", json_string(s->file));
    bad |= json_object_set_new(json, "bytes", json_integer((json_int_t)s->bytes));
    bad |= json_object_set_new(json, "crc32", json_string(hex));
    return bad ? out_of_memory(e) : OK;
}

/* A shard without elements is no file: its json has the tensors' shapes alone. */
status native_write_shard_from(const char *folder, int number, const native_slice *list, int64_t count,
                               native_fill *fill, void *arg, native_shard *out, error *e) {
    char file[40];
    snprintf(file, sizeof file, "shard-%04d.safetensors", number);
    json_t *tensors = json_object();
    *out = (native_shard){json_pack("{s:o}", "tensors", tensors)};
    slice_source from = {.list = list, .fill = fill, .arg = arg, .made = fill ? malloc((size_t)PIECE * 8) : NULL};
    int64_t *planned = malloc(((size_t)count + 1) * sizeof *planned);
    char *temporary = with_end(folder, ".tmp");
    shard_plan *p = NULL;
    status s = out->json && planned && temporary && (!fill || from.made) ? OK : out_of_memory(e);
    if (s == OK) s = shard_plan_open(&p, e);
    if (s == OK) s = plan_slices(p, file, list, count, planned, tensors, e);
    if (s == OK && shard_plan_count(p)) {
        s = write_planned(temporary, shard_plan_at(p, 0), planned, &from, e);
        if (s == OK) s = describe(out->json, shard_plan_at(p, 0), from.crc, e);
    }
    shard_plan_close(p);
    free(temporary);
    free(planned);
    free(from.made);
    if (s != OK) native_shard_free(out);
    return s;
}

status native_write_shard(const char *folder, int number, const native_slice *list, int64_t count, native_shard *out,
                          error *e) {
    for (int64_t i = 0; i < count; i++)
        if (list[i].n && !list[i].data) return fail(e, ERR_ARG, "tensor \"%.160s\": no data", list[i].name);
    return native_write_shard_from(folder, number, list, count, NULL, NULL, out, e);
}

/* --- the whole -------------------------------------------------------------------------------------------------- */

static status add_shard(json_t *files, const json_t *shard, error *e) {
    json_t *copy = json_copy((json_t *)shard);
    if (!copy) return out_of_memory(e);
    json_object_del(copy, "tensors");
    if (!json_object_size(copy)) json_decref(copy);
    else if (json_array_append_new(files, copy) != 0) return out_of_memory(e);
    return OK;
}

static status make_root(json_t **out, const native_shard *shards, int count, const json_t *state, error *e) {
    json_t *files = json_array(), *tensors = json_object();
    json_t *root = *out = json_pack("{s:s, s:i, s:O, s:o, s:o}", "format", NATIVE_FORMAT, "version", NATIVE_VERSION,
                                    "state", state, "shards", files, "tensors", tensors);
    if (!root) return out_of_memory(e);
    for (int i = 0; i < count; i++) {
        const char *name;
        json_t *shape;
        json_object_foreach(json_object_get(shards[i].json, "tensors"), name, shape)
            TRY(add_tensor(tensors, name, json_incref(shape), e));
        TRY(add_shard(files, shards[i].json, e));
    }
    char hex[9];
    TRY(native_state_crc(root, hex, e));
    return json_object_set_new(root, "crc32", json_string(hex)) ? out_of_memory(e) : OK;
}

static status write_state(const char *temporary, const json_t *root, error *e) {
    char *path = path_join(temporary, "state.json"), *text = json_dumps(root, JSON_COMPACT);
    status s = path && text ? file_save(path, text, strlen(text), e) : out_of_memory(e);
    free(path);
    free(text);
    return s;
}

/* Exchanging the folders is one step. A file system that cannot do it gets two, and native_clean undoes the first. */
static status take_name(const char *temporary, const char *folder, error *e) {
    if (rename(temporary, folder) == 0) return sync_parent(folder, e);
    if (errno != EEXIST && errno != ENOTEMPTY)
        return fail(e, ERR_IO, "%s: cannot rename to %s: %s", temporary, folder, strerror(errno));
    if (renameat2(AT_FDCWD, temporary, AT_FDCWD, folder, RENAME_EXCHANGE) == 0) {
        TRY(sync_parent(folder, e));
        return remove_tree(temporary, e);
    }
    char *old = with_end(folder, ".old");
    status s = old ? remove_tree(old, e) : out_of_memory(e);
    if (s == OK && (rename(folder, old) != 0 || rename(temporary, folder) != 0))
        s = fail(e, ERR_IO, "%s: cannot take the place of %s: %s", temporary, folder, strerror(errno));
    if (s == OK) s = sync_parent(folder, e);
    if (s == OK) s = remove_tree(old, e);
    free(old);
    return s;
}

/* Nothing takes the real name that cannot be opened. */
status native_finish(const char *folder, const native_shard *shards, int count, const json_t *state, error *e) {
    char *temporary = with_end(folder, ".tmp");
    json_t *root = NULL;
    native_file *f = NULL;
    status s = temporary ? make_root(&root, shards, count, state, e) : out_of_memory(e);
    if (s == OK) s = write_state(temporary, root, e);
    if (s == OK) s = native_open(&f, temporary, false, e);
    native_close(f);
    if (s == OK) s = take_name(temporary, folder, e);
    json_decref(root);
    free(temporary);
    return s;
}

/* --- removing --------------------------------------------------------------------------------------------------- */

status native_remove(const char *folder, error *e) {
    char *temporary = with_end(folder, ".tmp");
    status s = temporary ? remove_tree(temporary, e) : out_of_memory(e);
    if (s == OK && rename(folder, temporary) != 0)
        s = fail(e, ERR_IO, "%s: cannot remove: %s", folder, strerror(errno));
    if (s == OK) s = remove_tree(temporary, e);
    free(temporary);
    return s;
}

static status clean_one(const char *folder, const char *name, error *e) {
    int64_t step;
    bool old = native_step_name(name, ".old", &step);
    if (!old && !native_step_name(name, ".tmp", &step)) return OK;
    char *path = path_join(folder, name), *real = path ? strdup(path) : NULL;
    status s = real ? OK : out_of_memory(e);
    if (real) *strrchr(real, '.') = 0;
    if (s == OK && old && !file_exists(real)) {
        if (rename(path, real) != 0) s = fail(e, ERR_IO, "%s: cannot rename: %s", path, strerror(errno));
    } else if (s == OK) s = remove_tree(path, e);
    free(path);
    free(real);
    return s;
}

status native_clean(const char *folder, error *e) {
    DIR *d = opendir(folder);
    if (!d && errno == ENOENT) return OK;
    if (!d) return fail(e, ERR_IO, "%s: %s", folder, strerror(errno));
    status s = OK;
    for (const struct dirent *x; s == OK && (x = readdir(d));) s = clean_one(folder, x->d_name, e);
    closedir(d);
    return s;
}
