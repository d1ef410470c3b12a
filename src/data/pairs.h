/* Preference rows {"prompt", "chosen", "rejected"}: texts, or lists of messages. */
#ifndef HADAL_DATA_PAIRS_H
#define HADAL_DATA_PAIRS_H

#include "data/dataset.h"

typedef struct pair_side { /* prompt and answer as tokens */
    const int32_t *ids;
    int64_t n_prompt, n; /* tokens before the answer's first; of all */
    const float *counts; /* [n - n_prompt]: 1 where the model writes the token, else 0 */
} pair_side;

typedef struct pair {
    pair_side side[2]; /* chosen, rejected */
} pair;

typedef struct pairs pairs;

/* Rows longer than data.seq_len are left out, with a note. Empty data are ERR_FORMAT. */
status pairs_open(pairs **out, const data_options *o, error *e);
void pairs_close(pairs *p); /* accepts NULL */
int64_t pairs_count(const pairs *p);
const pair *pairs_get(const pairs *p, int64_t i); /* endless, shuffled as data sets are */

#endif
