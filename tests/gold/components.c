#include "components.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/json.h"
#include "convert/fp8.h"
#include "kernels/ops.h"
#include "model/config.h"
#include "model/rope.h"

typedef struct components {
    gold *g;
    safetensors f;
    json_t *info;
} components;

static const char *const FILE_NAME = "components";

/* An aligned copy of a tensor's bytes, and its place for numbers; NULL when it is missing or of another type. */
static void *copy_of(const components *c, const char *name, dtype type, int64_t *n) {
    const tensor *t = gold_find(&c->f, name);
    if (!t || t->type != type) return NULL;
    const int64_t count = tensor_count(t);
    void *p = malloc((size_t)(count + 1) * dtype_size(type));
    if (!p) abort();
    memcpy(p, t->data, (size_t)count * dtype_size(type));
    if (n) *n = count;
    return p;
}

static float *floats_of(const components *c, const char *name) {
    const tensor *t = gold_find(&c->f, name);
    if (!t) return NULL;
    float *x = malloc((size_t)(tensor_count(t) + 1) * sizeof *x);
    if (!x) abort();
    fp8_load(x, t->type, t->data, tensor_count(t));
    return x;
}

/* --- rotary tables of real models ------------------------------------------------------------------------------- */

static double number(const json_t *o, const char *key) {
    return json_number_value(json_object_get(o, key));
}

static rope_config rope_of(const json_t *config) {
    const json_t *s = json_object_get(config, "rope_scaling");
    const char *a = json_string_value(json_object_get(s, "type")),
               *b = json_string_value(json_object_get(s, "rope_type")),
               *type = a   ? a
                       : b ? b
                           : "default";
    return (rope_config){.type = !strcmp(type, "yarn")     ? ROPE_YARN
                                 : !strcmp(type, "llama3") ? ROPE_LLAMA3
                                 : !strcmp(type, "linear") ? ROPE_LINEAR
                                                           : ROPE_DEFAULT,
                         .theta = number(config, "rope_theta"),
                         .factor = s ? number(s, "factor") : 1,
                         .original_max_position = number(s, "original_max_position_embeddings"),
                         .beta_fast = number(s, "beta_fast"),
                         .beta_slow = number(s, "beta_slow"),
                         .mscale = number(s, "mscale"),
                         .mscale_all_dim = number(s, "mscale_all_dim"),
                         .low_freq_factor = number(s, "low_freq_factor"),
                         .high_freq_factor = number(s, "high_freq_factor")};
}

/* cos and sin of F32 angles may be off by half a unit of the angle itself: position * 2^-24, plus rounding. */
static void rope(const components *c, const char *key, const json_t *info) {
    char name[80];
    const int64_t dim = json_integer_value(json_object_get(info, "dim")), half = dim / 2;
    const rope_config r = rope_of(json_object_get(info, "config"));
    int64_t n = 0;
    snprintf(name, sizeof name, "%s.pos", key);
    int32_t *pos = copy_of(c, name, DT_I32, &n);
    snprintf(name, sizeof name, "%s.cos", key);
    double *cosine = copy_of(c, name, DT_F64, NULL);
    snprintf(name, sizeof name, "%s.sin", key);
    double *sine = copy_of(c, name, DT_F64, NULL);
    snprintf(name, sizeof name, "%s.inv_freq", key);
    float *golden = copy_of(c, name, DT_F32, NULL);
    float *ours = malloc((size_t)(half + 1) * sizeof *ours), *table = malloc((size_t)(half + 1) * 2 * sizeof *table);
    if (!ours || !table) abort();
    if (pos && cosine && sine && golden && half > 0) {
        double frequency = 0, angle = 0;
        int64_t farthest = 0;
        bool pass = true;
        const float factor = rope_frequencies(&r, dim, ours);
        for (int64_t i = 0; i < half; i++)
            frequency = fmax(frequency, fabs(((double)ours[i] - (double)golden[i]) / (double)golden[i]));
        for (int64_t p = 0; p < n; p++) {
            rope_table(table, ours, factor, dim, pos[p], 1);
            farthest = pos[p] > farthest ? pos[p] : farthest;
            for (int64_t i = 0; i < half; i++) {
                const double d = fmax(fabs((double)table[2 * i] - cosine[p * half + i]),
                                      fabs((double)table[2 * i + 1] - sine[p * half + i]));
                angle = fmax(angle, d);
                pass &= d <= ldexp((double)pos[p] * (double)golden[i], -23) + ldexp(1, -23);
            }
        }
        gold_say(c->g, frequency <= ldexp(1, -22) && pass, FILE_NAME, key,
                 "frequencies differ by %.1e of themselves, cos and sin by %.1e (%d positions up to %lld)", frequency,
                 angle, (int)n, (long long)farthest);
        const model_config m = {
            .kv_lora_rank = 512, .qk_nope_head_dim = 128, .qk_rope_head_dim = 64, .head_dim = 128, .rope = r};
        const double extra = config_attention_scale(&m) * sqrt(192), wanted = number(info, "softmax_extra");
        gold_say(c->g, fabs(extra - wanted) <= 1e-6 * wanted && (double)factor == number(info, "cos_sin_factor"),
                 FILE_NAME, key, "factor of the scores %.7f, wanted %.7f; of cos and sin %.7f", extra, wanted,
                 (double)factor);
    } else gold_say(c->g, false, FILE_NAME, key, "its tensors are missing");
    free(pos);
    free(cosine);
    free(sine);
    free(golden);
    free(ours);
    free(table);
}

/* --- E4M3 ------------------------------------------------------------------------------------------------------- */

static void e4m3(const components *c) {
    int64_t n = 0, wrong = 0, m = 0, rounded = 0;
    uint8_t *codes = copy_of(c, "e4m3.all_codes", DT_U8, &n),
            *saturated = copy_of(c, "e4m3.saturated_codes", DT_U8, &m);
    float *values = copy_of(c, "e4m3.values_f32", DT_F32, NULL), *in = copy_of(c, "e4m3.in_f32", DT_F32, NULL);
    if (codes && values && in && saturated) {
        for (int64_t i = 0; i < n; i++) {
            const float x = e4m3_to_f32(codes[i]);
            wrong += isnan(values[i]) ? !isnan(x) : memcmp(&x, &values[i], 4) != 0;
        }
        for (int64_t i = 0; i < m; i++) rounded += f32_to_e4m3(in[i]) != saturated[i];
    }
    gold_say(c->g, n && m && !wrong, FILE_NAME, "e4m3 values", "%d of %d codes differ", (int)wrong, (int)n);
    gold_say(c->g, n && m && !rounded, FILE_NAME, "e4m3 rounding", "%d of %d numbers differ", (int)rounded, (int)m);
    free(codes);
    free(saturated);
    free(values);
    free(in);
}

/* Quantised rows of activations and blocks of weights, and the product of both. */
static void quantisers(const components *c, const char *kind, scale_format f) {
    char name[80], aspect[80];
    const tensor *act = gold_find(&c->f, "act.in_bf16"), *weight = gold_find(&c->f, "weight.in_bf16");
    snprintf(name, sizeof name, "act.%s.codes", kind);
    uint8_t *act_codes = copy_of(c, name, DT_U8, NULL);
    snprintf(name, sizeof name, "act.%s.scale", kind);
    float *act_scales = copy_of(c, name, DT_F32, NULL);
    snprintf(name, sizeof name, "weight.%s.codes", kind);
    uint8_t *codes = copy_of(c, name, DT_U8, NULL);
    snprintf(name, sizeof name, "weight.%s.scale_inv", kind);
    float *scales = copy_of(c, name, DT_F32, NULL);
    snprintf(name, sizeof name, "weight.%s.dequant_bf16", kind);
    uint16_t *dequantised = copy_of(c, name, DT_BF16, NULL);
    float *act_in = floats_of(c, "act.in_bf16"), *in = floats_of(c, "weight.in_bf16");
    snprintf(aspect, sizeof aspect, "quantise %s", kind);
    if (act && weight && act_codes && act_scales && codes && scales && dequantised) {
        const int64_t rows = act->dim[0], columns = act->dim[1], blocks = fp8_blocks(columns);
        const int64_t out = weight->dim[0], width = weight->dim[1], across = fp8_blocks(width);
        int64_t wrong = 0, wrong_scale = 0, wrong_value = 0;
        uint8_t *made = malloc((size_t)(columns + width));
        float *scale = malloc((size_t)(blocks + across) * sizeof *scale), *back = malloc((size_t)width * sizeof *back);
        if (!made || !scale || !back) abort();
        for (int64_t r = 0; r < rows; r++) {
            fp8_quantize_row(made, scale, act_in + r * columns, columns, f);
            for (int64_t i = 0; i < columns; i++) wrong += made[i] != act_codes[r * columns + i];
            for (int64_t i = 0; i < blocks; i++) wrong_scale += scale[i] != act_scales[r * blocks + i];
        }
        gold_say(c->g, !wrong && !wrong_scale, FILE_NAME, aspect,
                 "activations: %d of %d codes and %d of %d scales differ", (int)wrong, (int)(rows * columns),
                 (int)wrong_scale, (int)(rows * blocks));
        wrong = wrong_scale = 0;
        for (int64_t r = 0; r < out; r++) {
            const float *golden = scales + r / FP8_BLOCK * across;
            for (int64_t b = 0; b < across; b++) {
                if (!fp8_block_scale(&scale[b], weight, r / FP8_BLOCK, b, f)) scale[b] = NAN;
                wrong_scale += scale[b] != golden[b];
            }
            fp8_quantize(made, in + r * width, 0, width, scale);
            fp8_dequantize(back, codes + r * width, 0, width, golden);
            for (int64_t i = 0; i < width; i++) {
                wrong += made[i] != codes[r * width + i];
                wrong_value += f32_to_bf16(back[i]) != dequantised[r * width + i];
            }
        }
        gold_say(c->g, !wrong && !wrong_scale && !wrong_value, FILE_NAME, aspect,
                 "weights: %d of %d codes, %d scales and %d values back in BF16 differ", (int)wrong, (int)(out * width),
                 (int)wrong_scale, (int)wrong_value);
        free(made);
        free(scale);
        free(back);
    } else gold_say(c->g, false, FILE_NAME, aspect, "its tensors are missing");
    free(act_codes);
    free(act_scales);
    free(codes);
    free(scales);
    free(dequantised);
    free(act_in);
    free(in);
}

/* Rows of activations rounded to FP8, times FP8 weights with their scales, against sums by blocks of 128. */
static void fp8_product(const components *c, queue *q, const char *kind, scale_format f) {
    char name[80], aspect[80];
    const tensor *x = gold_find(&c->f, "gemm.x"), *w = gold_find(&c->f, "weight.in_bf16");
    snprintf(name, sizeof name, "weight.%s.codes", kind);
    uint8_t *codes = copy_of(c, name, DT_U8, NULL);
    snprintf(name, sizeof name, "weight.%s.scale_inv", kind);
    float *scales = copy_of(c, name, DT_F32, NULL), *in = floats_of(c, "gemm.x");
    snprintf(name, sizeof name, "gemm.y_%s", kind);
    float *golden = copy_of(c, name, DT_F32, NULL);
    snprintf(aspect, sizeof aspect, "fp8 product %s", kind);
    if (x && w && codes && scales && golden) {
        const int64_t n = x->dim[0], width = x->dim[1], out = w->dim[0], blocks = fp8_blocks(width);
        uint8_t *row = malloc((size_t)width);
        float *scale = malloc((size_t)blocks * sizeof *scale), *y = malloc((size_t)(n * out) * sizeof *y);
        if (!row || !scale || !y) abort();
        for (int64_t r = 0; r < n; r++) {
            fp8_quantize_row(row, scale, in + r * width, width, f);
            fp8_dequantize(in + r * width, row, 0, width, scale);
        }
        const tensor weights = {
            .data = codes, .type = DT_E4M3, .ndim = 2, .dim = {out, width}, .scale = scales, .scale_stride = blocks};
        op_linear(q, &(product){.w = &weights, .x = in, .ldx = width, .y = y, .ldy = out, .n = n}, 1);
        const double d = gold_relative(gold_gap_of(golden, y, n * out));
        gold_say(c->g, d <= 1e-6, FILE_NAME, aspect, "%d x %d by %d, largest difference %.2e", (int)n, (int)width,
                 (int)out, d);
        free(row);
        free(scale);
        free(y);
    } else gold_say(c->g, false, FILE_NAME, aspect, "its tensors are missing");
    free(codes);
    free(scales);
    free(in);
    free(golden);
}

/* --- indexer ---------------------------------------------------------------------------------------------------- */

/* The golden scores are without a mask: each query alone behind all keys sees them all. */
static void indexer(const components *c, queue *q) {
    const tensor *shape = gold_find(&c->f, "indexer.q");
    float *query = floats_of(c, "indexer.q"), *keys = floats_of(c, "indexer.k"), *w = floats_of(c, "indexer.weights"),
          *golden = floats_of(c, "indexer.score_fp32");
    if (shape && shape->ndim == 3 && query && keys && w && golden) {
        const int64_t n = shape->dim[0], heads = shape->dim[1], dim = shape->dim[2];
        float *score = malloc((size_t)(n * n) * sizeof *score);
        int32_t *keep = malloc((size_t)n * sizeof *keep), keep_n;
        if (!score || !keep) abort();
        for (int64_t i = 0; i < n * heads; i++) w[i] = (float)((double)w[i] / sqrt((double)(heads * dim)));
        for (int64_t i = 0; i < n; i++)
            op_index_select(q,
                            &(index_select){.q = query + i * heads * dim,
                                            .ldq = heads * dim,
                                            .w = w + i * heads,
                                            .ldw = heads,
                                            .keys = keys,
                                            .key_type = DT_F32,
                                            .key_stride = dim,
                                            .n = 1,
                                            .T = n,
                                            .heads = (int)heads,
                                            .dim = (int)dim,
                                            .top_k = (int)n,
                                            .keep = keep,
                                            .keep_n = &keep_n,
                                            .keep_stride = n,
                                            .scores = score + i * n,
                                            .ld_scores = n},
                            1);
        const double d = gold_relative(gold_gap_of(golden, score, n * n));
        gold_say(c->g, d <= 1e-6, FILE_NAME, "indexer scores", "%d queries, %d heads of %d: largest difference %.2e",
                 (int)n, (int)heads, (int)dim, d);
        free(score);
        free(keep);
    } else gold_say(c->g, false, FILE_NAME, "indexer scores", "its tensors are missing");
    free(query);
    free(keys);
    free(w);
    free(golden);
}

void gold_components(gold *g, const char *dir) {
    components c = {.g = g};
    char *folder = gold_path(dir, "components"), *tensors = gold_path(folder, "golden.safetensors"),
         *info = gold_path(folder, "golden.json");
    queue *q = NULL;
    error e = {0};
    if (is_directory(folder)) {
        status st = safetensors_open(&c.f, tensors, &e);
        if (st == OK) st = json_read(&c.info, info, 1 << 24, &e);
        if (st == OK) st = queue_open(&q, 2, NULL, COMPUTE_F32, &e);
        if (st != OK) gold_say(g, false, FILE_NAME, "open", "%s", e.text);
        else {
            const char *key;
            json_t *value;
            json_object_foreach(c.info, key, value) if (!strncmp(key, "rope.", 5)) rope(&c, key, value);
            e4m3(&c);
            quantisers(&c, "plain", SCALE_F32);
            quantisers(&c, "ue8m0", SCALE_UE8M0);
            fp8_product(&c, q, "plain", SCALE_F32);
            fp8_product(&c, q, "ue8m0", SCALE_UE8M0);
            indexer(&c, q);
            gold_skip(g, FILE_NAME, "indexer.*_codes, *_hadamard, score_fp8: the indexer is not rounded to FP8 here");
        }
    }
    queue_close(q);
    json_decref(c.info);
    safetensors_close(&c.f);
    free(folder);
    free(tensors);
    free(info);
}
