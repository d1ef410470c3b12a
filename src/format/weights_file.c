#include "format/weights_file.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/arena.h"
#include "base/file.h"
#include "base/json.h"
#include "format/safetensors.h"

enum { INDEX_MAX = 64 << 20 }; /* bytes; V3's index with 91,991 tensors has 9 million */

struct weights_file {
    safetensors *shards; /* sorted by name */
    const char **names;  /* [n_shards], as the index writes them */
    size_t n_shards;
    weights_entry *entries; /* by shard */
    weights_entry **sorted; /* by name: looking up is a binary search, which no choice of names can make slow */
    size_t count;
    uint64_t bytes;
    arena *memory;
};

static status out_of_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(weights_entry *const *)a)->name, (*(weights_entry *const *)b)->name);
}

/* Relative and inside the folder: no "/x", no "..", not empty. */
static bool stays_inside(const char *name) {
    if (!*name || *name == '/') return false;
    for (const char *part = name;; part++) {
        size_t n = strcspn(part, "/");
        if (n == 2 && part[0] == '.' && part[1] == '.') return false;
        part += n;
        if (!*part) return true;
    }
}

static bool is_safetensors(const char *name) {
    size_t n = strlen(name), m = strlen(".safetensors");
    return n > m && strcmp(name + n - m, ".safetensors") == 0;
}

/* The names of all shards, once each, sorted. */
static status shard_names(weights_file *w, json_t *map, const char *index, error *e) {
    size_t n = json_object_size(map);
    w->names = arena_zero(w->memory, n + 1, sizeof *w->names);
    if (!w->names) return out_of_memory(e);
    const char *tensor_name;
    json_t *v;
    json_object_foreach(map, tensor_name, v) {
        const char *shard = json_string_value(v);
        if (!shard || strlen(shard) != json_string_length(v))
            return fail(e, ERR_FORMAT, "%s: tensor \"%.160s\": its shard should be a file name", index, tensor_name);
        if (!stays_inside(shard))
            return fail(e, ERR_FORMAT, "%s: tensor \"%.160s\": shard \"%.160s\" is not inside the folder", index,
                        tensor_name, shard);
        if (!is_safetensors(shard))
            return fail(e, ERR_UNSUPPORTED, "%s: tensor \"%.160s\": shard \"%.160s\" is not a .safetensors file", index,
                        tensor_name, shard);
        w->names[w->n_shards++] = shard;
    }
    if (!n) return fail(e, ERR_FORMAT, "%s: \"weight_map\" is empty", index);
    qsort(w->names, n, sizeof *w->names, by_text);
    w->n_shards = 0;
    for (size_t i = 0; i < n; i++)
        if (i == 0 || strcmp(w->names[i], w->names[w->n_shards - 1]) != 0) w->names[w->n_shards++] = w->names[i];
    for (size_t i = 0; i < w->n_shards; i++) /* from here on they outlive the parsed index */
        if (!(w->names[i] = arena_copy(w->memory, w->names[i], strlen(w->names[i])))) return out_of_memory(e);
    return OK;
}

static status open_shards(weights_file *w, const char *folder, error *e) {
    w->shards = arena_zero(w->memory, w->n_shards, sizeof *w->shards);
    if (!w->shards) return out_of_memory(e);
    for (size_t i = 0; i < w->n_shards; i++) {
        char *path = folder ? path_join(folder, w->names[i]) : strdup(w->names[i]);
        if (!path) return out_of_memory(e);
        status s = safetensors_open(&w->shards[i], path, e);
        free(path);
        TRY(s);
        w->count += w->shards[i].count;
        if (w->count > 2 * SAFETENSORS_MOST)
            return fail(e, ERR_UNSUPPORTED, "%s: more than %d tensors in all", folder, 2 * SAFETENSORS_MOST);
    }
    return OK;
}

/* One entry for each tensor, except those that the index looks for in another shard. */
static status list_entries(weights_file *w, const json_t *map, const char *where, error *e) {
    w->entries = arena_zero(w->memory, w->count, sizeof *w->entries);
    w->sorted = arena_zero(w->memory, w->count, sizeof *w->sorted);
    if (!w->entries || !w->sorted) return out_of_memory(e);
    w->count = 0;
    for (size_t i = 0; i < w->n_shards; i++)
        for (size_t k = 0; k < w->shards[i].count; k++) {
            const safetensors_entry *x = &w->shards[i].entries[k];
            const char *listed = json_string_value(json_object_get(map, x->name));
            if (listed && strcmp(listed, w->names[i]) != 0) continue;
            w->bytes += (uint64_t)tensor_count(&x->t) * dtype_size(x->t.type);
            w->sorted[w->count] = &w->entries[w->count];
            w->entries[w->count++] = (weights_entry){x->name, x->t, w->names[i]};
        }
    if (w->count) qsort(w->sorted, w->count, sizeof *w->sorted, by_name);
    for (size_t i = 1; i < w->count; i++)
        if (strcmp(w->sorted[i - 1]->name, w->sorted[i]->name) == 0)
            return fail(e, ERR_FORMAT, "%s: tensor \"%.160s\": in shards \"%s\" and \"%s\", and not in the index",
                        where, w->sorted[i]->name, w->sorted[i - 1]->file, w->sorted[i]->file);
    return OK;
}

static status check_listed(const weights_file *w, json_t *map, const char *index, error *e) {
    const char *name;
    json_t *v;
    json_object_foreach(map, name, v) {
        if (!weights_find(w, name))
            return fail(e, ERR_FORMAT, "%s: tensor \"%.160s\": not in its shard \"%.160s\"", index, name,
                        json_string_value(v));
    }
    return OK;
}

static status open_sharded(weights_file *w, const char *folder, const char *index, error *e) {
    json_t *root;
    TRY(json_read(&root, index, INDEX_MAX, e));
    json_t *map = json_object_get(root, "weight_map");
    status s = json_is_object(map) ? shard_names(w, map, index, e)
                                   : fail(e, ERR_FORMAT, "%s: no object \"weight_map\"", index);
    if (s == OK) s = open_shards(w, folder, e);
    if (s == OK) s = list_entries(w, map, index, e);
    if (s == OK) s = check_listed(w, map, index, e);
    json_decref(root);
    return s;
}

static status open_single(weights_file *w, const char *folder, const char *name, error *e) {
    w->names = arena_zero(w->memory, 1, sizeof *w->names);
    if (!w->names || !(w->names[0] = arena_copy(w->memory, name, strlen(name)))) return out_of_memory(e);
    w->n_shards = 1;
    TRY(open_shards(w, folder, e));
    return list_entries(w, NULL, name, e);
}

static status open_folder(weights_file *w, const char *folder, error *e) {
    char *single = path_join(folder, "model.safetensors"), *index = path_join(folder, "model.safetensors.index.json");
    status s;
    if (!single || !index) s = out_of_memory(e);
    else if (file_exists(single)) s = open_single(w, folder, "model.safetensors", e);
    else if (file_exists(index)) s = open_sharded(w, folder, index, e);
    else
        s = fail(e, ERR_FORMAT, "%s: neither model.safetensors nor model.safetensors.index.json is in this folder",
                 folder);
    free(single);
    free(index);
    return s;
}

/* Copies what lies unaligned. */
static status align(weights_file *w, error *e) {
    for (size_t i = 0; i < w->count; i++) {
        tensor *t = &w->entries[i].t;
        size_t size = dtype_size(t->type);
        if ((uintptr_t)t->data % size == 0) continue;
        size_t n = (size_t)tensor_count(t) * size;
        void *copy = arena_take(w->memory, n);
        if (!copy) return out_of_memory(e);
        if (n) memcpy(copy, t->data, n);
        t->data = copy;
    }
    return OK;
}

status weights_open_in_place(weights_file **out, const char *folder, error *e) {
    *out = NULL;
    weights_file *w = calloc(1, sizeof *w);
    if (!w || !(w->memory = arena_open(4096))) {
        free(w);
        return out_of_memory(e);
    }
    status s = is_directory(folder) ? open_folder(w, folder, e) : open_single(w, NULL, folder, e);
    if (s == OK) *out = w;
    else weights_close(w);
    return s;
}

status weights_open(weights_file **out, const char *folder, error *e) {
    TRY(weights_open_in_place(out, folder, e));
    status s = align(*out, e);
    if (s == OK) return OK;
    weights_close(*out);
    *out = NULL;
    return s;
}

void weights_close(weights_file *w) {
    if (!w) return;
    for (size_t i = 0; w->shards && i < w->n_shards; i++) safetensors_close(&w->shards[i]);
    arena_close(w->memory);
    free(w);
}

const weights_entry *weights_find(const weights_file *w, const char *name) {
    size_t low = 0, high = w->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, w->sorted[middle]->name);
        if (order == 0) return w->sorted[middle];
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}

size_t weights_count(const weights_file *w) {
    return w->count;
}

const weights_entry *weights_at(const weights_file *w, size_t i) {
    return i < w->count ? &w->entries[i] : NULL;
}

uint64_t weights_bytes(const weights_file *w) {
    return w->bytes;
}

const char *weights_meta(const weights_file *w, const char *key) {
    for (size_t i = 0; i < w->n_shards; i++)
        for (const char **m = w->shards[i].meta; *m; m += 2)
            if (strcmp(m[0], key) == 0) return m[1];
    return NULL;
}

void weights_let_go(const weights_file *w, const weights_entry *x, size_t first, size_t n) {
    /* A page that is read brings its neighbours with it, also those before it that were given back already; without
     * the megabyte they would add up over a large file. */
    enum { BEFORE = 1 << 20 };
    uintptr_t begin = (uintptr_t)x->t.data + first, end = begin + n, page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < w->n_shards; i++) {
        uintptr_t map = (uintptr_t)w->shards[i].map.p;
        if (begin < map || end > map + w->shards[i].map.n || !map) continue; /* elsewhere, or a copy */
        begin = begin - map > BEFORE ? begin - BEFORE : map;
        begin -= begin % page;
        madvise((void *)begin, end - begin, MADV_DONTNEED);
        return;
    }
}
