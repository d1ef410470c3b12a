/* Products with amx. */
#include "kernels/linear_micro.h"

void amx_linear(linear_micro *m) {
    (void)m;
}
