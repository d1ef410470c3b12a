/* Frequencies f_i = theta^(-2i/dim), and their scalings:
 *   linear   f / s
 *   YaRN     f / s (1 - g) + f g with g = 1 - clamp((i - low) / (high - low)), where low and high are the dimensions
 * that turn beta_fast and beta_slow times in the original context (Peng et al. 2023, 3.2; V3 inference code,
 *            precompute_freqs_cis). cos and sin times mscale(s, mscale) / mscale(s, mscale_all_dim).
 *   llama3   long waves f / s, short waves f, a linear blend between (Llama 3.1).
 * Frequencies and angles are F32 as in the reference: at far positions the rounding of an angle is not small, and the
 * weights were trained with it. */
#include <tgmath.h>
#include "model/rope.h"

static double yarn_mscale(double factor, double mscale) {
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

/* The dimension whose wave turns `turns` times within the original context. */
static double turning_dim(const rope_config *r, int64_t dim, double turns) {
    return (double)dim * log(r->original_max_position / (turns * 2 * M_PI)) / (2 * log(r->theta));
}

static void yarn(const rope_config *r, int64_t dim, real *f) {
    double low = floor(turning_dim(r, dim, r->beta_fast)), high = ceil(turning_dim(r, dim, r->beta_slow));
    if (low < 0) low = 0;
    if (high > (double)(dim - 1)) high = (double)(dim - 1);
    if (low == high) high += 0.001;
    for (int64_t i = 0; i < dim / 2; i++) {
        real ramp = (real)(((double)i - low) / (high - low));
        real keep = 1 - (ramp < 0 ? 0 : ramp > 1 ? 1 : ramp);
        f[i] = f[i] / (real)r->factor * (1 - keep) + f[i] * keep;
    }
}

static void llama3(const rope_config *r, int64_t dim, real *f) {
    for (int64_t i = 0; i < dim / 2; i++) {
        double wave = 2 * M_PI / f[i];
        if (wave > r->original_max_position / r->low_freq_factor) {
            f[i] /= (real)r->factor;
        } else if (wave >= r->original_max_position / r->high_freq_factor) {
            double smooth =
                (r->original_max_position / wave - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
            f[i] = (real)((1 - smooth) * f[i] / r->factor + smooth * f[i]);
        }
    }
}

real rope_frequencies(const rope_config *r, int64_t dim, real *f) {
    for (int64_t i = 0; i < dim / 2; i++) f[i] = 1.0f / powf((real)r->theta, (real)(2 * i) / (real)dim);
    if (r->type == ROPE_LINEAR)
        for (int64_t i = 0; i < dim / 2; i++) f[i] /= (real)r->factor;
    if (r->type == ROPE_LLAMA3) llama3(r, dim, f);
    if (r->type != ROPE_YARN) return 1;
    yarn(r, dim, f);
    if (r->attention_factor != 0) return (real)r->attention_factor;
    if (r->mscale != 0 && r->mscale_all_dim != 0)
        return (real)(yarn_mscale(r->factor, r->mscale) / yarn_mscale(r->factor, r->mscale_all_dim));
    return (real)yarn_mscale(r->factor, 1);
}

void rope_table(real *table, const real *inv_freq, real factor, int64_t dim, int64_t pos, int64_t n) {
    for (int64_t t = 0; t < n; t++)
        for (int64_t i = 0; i < dim / 2; i++) {
            real angle = (real)(pos + t) * inv_freq[i];
            *table++ = cosf(angle) * factor;
            *table++ = sinf(angle) * factor;
        }
}
