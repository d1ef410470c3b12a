/* One row of a text file to one document of tokens: JSONL texts, conversations and pairs of prompt and completion, or a
 * whole plain text. */
#ifndef HADAL_DATA_ROW_H
#define HADAL_DATA_ROW_H

#include <jansson.h>
#include "data/conversation.h"
#include "data/dataset.h"

/* A token is its id; with this bit the loss does not count it as a target. */
#define TOKEN_SILENT 0x80000000u

typedef struct token_list { /* {0} at the start; release with free(p) */
    uint32_t *p;
    size_t n, cap;
} token_list;

/* Makes room for n more; false: memory is out. */
bool token_list_reserve(token_list *l, size_t n);

typedef enum row_format { ROW_AUTO, ROW_TEXT, ROW_CHAT } row_format;

typedef struct row_encoder { /* shared by threads */
    row_format format;
    const char *text_field;
    const tokenizer *tokenizer;
    unsigned text_flags; /* TOK_... for plain texts */
    int32_t eos;         /* -1: none */
    loss_on loss;
    chat_format chat;
    bool has_chat;            /* conversations can be rendered */
    chat_template *owned;     /* the compiled template */
    char template_error[256]; /* why it could not be compiled */
} row_encoder;

/* chat_template NULL: the tokenizer's own. */
status row_encoder_open(row_encoder *r, const data_options *o, error *e);
void row_encoder_close(row_encoder *r);

/* The template's variables that a row gives: "tools", "thinking", the members of "chat_template_kwargs". *out: a new
 * object, the caller's. */
status row_chat_options(const json_t *row, json_t **out, error *e);

/* Adds the document to out. A row that is damaged is ERR_FORMAT or ERR_ARG, one that hadal cannot train on at all
 * ERR_UNSUPPORTED. *seen: THINKING_... flags. */
status row_encode(const row_encoder *r, const char *line, size_t n, token_list *out, unsigned *seen, error *e);
status row_encode_text(const row_encoder *r, const char *text, size_t n, token_list *out, error *e);

#endif
