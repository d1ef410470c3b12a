/* Which tokens of the stream make which row. */
#ifndef HADAL_DATA_PACK_H
#define HADAL_DATA_PACK_H

#include "data/store.h"

typedef struct piece { /* a document, or a part of one that is longer than a row */
    int64_t at;
    int32_t n;
    bool more; /* the document goes on behind it */
} piece;

typedef struct row_plan {
    int64_t rows, tokens;
    piece *pieces; /* NULL for PACK_CONCAT: row i is tokens i T .. i T + T of the stream */
    int64_t *row;  /* [rows + 1]: row i is pieces row[i] .. row[i+1]-1 */
} row_plan;

/* *p is {0}; release it also after an error. */
status row_plan_make(row_plan *p, const store *st, packing how, int64_t seq_len, error *e);
void row_plan_free(row_plan *p);

#endif
