/* config.json of a checkpoint as a conversion sees it: a few members are read and rewritten, all others stay as they
 * are and where they are. */
#ifndef HADAL_CONVERT_CONFIG_FILE_H
#define HADAL_CONVERT_CONFIG_FILE_H

#include <stdint.h>
#include "base/error.h"
#include "base/json.h"
#include "convert/convert.h"

typedef struct config_file {
    json_t *root;
    int64_t n_layers; /* num_hidden_layers, or INT64_MAX */
} config_file;

/* Refuses a quantization_config that is not FP8 with blocks of 128x128. */
status config_file_read(config_file *c, const char *folder, error *e);
void config_file_close(config_file *c);

/* Whether the scales are powers of two ("scale_fmt": "ue8m0"). */
scale_format config_file_scale(const config_file *c);

/* Writes config.json for the converted weights. */
status config_file_write(const config_file *c, const convert_options *o, error *e);

#endif
