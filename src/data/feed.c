#include "data/feed.h"

#include <stdlib.h>
#include <string.h>
#include "base/pool.h"
#include "data/lines.h"

enum {
    BLOCK_BYTES = 4 << 20,
    BLOCK_LINES = 2048,
    KEPT_TOKENS = 4096, /* a job's list that grew beyond this is given back */
    MOST_NOTES = 10
};

typedef struct job { /* one row of the files */
    const char *path;
    int64_t line;
    size_t at, n; /* its bytes in the block's text */
    bool whole;   /* a plain text */
    token_list out;
    unsigned seen;
    status s;
    error e;
} job;

typedef struct block {
    str text;
    job *jobs; /* [BLOCK_LINES] */
    size_t n;
    uint64_t done; /* bytes of the files read behind this block */
    bool last;
    status s; /* of reading, behind the jobs */
    error e;
} block;

typedef struct feed {
    const feed_options *o;
    feed_sink *sink;
    void *arg;
    feed_result *r;
    pool *threads;
    lines *in; /* of path number `file`, or NULL */
    int file;
    uint64_t before; /* bytes of the files before it */
    block blocks[2], *ready, *next;
    int64_t kept, left_out; /* conversations with THINKING_KEPT, THINKING_LEFT_OUT */
} feed;

/* ---- names ---- */

static bool has_suffix(const char *path, const char *suffix) {
    static const char *const packed[] = {"", ".gz", ".zst"};
    size_t n = strlen(path), m = strlen(suffix);
    for (size_t i = 0; i < 3; i++) {
        size_t k = strlen(packed[i]);
        if (n > m + k && !strcmp(path + n - k, packed[i]) && !strncmp(path + n - k - m, suffix, m)) return true;
    }
    return false;
}

static bool is_plain(const char *path) {
    return has_suffix(path, ".txt");
}

bool feed_reads(const char *path) {
    return is_plain(path) || has_suffix(path, ".jsonl");
}

/* ---- reading ---- */

static bool is_blank(const char *p, size_t n) {
    while (n && strchr(" \t\r", p[n - 1]) && p[n - 1]) n--;
    return n == 0;
}

static size_t byte_order_mark(const char *p, size_t n) {
    return n >= 3 && !memcmp(p, "\xef\xbb\xbf", 3) ? 3 : 0;
}

/* Adds the next row of the open file to the block; closes the file at its end. */
static status read_row(feed *f, block *b, error *e) {
    const char *path = f->o->paths[f->file];
    size_t at = b->text.n;
    bool whole = is_plain(path), end = whole;
    TRY(whole ? lines_rest(f->in, &b->text, e) : lines_next(f->in, &b->text, &end, e));
    int64_t line = lines_number(f->in);
    if (b->text.n > at && line == 1) at += byte_order_mark(b->text.p + at, b->text.n - at);
    if (b->text.n > at && (whole || !is_blank(b->text.p + at, b->text.n - at))) {
        job *j = &b->jobs[b->n++];
        *j = (job){.path = path, .line = line, .at = at, .n = b->text.n - at, .whole = whole, .out = j->out};
        j->out.n = 0;
    }
    b->done = f->before + lines_done(f->in);
    if (!end) return OK;
    f->before += lines_size(f->in);
    lines_close(f->in);
    f->in = NULL;
    f->file++;
    return OK;
}

static void read_block(feed *f, block *b) {
    b->n = b->text.n = 0;
    b->s = OK;
    b->last = false;
    while (b->s == OK && b->n < BLOCK_LINES && b->text.n < BLOCK_BYTES) {
        if (!f->in && f->file == f->o->n_paths) {
            b->last = true;
            return;
        }
        if (!f->in) b->s = lines_open(&f->in, f->o->paths[f->file], &b->e);
        if (b->s == OK) b->s = read_row(f, b, &b->e);
    }
}

/* ---- rows to tokens, and to the sink ---- */

static void encode(const feed *f, const block *b, job *j) {
    const char *p = b->text.p + j->at;
    if (j->whole) j->s = row_encode_text(f->o->rows, p, j->n, &j->out, &j->e);
    else j->s = row_encode(f->o->rows, p, j->n, &j->out, &j->seen, &j->e);
}

/* Task 0 reads what comes next, the others encode what is there. */
static void work(void *arg, int64_t task, int thread) {
    (void)thread;
    feed *f = arg;
    if (task) encode(f, f->ready, &f->ready->jobs[task - 1]);
    else if (!f->ready->last && f->ready->s == OK) read_block(f, f->next);
}

static void note(const feed *f, const char *line) {
    if (f->o->note) f->o->note(f->o->arg, line);
}

static status damaged(feed *f, job *j, error *e) {
    *e = j->e;
    if (j->whole) wrap(e, "%s", j->path);
    else wrap(e, "%s, line %lld", j->path, (long long)j->line);
    if (!f->o->skip_damaged || (j->s != ERR_FORMAT && j->s != ERR_ARG)) return j->s;
    if (f->r->damaged++ < MOST_NOTES) note(f, e->text);
    return OK;
}

static status check_ids(const feed *f, const job *j, error *e) {
    uint32_t most = 0;
    if (f->o->vocab_size <= 0) return OK;
    for (size_t i = 0; i < j->out.n; i++) {
        uint32_t id = j->out.p[i] & ~TOKEN_SILENT;
        if (id > most) most = id;
    }
    if (most < f->o->vocab_size) return OK;
    return fail(e, ERR_FORMAT,
                "%s, line %lld: the tokenizer gives token %u, but the model's vocabulary has %lld: they do not belong "
                "together",
                j->path, (long long)j->line, most, (long long)f->o->vocab_size);
}

static status deliver(feed *f, job *j, error *e) {
    if (j->s != OK) return damaged(f, j, e);
    TRY(check_ids(f, j, e));
    if (!j->out.n) return OK;
    f->kept += (j->seen & THINKING_KEPT) != 0;
    f->left_out += (j->seen & THINKING_LEFT_OUT) != 0;
    f->r->documents++;
    f->r->tokens += (int64_t)j->out.n;
    return f->sink(f->arg, j->out.p, j->out.n, e);
}

/* Else long documents, now here, now there, would in time fill memory. */
static void give_back(job *j) {
    if (j->out.cap <= KEPT_TOKENS) return;
    free(j->out.p);
    j->out = (token_list){0};
}

static status run_blocks(feed *f, error *e) {
    uint64_t total = f->r->bytes;
    f->ready = &f->blocks[0];
    f->next = &f->blocks[1];
    read_block(f, f->ready);
    for (;;) {
        block *b = f->ready;
        pool_run(f->threads, (int64_t)b->n + 1, work, f);
        for (size_t i = 0; i < b->n; i++) {
            TRY(deliver(f, &b->jobs[i], e));
            give_back(&b->jobs[i]);
        }
        if (b->s != OK) {
            *e = b->e;
            return b->s;
        }
        if (f->o->progress && f->o->progress(f->o->arg, b->done < total ? b->done : total, total, "tokenizing"))
            return fail(e, ERR_CANCELLED, "cancelled");
        if (b->last) return OK;
        f->ready = f->next;
        f->next = b;
    }
}

static void note_all(const feed *f) {
    str s = {0};
    if (f->r->damaged) str_addf(&s, "%lld damaged lines were skipped", (long long)f->r->damaged);
    if (s.n) note(f, s.p);
    s.n = 0;
    if (f->kept)
        str_addf(&s,
                 "the chat template drops thinking; the last answer of %lld conversations keeps it, behind the prompt "
                 "that the model is given",
                 (long long)f->kept);
    if (s.n) note(f, s.p);
    s.n = 0;
    if (f->left_out)
        str_addf(&s,
                 "the chat template leaves out thinking of %lld conversations, as it does in prompts; loss \"last\" "
                 "trains on no such answer",
                 (long long)f->left_out);
    if (s.n) note(f, s.p);
    str_free(&s);
}

/* Every file is looked at before the work begins. */
static status find_files(feed *f, error *e) {
    for (int i = 0; i < f->o->n_paths; i++) {
        lines *l;
        if (!feed_reads(f->o->paths[i]))
            return fail(e, ERR_FORMAT, "%s: the name should end with .jsonl or .txt, or one of these with .gz or .zst",
                        f->o->paths[i]);
        TRY(lines_open(&l, f->o->paths[i], e));
        f->r->bytes += lines_size(l);
        lines_close(l);
    }
    return OK;
}

static void close_block(block *b) {
    for (size_t i = 0; b->jobs && i < BLOCK_LINES; i++) free(b->jobs[i].out.p);
    free(b->jobs);
    str_free(&b->text);
}

status feed_run(const feed_options *o, feed_sink *sink, void *arg, feed_result *r, error *e) {
    error mine;
    feed f = {.o = o, .sink = sink, .arg = arg, .r = r};
    *r = (feed_result){0};
    if (!e) e = &mine;
    TRY(find_files(&f, e));
    TRY(pool_open(&f.threads, o->threads > 0 ? o->threads : 1, e));
    for (int i = 0; i < 2; i++) f.blocks[i].jobs = calloc(BLOCK_LINES, sizeof(job));
    status s = f.blocks[0].jobs && f.blocks[1].jobs ? run_blocks(&f, e) : fail(e, ERR_NOMEM, "memory is out");
    if (s == OK) note_all(&f);
    lines_close(f.in);
    pool_close(f.threads);
    close_block(&f.blocks[0]);
    close_block(&f.blocks[1]);
    return s;
}
