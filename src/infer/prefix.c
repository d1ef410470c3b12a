#include "infer/prefix.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST_STORED = 16 }; /* tokens of a page that is worth a file */

typedef struct node {
    struct node *parent, *child, *next; /* next: of the same parent */
    struct node *newer, *older;         /* by use; a parent is newer than its children */
    int32_t n, page;                    /* tokens; -1: the page is on disk only */
    bool stored;                        /* on disk, or not worth it */
    page_record at;                     /* its tokens, and its name on disk */
} node;

struct prefix_tree {
    page_pool *pool;
    page_folder *disk;
    node root; /* no page */
    node *newest, *oldest;
    int64_t unstored;
    bool unwritable; /* a page could not be written: nothing more is tried */
    char *buffer;    /* a page's rows, for the disk */
    prefix_options o;
};

/* --- nodes ------------------------------------------------------------------------------------------------------- */

static void unlink_use(prefix_tree *t, node *x) {
    *(x->newer ? &x->newer->older : &t->newest) = x->older;
    *(x->older ? &x->older->newer : &t->oldest) = x->newer;
}

static void link_newest(prefix_tree *t, node *x) {
    x->newer = NULL;
    x->older = t->newest;
    *(t->newest ? &t->newest->newer : &t->oldest) = x;
    t->newest = x;
}

/* The node and all above it were used. */
static void touch(prefix_tree *t, node *x) {
    for (; x != &t->root; x = x->parent) {
        unlink_use(t, x);
        link_newest(t, x);
    }
}

static node *add_node(prefix_tree *t, node *parent, const page_record *r, int32_t page, bool stored) {
    node *x = calloc(1, sizeof *x);
    if (!x) return NULL;
    *x = (node){.parent = parent, .next = parent->child, .n = r->n, .page = page, .stored = stored, .at = *r};
    parent->child = x;
    link_newest(t, x);
    t->unstored += !stored;
    return x;
}

/* Takes a node and all below it out; pages on disk that rest on it are of no use any more. */
static void remove_node(prefix_tree *t, node *x) {
    while (x->child) remove_node(t, x->child);
    node **at = &x->parent->child;
    while (*at != x) at = &(*at)->next;
    *at = x->next;
    unlink_use(t, x);
    if (x->page >= 0) pages_drop(t->pool, x->page);
    if (!x->stored) t->unstored--;
    else if (t->disk) page_folder_remove(t->disk, x->at.key);
    free(x);
}

static int64_t common(const int32_t *a, int64_t n, const int32_t *b, int64_t m) {
    int64_t i = 0;
    while (i < n && i < m && a[i] == b[i]) i++;
    return i;
}

/* The child that shares most of the n tokens, and how many. */
static node *best_child(const node *parent, const int32_t *tokens, int64_t n, int64_t *shared) {
    node *best = NULL;
    *shared = 0;
    for (node *x = parent->child; x; x = x->next) {
        const int64_t same = common(x->at.tokens, x->n, tokens, n);
        if (same > *shared) {
            *shared = same;
            best = x;
        }
    }
    return best;
}

/* --- pages ------------------------------------------------------------------------------------------------------- */

static bool write_page(prefix_tree *t, node *x) {
    error e;
    x->stored = true;
    t->unstored--;
    if (!t->disk || t->unwritable || x->n < LEAST_STORED) return false;
    pages_save(t->pool, x->page, x->n, t->buffer);
    if (page_folder_write(t->disk, &x->at, t->buffer, &e) == OK) return true;
    t->unwritable = true;
    if (t->o.warn) t->o.warn(t->o.warn_arg, e.text);
    return false;
}

/* Drops the page of a node that nobody else holds; the node stays when it is on disk. */
static void drop_page(prefix_tree *t, node *x) {
    const bool there = t->disk && (x->stored ? page_folder_holds(t->disk, x->at.key) : write_page(t, x));
    if (!there) {
        remove_node(t, x);
        return;
    }
    pages_drop(t->pool, x->page);
    x->page = -1;
}

static bool in_memory_below(const node *x) {
    for (const node *c = x->child; c; c = c->next)
        if (c->page >= 0) return true;
    return false;
}

static node *droppable(const prefix_tree *t) {
    node *x = t->oldest;
    while (x && (x->page < 0 || t->pool->holders[x->page] != 1 || in_memory_below(x))) x = x->newer;
    return x;
}

bool prefix_free(prefix_tree *t, int64_t n) {
    node *x;
    while (t->pool->free < n && (x = droppable(t))) drop_page(t, x);
    return t->pool->free >= n;
}

/* Brings a page back from the disk. */
static bool load_page(prefix_tree *t, node *x) {
    error e;
    if (!page_folder_holds(t->disk, x->at.key) || !prefix_free(t, 1)) return false;
    if (page_folder_read(t->disk, &x->at, t->buffer, &e) != OK) {
        if (t->o.warn) t->o.warn(t->o.warn_arg, e.text);
        return false;
    }
    x->page = pages_take(t->pool);
    pages_load(t->pool, x->page, x->n, t->buffer);
    return true;
}

/* --- finding ----------------------------------------------------------------------------------------------------- */

int64_t prefix_known(const prefix_tree *t, const int32_t *tokens, int64_t n) {
    const node *at = &t->root;
    int64_t done = 0, same;
    while (done < n) {
        at = best_child(at, tokens + done, n - done, &same);
        if (!at) break;
        done += same;
        if (same < CACHE_PAGE) break;
    }
    return done;
}

/* A copy of the first n tokens of a node's page; -1: no page is free. */
static int32_t copy_page(prefix_tree *t, const node *x, int64_t n) {
    pages_hold(t->pool, x->page); /* not to be dropped for its own copy */
    const int32_t page = prefix_free(t, 1) ? pages_take(t->pool) : -1;
    if (page >= 0) pages_copy(t->pool, page, t->pool, x->page, n);
    pages_drop(t->pool, x->page);
    return page;
}

int64_t prefix_find(prefix_tree *t, const int32_t *tokens, int64_t n, int32_t *pages) {
    node *at = &t->root;
    int64_t done = 0, same;
    while (done < n) {
        node *x = best_child(at, tokens + done, n - done, &same);
        if (!x) break;
        touch(t, x);
        if (x->page < 0 && !load_page(t, x)) {
            remove_node(t, x);
            break;
        }
        const bool whole = same == CACHE_PAGE;
        const int32_t page = whole ? x->page : copy_page(t, x, same);
        if (page < 0) break;
        if (whole) pages_hold(t->pool, page);
        pages[done / CACHE_PAGE] = page;
        done += same;
        at = x;
        if (!whole) break;
    }
    return done;
}

/* --- keeping ----------------------------------------------------------------------------------------------------- */

/* A leaf whose tokens are the first ones of r becomes r. */
static void grow(prefix_tree *t, node *x, const page_record *r, int32_t page) {
    pages_hold(t->pool, page);
    if (x->page >= 0) pages_drop(t->pool, x->page);
    if (x->stored && t->disk) page_folder_remove(t->disk, x->at.key);
    if (x->stored) t->unstored++;
    x->stored = false;
    x->at = *r;
    x->n = r->n;
    x->page = page;
    touch(t, x);
}

status prefix_add(prefix_tree *t, const int32_t *tokens, int64_t n, const int32_t *pages, error *e) {
    node *at = &t->root;
    for (int64_t done = 0, same; done < n; done += CACHE_PAGE) {
        const int64_t left = n - done < CACHE_PAGE ? n - done : CACHE_PAGE;
        node *x = best_child(at, tokens + done, left, &same);
        const int32_t page = pages[done / CACHE_PAGE];
        page_record r = {.parent = at == &t->root ? 0 : at->at.key, .n = (int32_t)left};
        memcpy(r.tokens, tokens + done, (size_t)left * sizeof *tokens);
        r.key = page_key(r.parent, r.tokens, r.n);
        if (x && same == left) { /* known already */
            touch(t, x);
        } else if (x && same == x->n) {
            grow(t, x, &r, page);
        } else {
            x = add_node(t, at, &r, page, false);
            if (!x) return fail(e, ERR_NOMEM, "memory is out");
            pages_hold(t->pool, page);
            touch(t, x);
        }
        at = x;
    }
    return OK;
}

bool prefix_store(prefix_tree *t) {
    if (!t->disk || t->unstored == 0) return false;
    node *x = t->oldest;
    while (x && x->stored) x = x->newer;
    if (!x) return false;
    while (x->parent != &t->root && !x->parent->stored) x = x->parent; /* without them it would be an orphan */
    write_page(t, x);
    return true;
}

int64_t prefix_idle_pages(const prefix_tree *t) {
    int64_t n = 0;
    for (const node *x = t->newest; x; x = x->older) n += x->page >= 0 && t->pool->holders[x->page] == 1;
    return n;
}

uint64_t prefix_disk_bytes(const prefix_tree *t) {
    return t->disk ? page_folder_bytes(t->disk) : 0;
}

/* --- opening ----------------------------------------------------------------------------------------------------- */

static void found(void *arg, const page_record *r) {
    prefix_tree *t = arg;
    node *parent = r->parent ? t->newest : &t->root;
    while (parent && parent != &t->root && parent->at.key != r->parent) parent = parent->older;
    if (parent) add_node(t, parent, r, -1, true);
}

static status open_folder(prefix_tree *t, error *e) {
    int damaged = 0;
    char line[128];
    t->buffer = malloc(t->pool->token_bytes * CACHE_PAGE);
    if (!t->buffer) return fail(e, ERR_NOMEM, "memory is out");
    const status st =
        page_folder_open(&t->disk, t->o.folder, t->o.model, t->pool->token_bytes, t->o.limit, found, t, &damaged, e);
    if (st == ERR_NOMEM) return st;
    if (st != OK && t->o.warn) t->o.warn(t->o.warn_arg, e->text);
    snprintf(line, sizeof line, "%d damaged files of the prefix cache are ignored", damaged);
    if (st == OK && damaged && t->o.warn) t->o.warn(t->o.warn_arg, line);
    return OK;
}

status prefix_open(prefix_tree **out, page_pool *pool, const prefix_options *o, error *e) {
    *out = NULL;
    prefix_tree *t = calloc(1, sizeof *t);
    if (!t) return fail(e, ERR_NOMEM, "memory is out");
    t->pool = pool;
    t->o = *o;
    const status st = o->folder ? open_folder(t, e) : OK;
    if (st == OK) *out = t;
    else prefix_close(t);
    return st;
}

void prefix_close(prefix_tree *t) {
    if (!t) return;
    page_folder *disk = t->disk;
    t->disk = NULL; /* what is on disk stays */
    while (t->root.child) remove_node(t, t->root.child);
    page_folder_close(disk);
    free(t->buffer);
    free(t);
}
