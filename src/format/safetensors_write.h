/* Writes safetensors shards and their index, without ever holding more than a buffer of them.
 *
 * First the whole set is planned from names, types and shapes alone: which tensor goes to which shard, at which byte.
 * Then each shard is streamed in the order of its plan, under a temporary name until it is complete and synced; the
 * index is written last, so a folder with an index has all its shards. Since the plan fixes every byte of the headers,
 * a later run can tell a finished shard from anything else (shard_is_complete) and skip it.
 *
 * Inside a shard tensors are sorted as the format's own writer does: larger elements first, then by type and name, so
 * all data are aligned to their element size. Headers carry {"format": "pt"}, which transformers asks for, and are
 * padded with spaces to a multiple of 8. */
#ifndef HADAL_FORMAT_SAFETENSORS_WRITE_H
#define HADAL_FORMAT_SAFETENSORS_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "base/file.h"
#include "format/safetensors.h"
#include "tensor/tensor.h"

#define SHARD_BYTES 5000000000u /* what Hugging Face's tools write: 5 GB */

typedef struct planned_tensor {
    const char *name;
    tensor t; /* type and shape; data is NULL */
    uint64_t bytes;
    size_t added; /* it was the added-th shard_plan_add: the caller's way back to his own list */
    size_t shard; /* which shard_plan_at */
} planned_tensor;

typedef struct planned_shard {
    const char *file;              /* "model-00001-of-00002.safetensors" */
    const planned_tensor *tensors; /* in the order of the file */
    size_t count;
    uint64_t bytes; /* of the whole file */
    const char *header;
    size_t header_bytes; /* the 8 bytes of its length included */
} planned_shard;

typedef struct shard_plan shard_plan;

status shard_plan_open(shard_plan **out, error *e);
void shard_plan_close(shard_plan *p); /* accepts NULL */

/* Adds a tensor of t's type and shape; name and file are copied. file is the shard it belongs to; NULL for all tensors
 * lets shard_plan_finish fill shards of at most max_shard_bytes in the order of adding and name them as transformers
 * does: model.safetensors, or model-00001-of-00003.safetensors and so on. */
status shard_plan_add(shard_plan *p, const char *file, const char *name, const tensor *t, error *e);
status shard_plan_finish(shard_plan *p, uint64_t max_shard_bytes, error *e);
size_t shard_plan_count(const shard_plan *p); /* shards */
const planned_shard *shard_plan_at(const shard_plan *p, size_t shard);
uint64_t shard_plan_bytes(const shard_plan *p); /* of all files */

/* Bytes of the tensors follow each other through shard_write, in any portions. After a failure only shard_abort. */
typedef struct shard_writer {
    file_writer file;
    uint64_t left;
} shard_writer;

status shard_begin(shard_writer *w, const planned_shard *s, const char *folder, error *e);
status shard_write(shard_writer *w, const void *p, size_t n, error *e);
status shard_commit(shard_writer *w, error *e); /* ERR_ARG when bytes are missing */
void shard_abort(shard_writer *w);

/* Is the file there with the planned header and length? Files take their name only when they are complete. */
bool shard_is_complete(const planned_shard *s, const char *folder);

/* model.safetensors.index.json; nothing when the only shard is model.safetensors. Its "metadata" has "total_size"
 * when total_size is set and is {} otherwise. */
status shard_plan_write_index(const shard_plan *p, const char *folder, bool total_size, error *e);

/* Everything at once for tensors in memory: shards and index into a folder, which is made when it is missing. */
status safetensors_save(const char *folder, const safetensors_entry *entries, size_t count, uint64_t max_shard_bytes,
                        error *e);

#endif
