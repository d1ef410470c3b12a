/* What the handles of hadal.h are, and the step from inner errors to public ones. */
#ifndef HADAL_API_INTERNAL_H
#define HADAL_API_INTERNAL_H

#include "hadal_train.h"
#include "infer/generate.h"
#include "text/chat.h"
#include "text/grammar.h"
#include "text/template.h"
#include "text/toolcall.h"
#include "train/run.h"

struct hadal_tokenizer {
    tokenizer *t;
};

/* What a folder says about text and sampling: everything but the weights. */
typedef struct folder_text {
    hadal_tokenizer tokenizer; /* t: NULL when the folder has none */
    chat_template *template;   /* NULL when there is none */
    char *template_error;      /* why a template could not be compiled: said when it is asked for */
    char *model_type;
    int32_t eos[16];
    int n_eos;
    sampling sampling; /* of generation_config.json */
} folder_text;

status folder_text_open(folder_text *out, const char *folder, error *e);
void folder_text_close(folder_text *f);
/* The format in which the model answers. */
const answer_format *folder_text_format(const folder_text *f);
status folder_text_render(const folder_text *f, const char *messages_json, const char *options_json, char **text,
                          error *e);

struct hadal_model {
    model *m;
    engine *g;
    folder_text text;
    uint64_t file_bytes;
    _Atomic(token_bytes *) bytes; /* of the tokenizer, for grammars; made by the first of them */
};

struct hadal_grammar {
    grammar *g;
};

struct hadal_session {
    session *s;
    hadal_model *model;
};

/* Copies a caller's option struct of any version into ours of `size` bytes, which holds the defaults: its first member
 * says how much of it there is (0: all). from may be NULL. */
void api_options(void *to, size_t size, const void *from);

/* The public code of a status; the sentence goes to `to` (may be NULL). */
int api_result(status s, const error *from, hadal_error *to);

/* How tokens are drawn, from the public options; zeros become what they mean. */
sampling api_sampling(const hadal_sampling *o);
hadal_token api_token(const generated_token *t); /* borrows from it */
/* An answer as the public result, which takes its memory. */
void api_give_result(generated *a, hadal_result *r);

/* What a training calls, by way of the caller's functions; as long as *o lives. */
run_hooks api_hooks(hadal_train_options *o);

/* The value as indented text (owned by the caller; out may be NULL). Takes the value, also when it fails. */
status api_json(json_t *j, char **out, error *e);

#endif
