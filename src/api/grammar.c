/* Public functions about grammars: what an answer may be. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "api/internal.h"

/* The model's tokens by their bytes are made when they are first asked for; of two threads that make them at once one
 * gives its own back. */
static status bytes_of(hadal_model *m, const token_bytes **out, error *e) {
    token_bytes *mine = NULL, *there = atomic_load(&m->bytes);
    if (!there) {
        if (!m->text.tokenizer.t)
            return fail(e, ERR_UNSUPPORTED, "this checkpoint has no tokenizer, which constrained answers need");
        TRY(token_bytes_open(&mine, m->text.tokenizer.t, e));
        if (atomic_compare_exchange_strong(&m->bytes, &there, mine)) there = mine;
        else token_bytes_close(mine);
    }
    *out = there;
    return OK;
}

static status open_grammar(hadal_grammar *h, const hadal_model *m, const char *spec_json, error *e) {
    const token_bytes *bytes = NULL;
    json_t *spec;
    TRY(bytes_of((hadal_model *)m, &bytes, e)); /* a cache: nobody can see it change */
    status s = json_parse(&spec, spec_json, strlen(spec_json), "the grammar's specification", e);
    if (s == ERR_FORMAT) return e->code = ERR_ARG;
    TRY(s);
    s = grammar_open(&h->g, bytes, folder_text_format(&m->text), spec, e);
    json_decref(spec);
    return s;
}

int hadal_grammar_open(hadal_grammar **out, const hadal_model *m, const char *spec_json, hadal_error *e) {
    error why;
    if (!out || !m || !spec_json)
        return api_result(fail(&why, ERR_ARG, "hadal_grammar_open needs a model and a specification"), &why, e);
    *out = NULL;
    hadal_grammar *h = calloc(1, sizeof *h);
    status s = h ? open_grammar(h, m, spec_json, &why) : fail(&why, ERR_NOMEM, "memory is out");
    if (s == OK) *out = h;
    else hadal_grammar_close(h);
    return api_result(s, &why, e);
}

void hadal_grammar_close(hadal_grammar *h) {
    if (!h) return;
    grammar_close(h->g);
    free(h);
}
