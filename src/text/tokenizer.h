/* The tokenizer of a model folder: text to ids and back, exactly as the Hugging Face tokenizers and transformers
 * libraries do it for byte-level BPE (the DeepSeek family, Qwen2, Llama 3).
 *
 * Texts are UTF-8 with an explicit length and may hold zero bytes. Token ids are int32. */
#ifndef HADAL_TEXT_TOKENIZER_H
#define HADAL_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "base/str.h"
#include "text/unicode.h"

typedef struct tokenizer tokenizer; /* immutable after opening; shared between threads */

/* Reads tokenizer.json in the folder and, where they exist, tokenizer_config.json, special_tokens_map.json and
 * chat_template.jinja. ERR_UNSUPPORTED names a part that is not a byte-level BPE's or not known here. */
status tokenizer_open(tokenizer **out, const char *folder, error *e);

/* The same from texts in memory: n bytes of tokenizer.json, m bytes of tokenizer_config.json (NULL: none). */
status tokenizer_parse(tokenizer **out, const char *json, size_t n, const char *config, size_t m, error *e);

void tokenizer_close(tokenizer *t); /* accepts NULL */

enum {
    TOK_PARSE_SPECIAL = 1, /* special tokens written in the text become their ids; without it they never do */
    TOK_ADD_SPECIAL = 2,   /* BOS and EOS as add_bos_token and add_eos_token say, else the post-processor */
    TOK_MARKED = 4         /* the text has marks of tokenizer_mark */
};

/* Text that comes from others and is to stay text, whatever it says: wherever an added token begins in it (or could,
 * with what may follow), a mark stands behind its first character, so that the token is not found. Encoding with
 * TOK_MARKED leaves the marks out. Tokens for which `keeps` is true (NULL: none) are left as they are. Noncharacters of
 * the text that serve as marks, TOK_MARK and TOK_PLACE, become U+FFFD. */
#define TOK_MARK "\xEF\xB7\x90"  /* U+FDD0 */
#define TOK_PLACE "\xEF\xB7\x91" /* U+FDD1, for marks of callers */
typedef bool token_keeps(const tokenizer *t, const char *token, size_t n);
status tokenizer_mark(const tokenizer *t, const char *text, size_t n, token_keeps *keeps, str *out, error *e);

/* The ids of n bytes of text. *ids is malloc'd and the caller's to free (never NULL when OK), *count their number.
 * Text that is not UTF-8 is ERR_FORMAT and names the offset; more than 1 GiB is ERR_ARG. Added tokens that are not
 * special (such as <think>) are found with and without TOK_PARSE_SPECIAL. */
status tokenizer_encode(const tokenizer *t, const char *text, size_t n, unsigned flags, int32_t **ids, size_t *count,
                        error *e);

/* Decoding one id at a time. Only whole characters are added to `out`; the first bytes of one wait in the state. What
 * is not UTF-8 becomes U+FFFD. Ids that no token has add nothing, as in the Hugging Face library. out->failed tells
 * that memory ran out. */
typedef struct tokenizer_decoding { /* {0} at the start */
    utf8_tail tail;
} tokenizer_decoding;
void tokenizer_decode_next(const tokenizer *t, tokenizer_decoding *d, int32_t id, bool skip_special, str *out);
void tokenizer_decode_end(tokenizer_decoding *d, str *out); /* a character still incomplete becomes U+FFFD */

/* Adds the text of n ids to `out`: the two above in one. */
void tokenizer_decode(const tokenizer *t, const int32_t *ids, size_t n, bool skip_special, str *out);

/* The bytes that a token stands for, an added token's text; NULL when no token has this id. *n is their number. They
 * live as long as the tokenizer and need not be whole characters. */
const char *tokenizer_bytes(const tokenizer *t, int32_t id, size_t *n);
/* The token as the file writes it, bytes in GPT-2's alphabet; terminated. NULL when no token has this id. */
const char *tokenizer_token_text(const tokenizer *t, int32_t id);

int32_t tokenizer_vocab_size(const tokenizer *t);           /* one more than the largest id; some below may be unused */
int32_t tokenizer_bos(const tokenizer *t);                  /* -1: none */
int32_t tokenizer_eos(const tokenizer *t);                  /* -1: none */
int32_t tokenizer_pad(const tokenizer *t);                  /* -1: none */
int32_t tokenizer_id(const tokenizer *t, const char *text); /* of an added token with this text, else -1 */
bool tokenizer_is_special(const tokenizer *t, int32_t id);

/* What else the configuration says: for those who ask, not for encoding. */
typedef struct tokenizer_config {
    const char *tokenizer_class, *unk_token; /* NULL: none */
    int64_t model_max_length;                /* 0: none */
    bool add_bos, add_eos;                   /* what TOK_ADD_SPECIAL adds */
} tokenizer_config;
tokenizer_config tokenizer_configuration(const tokenizer *t);

/* Texts named by the configuration, for chat templates; NULL: none. They live as long as the tokenizer. */
const char *tokenizer_bos_text(const tokenizer *t);
const char *tokenizer_eos_text(const tokenizer *t);
const char *tokenizer_pad_text(const tokenizer *t);
const char *tokenizer_chat_template(const tokenizer *t); /* the one named "default" where there are several */

#endif
