#include "format/safetensors_write.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/arena.h"
#include "base/json.h"

struct shard_plan {
    planned_tensor *tensors; /* after shard_plan_finish sorted by shard and place */
    const char **files;      /* [count] what shard_plan_add was given */
    size_t count, room;
    planned_shard *shards;
    size_t n_shards;
    arena *memory;
};

static status out_of_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

status shard_plan_open(shard_plan **out, error *e) {
    *out = calloc(1, sizeof **out);
    if (*out && ((*out)->memory = arena_open(1 << 16))) return OK;
    free(*out);
    *out = NULL;
    return out_of_memory(e);
}

void shard_plan_close(shard_plan *p) {
    if (!p) return;
    free(p->tensors);
    free(p->files);
    arena_close(p->memory);
    free(p);
}

static status make_room(shard_plan *p, error *e) {
    if (p->count < p->room) return OK;
    size_t room = p->room ? p->room * 2 : 256;
    planned_tensor *t = realloc(p->tensors, room * sizeof *t);
    if (t) p->tensors = t;
    const char **f = realloc(p->files, room * sizeof *f);
    if (f) p->files = f;
    if (!t || !f) return out_of_memory(e);
    p->room = room;
    return OK;
}

/* Names become JSON, which is UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF. */
static bool is_utf8(const char *name) {
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    for (const uint8_t *p = (const uint8_t *)name; *p;) {
        int more = *p < 0x80 ? 0 : *p < 0xc0 ? -1 : *p < 0xe0 ? 1 : *p < 0xf0 ? 2 : *p < 0xf8 ? 3 : -1;
        if (more < 0) return false;
        uint32_t c = more ? *p & (0x3fu >> more) : *p;
        p++;
        for (int k = 0; k < more; k++, p++) {
            if ((*p & 0xc0) != 0x80) return false;
            c = c << 6 | (*p & 0x3fu);
        }
        if (c < least[more] || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff) return false;
    }
    return true;
}

status shard_plan_add(shard_plan *p, const char *file, const char *name, const tensor *t, error *e) {
    if (strcmp(name, "__metadata__") == 0)
        return fail(e, ERR_ARG, "tensor \"%s\": the format keeps this name for itself", name);
    if (p->count && !file != !p->files[p->count - 1])
        return fail(e, ERR_ARG, "tensor \"%.160s\": either all tensors name their shard or none does", name);
    if (!is_utf8(name)) return fail(e, ERR_ARG, "tensor %zu: its name is not UTF-8", p->count);
    TRY(make_room(p, e));
    uint64_t bytes = dtype_size(t->type);
    for (int i = 0; i < t->ndim; i++)
        if (t->dim[i] < 0 || __builtin_mul_overflow(bytes, (uint64_t)t->dim[i], &bytes))
            return fail(e, ERR_ARG, "tensor \"%.160s\": impossible shape", name);
    planned_tensor *x = &p->tensors[p->count];
    *x =
        (planned_tensor){.name = arena_copy(p->memory, name, strlen(name)), .t = *t, .bytes = bytes, .added = p->count};
    x->t.data = x->t.scale = NULL;
    p->files[p->count] = file ? arena_copy(p->memory, file, strlen(file)) : NULL;
    if (!x->name || (file && !p->files[p->count])) return out_of_memory(e);
    p->count++;
    return OK;
}

/* --- which shard ----------------------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static status shards_by_file(shard_plan *p, error *e) {
    const char **names = arena_zero(p->memory, p->count, sizeof *names);
    if (!names) return out_of_memory(e);
    memcpy(names, p->files, p->count * sizeof *names);
    qsort(names, p->count, sizeof *names, by_text);
    p->n_shards = 0;
    for (size_t i = 0; i < p->count; i++)
        if (i == 0 || strcmp(names[i], names[p->n_shards - 1]) != 0) names[p->n_shards++] = names[i];
    p->shards = arena_zero(p->memory, p->n_shards, sizeof *p->shards);
    if (!p->shards) return out_of_memory(e);
    for (size_t s = 0; s < p->n_shards; s++) p->shards[s].file = names[s];
    for (size_t i = 0; i < p->count; i++)
        p->tensors[i].shard =
            (size_t)((const char **)bsearch(&p->files[i], names, p->n_shards, sizeof *names, by_text) - names);
    return OK;
}

static status shards_by_size(shard_plan *p, uint64_t max, error *e) {
    uint64_t filled = 0;
    size_t shard = 0;
    for (size_t i = 0; i < p->count; i++) {
        uint64_t n = p->tensors[i].bytes;
        if (filled && (n > max || filled > max - n)) {
            shard++;
            filled = 0;
        }
        p->tensors[i].shard = shard;
        filled += n;
    }
    p->n_shards = shard + 1;
    p->shards = arena_zero(p->memory, p->n_shards, sizeof *p->shards);
    if (!p->shards) return out_of_memory(e);
    for (size_t s = 0; s < p->n_shards; s++) {
        char name[80];
        if (p->n_shards == 1) snprintf(name, sizeof name, "model.safetensors");
        else snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", s + 1, p->n_shards);
        p->shards[s].file = arena_copy(p->memory, name, strlen(name));
        if (!p->shards[s].file) return out_of_memory(e);
    }
    return OK;
}

/* --- which byte ------------------------------------------------------------------------------------------------ */

static int by_place(const void *a, const void *b) {
    const planned_tensor *x = a, *y = b;
    if (x->shard != y->shard) return x->shard < y->shard ? -1 : 1;
    size_t n = dtype_size(x->t.type), m = dtype_size(y->t.type);
    if (n != m) return n > m ? -1 : 1;
    if (x->t.type != y->t.type) return x->t.type < y->t.type ? -1 : 1;
    return strcmp(x->name, y->name);
}

static json_t *header_entry(const planned_tensor *x, uint64_t at) {
    json_t *shape = json_array();
    for (int i = 0; i < x->t.ndim; i++) json_array_append_new(shape, json_integer(x->t.dim[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype_name(x->t.type), "shape", shape, "data_offsets",
                     (json_int_t)at, (json_int_t)(at + x->bytes));
}

static status make_header(planned_shard *s, arena *memory, error *e) {
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    uint64_t at = 0;
    status st = header ? OK : out_of_memory(e);
    for (size_t i = 0; st == OK && i < s->count; i++) {
        const planned_tensor *x = &s->tensors[i];
        if (json_object_get(header, x->name))
            st = fail(e, ERR_ARG, "tensor \"%.160s\": planned twice for shard %s", x->name, s->file);
        else if (x->bytes > INT64_MAX - at) st = fail(e, ERR_ARG, "shard %s: too many bytes", s->file);
        else if (json_object_set_new(header, x->name, header_entry(x, at)) != 0) st = out_of_memory(e);
        at += x->bytes;
    }
    char *text = st == OK ? json_dumps(header, JSON_COMPACT) : NULL;
    json_decref(header);
    if (st != OK) return st;
    size_t n = text ? (strlen(text) + 7) / 8 * 8 : 0;
    char *full = text ? arena_take(memory, 8 + n) : NULL;
    if (full) {
        for (int i = 0; i < 8; i++) full[i] = (char)(n >> (8 * i) & 255);
        memset(full + 8, ' ', n);
        memcpy(full + 8, text, strlen(text));
        s->header = full;
        s->header_bytes = 8 + n;
        s->bytes = s->header_bytes + at;
    }
    free(text);
    if (!full) return out_of_memory(e);
    if (n > SAFETENSORS_HEADER_MAX)
        return fail(e, ERR_ARG, "shard %s: header of %zu bytes, at most %d are allowed", s->file, n,
                    SAFETENSORS_HEADER_MAX);
    return OK;
}

status shard_plan_finish(shard_plan *p, uint64_t max_shard_bytes, error *e) {
    if (!p->count) return fail(e, ERR_ARG, "no tensors to write");
    TRY(p->files[0] ? shards_by_file(p, e) : shards_by_size(p, max_shard_bytes, e));
    qsort(p->tensors, p->count, sizeof *p->tensors, by_place);
    for (size_t i = 0; i < p->count; i++) {
        planned_shard *s = &p->shards[p->tensors[i].shard];
        if (s->count++ == 0) s->tensors = &p->tensors[i];
    }
    for (size_t i = 0; i < p->n_shards; i++) TRY(make_header(&p->shards[i], p->memory, e));
    return OK;
}

size_t shard_plan_count(const shard_plan *p) {
    return p->n_shards;
}

const planned_shard *shard_plan_at(const shard_plan *p, size_t shard) {
    return &p->shards[shard];
}

uint64_t shard_plan_bytes(const shard_plan *p) {
    uint64_t sum = 0;
    for (size_t i = 0; i < p->n_shards; i++) sum += p->shards[i].bytes;
    return sum;
}

/* --- writing --------------------------------------------------------------------------------------------------- */

status shard_begin(shard_writer *w, const planned_shard *s, const char *folder, error *e) {
    *w = (shard_writer){.file = {.fd = -1}, .left = s->bytes - s->header_bytes};
    char *path = path_join(folder, s->file);
    if (!path) return out_of_memory(e);
    status st = file_begin(&w->file, path, e);
    free(path);
    TRY(st);
    st = file_write(&w->file, s->header, s->header_bytes, e);
    if (st != OK) shard_abort(w);
    return st;
}

status shard_write(shard_writer *w, const void *p, size_t n, error *e) {
    if (n > w->left)
        return fail(e, ERR_ARG, "%s: %zu bytes more, the plan has room for %llu", w->file.path, n,
                    (unsigned long long)w->left);
    w->left -= n;
    return file_write(&w->file, p, n, e);
}

status shard_commit(shard_writer *w, error *e) {
    if (w->left) {
        status s =
            fail(e, ERR_ARG, "%s: %llu bytes of the plan are missing", w->file.path, (unsigned long long)w->left);
        shard_abort(w);
        return s;
    }
    return file_commit(&w->file, e);
}

void shard_abort(shard_writer *w) {
    file_abort(&w->file);
}

static bool begins_with(int fd, const char *wanted, size_t n) {
    char *got = malloc(n);
    size_t have = 0;
    for (ssize_t k = 1; got && have < n && k > 0; have += k > 0 ? (size_t)k : 0) k = read(fd, got + have, n - have);
    bool same = got && have == n && memcmp(got, wanted, n) == 0;
    free(got);
    return same;
}

bool shard_is_complete(const planned_shard *s, const char *folder) {
    char *path = path_join(folder, s->file);
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    struct stat st;
    bool same = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == s->bytes &&
                begins_with(fd, s->header, s->header_bytes);
    if (fd >= 0) close(fd);
    free(path);
    return same;
}

static json_t *make_index(const shard_plan *p, bool total_size) {
    json_t *metadata = json_object(), *map = json_object();
    uint64_t total = 0;
    for (size_t i = 0; i < p->count; i++) {
        total += p->tensors[i].bytes;
        if (json_object_set_new(map, p->tensors[i].name, json_string(p->shards[p->tensors[i].shard].file)) != 0) {
            json_decref(map);
            map = NULL;
            break;
        }
    }
    if (total_size) json_object_set_new(metadata, "total_size", json_integer((json_int_t)total));
    return json_pack("{s:o, s:o}", "metadata", metadata, "weight_map", map);
}

status shard_plan_write_index(const shard_plan *p, const char *folder, bool total_size, error *e) {
    if (p->n_shards == 1 && strcmp(p->shards[0].file, "model.safetensors") == 0) return OK;
    json_t *index = make_index(p, total_size);
    char *text = index ? json_dumps(index, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    char *path = path_join(folder, "model.safetensors.index.json");
    status s = OK;
    if (!text || !path) s = out_of_memory(e);
    else if (json_object_size(json_object_get(index, "weight_map")) != p->count)
        s = fail(e, ERR_ARG, "%s: a tensor is planned for two shards", path);
    else s = file_save(path, text, strlen(text), e);
    json_decref(index);
    free(text);
    free(path);
    return s;
}

static status save_shard(const planned_shard *s, const char *folder, const safetensors_entry *entries, error *e) {
    shard_writer w;
    TRY(shard_begin(&w, s, folder, e));
    status st = OK;
    for (size_t i = 0; st == OK && i < s->count; i++)
        st = shard_write(&w, entries[s->tensors[i].added].t.data, s->tensors[i].bytes, e);
    if (st == OK) return shard_commit(&w, e);
    shard_abort(&w);
    return st;
}

status safetensors_save(const char *folder, const safetensors_entry *entries, size_t count, uint64_t max_shard_bytes,
                        error *e) {
    shard_plan *p;
    TRY(make_directory(folder, e));
    TRY(shard_plan_open(&p, e));
    status s = OK;
    for (size_t i = 0; s == OK && i < count; i++) s = shard_plan_add(p, NULL, entries[i].name, &entries[i].t, e);
    if (s == OK) s = shard_plan_finish(p, max_shard_bytes, e);
    for (size_t i = 0; s == OK && i < p->n_shards; i++) s = save_shard(&p->shards[i], folder, entries, e);
    if (s == OK) s = shard_plan_write_index(p, folder, true, e);
    shard_plan_close(p);
    return s;
}
