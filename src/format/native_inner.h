/* What the reading and the writing half of native checkpoints share. */
#ifndef HADAL_FORMAT_NATIVE_INNER_H
#define HADAL_FORMAT_NATIVE_INNER_H

#include "format/native.h"

#define NATIVE_FORMAT "hadal-native"

enum { NATIVE_VERSION = 1, NATIVE_NAME_MAX = 2000 /* bytes of a tensor's name */ };

/* The CRC-32 of state.json's content without its member "crc32", keys sorted: hexadecimal digits. */
status native_state_crc(const json_t *root, char hex[9], error *e);

/* Is `name` "step-" and at least eight digits, then `end`? The number goes to *step. */
bool native_step_name(const char *name, const char *end, int64_t *step);

#endif
