/* Our tensors under the names of a golden file: what a run of the model computes inside, beside what another
 * implementation computed, for a comparison tensor by tensor.
 *
 * The golden file holds prompts, ids.P (I32, P any name without a dot), and results under the names below; ours get the
 * same names, shapes and types. Floats are F32.
 *
 *   ids.P, genbatch.*ids, genbatch.attention_mask      copied
 *   logits.P, logits_last.P, logits_tail8.P            logits of the last rows, as many as the golden tensor has
 *   hidden.embed.P, hidden.layerI.P, hidden.final_norm.P
 *   part.layerI.{attn_out,mlp_out,kv_latent,k_pe}.P
 *   router.layerI.P.{logits,index,weight}
 *   dsa.layerI.P.{score,mask}
 *   gen.P; genbatch.rowJ.gen for all genbatch.rowJ.ids greedy continuation, EOS ignored; the rows J as one batch
 *   mtp.logits.P, mtp.hidden.P                         row i joins h[i] after the final norm with token i + 1;
 *                                                      mtp.hidden before shared_head.norm
 *   mtp.logits_prenorm_source.P                        the same with h before the final norm
 *
 * All these mean arithmetic in F32 on weights that are not FP8. An engine that computes in BF16 makes logits_bf16.P and
 * logits_bf16_last.P instead, and one that computes in F32 with an FP8 checkpoint logits_fp8weights_fp32.P. */
#ifndef HADAL_EVAL_TRACE_H
#define HADAL_EVAL_TRACE_H

#include <stdint.h>
#include "base/str.h"
#include "infer/session.h"

/* Called before each prompt; nonzero cancels. */
typedef int trace_progress(void *arg, uint64_t done, uint64_t total, const char *what);

/* Writes the file `out`. missing (may be NULL): gets the golden names that this run cannot make, one a line. A golden
 * tensor whose shape is not that of this model's is ERR_FORMAT, and so is a file without any name that can be made. */
status trace_run(engine *g, const char *golden, const char *out, str *missing, trace_progress *progress, void *arg,
                 error *e);

#endif
