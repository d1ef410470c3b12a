/* The tree behind token_bytes (text/grammar.h): all tokens that stand for bytes, by those bytes, in depth-first order,
 * so that a walk goes through one array and leaves out the subtree under a byte that may not come. */
#ifndef HADAL_TEXT_TOKEN_BYTES_H
#define HADAL_TEXT_TOKEN_BYTES_H

#include "text/grammar.h"

typedef struct trie_node {
    int32_t skip;  /* the node behind this one's subtree */
    int32_t first; /* ids[first, first + count) end here */
    uint16_t depth, count;
    uint8_t byte;
} trie_node;

struct token_bytes {
    const tokenizer *t;
    int32_t vocab;
    trie_node *node; /* the root is left out: depth 1 is a token's first byte */
    int32_t n_nodes, deepest;
    int32_t *ids;    /* sorted by their bytes */
    int32_t *added;  /* the added tokens, which are not in the tree */
    int32_t *quoted; /* those in the tree that hold a quotation mark */
    int32_t n_ids, n_added, n_quoted;
    bool *is_added;  /* [vocab] */
    bool alone[256]; /* some token is just this byte */
};

#endif
