/* Products with avx512bf16. */
#include "kernels/linear_micro.h"

void avx512bf16_linear(linear_micro *m) {
    (void)m;
}
