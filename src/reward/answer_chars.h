/* Characters of ASCII, whatever the locale is. */
#ifndef HADAL_REWARD_ANSWER_CHARS_H
#define HADAL_REWARD_ANSWER_CHARS_H

#include <stdbool.h>

static inline bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static inline char to_small(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static inline bool is_letter(char c) {
    return to_small(c) >= 'a' && to_small(c) <= 'z';
}

static inline bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Behind the digits, letters, blanks at p. */
static inline const char *digits_end(const char *p) {
    while (is_digit(*p)) p++;
    return p;
}

static inline const char *letters_end(const char *p) {
    while (is_letter(*p)) p++;
    return p;
}

static inline const char *blanks_end(const char *p) {
    while (is_blank(*p) || *p == '~') p++;
    return p;
}

#endif
