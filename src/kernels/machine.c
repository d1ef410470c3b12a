/* Measures read bandwidth and the peak of products.
 *
 * Bandwidth: threads read pieces of a buffer of 2 GiB (less when less memory is free, but see read_gib), each piece
 * front to back and in small pages, as few-row products read mapped weights; the best of three passes counts, since a
 * neighbour can only make a pass slower. Reading it whole each time leaves a cache of a few hundred MiB no more than a
 * small part to answer. Peak: loops that touch registers only, on all threads at once; the best of several rounds
 * counts. */
#include "kernels/machine.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "kernels/linear_micro.h"
#include "kernels/queue.h"

enum { PIECE = 1 << 20, PASSES = 3, PEAK_TRIALS = 5 };

typedef struct reading {
    const linear_micro *micro;
    char *buffer;
    int64_t pieces;
    float *keep; /* one a piece: what was read must be used */
} reading;

static void fill_piece(void *arg, int64_t task, int thread) {
    reading *r = arg;
    (void)thread;
    memset(r->buffer + task * PIECE, 1, PIECE);
}

static void read_piece(void *arg, int64_t task, int thread) {
    reading *r = arg;
    (void)thread;
    r->keep[task] = r->micro->read(r->buffer + task * PIECE, PIECE);
}

/* Half of the memory that is free, at most 2 GiB, in pieces. */
static int64_t pieces_to_read(void) {
    long pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    int64_t pieces = 2048;
    if (pages > 0 && page > 0) {
        int64_t half = (int64_t)pages * page / 2 / PIECE;
        if (half < pieces) pieces = half;
    }
    return pieces > 64 ? pieces : 64;
}

static status measure_reading(queue *q, const linear_micro *m, machine_result *out, error *e) {
    reading r = {.micro = m, .pieces = pieces_to_read()};
    r.keep = malloc((size_t)r.pieces * sizeof(float));
    r.buffer = aligned_alloc(PIECE, (size_t)r.pieces * PIECE);
    if (!r.keep || !r.buffer) {
        free(r.keep);
        free(r.buffer);
        return fail(e, ERR_NOMEM, "memory is out: %lld MiB to measure reading", (long long)r.pieces);
    }
    queue_run(q, r.pieces, fill_piece, &r);
    for (int i = 0; i < PASSES; i++) {
        double start = clock_seconds();
        queue_run(q, r.pieces, read_piece, &r);
        double gbs = (double)r.pieces * PIECE / (clock_seconds() - start) * 1e-9;
        if (gbs > out->read_gbs) out->read_gbs = gbs;
    }
    out->read_gib = (double)r.pieces * PIECE / (double)(1 << 30);
    free(r.keep);
    free(r.buffer);
    return OK;
}

typedef struct peaking {
    double (*peak)(int64_t rounds, float *keep);
    int64_t rounds;
    double *done; /* of each thread */
} peaking;

static void peak_task(void *arg, int64_t task, int thread) {
    peaking *p = arg;
    float keep = 0.5f;
    (void)thread;
    p->done[task] = p->peak(p->rounds, &keep);
    if (keep == 0.123f) p->done[task] = 0; /* never: the sums must be used */
}

/* One task a thread; rounds grow until a trial takes 20 ms. */
static double measure_peak(queue *q, double (*peak)(int64_t, float *), double *done) {
    peaking p = {.peak = peak, .rounds = 1024, .done = done};
    double best = 0;
    for (int trial = 0; trial < PEAK_TRIALS;) {
        double start = clock_seconds(), sum = 0;
        queue_run(q, queue_threads(q), peak_task, &p);
        double seconds = clock_seconds() - start;
        for (int i = 0; i < queue_threads(q); i++) sum += done[i];
        if (seconds < 0.02) {
            p.rounds *= 2;
            continue;
        }
        if (sum / seconds > best) best = sum / seconds;
        trial++;
    }
    return best * 1e-9;
}

status machine_peak(queue *q, double *flops, error *e) {
    double *done = calloc((size_t)queue_threads(q), sizeof *done);
    if (!done) return fail(e, ERR_NOMEM, "memory is out");
    *flops = 1e9 * measure_peak(q, q->linear->peak[q->compute == COMPUTE_BF16 ? COMPUTE_BF16 : COMPUTE_F32], done);
    free(done);
    return OK;
}

status machine_measure(int threads, const char *name, machine_result *out, error *e) {
    *out = (machine_result){0};
    queue *q;
    TRY(queue_open(&q, threads, name, COMPUTE_F32, e));
    out->level = queue_level(q);
    out->threads = threads;
    status s = measure_reading(q, q->linear, out, e);
    double *done = s == OK ? calloc((size_t)threads, sizeof *done) : NULL;
    if (done) {
        out->f32_gflops = measure_peak(q, q->linear->peak[COMPUTE_F32], done);
        out->bf16_gflops = measure_peak(q, q->linear->peak[COMPUTE_BF16], done);
    } else if (s == OK) {
        s = fail(e, ERR_NOMEM, "memory is out");
    }
    free(done);
    queue_close(q);
    return s;
}
