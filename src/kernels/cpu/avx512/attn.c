/* Attention and rows with AVX-512: 16 lanes; and the selection of the largest scores. */
#include "kernels/cpu/attn_lanes.h"
#include "kernels/cpu/attn_row_lanes.h"
#include "kernels/cpu/attn_train_lanes.h"
#include "kernels/cpu/rows_lanes.h"

enum { SAMPLE = 128, MARGIN = 16 }; /* a margin of three standard deviations of a rank in the sample */

static inline __mmask16 first_lanes(int64_t n) {
    return n >= LANES ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1);
}

/* Scores as integers of the same order; -0 equals 0 and NaN is the smallest. */
static void order_scores(uint32_t *out, const float *score, int64_t n) {
    const __m512i sign = _mm512_set1_epi32((int32_t)0x80000000u);
    for (int64_t i = 0; i < n; i += LANES) {
        __mmask16 there = first_lanes(n - i);
        __m512 x = _mm512_maskz_loadu_ps(there, score + i);
        __mmask16 number = _mm512_cmp_ps_mask(x, x, _CMP_ORD_Q);
        __m512i u = _mm512_castps_si512(_mm512_add_ps(x, _mm512_setzero_ps()));
        __m512i flip = _mm512_or_si512(_mm512_srai_epi32(u, 31), sign); /* all bits of a negative one, else the sign */
        _mm512_mask_storeu_epi32(out + i, there, _mm512_maskz_xor_epi32(number, u, flip));
    }
}

static int64_t count_from(const uint32_t *u, int64_t n, uint32_t least) { /* how many are >= least */
    __m512i count = _mm512_setzero_si512(), bound = _mm512_set1_epi32((int32_t)least), one = _mm512_set1_epi32(1);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        count = _mm512_mask_add_epi32(count, _mm512_cmpge_epu32_mask(_mm512_loadu_si512(u + i), bound), count, one);
    __m512i rest = _mm512_maskz_loadu_epi32(first_lanes(n - i), u + i);
    count = _mm512_mask_add_epi32(count, _mm512_mask_cmpge_epu32_mask(first_lanes(n - i), rest, bound), count, one);
    return _mm512_reduce_add_epi32(count);
}

/* The rank-th largest of n numbers, 1 <= rank <= n, all of which lie in low .. high. */
static uint32_t find_rank(const uint32_t *u, int64_t n, int64_t rank, uint32_t low, uint32_t high) {
    while (low < high) {
        uint32_t middle = high - (high - low) / 2;
        if (count_from(u, n, middle) >= rank) low = middle;
        else high = middle - 1;
    }
    return low;
}

/* Copies those in low .. high to out, which has room for a vector more. */
static int64_t copy_between(uint32_t *out, const uint32_t *u, int64_t n, uint32_t low, uint32_t high) {
    __m512i from = _mm512_set1_epi32((int32_t)low), to = _mm512_set1_epi32((int32_t)high);
    int64_t count = 0;
    for (int64_t i = 0; i < n; i += LANES) {
        __mmask16 there = first_lanes(n - i);
        __m512i x = _mm512_maskz_loadu_epi32(there, u + i);
        __mmask16 in = _mm512_mask_cmpge_epu32_mask(_mm512_mask_cmple_epu32_mask(there, x, to), x, from);
        _mm512_storeu_si512(out + count, _mm512_maskz_compress_epi32(in, x));
        count += _mm_popcnt_u32(in);
    }
    return count;
}

/* The k-th largest. A sample says between which two numbers it should lie; when it does, only those are searched. */
static uint32_t threshold_of(const uint32_t *u, int64_t n, int64_t k, uint32_t *candidate) {
    const uint32_t all = 0xffffffffu;
    if (n > 4 * SAMPLE) {
        uint32_t sample[SAMPLE];
        for (int64_t i = 0; i < SAMPLE; i++) sample[i] = u[i * n / SAMPLE];
        int64_t rank = k * SAMPLE / n;
        uint32_t high = rank - MARGIN < 1 ? all : find_rank(sample, SAMPLE, rank - MARGIN, 0, all);
        uint32_t low = rank + MARGIN > SAMPLE ? 0 : find_rank(sample, SAMPLE, rank + MARGIN, 0, all);
        int64_t above = high == all ? 0 : count_from(u, n, high + 1);
        int64_t count = copy_between(candidate, u, n, low, high);
        if (above < k && k <= above + count) return find_rank(candidate, count, k - above, low, high);
    }
    return find_rank(u, n, k, 0, all);
}

static void top_k(int32_t *keep, const float *score, int64_t n, int64_t k, uint32_t *scratch) {
    order_scores(scratch, score, n);
    uint32_t least = threshold_of(scratch, n, k, scratch + n);
    int64_t equal = k - (least == 0xffffffffu ? 0 : count_from(scratch, n, least + 1)), kept = 0;
    __m512i bound = _mm512_set1_epi32((int32_t)least),
            position = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int64_t i = 0; i < n && kept < k; i += LANES) {
        __mmask16 there = first_lanes(n - i);
        __m512i x = _mm512_maskz_loadu_epi32(there, scratch + i);
        uint32_t more = _mm512_mask_cmpgt_epu32_mask(there, x, bound),
                 same = _mm512_mask_cmpeq_epu32_mask(there, x, bound);
        for (; _mm_popcnt_u32(same) > equal; same &= ~(1u << (31 - __builtin_clz(same)))) {}
        equal -= _mm_popcnt_u32(same);
        int count = _mm_popcnt_u32(more | same);
        _mm512_mask_storeu_epi32(keep + kept, first_lanes(count),
                                 _mm512_maskz_compress_epi32((__mmask16)(more | same), position));
        kept += count;
        position = _mm512_add_epi32(position, _mm512_set1_epi32(LANES));
    }
}

void avx512_attn(attn_micro *m) {
    fill_attn_lanes(m);
    m->row = row_lanes;
    fill_rows_lanes(m);
    fill_attn_train_lanes(m);
    m->top_k = top_k;
}
