/* Native checkpoints of training: a folder with state.json and one or more shards (safetensors), complete or not there.
 *
 *   step-00000100/state.json        format version, every tensor's type and shape, the shards' sizes and checksums, and
 *                                   the trainer's own state
 *   step-00000100/shard-0000.safetensors ...   one-dimensional slices of flattened tensors, named "NAME@FIRST"
 *   model/                          beside the steps: config.json, tokenizer files (format/model_files.h)
 *
 * Which slice lies where only the shards say. Members of the trainer's state that `hadal convert` reads: "model" (the
 * folder with config.json and tokenizer, "../model"), "dtype" (the weights' type in a Hugging Face folder, "BF16" or
 * "F32"), "types" ({name: type} of weights that had another one), "mtp_copies" (true: MTP layers had copies of
 * embedding and head). docs/checkpoints.md has all of it.
 *
 * A folder is written under the name step-00000100.tmp, synced, and renamed when everything is in it: what has the real
 * name is whole. Tensors are named as in Hugging Face folders; moments "NAME.exp_avg", "NAME.exp_avg_sq". */
#ifndef HADAL_FORMAT_NATIVE_H
#define HADAL_FORMAT_NATIVE_H

#include <jansson.h>
#include <stdbool.h>
#include "base/error.h"
#include "tensor/tensor.h"

typedef struct native_slice { /* elements first .. first+n-1 of a flattened tensor */
    const char *name;
    dtype type;
    int ndim;
    int64_t dim[TENSOR_DIMS];
    int64_t first, n;
    const void *data;
} native_slice;

/* Writing: begin (makes NAME.tmp anew), then a shard by every rank (any order, any thread), then finish by one rank.
 * Until finish has renamed the folder, an older checkpoint of the same name is untouched. native_abort removes
 * NAME.tmp.
 */
typedef struct native_shard { /* what a rank's shard contributed, for state.json; free with native_shard_free */
    json_t *json;
} native_shard;
status native_begin(const char *folder, error *e);
status native_write_shard(const char *folder, int number, const native_slice *list, int64_t count, native_shard *out,
                          error *e);
status native_finish(const char *folder, const native_shard *shards, int count, const json_t *state, error *e);
/* The same with data that are made as they are written: fill gives elements first .. first+n-1 of list[i] (counted from
 * the tensor's beginning), a few megabytes at a time, for slices whose data is NULL. */
typedef status native_fill(void *arg, int64_t i, int64_t first, int64_t n, void *to, error *e);
status native_write_shard_from(const char *folder, int number, const native_slice *list, int64_t count,
                               native_fill *fill, void *arg, native_shard *out, error *e);
void native_abort(const char *folder);
void native_shard_free(native_shard *s);

typedef struct native_file native_file;
/* Checks sizes; checksums when `verify`. Damaged, missing or overlapping slices are errors that name file and tensor.
 */
status native_open(native_file **out, const char *folder, bool verify, error *e);
void native_close(native_file *f);
const json_t *native_state(const native_file *f); /* the trainer's state, borrowed */
int64_t native_count(const native_file *f);
const native_slice *native_tensor(const native_file *f, int64_t i);      /* whole tensor: first 0, data NULL */
const native_slice *native_find(const native_file *f, const char *name); /* NULL: none */
/* Copies elements first .. first+n-1 of a tensor, whatever slices they lie in; `to` has the tensor's own type. */
status native_read(const native_file *f, const char *name, int64_t first, int64_t n, void *to, error *e);
bool is_native(const char *folder); /* has a state.json of this format */

/* --- a run's folder of steps ------------------------------------------------------------------------------------ */

char *native_step_folder(const char *folder, int64_t step); /* "FOLDER/step-00000100", heap; NULL: memory is out */
/* The steps whose checkpoints are complete, ascending (heap). A folder that does not exist has none. */
status native_steps(const char *folder, int64_t **steps, int64_t *count, error *e);
status native_remove(const char *folder, error *e); /* at no moment is half a checkpoint under its real name */
/* Removes what interrupted saves left (step-N.tmp). Nobody may be saving there. */
status native_clean(const char *folder, error *e);

#endif
