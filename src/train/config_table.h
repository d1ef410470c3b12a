/* The table of a run file's keys: for the files that read, write and explain it. */
#ifndef HADAL_TRAIN_CONFIG_TABLE_H
#define HADAL_TRAIN_CONFIG_TABLE_H

#include "train/config.h"
#include "train/config_tree.h"

typedef enum option_type {
    O_INT,    /* int64_t */
    O_INT32,  /* int */
    O_SEED,   /* uint64_t */
    O_EOS,    /* int32_t: a token id, "auto" (EOS_AUTO) or "none" (-1) */
    O_REAL,   /* double */
    O_AUTO,   /* double; NaN is written "auto" */
    O_BOOL,   /* bool */
    O_CHOICE, /* an enum: the number of the word in `words` */
    O_TEXT,   /* const char *; null: NULL */
    O_WORD,   /* the same, one of `words` */
    O_LIST,   /* string_list */
    O_WORDS,  /* string_list of `words` */
    O_MASKS,  /* string_list of regular expressions */
    O_PHASES, /* phase[MOST_LIST], and their number at `count` */
    O_GROUPS, /* lr_group[MOST_LIST], and their number at `count` */
    O_JSON,   /* const char *: a list of objects, as JSON */
    O_RANGE,  /* double[4]: [from, to, from, to] */
    O_PRESET  /* not kept: stands for other keys (config.c) */
} option_type;

typedef struct config_option {
    const char *section, *key;
    option_type type;
    size_t at;         /* in train_config */
    double value;      /* default of a number, a choice or a truth */
    double min, max;   /* of a number */
    const char *words; /* "a|b|c" */
    const char *text;  /* default of a text */
    size_t count;      /* place of an array's int */
    const char *help;
} config_option;

extern const config_option config_options[]; /* sections together; ends with section NULL */

const config_option *config_find(const char *section, const char *key); /* NULL: none */
/* The number of a word in "a|b|c", -1: not there. *n words: as text, *length bytes. */
int config_word(const char *words, const char *word);
/* One value as YAML. */
void config_put(str *s, const config_option *o, const train_config *c);
extern const char config_shapes[]; /* words of enum curve */

/* Of sections whose layers lie over each other already; changes *t. Texts live in `mem`. */
status config_read_tree(train_config *out, config_tree *t, arena *mem, error *e);
/* train_config_read of a text. */
status config_parse(train_config *out, const char *text, size_t n, const char *name, const char *const *overrides,
                    int n_overrides, arena *mem, error *e);

#endif
