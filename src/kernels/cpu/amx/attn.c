/* Attention at this level: nothing of its own yet. */
#include "kernels/attn_micro.h"

void amx_attn(attn_micro *m) {
    (void)m;
}
