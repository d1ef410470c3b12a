/* Attention and rows with AVX-512: 16 lanes. */
#include "kernels/cpu/attn_lanes.h"
#include "kernels/cpu/rows_lanes.h"

void avx512_attn(attn_micro *m) {
    fill_attn_lanes(m);
    fill_rows_lanes(m);
}
