/* Attention and rows with AVX2 and FMA: 8 lanes. */
#include "kernels/cpu/attn_lanes.h"
#include "kernels/cpu/attn_row_lanes.h"
#include "kernels/cpu/attn_train_lanes.h"
#include "kernels/cpu/rows_lanes.h"

void avx2_attn(attn_micro *m) {
    fill_attn_lanes(m);
    m->row = row_lanes;
    fill_rows_lanes(m);
    fill_attn_train_lanes(m);
}
