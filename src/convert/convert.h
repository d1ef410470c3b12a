/* Converts a checkpoint folder between number formats: FP8 to BF16 or F32, BF16 or F32 to FP8, and among these.
 *
 * Every tensor of the output is a function of one weight of the input (and its block scales), computed a few megabytes
 * at a time; each shard of the output takes the tensors of the input's shard of the same name. So memory stays small
 * for checkpoints of any size. Results are bit-equal whatever the number of threads and however often the run was
 * interrupted.
 *
 * What becomes of the tensors:
 *   to BF16  FP8 weights with their weight_scale_inv become BF16 (product in F32, rounded to nearest even), F16
 *            becomes BF16. F32 tensors of a checkpoint that also has smaller types were left in F32 on purpose and
 * stay; in a checkpoint of F32 alone all become BF16 except the router's correction bias. to F32   all floating-point
 * tensors become F32. to FP8   the matrices that DeepSeek's FP8 checkpoints quantise (attention and expert projections,
 * the indexer's wq_b and wk) become E4M3 with block scales, the rest as for BF16. FP8 weights stay as they are.
 *   Integers and booleans are copied.
 *
 * config.json gets the new torch_dtype, quantization_config and num_nextn_predict_layers, all else in it stays in its
 * place; tokenizer and generation files are copied; Python files are not.
 *
 * Safe to kill at any moment: files take their names when they are complete and synced. A file convert.json in the
 * output folder, written first and removed last, says that the conversion is unfinished and what it is of; the same
 * call again finds finished shards and goes on, and any other call is refused. */
#ifndef HADAL_CONVERT_CONVERT_H
#define HADAL_CONVERT_CONVERT_H

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "base/pool.h"
#include "convert/fp8.h"

/* SAME: the type that a native checkpoint of training names. NATIVE: makes such a checkpoint (convert/native.h). */
typedef enum convert_type { CONVERT_BF16, CONVERT_F32, CONVERT_FP8, CONVERT_SAME, CONVERT_NATIVE } convert_type;

/* Layers from num_hidden_layers on predict further tokens (MTP). HIDE writes num_nextn_predict_layers 0 and keeps their
 * tensors, as DeepSeek's own conversion does; DROP leaves the tensors out, too. */
typedef enum convert_mtp { CONVERT_MTP_KEEP, CONVERT_MTP_HIDE, CONVERT_MTP_DROP } convert_mtp;

/* Called between pieces with bytes of output files; `what` is the tensor or file at work. Nonzero stops: the call
 * returns ERR_CANCELLED, finished shards stay for the next run. */
typedef int convert_progress(void *arg, uint64_t done_bytes, uint64_t total_bytes, const char *what);

typedef struct convert_options {
    const char *in, *out; /* out: a new or empty folder, or one in which the same conversion was interrupted */
    convert_type to;
    convert_mtp mtp;
    scale_format scale; /* for CONVERT_FP8 */
    pool *threads;      /* NULL: the calling thread alone */
    convert_progress *progress;
    void *progress_arg;
} convert_options;

typedef struct convert_result {
    size_t shards, shards_found; /* of the output; how many of them an earlier run had finished */
    size_t tensors;              /* in the output */
    uint64_t bytes;              /* of the output's shards */
    uint64_t nan_codes;          /* E4M3 NaN codes met in this run, and the first tensor that had one; they stay NaN */
    char nan_tensor[200];
} convert_result;

status convert_run(const convert_options *o, convert_result *result, error *e);

#endif
