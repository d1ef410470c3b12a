#include "data/corpus.h"

#include "base/file.h"

static status put(void *arg, const uint32_t *tokens, size_t n, error *e) {
    return file_write(arg, tokens, n * sizeof *tokens, e);
}

static status write_all(file_writer *w, const corpus_options *o, const row_encoder *rows, feed_result *r, error *e) {
    feed_options f = {.paths = o->paths,
                      .n_paths = o->n_paths,
                      .rows = rows,
                      .vocab_size = tokenizer_vocab_size(o->tokenizer),
                      .skip_damaged = o->skip_damaged,
                      .threads = o->threads,
                      .note = o->note,
                      .progress = o->progress,
                      .arg = o->arg};
    TRY(feed_run(&f, put, w, r, e));
    return r->documents ? OK : fail(e, ERR_FORMAT, "%s: no documents in the files given", o->paths[0]);
}

status corpus_write(const char *out, const corpus_options *o, feed_result *r, error *e) {
    *r = (feed_result){0};
    row_encoder rows = {.format = ROW_TEXT,
                        .text_field = o->text_field ? o->text_field : "text",
                        .tokenizer = o->tokenizer,
                        .text_flags = o->flags,
                        .eos = tokenizer_eos(o->tokenizer)};
    if (o->n_paths < 1) return fail(e, ERR_ARG, "no files to tokenize");
    if (rows.eos < 0)
        return fail(e, ERR_FORMAT, "the tokenizer names no eos_token, with which documents of a .bin file end");
    file_writer w;
    TRY(file_begin(&w, out, e));
    status s = write_all(&w, o, &rows, r, e);
    if (s == OK) return file_commit(&w, e);
    file_abort(&w);
    return s;
}
