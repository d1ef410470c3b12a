#include "post/traces.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"

enum { TRACES = 12, MOST_BYTES = 256 << 20 };

static status add(str *to, int64_t step, const completion *x, error *e) {
    json_t *j =
        json_pack("{s:I, s:s, s:s, s:s?, s:I, s:b}", "step", (json_int_t)step, "prompt", x->prompt->text, "completion",
                  x->text, "answer", x->prompt->answer, "tokens", (json_int_t)x->n, "finished", x->finished);
    if (j && !isnan(x->reward)) json_object_set_new(j, "reward", json_real(x->reward));
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    json_decref(j);
    if (!text) return fail(e, ERR_NOMEM, "memory is out");
    str_puts(to, text);
    str_putc(to, '\n');
    free(text);
    return OK;
}

/* Lines of earlier steps. */
static void keep(str *to, const str *old, int64_t step) {
    for (const char *p = old->p; p && *p;) {
        const char *end = strchr(p, '\n');
        if (!end) return; /* torn */
        json_t *j = json_loadb(p, (size_t)(end - p), 0, NULL);
        if (json_is_object(j) && json_integer_value(json_object_get(j, "step")) < step)
            str_add(to, p, (size_t)(end + 1 - p));
        json_decref(j);
        p = end + 1;
    }
}

status traces_write(const char *folder, int64_t step, const rollout *r, error *e) {
    char *path = path_join(folder, "samples.jsonl");
    str old = {0}, text = {0};
    if (!path) return fail(e, ERR_NOMEM, "memory is out");
    status s = file_exists(path) ? file_read(&old, path, MOST_BYTES, e) : OK;
    if (s == OK) keep(&text, &old, step);
    const int64_t every = r->n > TRACES ? r->n / TRACES : 1;
    for (int64_t i = 0, n = 0; s == OK && i < r->n && n < TRACES; i += every, n++) s = add(&text, step, &r->list[i], e);
    if (s == OK) s = str_check(&text, e);
    if (s == OK) s = file_save(path, text.p, text.n, e);
    str_free(&old);
    str_free(&text);
    free(path);
    return s;
}
