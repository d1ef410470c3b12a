/* API keys. */
#ifndef HADAL_SERVER_AUTH_H
#define HADAL_SERVER_AUTH_H

#include <stdbool.h>
#include "base/error.h"

typedef struct auth auth;
/* file: one key a line, lines that begin with # are comments; NULL: none. more: keys with commas between; NULL: none.
 * A file without any key is an error: it was meant to protect something. */
status auth_open(auth **out, const char *file, const char *more, error *e);
void auth_close(auth *a);
int auth_keys(const auth *a);
/* authorization: "Bearer KEY"; api_key: "KEY"; either may be NULL. Without keys everybody may. */
bool auth_allows(const auth *a, const char *authorization, const char *api_key);

#endif
