/* A task is one answer. It waits, its prompt is read, it is written token by token, and it is over. Tasks that run have
 * a session; one that loses its session for want of memory waits again, at its old place in the queue, and keeps what
 * it has written: when it runs again its prompt is read, then its own tokens (RECOVERING), and it goes on.
 *
 * A step: tasks begin; one batch computes the next rows of all answers, another one a chunk of the prompts; tokens are
 * chosen from all new logits by all threads; events go out. */
#include "infer/scheduler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "infer/prefix.h"
#include "infer/writing.h"
#include "text/grammar.h"

enum {
    PARALLEL_NUMBERS = 4096, /* of logits, from which on threads share the choices: some 30 microseconds */
    LEAST_CHUNK = 32,        /* rows of prompts a step while answers are written */
    LOGPROB_ROWS = 64,       /* rows of a prompt whose logits are wanted, at a time: their memory */
    RECOVER_ROWS = 64        /* rows of an answer that are computed again, at a time */
};
static const double PAUSE = 0.25; /* seconds that prompts may hold up the answers, about */

typedef struct job { /* a request */
    request r;
    uint64_t ticket;
    int left, begun; /* samples that are not over; that have begun */
    bool cancelled;
    session *held; /* holds the prompt, for samples that have not begun; NULL: it was not read, or memory is short */
} job;

typedef enum stage { WAITING, READING, RECOVERING, READY, WRITING } stage;

typedef struct event { /* a token that was chosen in this step */
    generated_token t;
    size_t shown; /* its text is in w.text from here */
} event;

typedef struct task {
    struct task *next; /* in the queue */
    job *job;
    int sample;
    uint64_t number; /* by arrival */
    stage stage;
    writing w;    /* s: NULL unless it runs */
    generated a;  /* ids and counts; the text is in w */
    int64_t room; /* of ids */
    bool begun;
    grammar_state *grammar;
    event events[MAX_DRAFTS + 1];
    int n_events;
    int64_t prompt_sent;         /* log-probabilities of the prompt's first tokens */
    double started, first, last; /* queued; first and last token */
    bool failed;
    error why;
} task;

typedef struct chooser { /* of a thread */
    sampler *sampler;
    float *logits;  /* [vocab] when they are changed */
    uint32_t *mask; /* [words] */
} chooser;

struct scheduler {
    engine *g;
    scheduler_options o;
    page_pool *pool;
    prefix_tree *tree;
    task *queue, **running; /* by arrival */
    int n_running, n_waiting;
    uint64_t arrivals;
    chooser *choosers;
    int64_t words;
    double prompt_rate; /* rows a second, smoothed; 0: not known yet */
    scheduler_stats stats;
    /* of a batch */
    task **active;
    session **sessions;
    const int32_t **rows;
    int64_t *n_rows, *want;
    int n_active;
};

/* --- a task's ends ----------------------------------------------------------------------------------------------- */

static int64_t held_tokens(const task *t) { /* when it is up to date */
    return t->job->r.n + (t->w.n ? t->w.n - 1 : 0);
}

static void keep_prefix(scheduler *s, const task *t, int64_t n) {
    error e; /* a prefix that is not kept is no loss */
    prefix_add(s->tree, t->w.s->tokens, n, t->w.s->pages, &e);
}

static void leave_running(scheduler *s, const task *t) {
    int i = 0;
    while (s->running[i] != t) i++;
    memmove(&s->running[i], &s->running[i + 1], (size_t)(--s->n_running - i) * sizeof *s->running);
}

static void close_session(task *t) {
    session_close(t->w.s);
    t->w.s = NULL;
}

/* Tells the caller, and is gone. The task is neither queued nor running any more. */
static void end_task(task *t) {
    job *j = t->job;
    const request_events *ev = &j->r.events;
    t->a.text = t->w.text;
    t->a.finish = t->w.finish;
    t->a.n_ids = t->w.n;
    t->a.draft_proposed = t->w.proposed;
    t->a.draft_accepted = t->w.accepted;
    t->a.seconds = t->last - t->first;
    t->a.prompt_seconds = t->first - t->started;
    ev->done(ev->arg, t->sample, &t->a, t->failed ? &t->why : NULL);
    generated_clear(&t->a);
    grammar_end(t->grammar);
    free(t);
    if (--j->left > 0) return;
    session_close(j->held);
    if (ev->over) ev->over(ev->arg);
    free(j);
}

static void finish_running(scheduler *s, task *t) {
    leave_running(s, t);
    s->stats.draft_proposed += (uint64_t)t->w.proposed;
    s->stats.draft_accepted += (uint64_t)t->w.accepted;
    if (t->w.s && !t->failed && s->o.alike) keep_prefix(s, t, t->w.s->length);
    close_session(t);
    end_task(t);
}

static void fail_task(task *t, const error *e) {
    t->failed = true;
    t->why = *e;
    t->w.done = true;
}

static void enqueue(scheduler *s, task *t) { /* by arrival */
    task **at = &s->queue;
    while (*at && (*at)->number < t->number) at = &(*at)->next;
    t->next = *at;
    *at = t;
    t->stage = WAITING;
    s->n_waiting++;
}

/* Gives up the task's session; what is free of it others may take. */
static void preempt(scheduler *s, task *t) {
    leave_running(s, t);
    keep_prefix(s, t, t->w.s->length);
    close_session(t);
    enqueue(s, t);
    s->stats.preemptions++;
}

static void end_cancelled(scheduler *s) {
    for (task **at = &s->queue; *at;) {
        task *t = *at;
        if (!t->job->cancelled) {
            at = &t->next;
            continue;
        }
        *at = t->next;
        s->n_waiting--;
        writing_cancel(&t->w);
        t->first = t->last = t->first ? t->first : clock_seconds();
        end_task(t);
    }
    for (int i = s->n_running - 1; i >= 0; i--) {
        task *t = s->running[i];
        if (!t->job->cancelled) continue;
        writing_cancel(&t->w);
        if (!t->first) t->first = t->last = clock_seconds();
        finish_running(s, t);
    }
}

/* --- beginning --------------------------------------------------------------------------------------------------- */

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t common(const job *a, const job *b) {
    int64_t i = 0;
    const int64_t n = least(a->r.n, b->r.n);
    while (i < n && a->r.prompt[i] == b->r.prompt[i]) i++;
    return i;
}

/* Whether somebody is just now computing more of the task's prompt than is known: then waiting is cheaper. */
static bool worth_waiting(const scheduler *s, const task *t, int64_t known) {
    if (t->job->r.prompt_logprobs || t->job->held) return false;
    for (int i = 0; i < s->n_running; i++) {
        const task *r = s->running[i];
        if (r->stage != READING || r->w.n) continue;
        int64_t same = common(t->job, r->job);
        same = same == r->job->r.n ? least(same, t->job->r.n - 1) : same / CACHE_PAGE * CACHE_PAGE;
        if (same > known) return true;
    }
    return false;
}

/* What the task's session will hold before the next token is chosen; the caller frees it. */
static int32_t *tokens_of(const task *t, int64_t *n) {
    const request *r = &t->job->r;
    *n = held_tokens(t);
    int32_t *all = malloc((size_t)*n * sizeof *all);
    if (!all) return NULL;
    memcpy(all, r->prompt, (size_t)r->n * sizeof *all);
    if (t->w.n) memcpy(all + r->n, t->a.ids, (size_t)(t->w.n - 1) * sizeof *all);
    return all;
}

static stage next_stage(const task *t) {
    if (t->w.s->length < t->job->r.n) return READING;
    if (t->w.s->length < held_tokens(t)) return RECOVERING;
    return t->w.n ? WRITING : READY;
}

/* Tokens that the task's cache may have to hold. */
static int64_t capacity_of(const scheduler *s, const task *t) {
    return least(s->o.capacity, t->job->r.n + t->w.limit);
}

/* Rows that the next step of an answer may write. */
static int64_t next_length(const scheduler *s, const task *t) {
    const int64_t n = (t->w.s ? t->w.s->length : held_tokens(t)) + 1 + s->o.drafts;
    return least(n, capacity_of(s, t));
}

static void drop_held(job *j) {
    session_close(j->held);
    j->held = NULL;
}

/* Makes n pages free if nobody who runs needs them. */
static bool free_pages(scheduler *s, int64_t n) {
    if (prefix_free(s->tree, n)) return true;
    for (int i = 0; i < s->n_running; i++) drop_held(s->running[i]->job);
    for (task *t = s->queue; t; t = t->next) drop_held(t->job);
    return prefix_free(s->tree, n);
}

/* Gives an empty session what is known of the tokens. */
static status take_known(scheduler *s, const task *t, session *x, const int32_t *tokens, int64_t n, error *e) {
    const job *j = t->job;
    if (j->held && t->w.n == 0) return session_fork(x, j->held, e);
    if (j->r.prompt_logprobs) return OK;
    session_begin(x, tokens, prefix_find(s->tree, tokens, t->w.n ? n : n - 1, x->pages), x->pages);
    return OK;
}

static void count_beginning(scheduler *s, task *t) {
    job *j = t->job;
    t->a.cached_tokens = t->w.s->length;
    s->stats.cached_tokens += (uint64_t)t->w.s->length;
    s->stats.prompt_tokens += (uint64_t)j->r.n;
    t->begun = true;
    if (++j->begun == j->r.samples) drop_held(j);
}

/* A session that holds as much of the tokens as is known, and pages for the rest and the next step. false: too few
 * pages are free, or a failure (st). */
static bool open_session(scheduler *s, task *t, const int32_t *tokens, int64_t n, status *st) {
    const int64_t spare = least(s->n_running, s->pool->count / 16), length = next_length(s, t);
    session *x;
    if (t->job->held && t->w.n == 0) free_pages(s, 1); /* for the copy of a page that is not full; else held is gone */
    *st = session_open_in(&x, s->g, s->pool, capacity_of(s, t), &t->why);
    if (*st != OK) return false;
    session_set_drafting(x, s->o.drafts > 0);
    *st = take_known(s, t, x, tokens, n, &t->why);
    if (*st != OK || !free_pages(s, pages_of(length) - x->n_pages + spare) || !session_reserve(x, length)) {
        session_close(x);
        return false;
    }
    t->w.s = x;
    if (!t->begun) count_beginning(s, t);
    return true;
}

/* Tasks join in the order of arrival, but for those that gain by waiting for another's prompt. */
static void begin_tasks(scheduler *s) {
    for (task **at = &s->queue; *at && s->n_running < s->o.sequences;) {
        task *t = *at;
        int64_t n;
        status st = OK;
        int32_t *tokens = tokens_of(t, &n);
        const int64_t known = tokens ? prefix_known(s->tree, tokens, n - 1) : 0;
        if (tokens && worth_waiting(s, t, known)) {
            free(tokens);
            at = &t->next;
            continue;
        }
        if (!tokens) st = fail(&t->why, ERR_NOMEM, "memory is out");
        const bool open = tokens && open_session(s, t, tokens, n, &st);
        free(tokens);
        if (!open && st == OK) return;
        *at = t->next;
        s->n_waiting--;
        s->running[s->n_running++] = t;
        if (open) t->stage = next_stage(t);
        else t->failed = t->w.done = true;
    }
}

/* --- rows -------------------------------------------------------------------------------------------------------- */

static void add_rows(scheduler *s, task *t, const int32_t *rows, int64_t n, int64_t want) {
    s->active[s->n_active] = t;
    s->sessions[s->n_active] = t->w.s;
    s->rows[s->n_active] = rows;
    s->n_rows[s->n_active] = n;
    s->want[s->n_active++] = want;
}

/* Pages for the next step of an answer. When none are free the youngest task gives its own: false. */
static bool make_place(scheduler *s, task *t) {
    const int64_t n = next_length(s, t);
    if (session_reserve(t->w.s, n)) return true;
    if (free_pages(s, pages_of(n) - t->w.s->n_pages)) return session_reserve(t->w.s, n);
    task *youngest = t;
    for (int i = 0; i < s->n_running; i++)
        if (s->running[i]->number > youngest->number && s->running[i]->w.s) youngest = s->running[i];
    preempt(s, youngest);
    return false;
}

static void make_places(scheduler *s) {
    for (int i = 0; i < s->n_running; i++) {
        task *t = s->running[i];
        if (!t->w.done && t->stage == WRITING && !make_place(s, t)) i = -1; /* the list has changed */
    }
}

/* Room in the answer for what the next choice may add. */
static status make_room(task *t, int drafts, error *e) {
    const int64_t need = least(t->w.n + 1 + drafts, t->w.limit);
    if (need <= t->room) return OK;
    const int64_t room = least(need + t->room + 15, t->w.limit);
    int32_t *ids = realloc(t->a.ids, (size_t)room * sizeof *ids);
    if (!ids) return fail(e, ERR_NOMEM, "memory is out");
    t->a.ids = ids;
    t->room = room;
    return OK;
}

/* The next rows of all answers: a token and its drafts. */
static void list_answers(scheduler *s) {
    make_places(s);
    for (int i = 0; i < s->n_running; i++) {
        task *t = s->running[i];
        if (t->w.done) continue;
        if (t->stage == RECOVERING) {
            const int64_t from = t->w.s->length - t->job->r.n;
            add_rows(s, t, t->a.ids + from, least(RECOVER_ROWS, t->w.n - 1 - from), 1);
        } else if (t->stage == WRITING) {
            error e;
            if (writing_plan(&t->w, s->o.drafts, &e) != OK || make_room(t, t->w.drafts, &e) != OK) fail_task(t, &e);
            else add_rows(s, t, t->w.next, 1 + t->w.drafts, 1 + t->w.drafts);
        }
    }
}

/* Rows of prompts that this step may compute. */
static int64_t prompt_budget(const scheduler *s) {
    bool held_up = false;
    for (int i = 0; i < s->n_running; i++) held_up |= s->running[i]->stage == WRITING;
    if (!held_up || s->prompt_rate == 0) return s->o.chunk;
    const int64_t rows = (int64_t)(s->prompt_rate * PAUSE);
    return rows < LEAST_CHUNK ? least(LEAST_CHUNK, s->o.chunk) : least(rows, s->o.chunk);
}

static int64_t left_of(const task *t) {
    return t->job->r.n - t->w.s->length;
}

static bool reads(const task *t) {
    return t->stage == READING && !t->w.done;
}

/* The one whose turn it is: the oldest and the one with the shortest rest take turns. */
static task *first_reader(const scheduler *s) {
    task *best = NULL;
    for (int i = 0; i < s->n_running; i++) {
        task *t = s->running[i];
        if (reads(t) && (!best || (s->stats.steps % 2 && left_of(t) < left_of(best)))) best = t;
    }
    return best;
}

static int64_t read_rows(scheduler *s, task *t, int64_t budget) {
    const bool logprobs = t->job->r.prompt_logprobs != 0;
    const int64_t n = least(left_of(t), logprobs ? least(budget, LOGPROB_ROWS) : budget);
    if (n > 0) add_rows(s, t, t->job->r.prompt + t->w.s->length, n, logprobs ? n : 1);
    return n > 0 ? n : 0;
}

/* Chunks of prompts; gives their rows. */
static int64_t list_prompts(scheduler *s) {
    task *first = first_reader(s);
    const int64_t budget = prompt_budget(s);
    if (!first) return 0;
    int64_t rows = read_rows(s, first, budget);
    for (int i = 0; i < s->n_running; i++)
        if (reads(s->running[i]) && s->running[i] != first) rows += read_rows(s, s->running[i], budget - rows);
    return rows;
}

/* --- choices ----------------------------------------------------------------------------------------------------- */

typedef struct choice {
    const scheduler *s;
    task *t;
    chooser *c;
} choice;

/* The logits that tokens are chosen from: with biases, and without what the grammar forbids. */
static status change_logits(const choice *c, const float *logits, error *e) {
    const request *r = &c->t->job->r;
    const int64_t vocab = c->s->g->m->cfg.vocab_size;
    memcpy(c->c->logits, logits, (size_t)vocab * sizeof *logits);
    for (int i = 0; i < r->n_bias; i++) c->c->logits[r->bias[i].id] += r->bias[i].bias;
    if (!c->t->grammar) return OK;
    TRY(grammar_mask(c->t->grammar, r->eos, r->n_eos, c->c->mask, c->s->words, e));
    for (int64_t i = 0; i < vocab; i++)
        if (!(c->c->mask[i / 32] >> i % 32 & 1)) c->c->logits[i] = -INFINITY;
    return OK;
}

static status choose_row(void *arg, writing *w, const float *logits, int64_t n_history, int32_t *id, error *e) {
    const choice *c = arg;
    task *t = c->t;
    const request *r = &t->job->r;
    const bool changed = r->n_bias || t->grammar;
    event *ev = &t->events[t->n_events++];
    ev->t = (generated_token){.sequence = t->sample};
    ev->shown = w->sure;
    if (changed) TRY(change_logits(c, logits, e));
    const float *from = changed ? c->c->logits : logits;
    if (r->policy_logprobs)
        *id = sampler_draw(c->c->sampler, &r->sampling, from, w->s->tokens, n_history, w->n, (uint64_t)t->sample,
                           (uint64_t)w->n, &ev->t.logprob);
    else
        *id = sampler_choose(c->c->sampler, &r->sampling, from, w->s->tokens, n_history, w->n, (uint64_t)t->sample,
                             (uint64_t)w->n);
    if (!isfinite(logits[*id]))
        return fail(e, ERR_FORMAT, "the model's logits are not finite numbers: its weights are damaged");
    if (r->logprobs && !r->policy_logprobs) {
        ev->t.n_top = r->logprobs > 0 ? r->logprobs : 0;
        ev->t.logprob = sampler_logprobs(c->c->sampler, logits, *id, ev->t.n_top, ev->t.top_ids, ev->t.top_logprobs);
    }
    if (t->grammar) TRY(grammar_take(t->grammar, *id, e));
    ev->t.id = t->a.ids[w->n] = *id;
    writing_take(w, &(ending){r->eos, r->n_eos, r->stop, r->n_stop, r->tokenizer}, *id);
    return str_check(&w->text, e);
}

static void choose_task(void *arg, int64_t i, int thread) {
    scheduler *s = arg;
    choice c = {s, s->active[i], &s->choosers[thread]};
    error e;
    if (writing_choose(&c.t->w, choose_row, &c, &e) != OK) {
        c.t->n_events--; /* the one that failed */
        fail_task(c.t, &e);
    }
}

static void send_events(task *t) {
    const request_events *ev = &t->job->r.events;
    t->last = clock_seconds();
    if (!t->first) t->first = t->last;
    for (int i = 0; i < t->n_events; i++) {
        event *x = &t->events[i];
        const size_t end = i + 1 < t->n_events ? t->events[i + 1].shown : t->w.sure;
        x->t.text = t->w.text.p ? t->w.text.p + x->shown : "";
        x->t.n = end > x->shown ? end - x->shown : 0;
        if (ev->token) ev->token(ev->arg, &x->t);
    }
    t->n_events = 0;
}

/* A token (and accepted drafts) for every task that has logits nothing was chosen from yet. */
static void choose(scheduler *s) {
    int64_t numbers = 0;
    s->n_active = 0;
    for (int i = 0; i < s->n_running; i++) {
        task *t = s->running[i];
        if (t->stage != READY || t->w.done) continue;
        s->active[s->n_active++] = t;
        numbers += t->w.s->rows * s->g->m->cfg.vocab_size;
        s->stats.generated_tokens -= (uint64_t)t->w.n;
    }
    if (numbers > PARALLEL_NUMBERS) queue_run(s->g->ws.q, s->n_active, choose_task, s);
    else
        for (int i = 0; i < s->n_active; i++) choose_task(s, i, 0);
    for (int i = 0; i < s->n_active; i++) {
        task *t = s->active[i];
        s->stats.generated_tokens += (uint64_t)t->w.n;
        t->stage = WRITING;
        send_events(t);
    }
}

/* --- steps ------------------------------------------------------------------------------------------------------- */

/* Log-probabilities of the prompt's tokens that follow the rows just computed. */
static void send_prompt(scheduler *s, task *t, int64_t n) {
    const request *r = &t->job->r;
    const int64_t vocab = s->g->m->cfg.vocab_size, first = t->w.s->length - n;
    if (t->sample > 0 || !r->events.prompt) return;
    for (int64_t i = 0; i < n && first + i + 1 < r->n; i++) {
        if (first + i + 1 <= t->prompt_sent) continue; /* read for the second time */
        t->prompt_sent = first + i + 1;
        generated_token x = {
            .id = r->prompt[first + i + 1], .text = "", .n_top = r->prompt_logprobs > 0 ? r->prompt_logprobs : 0};
        x.logprob = sampler_logprobs(s->choosers[0].sampler, t->w.s->logits + i * vocab, x.id, x.n_top, x.top_ids,
                                     x.top_logprobs);
        r->events.prompt(r->events.arg, first + i + 1, &x);
    }
}

/* Keeps only the logits of the last row. */
static void last_row(session *x, int64_t vocab) {
    if (x->rows > 1) memmove(x->logits, x->logits + (x->rows - 1) * vocab, (size_t)vocab * sizeof *x->logits);
    x->rows = 1;
}

/* Holds the prompt for the samples to come. */
static void hold_prompt(scheduler *s, const task *t) {
    error e; /* without it they read the prompt's last token again */
    job *j = t->job;
    if (j->held || j->begun == j->r.samples || !prefix_free(s->tree, 1)) return;
    if (session_open_in(&j->held, s->g, s->pool, j->r.n, &e) == OK && session_fork(j->held, t->w.s, &e) != OK)
        drop_held(j);
}

static void after_prompt(scheduler *s, task *t, int64_t n) {
    session *x = t->w.s;
    if (t->job->r.prompt_logprobs) {
        send_prompt(s, t, n);
        last_row(x, s->g->m->cfg.vocab_size);
    }
    t->stage = next_stage(t);
    keep_prefix(s, t, t->stage == READING ? x->length / CACHE_PAGE * CACHE_PAGE : x->length);
    if (t->stage == READY) hold_prompt(s, t);
    if (t->stage != READY || t->w.limit > 0) return;
    t->w.done = true; /* only the prompt was wanted */
    t->w.finish = FINISH_LENGTH;
    t->first = t->last = clock_seconds();
}

/* Computes the listed rows; a failure is that of all who had some. */
static void compute_rows(scheduler *s, rows_way way) {
    error e;
    if (s->n_active == 0) return;
    const status st = s->o.alike ? sessions_extend_alike(s->sessions, s->n_active, s->rows, s->n_rows, s->want, way, &e)
                                 : sessions_extend(s->sessions, s->n_active, s->rows, s->n_rows, s->want, &e);
    for (int i = 0; i < s->n_active; i++) {
        task *t = s->active[i];
        if (st != OK) fail_task(t, &e);
        else if (t->stage == READING) after_prompt(s, t, s->n_rows[i]);
        else if (t->stage == RECOVERING) t->stage = next_stage(t);
        else t->stage = READY;
    }
    s->n_active = 0;
}

static void compute_step(scheduler *s) {
    s->n_active = 0;
    list_answers(s);
    if (s->o.alike) compute_rows(s, ROWS_FEW);
    const double start = clock_seconds();
    const int64_t rows = list_prompts(s);
    compute_rows(s, ROWS_MANY);
    const double seconds = clock_seconds() - start;
    if (rows < LEAST_CHUNK || seconds <= 0) return;
    const double rate = (double)rows / seconds;
    s->prompt_rate = s->prompt_rate == 0 ? rate : 0.7 * s->prompt_rate + 0.3 * rate;
}

bool scheduler_step(scheduler *s) {
    end_cancelled(s);
    begin_tasks(s);
    if (s->n_running == 0) return false;
    s->stats.steps++;
    compute_step(s);
    choose(s);
    for (int i = s->n_running - 1; i >= 0; i--)
        if (s->running[i]->w.done) finish_running(s, s->running[i]);
    return true;
}

bool scheduler_store(scheduler *s) {
    return prefix_store(s->tree);
}

/* --- requests ---------------------------------------------------------------------------------------------------- */

static status check_bias(const scheduler *s, const request *r, error *e) {
    for (int i = 0; i < r->n_bias; i++) {
        if (r->bias[i].id < 0 || r->bias[i].id >= s->g->m->cfg.vocab_size)
            return fail(e, ERR_ARG, "a bias for token %d, but the vocabulary has %lld", r->bias[i].id,
                        (long long)s->g->m->cfg.vocab_size);
        if (!isfinite(r->bias[i].bias)) return fail(e, ERR_ARG, "the bias of token %d is not finite", r->bias[i].id);
    }
    return OK;
}

status scheduler_check(const scheduler *s, const request *r, error *e) {
    TRY(sampling_check(&r->sampling, e));
    TRY(check_bias(s, r, e));
    if (r->n < 1) return fail(e, ERR_ARG, "an empty prompt: give at least one token");
    if (r->n > s->o.capacity)
        return fail(e, ERR_ARG, "the prompt has %lld tokens, but the context holds %lld", (long long)r->n,
                    (long long)s->o.capacity);
    if (r->samples < 1) return fail(e, ERR_ARG, "%d answers are wanted", r->samples);
    if (r->max_tokens < -1) return fail(e, ERR_ARG, "answers of %lld tokens are wanted", (long long)r->max_tokens);
    if (r->n_stop && !r->tokenizer) return fail(e, ERR_ARG, "stop texts need a tokenizer");
    if (r->logprobs > MAX_TOP_LOGPROBS || r->prompt_logprobs > MAX_TOP_LOGPROBS)
        return fail(e, ERR_ARG, "at most %d log-probabilities a token", MAX_TOP_LOGPROBS);
    for (int64_t i = 0; i < r->n; i++)
        if (r->prompt[i] < 0 || r->prompt[i] >= s->g->m->cfg.vocab_size)
            return fail(e, ERR_ARG, "token id %d at %lld is outside the vocabulary of %lld", r->prompt[i], (long long)i,
                        (long long)s->g->m->cfg.vocab_size);
    return OK;
}

static task *make_task(scheduler *s, job *j, int sample, error *e) {
    const request *r = &j->r;
    task *t = calloc(1, sizeof *t);
    if (!t) {
        fail(e, ERR_NOMEM, "memory is out");
        return NULL;
    }
    *t = (task){.job = j, .sample = sample, .started = clock_seconds()};
    t->w.limit = r->max_tokens < 0 ? 0 : writing_limit(s->o.capacity, r->n, r->max_tokens);
    t->a.prompt_tokens = r->n;
    if (make_room(t, 0, e) == OK && (!r->grammar || grammar_begin(&t->grammar, r->grammar, e) == OK)) return t;
    free(t->a.ids);
    free(t);
    return NULL;
}

status scheduler_add(scheduler *s, const request *r, uint64_t ticket, error *e) {
    job *j = calloc(1, sizeof *j);
    task **made = calloc((size_t)r->samples, sizeof *made);
    int n = 0;
    if (!j || !made) fail(e, ERR_NOMEM, "memory is out");
    else {
        *j = (job){.r = *r, .ticket = ticket, .left = r->samples};
        while (n < r->samples && (made[n] = make_task(s, j, n, e))) n++;
    }
    const bool good = made && n == r->samples;
    for (int i = 0; i < n; i++) {
        made[i]->number = s->arrivals++;
        if (good) enqueue(s, made[i]);
        else {
            grammar_end(made[i]->grammar);
            free(made[i]->a.ids);
            free(made[i]);
        }
    }
    if (!good) free(j);
    free(made);
    return good ? OK : ERR_NOMEM;
}

void scheduler_cancel(scheduler *s, uint64_t ticket) {
    for (task *t = s->queue; t; t = t->next)
        if (t->job->ticket == ticket) t->job->cancelled = true;
    for (int i = 0; i < s->n_running; i++)
        if (s->running[i]->job->ticket == ticket) s->running[i]->job->cancelled = true;
}

void scheduler_get_stats(const scheduler *s, scheduler_stats *out) {
    *out = s->stats;
    out->running = s->n_running;
    out->waiting = s->n_waiting;
    out->pages_total = s->pool->count;
    out->pages_kept = prefix_idle_pages(s->tree);
    out->pages_running = s->pool->count - s->pool->free - out->pages_kept;
    out->page_bytes = s->pool->token_bytes * CACHE_PAGE;
    out->folder_bytes = prefix_disk_bytes(s->tree);
}

int scheduler_waiting(const scheduler *s) {
    return s->n_waiting;
}

/* --- opening ----------------------------------------------------------------------------------------------------- */

static status open_choosers(scheduler *s, error *e) {
    const int64_t vocab = s->g->m->cfg.vocab_size;
    s->words = (vocab + 31) / 32;
    s->choosers = calloc((size_t)queue_threads(s->g->ws.q), sizeof *s->choosers);
    for (int i = 0; s->choosers && i < queue_threads(s->g->ws.q); i++) {
        chooser *c = &s->choosers[i];
        TRY(sampler_open(&c->sampler, vocab, e));
        c->logits = malloc((size_t)vocab * sizeof *c->logits);
        c->mask = malloc((size_t)s->words * sizeof *c->mask);
        if (!c->logits || !c->mask) return fail(e, ERR_NOMEM, "memory is out");
    }
    return s->choosers ? OK : fail(e, ERR_NOMEM, "memory is out");
}

size_t scheduler_page_bytes(const engine *g) {
    return cached_token_bytes(g->m, engine_cache_type(g)) * CACHE_PAGE;
}

static status open_cache(scheduler *s, error *e) {
    const int64_t most = 2 * s->o.sequences * pages_of(s->o.capacity) + 1024; /* more would only be looked through */
    int64_t pages = (int64_t)(s->o.cache_bytes / scheduler_page_bytes(s->g));
    if (pages < 1)
        return fail(e, ERR_ARG, "a cache of %.1f MB: one page takes %.1f MB", (double)s->o.cache_bytes / 1048576,
                    (double)scheduler_page_bytes(s->g) / 1048576);
    pages = least(least(pages, most), INT32_MAX);
    s->o.capacity = least(s->o.capacity, pages * CACHE_PAGE);
    TRY(pages_open(&s->pool, s->g->m, engine_cache_type(s->g), pages, e));
    return prefix_open(&s->tree, s->pool,
                       &(prefix_options){s->o.folder, s->o.model_name, s->o.folder_bytes, s->o.warn, s->o.warn_arg}, e);
}

static status open_arrays(scheduler *s, error *e) {
    const size_t n = (size_t)s->o.sequences;
    s->running = calloc(n, sizeof *s->running);
    s->active = calloc(n, sizeof *s->active);
    s->sessions = calloc(n, sizeof *s->sessions);
    s->rows = calloc(n, sizeof *s->rows);
    s->n_rows = calloc(n, sizeof *s->n_rows);
    s->want = calloc(n, sizeof *s->want);
    if (!s->running || !s->active || !s->sessions || !s->rows || !s->n_rows || !s->want)
        return fail(e, ERR_NOMEM, "memory is out");
    return OK;
}

status scheduler_open(scheduler **out, engine *g, const scheduler_options *o, error *e) {
    *out = NULL;
    if (o->sequences < 1 || o->capacity < 1 || o->chunk < 1)
        return fail(e, ERR_ARG, "an engine needs room for at least one sequence, one token and one row");
    scheduler *s = calloc(1, sizeof *s);
    if (!s) return fail(e, ERR_NOMEM, "memory is out");
    s->g = g;
    s->o = *o;
    if (s->o.drafts > MAX_DRAFTS) s->o.drafts = MAX_DRAFTS;
    if (!g->m->n_mtp) s->o.drafts = 0;
    status st = open_arrays(s, e);
    if (st == OK) st = open_choosers(s, e);
    if (st == OK) st = open_cache(s, e);
    if (st == OK) *out = s;
    else scheduler_close(s);
    return st;
}

void scheduler_close(scheduler *s) {
    if (!s) return;
    for (task *t = s->queue; t; t = t->next) t->job->cancelled = true;
    for (int i = 0; i < s->n_running; i++) s->running[i]->job->cancelled = true;
    end_cancelled(s);
    while (s->tree && prefix_store(s->tree)) {}
    prefix_close(s->tree);
    pages_close(s->pool);
    for (int i = 0; s->choosers && i < queue_threads(s->g->ws.q); i++) {
        sampler_close(s->choosers[i].sampler);
        free(s->choosers[i].logits);
        free(s->choosers[i].mask);
    }
    free(s->choosers);
    free(s->running);
    free(s->active);
    free(s->sessions);
    free(s->rows);
    free(s->n_rows);
    free(s->want);
    free(s);
}
