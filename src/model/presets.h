/* Models by name: what `hadal init NAME OUT` makes and what a run file may start from. A preset is a config.json and,
 * for the small ones, a tokenizer of one token a byte with the chat form <user>PROMPT<assistant>COMPLETION<eos>. */
#ifndef HADAL_MODEL_PRESETS_H
#define HADAL_MODEL_PRESETS_H

#include "model/config.h"

typedef struct preset {
    const char *name, *summary;
    const char *config;          /* text of config.json */
    const char *const *specials; /* tokens 0, 1, ...; ends with NULL. NULL: no tokenizer */
    const char *characters;      /* the tokens behind them; NULL: all 256 bytes */
} preset;

extern const preset presets[]; /* ends with name NULL */

const preset *preset_find(const char *name);                                    /* NULL: none */
status preset_json(json_t **out, const char *name, error *e);                   /* its config.json, the caller's */
status preset_or_config(model_config *out, const char *name_or_path, error *e); /* a preset's name goes before a path */

/* tokenizer.json and tokenizer_config.json; both NULL when the preset has none. The caller frees them. */
status preset_tokenizer(const preset *p, char **tokenizer, char **config, error *e);
status preset_write_tokenizer(const preset *p, const char *folder, error *e);
status preset_write(const preset *p, const char *folder, error *e); /* config.json, too */

#endif
