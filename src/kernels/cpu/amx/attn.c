/* Attention with AMX: a tile is 16 rows of 64 bytes; one instruction multiplies 16 x 32 by 32 x 16 BF16 numbers.
 * Scores: keys are the rows of the left tiles, read where they lie; panels are the right tiles as they are. Results:
 * weights are turned into left tiles, packed values are the right tiles. Four tiles of sums hide the latency. A score
 * is summed over its index in order whatever the block, and so is a result over the keys. */
#include "kernels/cpu/amx/tiles.h"
#include "kernels/cpu/attn_bf16.h"

enum { DIM_PAD = 32, ROW_PAD = 16, KEY_PAD = 32, TILE_BYTES = 1024 };

static void pack_panel(void *panel, const void *const *rows, dtype type, int count, int64_t d) {
    pack_panel_pairs(panel, rows, type, count, d, DIM_PAD);
}

static void pack_rows(void *out, const void *rows, dtype type, int64_t stride, const int32_t *index, int64_t n,
                      int64_t d) {
    pack_rows_bf16(out, rows, type, stride, index, n, d, DIM_PAD, ROW_PAD);
}

static void pack_values(void *out, const void *rows, dtype type, int64_t stride, int64_t n, int64_t d) {
    pack_values_pairs(out, rows, type, stride, n, d, KEY_PAD);
}

/* 64 keys, one panel */
static void scores_4x1(float *s, size_t ld, const uint16_t *k, size_t stride, const uint16_t *panel, int64_t d) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t i = 0; i < d; i += 32) {
        const char *at = (const char *)(k + i);
        _tile_loadd(4, panel + i * PANEL, 64);
        _tile_loadd(5, at, stride);
        _tile_dpbf16ps(0, 5, 4);
        _tile_loadd(6, at + 16 * stride, stride);
        _tile_dpbf16ps(1, 6, 4);
        _tile_loadd(7, at + 32 * stride, stride);
        _tile_dpbf16ps(2, 7, 4);
        _tile_loadd(5, at + 48 * stride, stride);
        _tile_dpbf16ps(3, 5, 4);
    }
    _tile_stored(0, s, ld);
    _tile_stored(1, (char *)s + 16 * ld, ld);
    _tile_stored(2, (char *)s + 32 * ld, ld);
    _tile_stored(3, (char *)s + 48 * ld, ld);
}

/* 32 keys, two panels */
static void scores_2x2(float *s, size_t ld, const uint16_t *k, size_t stride, const uint16_t *panel, int64_t d) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t i = 0; i < d; i += 32) {
        const char *at = (const char *)(k + i);
        _tile_loadd(4, at, stride);
        _tile_loadd(6, panel + i * PANEL, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, panel + (d + i) * PANEL, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, at + 16 * stride, stride);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, s, ld);
    _tile_stored(1, s + PANEL, ld);
    _tile_stored(2, (char *)s + 16 * ld, ld);
    _tile_stored(3, (char *)s + 16 * ld + 64, ld);
}

/* 16 keys, four panels */
static void scores_1x4(float *s, size_t ld, const uint16_t *k, size_t stride, const uint16_t *panel, int64_t d) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t i = 0; i < d; i += 32) {
        _tile_loadd(4, k + i, stride);
        _tile_loadd(5, panel + i * PANEL, 64);
        _tile_dpbf16ps(0, 4, 5);
        _tile_loadd(6, panel + (d + i) * PANEL, 64);
        _tile_dpbf16ps(1, 4, 6);
        _tile_loadd(7, panel + (2 * d + i) * PANEL, 64);
        _tile_dpbf16ps(2, 4, 7);
        _tile_loadd(5, panel + (3 * d + i) * PANEL, 64);
        _tile_dpbf16ps(3, 4, 5);
    }
    _tile_stored(0, s, ld);
    _tile_stored(1, s + PANEL, ld);
    _tile_stored(2, s + 2 * PANEL, ld);
    _tile_stored(3, s + 3 * PANEL, ld);
}

/* 16 keys, one panel */
static void scores_1x1(float *s, size_t ld, const uint16_t *k, size_t stride, const uint16_t *panel, int64_t d) {
    _tile_zero(0);
    for (int64_t i = 0; i < d; i += 32) {
        _tile_loadd(4, k + i, stride);
        _tile_loadd(5, panel + i * PANEL, 64);
        _tile_dpbf16ps(0, 4, 5);
    }
    _tile_stored(0, s, ld);
}

/* n: a multiple of 16 */
static void tile_scores(float *s, const uint16_t *k, int64_t stride, int64_t n, const uint16_t *panel, int panels,
                        int64_t d) {
    int64_t width = panels * PANEL, next = d * PANEL; /* from panel to panel */
    size_t ld = (size_t)width * sizeof *s, bytes = (size_t)stride * sizeof *k;
    int64_t r = 0;
    for (; panels == 1 && r + 64 <= n; r += 64) scores_4x1(s + r * width, ld, k + r * stride, bytes, panel, d);
    for (; panels > 1 && r + 32 <= n; r += 32) {
        float *to = s + r * width;
        const uint16_t *at = k + r * stride;
        int p = 0;
        for (; p + 2 <= panels; p += 2) scores_2x2(to + p * PANEL, ld, at, bytes, panel + p * next, d);
        if (p == panels) continue;
        scores_1x1(to + p * PANEL, ld, at, bytes, panel + p * next, d);
        scores_1x1(to + p * PANEL + 16 * width, ld, at + 16 * stride, bytes, panel + p * next, d);
    }
    for (; r < n; r += 16) {
        float *to = s + r * width;
        const uint16_t *at = k + r * stride;
        int p = 0;
        for (; p + 4 <= panels; p += 4) scores_1x4(to + p * PANEL, ld, at, bytes, panel + p * next, d);
        for (; p < panels; p++) scores_1x1(to + p * PANEL, ld, at, bytes, panel + p * next, d);
    }
}

static void scores(float *s, const void *rows, int64_t stride, int64_t n, const void *panel, int panels, int64_t d) {
    _tile_loadconfig(&tile_shapes);
    tile_scores(s, rows, stride, (n + ROW_PAD - 1) / ROW_PAD * ROW_PAD, panel, panels, d);
    _tile_release();
}

/* Weights [keys / 2][queries][2] to left tiles [panel][block of 32 keys][query][32]. */
static void weight_tiles(char *out, const attn_step *a, int64_t blocks) {
    int64_t width = a->panels * PANEL, pairs = (a->keys + 1) / 2;
    for (int p = 0; p < a->panels; p++) {
        const char *from = (const char *)a->p + p * PANEL * 4;
        for (int64_t b = 0; b < blocks; b++, out += TILE_BYTES) {
            __m512i r[16];
            for (int64_t i = 0; i < 16; i++) {
                int64_t pair = b * 16 + i;
                r[i] = pair < pairs ? _mm512_loadu_si512(from + pair * width * 4) : _mm512_setzero_si512();
            }
            transpose(r);
            for (int i = 0; i < 16; i++) _mm512_storeu_si512(out + i * 64, r[i]);
        }
    }
}

/* Two panels, 32 dimensions; o, v: at the first of them; ld, stride in bytes */
static void values_2x2(float *o, size_t ld, const char *w, int64_t blocks, const char *v, size_t stride) {
    float *second = (float *)((char *)o + 16 * ld);
    _tile_loadd(0, o, ld);
    _tile_loadd(1, o + 16, ld);
    _tile_loadd(2, second, ld);
    _tile_loadd(3, second + 16, ld);
    for (int64_t b = 0; b < blocks; b++) {
        const char *at = v + (size_t)b * 16 * stride;
        _tile_loadd(4, w + b * TILE_BYTES, 64);
        _tile_loadd(6, at, stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, at + 64, stride);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, w + (blocks + b) * TILE_BYTES, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, o, ld);
    _tile_stored(1, o + 16, ld);
    _tile_stored(2, second, ld);
    _tile_stored(3, second + 16, ld);
}

/* One panel, 64 dimensions */
static void values_1x4(float *o, size_t ld, const char *w, int64_t blocks, const char *v, size_t stride) {
    _tile_loadd(0, o, ld);
    _tile_loadd(1, o + 16, ld);
    _tile_loadd(2, o + 32, ld);
    _tile_loadd(3, o + 48, ld);
    for (int64_t b = 0; b < blocks; b++) {
        const char *at = v + (size_t)b * 16 * stride;
        _tile_loadd(4, w + b * TILE_BYTES, 64);
        _tile_loadd(5, at, stride);
        _tile_dpbf16ps(0, 4, 5);
        _tile_loadd(6, at + 64, stride);
        _tile_dpbf16ps(1, 4, 6);
        _tile_loadd(7, at + 128, stride);
        _tile_dpbf16ps(2, 4, 7);
        _tile_loadd(5, at + 192, stride);
        _tile_dpbf16ps(3, 4, 5);
    }
    _tile_stored(0, o, ld);
    _tile_stored(1, o + 16, ld);
    _tile_stored(2, o + 32, ld);
    _tile_stored(3, o + 48, ld);
}

/* One panel, 16 dimensions */
static void values_1x1(float *o, size_t ld, const char *w, int64_t blocks, const char *v, size_t stride) {
    _tile_loadd(0, o, ld);
    for (int64_t b = 0; b < blocks; b++) {
        _tile_loadd(4, w + b * TILE_BYTES, 64);
        _tile_loadd(5, v + (size_t)b * 16 * stride, stride);
        _tile_dpbf16ps(0, 4, 5);
    }
    _tile_stored(0, o, ld);
}

/* --- keys chosen by index ---------------------------------------------------------------------------------------- */

/* A tile wants its rows evenly spaced, so chosen rows are copied: one line of GROUP rows, while the tiles of the line
 * before are multiplied. Scores and results each read the rows anew, which are then in the second cache: writing the
 * pairs there at the first reading, for the results to load, costs more than reading and pairing twice. */
enum { LINE = 64, LINE_DIMS = 32, GROUP = 64, PART = GROUP / 4 };

/* A line of a group: numbers at .. at + 63, in bytes, of up to GROUP rows; those behind the last are zeros. */
typedef struct group {
    const char *const *row;
    int rows;
    size_t at;
} group;

static inline __m512i line_of(const group *g, int r) {
    return r < g->rows ? _mm512_loadu_si512(g->row[r] + g->at) : _mm512_setzero_si512();
}

/* Rows first .. first + PART - 1: a left tile of scores. */
static inline __attribute__((always_inline)) void copy_part(char *out, const group *g, int first, bool all) {
#pragma GCC unroll 16
    for (int r = first; r < first + PART; r++)
        _mm512_store_si512(out + r * LINE, all ? _mm512_loadu_si512(g->row[r] + g->at) : line_of(g, r));
}

/* The same rows as pairs: half of two right tiles of 16 numbers of 32 rows. */
static inline __attribute__((always_inline)) void pair_part(char *out, const group *g, int first, bool all) {
    out += first / 32 * 2 * TILE_BYTES + first % 32 / 2 * LINE;
#pragma GCC unroll 8
    for (int r = first; r < first + PART; r += 2, out += LINE) {
        __m512i even = all ? _mm512_loadu_si512(g->row[r] + g->at) : line_of(g, r);
        __m512i odd = all ? _mm512_loadu_si512(g->row[r + 1] + g->at) : line_of(g, r + 1);
        __m512i first_half, second_half;
        interleave(even, odd, &first_half, &second_half);
        _mm512_store_si512(out, first_half);
        _mm512_store_si512(out + TILE_BYTES, second_half);
    }
}

static inline __attribute__((always_inline)) void prepare(char *out, const group *g, int part, bool pairs) {
    int first = part * PART;
    bool all = first + PART <= g->rows;
    if (pairs && all) pair_part(out, g, first, true);
    else if (pairs) pair_part(out, g, first, false);
    else if (all) copy_part(out, g, first, true);
    else copy_part(out, g, first, false);
}

static inline void swap(char **a, char **b) {
    char *t = *a;
    *a = *b;
    *b = t;
}

/* One panel. lines: two of a group. */
static void chosen_scores(const attn_step *a, const char *const *row, char *lines) {
    char *at = lines, *to = lines + GROUP * LINE;
    group next = {.row = row, .rows = a->keys};
    for (int part = 0; part < 4; part++) prepare(at, &next, part, false);
    for (int r = 0; r < a->keys; r += GROUP) {
        const uint16_t *q = a->q;
        float *s = a->s + r * PANEL;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t i = 0; i < a->d_qk; i += LINE_DIMS) {
            next.at += LINE;
            if (i + LINE_DIMS == a->d_qk) next = (group){.row = next.row + GROUP, .rows = next.rows - GROUP};
            _tile_loadd(4, q + i * PANEL, 64);
            _tile_loadd(5, at, LINE);
            _tile_dpbf16ps(0, 5, 4);
            prepare(to, &next, 0, false);
            _tile_loadd(6, at + TILE_BYTES, LINE);
            _tile_dpbf16ps(1, 6, 4);
            prepare(to, &next, 1, false);
            _tile_loadd(7, at + 2 * TILE_BYTES, LINE);
            _tile_dpbf16ps(2, 7, 4);
            prepare(to, &next, 2, false);
            _tile_loadd(5, at + 3 * TILE_BYTES, LINE);
            _tile_dpbf16ps(3, 5, 4);
            prepare(to, &next, 3, false);
            swap(&at, &to);
        }
        _tile_stored(0, s, PANEL * sizeof *s);
        _tile_stored(1, s + 16 * PANEL, PANEL * sizeof *s);
        _tile_stored(2, s + 32 * PANEL, PANEL * sizeof *s);
        _tile_stored(3, s + 48 * PANEL, PANEL * sizeof *s);
    }
}

/* One panel; w: left tiles of whole groups. */
static void chosen_values(const attn_step *a, const char *w, const char *const *row, char *lines) {
    size_t ld = (size_t)a->d_v * sizeof(float);
    char *at = lines, *to = lines + GROUP * LINE;
    group next = {.row = row, .rows = a->keys};
    for (int part = 0; part < 4; part++) prepare(at, &next, part, true);
    for (int64_t i = 0; i < a->d_v; i += LINE_DIMS) {
        float *o = a->o + i;
        _tile_loadd(0, o, ld);
        _tile_loadd(1, o + 16, ld);
        for (int r = 0; r < a->keys; r += GROUP) {
            const char *p = w + r / 32 * TILE_BYTES;
            next = (group){.row = next.row + GROUP, .rows = next.rows - GROUP, .at = next.at};
            if (r + GROUP >= a->keys) /* the next line; behind the last one nothing is read */
                next = (group){.row = row, .rows = i + LINE_DIMS < a->d_v ? a->keys : 0, .at = next.at + LINE};
            _tile_loadd(4, p, 64);
            _tile_loadd(5, at, LINE);
            _tile_dpbf16ps(0, 4, 5);
            prepare(to, &next, 0, true);
            _tile_loadd(6, at + TILE_BYTES, LINE);
            _tile_dpbf16ps(1, 4, 6);
            prepare(to, &next, 1, true);
            _tile_loadd(7, p + TILE_BYTES, 64);
            _tile_loadd(5, at + 2 * TILE_BYTES, LINE);
            _tile_dpbf16ps(0, 7, 5);
            prepare(to, &next, 2, true);
            _tile_loadd(6, at + 3 * TILE_BYTES, LINE);
            _tile_dpbf16ps(1, 7, 6);
            prepare(to, &next, 3, true);
            swap(&at, &to);
        }
        _tile_stored(0, o, ld);
        _tile_stored(1, o + 16, ld);
    }
}

static void correct(const attn_step *a, const float *correction) {
    for (int64_t c = 0; c < a->panels * PANEL; c++) {
        if (correction[c] == 1) continue;
        float *o = a->o + c * a->d_v;
        for (int64_t i = 0; i < a->d_v; i += LANES) v_store(o + i, v_mul(v_load(o + i), v_set(correction[c])));
    }
}

static void step_chosen(const attn_step *a) {
    float correction[PANEL];
    const char *row[KEY_BLOCK];
    _Alignas(64) char lines[2 * GROUP * LINE];
    for (int r = 0; r < a->keys; r++) row[r] = (const char *)a->k + (size_t)(a->index[r] * a->k_stride) * 2;
    _tile_loadconfig(&tile_shapes);
    chosen_scores(a, row, lines);
    softmax_step(a, correction);
    weight_tiles((char *)a->s, a, (a->keys + GROUP - 1) / GROUP * (GROUP / KEY_PAD));
    correct(a, correction);
    chosen_values(a, (const char *)a->s, row, lines);
    _tile_release();
}

static void step(const attn_step *a) {
    if (a->index) {
        step_chosen(a);
        return;
    }
    float correction[STEP_PANELS * PANEL];
    int64_t keys = (a->keys + ROW_PAD - 1) / ROW_PAD * ROW_PAD, blocks = (a->keys + KEY_PAD - 1) / KEY_PAD, i = 0;
    size_t ld = (size_t)a->d_v * sizeof(float), stride = (size_t)a->v_stride * 4;
    const char *v = a->v, *w = (const char *)a->s; /* the scores are used up when the tiles of weights are made */
    _tile_loadconfig(&tile_shapes);
    if (a->k) tile_scores(a->s, a->k, a->k_stride, keys, a->q, a->panels, a->d_qk);
    softmax_step(a, correction);
    weight_tiles((char *)a->s, a, blocks);
    correct(a, correction);
    for (; a->panels == 2 && i + 32 <= a->d_v; i += 32) values_2x2(a->o + i, ld, w, blocks, v + i * 4, stride);
    for (; a->panels == 1 && i + 64 <= a->d_v; i += 64) values_1x4(a->o + i, ld, w, blocks, v + i * 4, stride);
    for (; i < a->d_v; i += 16)
        for (int p = 0; p < a->panels; p++)
            values_1x1(a->o + p * PANEL * a->d_v + i, ld, w + p * blocks * TILE_BYTES, blocks, v + i * 4, stride);
    _tile_release();
}

void amx_attn(attn_micro *m) {
    m->product[COMPUTE_BF16] = (attn_product){.type = DT_BF16,
                                              .in_place = DT_BF16,
                                              .dim_pad = DIM_PAD,
                                              .row_pad = ROW_PAD,
                                              .values_plain = false,
                                              .gather_pad = LINE_DIMS,
                                              .pack_panel = pack_panel,
                                              .pack_rows = pack_rows,
                                              .pack_values = pack_values,
                                              .scores = scores,
                                              .step = step};
}
