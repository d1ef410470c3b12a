/* Reading of native checkpoints. Every slice is found by the names in the shards' headers, tensor by tensor sorted by
 * first element; what does not cover each tensor exactly once is refused, so that a read is a walk over neighbours. */
#include "format/native.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>
#include "base/file.h"
#include "base/json.h"
#include "format/native_inner.h"
#include "format/safetensors.h"

#define TENSOR "%s: tensor \"%.160s\": "

enum {
    STATE_MAX = 128 << 20, /* bytes of state.json; V3's weights and moments take 17 million */
    MOST_SHARDS = 1 << 16,
    MOST_SLICES = 4 * SAFETENSORS_MOST,
    LET_GO = 1 << 16,    /* reads of so many bytes and more give their pages back */
    VERIFY = 64 << 20,   /* bytes between giving pages back while checksums are made */
    READ_AHEAD = 1 << 20 /* a page that is read brings neighbours with it, also those before it */
};

typedef struct piece { /* a slice in a shard */
    int64_t tensor, first, n;
    const uint8_t *data;
    size_t shard;
} piece;

struct native_file {
    char *path; /* of state.json */
    json_t *root;
    char **files; /* [n_shards] paths */
    safetensors *shards;
    size_t n_shards;
    native_slice *tensors; /* by name */
    int64_t count;
    piece *pieces; /* by tensor and first element */
    size_t n_pieces;
    size_t *begin; /* [count + 1] a tensor's first piece */
};

static status out_of_memory(error *e) {
    return fail(e, ERR_NOMEM, "memory is out");
}

status native_state_crc(const json_t *root, char hex[9], error *e) {
    json_t *copy = json_copy((json_t *)root);
    json_object_del(copy, "crc32");
    char *text = copy ? json_dumps(copy, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(copy);
    if (!text) return out_of_memory(e);
    snprintf(hex, 9, "%08lx", crc32_z(0, (const Bytef *)text, strlen(text)) & 0xffffffffu);
    free(text);
    return OK;
}

/* --- state.json ------------------------------------------------------------------------------------------------- */

/* "NAME": [type, dimension, ...]. No product may pass int64, a 0 does not excuse the rest of the shape. */
static status read_tensor(native_slice *x, const char *name, const json_t *v, const char *path, error *e) {
    const char *type = json_string_value(json_array_get(v, 0));
    int found = type ? dtype_find(type) : -1;
    size_t ndim = json_array_size(v) - 1;
    if (found < 0) return fail(e, ERR_FORMAT, TENSOR "[type, dimension, ...] was wanted", path, name);
    if (!*name || strlen(name) > NATIVE_NAME_MAX)
        return fail(e, ERR_FORMAT, TENSOR "a name of 1 to %d bytes was wanted", path, name, NATIVE_NAME_MAX);
    if (ndim > TENSOR_DIMS)
        return fail(e, ERR_FORMAT, TENSOR "%zu dimensions, at most %d are supported", path, name, ndim, TENSOR_DIMS);
    *x = (native_slice){.name = name, .type = (dtype)found, .ndim = (int)ndim, .n = 1};
    int64_t product = (int64_t)dtype_size(x->type);
    for (size_t i = 0; i < ndim; i++) {
        const json_t *d = json_array_get(v, i + 1);
        int64_t n = x->dim[i] = json_integer_value(d);
        if (!json_is_integer(d) || n < 0 || (n && product > INT64_MAX / n))
            return fail(e, ERR_FORMAT, TENSOR "dimension %zu is impossible", path, name, i);
        product *= n ? n : 1;
        x->n *= n;
    }
    return OK;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const native_slice *)a)->name, ((const native_slice *)b)->name);
}

static status read_tensors(native_file *f, error *e) {
    json_t *list = json_object_get(f->root, "tensors"), *v;
    const char *name;
    if (!json_is_object(list)) return fail(e, ERR_FORMAT, "%s: no object \"tensors\"", f->path);
    f->tensors = calloc(json_object_size(list) + 1, sizeof *f->tensors);
    if (!f->tensors) return out_of_memory(e);
    json_object_foreach(list, name, v) TRY(read_tensor(&f->tensors[f->count++], name, v, f->path, e));
    qsort(f->tensors, (size_t)f->count, sizeof *f->tensors, by_name);
    return OK;
}

static status check_head(const native_file *f, bool verify, error *e) {
    const char *format = json_string_value(json_object_get(f->root, "format"));
    const char *crc = json_string_value(json_object_get(f->root, "crc32"));
    char hex[9];
    if (!format || strcmp(format, NATIVE_FORMAT) != 0)
        return fail(e, ERR_FORMAT, "%s: \"format\" is not \"" NATIVE_FORMAT "\"", f->path);
    json_int_t version = json_integer_value(json_object_get(f->root, "version"));
    if (version != NATIVE_VERSION)
        return fail(e, ERR_UNSUPPORTED, "%s: version %lld of the format, this program reads %d", f->path,
                    (long long)version, NATIVE_VERSION);
    if (!json_is_object(json_object_get(f->root, "state")))
        return fail(e, ERR_FORMAT, "%s: no object \"state\"", f->path);
    if (!verify) return OK;
    TRY(native_state_crc(f->root, hex, e));
    if (!crc || strcmp(crc, hex) != 0)
        return fail(e, ERR_FORMAT, "%s: its checksum is not the one in it: the file is damaged", f->path);
    return OK;
}

/* --- shards ----------------------------------------------------------------------------------------------------- */

static void give_back(const uint8_t *from, const uint8_t *p, size_t n) { /* pages that will not be read again soon */
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)p;
    size_t before = (size_t)(p - from) < READ_AHEAD ? (size_t)(p - from) : READ_AHEAD;
    begin -= before;
    n += before + begin % page;
    madvise((void *)(begin - begin % page), n, MADV_DONTNEED);
}

static status check_sum(const mapping *m, const char *wanted, const char *path, error *e) {
    uLong crc = 0;
    for (size_t at = 0, n; at < m->n; at += n) {
        n = m->n - at < VERIFY ? m->n - at : VERIFY;
        crc = crc32_z(crc, m->p + at, n);
        give_back(m->p, m->p + at, n);
    }
    char hex[9];
    snprintf(hex, sizeof hex, "%08lx", crc & 0xffffffffu);
    if (wanted && strcmp(hex, wanted) == 0) return OK;
    return fail(e, ERR_FORMAT, "%s: checksum %s, state.json wants %.8s: the file is damaged", path, hex,
                wanted ? wanted : "none");
}

/* Each file once: a list of one file a thousand times over would take the memory of a thousand. */
static bool in_order(const char *before, const char *name) {
    size_t n = before ? strlen(before) : 0, m = strlen(name);
    return n < m || (n == m && strcmp(before, name) < 0);
}

static status open_shard(native_file *f, const char *folder, const json_t *v, const char *before, bool verify,
                         error *e) {
    const char *name = json_string_value(json_object_get(v, "file"));
    const json_t *bytes = json_object_get(v, "bytes");
    if (!name || strncmp(name, "shard-", 6) != 0 || strchr(name, '/') || !json_is_integer(bytes))
        return fail(e, ERR_FORMAT, "%s: shard %zu: {\"file\": \"shard-...\", \"bytes\": number} was wanted", f->path,
                    f->n_shards);
    if (!in_order(before, name))
        return fail(e, ERR_FORMAT, "%s: shard \"%.80s\" is listed twice or out of order", f->path, name);
    char *path = f->files[f->n_shards] = path_join(folder, name);
    if (!path) return out_of_memory(e);
    safetensors *shard = &f->shards[f->n_shards++];
    mapping m;
    TRY(file_map(&m, path, e));
    status s = OK;
    if ((json_int_t)m.n != json_integer_value(bytes))
        s = fail(e, ERR_FORMAT, "%s: %zu bytes, state.json wants %lld: the file is damaged", path, m.n,
                 (long long)json_integer_value(bytes));
    if (s == OK && verify) s = check_sum(&m, json_string_value(json_object_get(v, "crc32")), path, e);
    if (s == OK) s = safetensors_parse(shard, m.p, m.n, path, e);
    if (s == OK) shard->map = m;
    else file_unmap(&m);
    return s;
}

static status open_shards(native_file *f, const char *folder, bool verify, error *e) {
    const json_t *list = json_object_get(f->root, "shards");
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n > MOST_SHARDS)
        return fail(e, ERR_FORMAT, "%s: \"shards\" should be a list of at most %d files", f->path, MOST_SHARDS);
    f->files = calloc(n + 1, sizeof *f->files);
    f->shards = calloc(n + 1, sizeof *f->shards);
    if (!f->files || !f->shards) return out_of_memory(e);
    const char *before = NULL;
    for (size_t i = 0, slices = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        TRY(open_shard(f, folder, v, before, verify, e));
        before = json_string_value(json_object_get(v, "file"));
        slices += f->shards[i].count;
        if (slices > MOST_SLICES)
            return fail(e, ERR_UNSUPPORTED, "%s: more than %d slices in all", folder, MOST_SLICES);
    }
    return OK;
}

/* --- slices ----------------------------------------------------------------------------------------------------- */

static const native_slice *find(const native_file *f, const char *name) {
    native_slice key = {.name = name};
    return f->count ? bsearch(&key, f->tensors, (size_t)f->count, sizeof key, by_name) : NULL;
}

/* "NAME@FIRST" */
static status read_piece(piece *p, const native_file *f, size_t shard, const safetensors_entry *x, error *e) {
    const char *file = f->files[shard], *at = strrchr(x->name, '@');
    char name[NATIVE_NAME_MAX + 1];
    size_t length = at ? (size_t)(at - x->name) : 0, digits = at ? strspn(at + 1, "0123456789") : 0;
    if (!digits || digits > 18 || at[1 + digits] || !length || length > NATIVE_NAME_MAX)
        return fail(e, ERR_FORMAT, TENSOR "a slice is called NAME@FIRST", file, x->name);
    memcpy(name, x->name, length);
    name[length] = 0;
    const native_slice *t = find(f, name);
    if (!t) return fail(e, ERR_FORMAT, TENSOR "not in state.json", file, x->name);
    if (x->t.type != t->type || x->t.ndim != 1)
        return fail(e, ERR_FORMAT, TENSOR "%d dimensions of %s, state.json wants one of %s", file, x->name, x->t.ndim,
                    dtype_name(x->t.type), dtype_name(t->type));
    *p = (piece){t - f->tensors, strtoll(at + 1, NULL, 10), x->t.dim[0], x->t.data, shard};
    if (p->n < 1 || p->first > t->n || p->n > t->n - p->first)
        return fail(e, ERR_FORMAT, TENSOR "%lld elements from there on, the tensor has %lld", file, x->name,
                    (long long)p->n, (long long)t->n);
    return OK;
}

static int by_place(const void *a, const void *b) {
    const piece *x = a, *y = b;
    if (x->tensor != y->tensor) return x->tensor < y->tensor ? -1 : 1;
    return (x->first > y->first) - (x->first < y->first);
}

/* The slices of tensor t follow each other from 0 to its end. */
static status check_cover(native_file *f, int64_t t, size_t *at, error *e) {
    const native_slice *x = &f->tensors[t];
    int64_t end = 0;
    f->begin[t] = *at;
    for (; *at < f->n_pieces && f->pieces[*at].tensor == t; ++*at) {
        const piece *p = &f->pieces[*at];
        if (p->first < end)
            return fail(e, ERR_FORMAT, TENSOR "element %lld is in a slice before, too", f->files[p->shard], x->name,
                        (long long)p->first);
        if (p->first > end) break;
        end += p->n;
    }
    if (end == x->n) return OK;
    return fail(e, ERR_FORMAT, TENSOR "element %lld of %lld is in no shard", f->path, x->name, (long long)end,
                (long long)x->n);
}

static status list_pieces(native_file *f, error *e) {
    size_t most = 0;
    for (size_t i = 0; i < f->n_shards; i++) most += f->shards[i].count;
    f->pieces = calloc(most + 1, sizeof *f->pieces);
    f->begin = calloc((size_t)f->count + 1, sizeof *f->begin);
    if (!f->pieces || !f->begin) return out_of_memory(e);
    for (size_t i = 0; i < f->n_shards; i++)
        for (size_t k = 0; k < f->shards[i].count; k++)
            TRY(read_piece(&f->pieces[f->n_pieces++], f, i, &f->shards[i].entries[k], e));
    qsort(f->pieces, f->n_pieces, sizeof *f->pieces, by_place);
    size_t at = 0;
    for (int64_t t = 0; t < f->count; t++) TRY(check_cover(f, t, &at, e));
    f->begin[f->count] = at;
    return OK;
}

/* --- the file --------------------------------------------------------------------------------------------------- */

status native_open(native_file **out, const char *folder, bool verify, error *e) {
    *out = NULL;
    native_file *f = calloc(1, sizeof *f);
    if (!f || !(f->path = path_join(folder, "state.json"))) {
        free(f);
        return out_of_memory(e);
    }
    status s = json_read(&f->root, f->path, STATE_MAX, e);
    if (s == OK) s = check_head(f, verify, e);
    if (s == OK) s = read_tensors(f, e);
    if (s == OK) s = open_shards(f, folder, verify, e);
    if (s == OK) s = list_pieces(f, e);
    if (s == OK) *out = f;
    else native_close(f);
    return s;
}

void native_close(native_file *f) {
    if (!f) return;
    for (size_t i = 0; i < f->n_shards; i++) {
        safetensors_close(&f->shards[i]);
        free(f->files[i]);
    }
    free(f->shards);
    free(f->files);
    free(f->tensors);
    free(f->pieces);
    free(f->begin);
    json_decref(f->root);
    free(f->path);
    free(f);
}

const json_t *native_state(const native_file *f) {
    return json_object_get(f->root, "state");
}

int64_t native_count(const native_file *f) {
    return f->count;
}

const native_slice *native_tensor(const native_file *f, int64_t i) {
    return &f->tensors[i];
}

const native_slice *native_find(const native_file *f, const char *name) {
    return find(f, name);
}

status native_read(const native_file *f, const char *name, int64_t first, int64_t n, void *to, error *e) {
    const native_slice *t = find(f, name);
    if (!t) return fail(e, ERR_FORMAT, TENSOR "not in this checkpoint", f->path, name);
    if (first < 0 || n < 0 || first > t->n || n > t->n - first)
        return fail(e, ERR_ARG, TENSOR "%lld elements from %lld on were asked for, it has %lld", f->path, name,
                    (long long)n, (long long)first, (long long)t->n);
    size_t low = f->begin[t - f->tensors], high = f->begin[t - f->tensors + 1], size = dtype_size(t->type);
    while (high - low > 1) { /* the last piece that does not begin after `first` */
        size_t middle = low + (high - low) / 2;
        if (f->pieces[middle].first <= first) low = middle;
        else high = middle;
    }
    for (const piece *p = &f->pieces[low]; n > 0; p++) {
        int64_t skip = first - p->first, k = p->n - skip < n ? p->n - skip : n;
        const uint8_t *from = p->data + (size_t)skip * size;
        size_t bytes = (size_t)k * size;
        memcpy(to, from, bytes);
        if (bytes >= LET_GO) give_back(f->shards[p->shard].map.p, from, bytes);
        to = (uint8_t *)to + bytes;
        first += k;
        n -= k;
    }
    return OK;
}

bool is_native(const char *folder) {
    char *path = path_join(folder, "state.json"), head[257];
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    ssize_t n = fd >= 0 ? read(fd, head, sizeof head - 1) : 0;
    if (fd >= 0) close(fd);
    free(path);
    head[n > 0 ? n : 0] = 0;
    return strstr(head, "\"" NATIVE_FORMAT "\"") != NULL;
}

/* --- steps ------------------------------------------------------------------------------------------------------ */

char *native_step_folder(const char *folder, int64_t step) {
    char name[40];
    snprintf(name, sizeof name, "step-%08lld", (long long)step);
    return path_join(folder, name);
}

bool native_step_name(const char *name, const char *end, int64_t *step) {
    if (strncmp(name, "step-", 5) != 0) return false;
    size_t digits = strspn(name + 5, "0123456789");
    if (digits < 8 || digits > 18 || strcmp(name + 5 + digits, end) != 0) return false;
    *step = strtoll(name + 5, NULL, 10);
    return true;
}

static int by_number(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static status add_step(const char *folder, int64_t step, int64_t **steps, int64_t *count, error *e) {
    char *path = native_step_folder(folder, step);
    if (!path) return out_of_memory(e);
    bool whole = is_native(path);
    free(path);
    if (!whole) return OK;
    int64_t *more = realloc(*steps, (size_t)(*count + 1) * sizeof *more);
    if (!more) return out_of_memory(e);
    *steps = more;
    more[(*count)++] = step;
    return OK;
}

status native_steps(const char *folder, int64_t **steps, int64_t *count, error *e) {
    *steps = NULL;
    *count = 0;
    DIR *d = opendir(folder);
    if (!d && (errno == ENOENT || errno == ENOTDIR)) return OK;
    if (!d) return fail(e, ERR_IO, "%s: %s", folder, strerror(errno));
    status s = OK;
    int64_t step;
    for (const struct dirent *x; s == OK && (x = readdir(d));)
        if (native_step_name(x->d_name, "", &step)) s = add_step(folder, step, steps, count, e);
    closedir(d);
    if (s == OK && *count) qsort(*steps, (size_t)*count, sizeof **steps, by_number);
    if (s == OK) return OK;
    free(*steps);
    *steps = NULL;
    *count = 0;
    return s;
}
