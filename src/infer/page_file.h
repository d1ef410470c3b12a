/* Pages of the cache in files, one file a page: what survives a restart. A file that is damaged, of another version, of
 * another model or number type is skipped and counted, never trusted.
 *
 * File: a header, little endian (page_file.c), then the payload; the checksum covers everything but itself. Written
 * under a temporary name and renamed when it is complete. */
#ifndef HADAL_INFER_PAGE_FILE_H
#define HADAL_INFER_PAGE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

enum { PAGE_FILE_VERSION = 1, PAGE_FILE_TOKENS = 256 };

typedef struct page_record {
    uint64_t parent; /* key of the page before, 0: none */
    uint64_t key;    /* page_key(parent, tokens, n): never 0 */
    int32_t n;       /* tokens of this page: 1 .. PAGE_FILE_TOKENS */
    int32_t tokens[PAGE_FILE_TOKENS];
} page_record;

/* A hash of all tokens from the first one of the sequence to the end of this page. */
uint64_t page_key(uint64_t parent, const int32_t *tokens, int32_t n);

typedef struct page_folder page_folder; /* one user at a time */

/* Opens or makes a folder; ERR_IO when another one holds it open. `model`: names weights, number type and layout; pages
 * of another model are left alone until room is needed. token_bytes: bytes that one token leaves (a page of n tokens
 * has n times as many). limit: bytes of all pages in the folder, least recently used ones go first, but never one
 * before its children. `found` is called for every good page's header (payloads are not read) behind those before it;
 * a page whose parent is missing is removed. *damaged: how many files were skipped. */
status page_folder_open(page_folder **out, const char *folder, const char *model, size_t token_bytes, uint64_t limit,
                        void (*found)(void *arg, const page_record *r), void *arg, int *damaged, error *e);
void page_folder_close(page_folder *f);

/* payload: n * token_bytes bytes. Writing a page that is there only marks it as used. One that had room only if those
 * before it went is not written, and that is no error. */
status page_folder_write(page_folder *f, const page_record *r, const void *payload, error *e);

/* Reads the payload and marks the page as used. Wrong checksum, size or tokens: ERR_FORMAT, and the file is removed. */
status page_folder_read(page_folder *f, const page_record *r, void *payload, error *e);

bool page_folder_holds(const page_folder *f, uint64_t key); /* else it made room for others, or was never there */
void page_folder_remove(page_folder *f, uint64_t key);
uint64_t page_folder_bytes(const page_folder *f); /* of all files now */

#endif
