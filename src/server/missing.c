/* Stand-ins for what is not written yet. Weak: in the program the real function wins as soon as there is one. In a test
 * (which takes objects out of an archive) a stand-in may win: whoever adds the function removes its line here. */
#include "server/handlers.h"

#define MISSING(name)                                                           \
    __attribute__((weak)) void name(server *s, exchange *x) {                   \
        (void)s;                                                                \
        exchange_error(x, 501, NULL, NULL, #name ": see src/server/missing.c"); \
    }
