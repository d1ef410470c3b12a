#include "eval/golden_logits.h"

#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/json.h"

enum { ROWS = 64 }; /* rows of logits that are in memory at a time */

static status write_str(file_writer *w, str *s, error *e) {
    TRY(str_check(s, e));
    status st = file_write(w, s->p, s->n, e);
    s->n = 0;
    return st;
}

static status write_logits(file_writer *w, session *s, const int32_t *ids, int64_t n, str *line, error *e) {
    const int64_t vocab = s->g->m->cfg.vocab_size;
    for (int64_t first = 0; first < n; first += ROWS) {
        int64_t rows = n - first < ROWS ? n - first : ROWS;
        const int32_t *from = ids + first;
        TRY(sessions_extend(&s, 1, &from, &rows, &rows, e));
        for (int64_t r = 0; r < rows; r++) {
            str_puts(line, first + r ? ", [" : "[");
            for (int64_t v = 0; v < vocab; v++)
                str_addf(line, "%s%.9g", v ? ", " : "", (double)s->logits[r * vocab + v]);
            str_putc(line, ']');
            TRY(write_str(w, line, e));
        }
    }
    return OK;
}

static status write_prompt(file_writer *w, engine *g, const tokenizer *t, const char *prompt, error *e) {
    int32_t *ids = NULL;
    size_t n = 0;
    TRY(tokenizer_encode(t, prompt, strlen(prompt), TOK_ADD_SPECIAL, &ids, &n, e));
    str line = {0};
    session *s = NULL;
    json_t *text = json_string(prompt);
    char *quoted = json_dumps(text, JSON_ENCODE_ANY);
    status st = quoted ? OK : fail(e, ERR_NOMEM, "memory is out");
    if (st == OK && n == 0) st = fail(e, ERR_ARG, "an empty prompt has no logits");
    if (st == OK) st = session_open(&s, g, (int64_t)n, e);
    if (st == OK) {
        str_addf(&line, "{\"prompt\": %s, \"tokens\": [", quoted);
        for (size_t i = 0; i < n; i++) str_addf(&line, "%s%d", i ? ", " : "", ids[i]);
        str_puts(&line, "], \"logits\": [");
        st = write_logits(w, s, ids, (int64_t)n, &line, e);
        str_puts(&line, "]}\n");
        if (st == OK) st = write_str(w, &line, e);
    }
    session_close(s);
    free(quoted);
    json_decref(text);
    str_free(&line);
    free(ids);
    return st;
}

status golden_logits_write(engine *g, const tokenizer *t, const char *const *prompts, int count, const char *path,
                           error *e) {
    if (!t) return fail(e, ERR_ARG, "this checkpoint has no tokenizer for the prompts");
    if (count < 1) return fail(e, ERR_ARG, "no prompts");
    file_writer w;
    TRY(file_begin(&w, path, e));
    status s = OK;
    for (int i = 0; i < count && s == OK; i++) s = write_prompt(&w, g, t, prompts[i], e);
    if (s == OK) return file_commit(&w, e);
    file_abort(&w);
    return s;
}
