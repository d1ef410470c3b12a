/* The public face of the incremental answer parser (text/toolcall.h): its events as the pieces of hadal.h. */
#include <limits.h>
#include <stdlib.h>
#include "api/internal.h"

struct hadal_reader {
    answer_parser *parser;
    hadal_on_piece *on_piece;
    void *arg;
};

static status pass_on(void *user, const answer_event *event) {
    static const int kinds[] = {[ANSWER_REASONING] = HADAL_PIECE_REASONING,
                                [ANSWER_CONTENT] = HADAL_PIECE_CONTENT,
                                [ANSWER_CALL] = HADAL_PIECE_CALL,
                                [ANSWER_ARGUMENTS] = HADAL_PIECE_ARGUMENTS,
                                [ANSWER_CALL_END] = HADAL_PIECE_CALL_END};
    const hadal_reader *r = user;
    hadal_piece piece = {kinds[event->kind], event->text, event->n, event->call > INT_MAX ? INT_MAX : (int)event->call,
                         event->valid};
    r->on_piece(r->arg, &piece);
    return OK;
}

static status open_reader(hadal_reader **out, const hadal_model *m, answer_options how, hadal_on_piece *on_piece,
                          void *arg, error *e) {
    *out = NULL;
    if (how.thinking < ANSWER_PLAIN || how.thinking > ANSWER_MAY_THINK)
        return fail(e, ERR_ARG, "thinking is %d, it should be one of HADAL_PLAIN ...", (int)how.thinking);
    if (!m || !on_piece) return fail(e, ERR_ARG, "hadal_reader_open needs a model and a function for the pieces");
    hadal_reader *r = calloc(1, sizeof *r);
    if (!r) return fail(e, ERR_NOMEM, "memory is out");
    *r = (hadal_reader){.on_piece = on_piece, .arg = arg};
    status s = answer_open(&r->parser, folder_text_format(&m->text), how, pass_on, r, e);
    if (s == OK) *out = r;
    else free(r);
    return s;
}

int hadal_reader_open(hadal_reader **out, const hadal_model *m, int thinking, int tools, hadal_on_piece *on_piece,
                      void *arg, hadal_error *e) {
    error why;
    return api_result(open_reader(out, m, (answer_options){(answer_thinking)thinking, tools != 0}, on_piece, arg, &why),
                      &why, e);
}

int hadal_reader_feed(hadal_reader *r, const char *text, size_t n, hadal_error *e) {
    error why;
    return api_result(answer_feed(r->parser, text, n, &why), &why, e);
}

int hadal_reader_finish(hadal_reader *r, hadal_error *e) {
    error why;
    return api_result(answer_finish(r->parser, &why), &why, e);
}

void hadal_reader_close(hadal_reader *r) {
    if (!r) return;
    answer_close(r->parser);
    free(r);
}
