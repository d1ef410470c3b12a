/* Native checkpoints of training into Hugging Face folders and back, in little memory. The reasons of convert_run
 * apply: these are two of its ways.
 *
 * A run's folder has model/ (config.json, tokenizer files) and steps. In a step weights are F32. Which type they had,
 * or shall have, in a Hugging Face folder is said by the trainer's state: "dtype" for all but those that are F32 in
 * every checkpoint (the router's correction bias), "types" for exceptions. So a Hugging Face folder of BF16 and F32
 * comes back byte by byte; FP8 comes back as BF16.
 *
 * MTP layers may bring copies of the embedding and the head. Equal ones are not kept: "mtp_copies" says that they are
 * written again. Copies that differ are tensors of their own. */
#ifndef HADAL_CONVERT_NATIVE_H
#define HADAL_CONVERT_NATIVE_H

#include <stdbool.h>
#include "convert/convert.h"
#include "model/model.h"

/* A step's folder, or a run's (then its newest step is meant). */
bool is_native_input(const char *folder);

/* o->out becomes a run's folder with model/ and step-00000000. An interrupted run begins anew. */
status native_from_model(const convert_options *o, convert_result *r, error *e);
status native_to_model(const convert_options *o, convert_result *r, error *e);

/* --- shared by both ways ---------------------------------------------------------------------------------------- */

/* The name of the weight that this one of an MTP layer is a copy of; NULL: it is none. */
const char *native_copy_of(const model_config *c, const weight_item *w);
/* pool_run; with NULL for the pool in the calling thread. */
void native_tasks(pool *threads, int64_t n, pool_function *f, void *arg);
/* n numbers of a floating-point type as `to` (DT_F32 or DT_BF16). */
void native_cast(pool *threads, void *out, dtype to, const void *from, dtype type, int64_t n);
/* ERR_FORMAT when a tensor does not have the weight's shape; `where` is the file or folder. */
status native_check_shape(const char *where, const weight_item *w, int ndim, const int64_t *dim, error *e);
bool native_is_number(dtype t); /* F32, BF16, F16 */

#endif
