/* The weights of a model: a folder in Hugging Face's layout (model.safetensors, or shards that
 * model.safetensors.index.json lists), or a single .safetensors file. Names and bytes only: what a tensor means, and
 * which weight_scale_inv belongs to which weight, is the model's business.
 *
 * As in transformers, model.safetensors is taken when a folder has both it and an index; the index says which shards
 * are read, and every tensor in those shards is offered, listed or not. Where two shards have a tensor of one name,
 * the index decides; a name that is in two shards and not in the index is an error. A listed tensor that its shard
 * lacks, and a missing shard, are errors. Shards may be symbolic links (the hub's cache is made of them), but the
 * index may not name absolute paths or use "..". */
#ifndef HADAL_FORMAT_WEIGHTS_FILE_H
#define HADAL_FORMAT_WEIGHTS_FILE_H

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "tensor/tensor.h"

typedef struct weights_file weights_file;

typedef struct weights_entry {
    const char *name;
    tensor t;         /* contiguous; data points into the mapping of a shard; scale is NULL */
    const char *file; /* the shard as the index names it: "model-00001-of-000163.safetensors" */
} weights_entry;

/* Tensors whose bytes are not aligned to their element size are copied once into memory that the weights_file owns
 * (the format does not promise alignment; usual files have no such tensor). */
status weights_open(weights_file **out, const char *folder, error *e);
/* The same without copies: data may be unaligned, so read it with memcpy or dtype_load. For converters. */
status weights_open_in_place(weights_file **out, const char *folder, error *e);
void weights_close(weights_file *w); /* accepts NULL */

const weights_entry *weights_find(const weights_file *w, const char *name); /* NULL when there is none */
size_t weights_count(const weights_file *w);
const weights_entry *weights_at(const weights_file *w, size_t i); /* by shard (in the order of their names), then by
                                                                     place in the shard; NULL past the end */
uint64_t weights_bytes(const weights_file *w);                    /* sum over all tensors */
const char *weights_meta(const weights_file *w, const char *key); /* of the first shard that has it, or NULL */

/* Bytes first .. first+n-1 of x will not be read again soon: their pages in memory, and up to a megabyte before them,
 * are given back to the system. Reading them once more is allowed and costs time only. For those who stream through
 * files larger than memory. */
void weights_let_go(const weights_file *w, const weights_entry *x, size_t first, size_t n);

#endif
