/* Tokenizers and chats against reference texts. */
#ifndef HADAL_TESTS_GOLD_TEXT_H
#define HADAL_TESTS_GOLD_TEXT_H
#include "compare.h"

/* A folder with tokenizer.json (or tokenizer.json.gz), encode.jsonl, decode.jsonl. */
void gold_tokenizer(gold *g, const char *folder, const char *file);
/* DIR/chat/rendered.jsonl, templates.json. */
void gold_chat(gold *g, const char *dir);

#endif
