#include "server/call_memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"

typedef struct memory memory;
struct memory {
    memory *next; /* younger */
    uint64_t hash;
    char *key; /* the call ids, each terminated */
    size_t key_n, n;
    int32_t ids[];
};

struct call_memory {
    pthread_mutex_t lock;
    memory *oldest, **youngest; /* youngest: where the next one goes */
    size_t used, most;          /* in tokens; a message's ids of calls count, too */
};

status call_memory_open(call_memory **out, size_t max_tokens, error *e) {
    call_memory *c = *out = calloc(1, sizeof *c);
    if (!c) return fail(e, ERR_NOMEM, "memory is out");
    pthread_mutex_init(&c->lock, NULL);
    c->youngest = &c->oldest;
    c->most = max_tokens;
    return OK;
}

static size_t cost(const memory *m) {
    return m->n + (sizeof *m + m->key_n) / sizeof *m->ids;
}

static void forget_oldest(call_memory *c) {
    memory *m = c->oldest;
    c->oldest = m->next;
    if (!c->oldest) c->youngest = &c->oldest;
    c->used -= cost(m);
    free(m->key);
    free(m);
}

void call_memory_close(call_memory *c) {
    if (!c) return;
    while (c->oldest) forget_oldest(c);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

/* NULL: no calls, or memory is out. */
static char *make_key(const char *const *call_ids, int n_calls, size_t *n, uint64_t *hash) {
    *n = 0;
    for (int i = 0; i < n_calls; i++) *n += strlen(call_ids[i]) + 1;
    char *key = *n ? malloc(*n) : NULL, *p = key;
    for (int i = 0; key && i < n_calls; i++) p = stpcpy(p, call_ids[i]) + 1;
    *hash = hash_bytes(HASH_BEGIN, key, key ? *n : 0);
    return key;
}

void call_memory_add(call_memory *c, const char *const *call_ids, int n_calls, const int32_t *ids, size_t n) {
    size_t key_n;
    uint64_t hash;
    char *key = make_key(call_ids, n_calls, &key_n, &hash);
    memory *m = key && n < c->most ? malloc(sizeof *m + n * sizeof *ids) : NULL;
    if (m) *m = (memory){.hash = hash, .key = key, .key_n = key_n, .n = n};
    if (!m || cost(m) > c->most) {
        free(key);
        free(m);
        return;
    }
    if (n) memcpy(m->ids, ids, n * sizeof *ids);
    pthread_mutex_lock(&c->lock);
    while (c->used + cost(m) > c->most) forget_oldest(c);
    *c->youngest = m;
    c->youngest = &m->next;
    c->used += cost(m);
    pthread_mutex_unlock(&c->lock);
}

static int32_t *copy(const memory *m, size_t *n) {
    int32_t *ids = malloc((m->n + 1) * sizeof *ids);
    if (ids) memcpy(ids, m->ids, m->n * sizeof *ids);
    *n = m->n;
    return ids;
}

int32_t *call_memory_find(call_memory *c, const char *const *call_ids, int n_calls, size_t *n) {
    size_t key_n;
    uint64_t hash;
    int32_t *found = NULL;
    char *key = make_key(call_ids, n_calls, &key_n, &hash);
    *n = 0;
    if (!key) return NULL;
    pthread_mutex_lock(&c->lock);
    for (const memory *m = c->oldest; m && !found; m = m->next)
        if (m->hash == hash && m->key_n == key_n && !memcmp(m->key, key, key_n)) found = copy(m, n);
    pthread_mutex_unlock(&c->lock);
    free(key);
    return found;
}
