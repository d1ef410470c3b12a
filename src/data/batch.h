/* What data hand to training: rows of whole documents (or of pieces of them), without padding. */
#ifndef HADAL_DATA_BATCH_H
#define HADAL_DATA_BATCH_H

#include <stdint.h>

/* n tokens in n_rows rows (sequences of the batch) that hold n_docs documents. Attention stays inside a document,
 * positions count from 0 in each. Arrays belong to whoever made the batch.
 *
 * Documents that begin alike may be one, a tree: its trunk, the tokens that all have, and then what follows in each,
 * the branches. A row of a branch sees the trunk and its own branch, and its position counts from the trunk's end. */
typedef struct token_batch {
    int64_t n, n_docs, n_rows, n_targets; /* n_targets: how many target[i] are not -1 */
    int64_t spared;                       /* tokens of trunks that would be there if there were no trees */
    const int32_t *ids;                   /* [n] inputs */
    const int32_t *next;                  /* [n] the token that follows in the same document, -1: none */
    const int32_t *target;                /* [n] next where the loss counts it, else -1 */
    const int64_t *doc;                   /* [n_docs + 1]: document d is doc[d] .. doc[d+1]-1 */
    const int64_t *row;                   /* [n_rows + 1]: the same for rows; documents do not cross rows */
    const int64_t *trunk; /* [n_docs]: tokens of each document's trunk, 0: it is no tree; NULL: no document is */
    const int32_t *from;  /* [n]: where in its document a row's branch begins, 0 in trunks; NULL as trunk */
} token_batch;

#endif
