/* Attention at this level: nothing of its own yet. */
#include "kernels/attn_micro.h"

void avx512bf16_attn(attn_micro *m) {
    (void)m;
}
