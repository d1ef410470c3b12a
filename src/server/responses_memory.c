#include "server/responses_memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/str.h"

/* As text: a tree of JSON takes many times its memory. */
typedef struct kept {
    struct kept *next; /* younger */
    char *id, *response, *items;
    size_t bytes;
} kept;

struct response_memory {
    pthread_mutex_t lock;
    kept *oldest, **end;
    int n, max_answers;
    size_t bytes, max_bytes;
};

status response_memory_open(response_memory **out, int max_answers, size_t max_bytes, error *e) {
    response_memory *m = calloc(1, sizeof *m);
    *out = m;
    if (!m) return fail(e, ERR_NOMEM, "memory is out");
    pthread_mutex_init(&m->lock, NULL);
    m->end = &m->oldest;
    m->max_answers = max_answers ? max_answers : 1000;
    m->max_bytes = max_bytes ? max_bytes : (size_t)64 << 20;
    return OK;
}

static void kept_free(kept *k) {
    free(k->id);
    free(k->response);
    free(k->items);
    free(k);
}

/* Takes *at out of the list. */
static void drop(response_memory *m, kept **at) {
    kept *k = *at;
    *at = k->next;
    if (m->end == &k->next) m->end = at;
    m->n--;
    m->bytes -= k->bytes;
    kept_free(k);
}

void response_memory_close(response_memory *m) {
    if (!m) return;
    while (m->oldest) drop(m, &m->oldest);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

void response_memory_add(response_memory *m, const json_t *response, const json_t *items) {
    const char *id = json_string_value(json_object_get(response, "id"));
    kept *k = id ? calloc(1, sizeof *k) : NULL;
    if (!k) return;
    k->id = strdup(id);
    k->response = json_dumps(response, JSON_COMPACT);
    k->items = json_dumps(items, JSON_COMPACT);
    k->bytes = k->id && k->response && k->items ? strlen(k->response) + strlen(k->items) : m->max_bytes + 1;
    if (k->bytes > m->max_bytes) {
        kept_free(k);
        return;
    }
    pthread_mutex_lock(&m->lock);
    *m->end = k;
    m->end = &k->next;
    m->n++;
    m->bytes += k->bytes;
    while (m->n > m->max_answers || m->bytes > m->max_bytes) drop(m, &m->oldest);
    pthread_mutex_unlock(&m->lock);
}

static kept **place_of(response_memory *m, const char *id) {
    kept **at = &m->oldest;
    while (*at && strcmp((*at)->id, id)) at = &(*at)->next;
    return at;
}

static json_t *parsed(response_memory *m, const char *id, bool items) {
    pthread_mutex_lock(&m->lock);
    kept *k = *place_of(m, id);
    char *text = k ? strdup(items ? k->items : k->response) : NULL;
    pthread_mutex_unlock(&m->lock);
    json_t *j = text ? json_loads(text, JSON_ALLOW_NUL, NULL) : NULL;
    free(text);
    return j;
}

json_t *response_memory_find(response_memory *m, const char *id) {
    return parsed(m, id, false);
}

json_t *response_memory_items(response_memory *m, const char *id) {
    return parsed(m, id, true);
}

/* The answer that an item's id names: PREFIX_ID_NUMBER is of resp_ID. */
static const json_t *answer_of_item(response_memory *m, const char *item_id, json_t *seen) {
    const char *mark = strchr(item_id, '_'), *end = mark ? strchr(mark + 1, '_') : NULL;
    str id = {0};
    str_puts(&id, "resp_");
    if (end) str_add(&id, mark + 1, (size_t)(end - mark - 1));
    if (!end || id.failed) {
        str_free(&id);
        return NULL;
    }
    if (!json_object_get(seen, id.p)) {
        json_t *answer = response_memory_find(m, id.p);
        json_object_set_new(seen, id.p, answer ? answer : json_null());
    }
    const json_t *answer = json_object_get(seen, id.p);
    str_free(&id);
    return answer;
}

json_t *response_memory_item(response_memory *m, const char *item_id, json_t *seen) {
    json_t *item;
    size_t i;
    json_array_foreach(json_object_get(answer_of_item(m, item_id, seen), "output"), i, item) {
        const char *own = json_string_value(json_object_get(item, "id"));
        if (own && !strcmp(own, item_id)) return json_incref(item);
    }
    return NULL;
}

bool response_memory_forget(response_memory *m, const char *id) {
    pthread_mutex_lock(&m->lock);
    kept **at = place_of(m, id);
    bool found = *at;
    if (found) drop(m, at);
    pthread_mutex_unlock(&m->lock);
    return found;
}
