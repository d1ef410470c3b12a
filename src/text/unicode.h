/* What the tokenizer needs to know about Unicode: UTF-8 in whole and in pieces, the byte-level alphabet of GPT-2,
 * two classes of characters, and normalization form C. */
#ifndef HADAL_TEXT_UNICODE_H
#define HADAL_TEXT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "base/str.h"

/* The number of leading bytes that are valid UTF-8: n when all of it is, else the offset of the first character that
 * is not. */
size_t utf8_valid(const char *p, size_t n);

/* The character at p, which must be valid UTF-8; returns its length in bytes. */
size_t utf8_get(const char *p, uint32_t *c);
/* Writes c (up to 10FFFF) to p, which has room for 4 bytes; returns the length. */
size_t utf8_put(char *p, uint32_t c);

/* Bytes that come in pieces become text: whole characters are passed on, the beginning of one waits in the tail for
 * its rest. What can never become a character turns into U+FFFD, one for each longest beginning of a character, as in
 * Python's bytes.decode(errors="replace") and Rust's from_utf8_lossy. */
typedef struct utf8_tail { /* {0} at the start */
    char p[3];
    uint8_t n;
} utf8_tail;
void utf8_lossy(str *out, utf8_tail *tail, const char *p, size_t n);
void utf8_lossy_end(str *out, utf8_tail *tail); /* a waiting beginning becomes one U+FFFD */

/* GPT-2's alphabet writes a byte as a visible character: printable Latin-1 stands for itself, the other 68 bytes are
 * U+0100 and up. */
uint32_t byte_to_letter(uint8_t byte);
int letter_to_byte(uint32_t c); /* -1: not in the alphabet */

bool is_white_space(uint32_t c); /* property White_Space */
bool is_word(uint32_t c);        /* \w of Unicode regular expressions (UTS 18) */

/* Normalization form C. text_is_nfc answers quickly and may say false of a text that is. nfc appends; the text must
 * be valid UTF-8. */
bool text_is_nfc(const char *p, size_t n);
status nfc(str *out, const char *p, size_t n, error *e);

#endif
