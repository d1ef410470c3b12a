/* What lies beside the weights in a Hugging Face folder. */
#ifndef HADAL_FORMAT_MODEL_FILES_H
#define HADAL_FORMAT_MODEL_FILES_H

#include "base/error.h"

/* Copies from/NAME to to/NAME; nothing when there is no such file. */
status model_file_copy(const char *from, const char *to, const char *name, error *e);
/* Tokenizer and generation files. */
status model_files_copy(const char *from, const char *to, error *e);

/* A run's model/ folder: config.json, tokenizer and generation files, and model.safetensors.index.json, which says into
 * which shards `hadal convert` puts the trained weights. `to` is made; `from` may be a config.json itself. */
status model_folder_copy(const char *from, const char *to, error *e);

#endif
