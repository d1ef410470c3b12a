/* Rows of several documents, and multi-token prediction: what belongs to a document stays in it, what is counted is
 * counted once, and the losses and gradients are those of the formulas. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "train_test.h"

#include <cmocka.h>

typedef struct bench {
    training c;
    comm world;
    trainer t;
    feed f;
    batch_source source;
    step_metrics m; /* of the step whose gradients the trainer holds */
} bench;

static training setup(const char *folder, const char *rows) {
    training c;
    assert_ok(training_open(&c, folder, rows, &e_));
    c.cfg.objective.balance_alpha = 0; /* it belongs to rows, not to documents */
    if (c.model.index_topk) c.cfg.objective.dsa = DSA_SPARSE, c.cfg.objective.indexer_loss_scaling_factor = 0.5;
    return c;
}

/* Two MTP layers after the two of v3_mtp, random weights; every expert is chosen, so that losses are smooth. */
static training two_depths(const char *rows) {
    training c = setup("v3_mtp", rows);
    c.folder = NULL;
    c.model.num_nextn_predict_layers = 2;
    c.model.initializer_range = 0.15;
    c.model.num_experts_per_tok = c.model.n_routed_experts;
    c.model.topk_group = c.model.n_group;
    return c;
}

static void bench_open(bench *b, training c) {
    b->c = c;
    assert_ok(comm_self(&b->world, &e_));
    assert_ok(training_trainer(&b->c, &b->world, &b->t, &e_));
    b->source = training_source(&b->c, &b->t, &b->f);
}

static void gradients(bench *b) {
    assert_ok(trainer_gradients(&b->t, &b->source, &b->m, &e_));
}

static bool near(double a, double b, double tolerance) {
    return fabs(a - b) <= tolerance * fabs(b);
}

/* --- packed documents -------------------------------------------------------------------------------------------- */

/* Losses of a row of two documents are the sums of those of the documents alone, to the last bit but for the order of
 * the sum in F64: no row of a forward pass sees another document. Gradients are sums of some ten F32 numbers in another
 * order: 1e-5 relative. "!" rows have no targets. */
static void trap_17_packed_documents(void **unused) {
    (void)unused;
    static const char *const folders[] = {"v3_mtp", "v2_lite", "v32", "qwen2"};
    for (int i = 0; i < 4; i++) {
        static const char *const rows[] = {"30 5 28", "30|5|28", "30|!5|!28", "!30|5|!28", "!30|!5|28"};
        bench b[5];
        const char *who;
        for (int k = 0; k < 5; k++) {
            bench_open(&b[k], setup(folders[i], rows[k]));
            gradients(&b[k]);
        }
        const step_sums *packed = &b[0].t.sums, *apart = &b[1].t.sums;
        assert_true(near(packed->language_model, apart->language_model, 1e-13));
        assert_true(near(b[0].m.loss, b[1].m.loss, 1e-13));
        double sum = 0, mtp = 0;
        int64_t targets = 0, mtp_targets = 0;
        for (int k = 2; k < 5; k++) {
            sum += b[k].t.sums.language_model;
            mtp += b[k].t.sums.mtp[0];
            targets += b[k].t.sums.targets;
            mtp_targets += b[k].t.sums.mtp_targets[0];
        }
        assert_true(near(packed->language_model, sum, 1e-13) && packed->targets == targets);
        assert_true(near(packed->mtp[0], mtp, 1e-13) && packed->mtp_targets[0] == mtp_targets);
        assert_int_equal(mtp_targets > 0, i == 0);
        assert_int_equal(packed->drafts, apart->drafts);
        assert_int_equal(packed->accepted, apart->accepted);
        assert_true(gradient_gap(&b[0].t.p, &b[1].t.p, &who) <= 1e-5);
        assert_true(gradient_gap(&b[0].t.p, &b[2].t.p, &who) > 0.1);
        for (int k = 0; k < 5; k++) trainer_close(&b[k].t);
    }
}

/* Rows i of depth d are scored against token i + d + 1 of their document where that is a target: documents of up to d
 * + 1 tokens have none. */
static void labels_at_tails_are_masked(void **unused) {
    (void)unused;
    bench b;
    token_batch x;
    int64_t want[2] = {0}, documents = 0;
    bench_open(&b, two_depths("1 2 3 4|9 20 1"));
    b.c.micro = 2;
    b.source.count = 1;
    gradients(&b);
    assert_ok(b.source.get(b.source.arg, 0, &x, &e_));
    for (int64_t i = 0, start = 0; i < x.n; i++) { /* x.target[i] is the target of row i - d of depth d */
        for (int d = 1; d <= 2; d++) want[d - 1] += x.target[i] >= 0 && i - d >= start;
        if (x.next[i] >= 0) continue;
        start = i + 1; /* the last token of a document has no next one */
        documents++;
    }
    assert_int_equal(documents, 7);
    for (int d = 0; d < 2; d++) {
        assert_int_equal(b.t.sums.mtp_targets[d], want[d]);
        assert_int_equal(mtp_targets(&x, d + 1), want[d]);
    }
    assert_true(want[1] > 10 && want[1] < want[0] && want[0] < b.t.sums.targets);
    trainer_close(&b.t);
    bench_open(&b, two_depths("1 1 2|2 1")); /* nothing for any MTP layer to learn */
    gradients(&b);
    assert_true(b.m.mtp_loss == 0 && isfinite(b.m.grad_norm) && isnan(b.m.mtp_acceptance));
    trainer_close(&b.t);
}

/* --- MTP against the walk of inference --------------------------------------------------------------------------- */

typedef struct walk { /* one document through the main model and the MTP layers */
    const model *m;
    workspace ws;
    cache_rows (*cache)[CACHE_SLOTS];
    int64_t n;
    int32_t ids[64];
    float *logits[3], *hidden[3], *prenorm[3]; /* of depth 0: the main model */
} walk;

static void walk_open(walk *w, const trainer *t, const token_batch *x, int64_t document) {
    const model_config *m = &t->model;
    const int64_t layers = m->num_hidden_layers + m->num_nextn_predict_layers;
    *w = (walk){.m = t->m, .n = x->doc[document + 1] - x->doc[document]};
    memcpy(w->ids, x->ids + x->doc[document], (size_t)w->n * sizeof *w->ids);
    assert_ok(queue_open(&w->ws.q, 1, NULL, COMPUTE_F32, &e_));
    w->ws.step = arena_open(1 << 16);
    w->ws.block = arena_open(1 << 16);
    w->cache = calloc((size_t)layers, sizeof *w->cache);
    const int64_t width = m->kv_lora_rank + m->qk_rope_head_dim;
    for (int64_t l = 0; l < layers; l++)
        w->cache[l][CACHE_ATTENTION] =
            (cache_rows){.rows = calloc((size_t)(w->n * width), sizeof(float)), .type = DT_F32, .width = width};
    for (int d = 0; d < 3; d++) {
        w->logits[d] = calloc((size_t)(w->n * m->vocab_size), sizeof(float));
        w->hidden[d] = calloc((size_t)(w->n * m->hidden_size), sizeof(float));
        w->prenorm[d] = calloc((size_t)(w->n * m->hidden_size), sizeof(float));
    }
}

static void walk_close(walk *w) {
    for (int64_t l = 0; l < w->m->cfg.num_hidden_layers + w->m->n_mtp; l++) free(w->cache[l][CACHE_ATTENTION].rows);
    for (int d = 0; d < 3; d++) free(w->logits[d]), free(w->hidden[d]), free(w->prenorm[d]);
    free(w->cache);
    arena_close(w->ws.step);
    arena_close(w->ws.block);
    queue_close(w->ws.q);
}

/* Depth d: row i joins the hidden row i of the depth before with token i + d. */
static void walk_run(walk *w, bool prenorm) {
    int64_t out[64];
    for (int64_t i = 0; i < w->n; i++) out[i] = i;
    for (int d = 0; d < 3 && w->n > d; d++) {
        const sequence seq = {.n = w->n - d, .cache = w->cache};
        const batch b = {.n = w->n - d,
                         .ids = w->ids + d,
                         .seq = &seq,
                         .n_seq = 1,
                         .n_out = w->n - d,
                         .out = out,
                         .logits = w->logits[d],
                         .hidden = w->hidden[d],
                         .prenorm = w->prenorm[d]};
        arena_reset(w->ws.step);
        if (d == 0) assert_ok(model_forward(w->m, &w->ws, &b, &e_));
        else assert_ok(model_forward_mtp(w->m, &w->ws, d - 1, (prenorm ? w->prenorm : w->hidden)[d - 1], &b, &e_));
    }
}

static int64_t best_of(const float *z, int64_t vocab) {
    int64_t best = 0;
    for (int64_t v = 1; v < vocab; v++)
        if (z[v] > z[best]) best = v;
    return best;
}

static double cross_entropy(const float *z, int64_t vocab, int32_t target) {
    double sum = 0;
    for (int64_t v = 0; v < vocab; v++) sum += exp((double)z[v]);
    return log(sum) - (double)z[target];
}

/* Losses of both depths and how many drafts of depth 1 the main model accepts, from the walk that answers are made
 * with. F32 logits of some units, 40 terms of F32 each: 1e-5. Trap 11: which hidden state goes in is said by the run
 * file, and both ways are right. */
static void trap_11_depths_before_and_after_the_norm(void **unused) {
    (void)unused;
    double losses[2];
    for (int prenorm = 0; prenorm < 2; prenorm++) {
        bench b;
        training c = two_depths("14 3 20|2 17 1");
        token_batch x;
        double sum[3] = {0};
        int64_t targets[3] = {0}, drafts = 0, accepted = 0;
        c.micro = 2;
        c.cfg.objective.mtp_hidden = prenorm ? MTP_PRE_NORM : MTP_POST_NORM;
        bench_open(&b, c);
        float *norm = b.t.p.w + find_weight(&b.t.p, "model.norm.weight")->first;
        for (int64_t i = 0; i < c.model.hidden_size; i++) norm[i] = 1 + 0.02f * (float)(i % 7);
        gradients(&b);
        assert_ok(b.source.get(b.source.arg, 0, &x, &e_));
        const int64_t vocab = c.model.vocab_size;
        for (int64_t d = 0; d < x.n_docs; d++) {
            walk w;
            walk_open(&w, &b.t, &x, d);
            walk_run(&w, prenorm);
            const int32_t *target = x.target + x.doc[d];
            for (int depth = 0; depth < 3; depth++)
                for (int64_t i = 0; i + depth < w.n; i++) {
                    if (target[i + depth] < 0) continue;
                    const float *z = w.logits[depth] + i * vocab;
                    targets[depth]++;
                    sum[depth] += cross_entropy(z, vocab, target[i + depth]);
                    if (depth != 1) continue;
                    drafts++;
                    accepted += best_of(z, vocab) == best_of(w.logits[0] + (i + 1) * vocab, vocab);
                }
            walk_close(&w);
        }
        const step_sums *s = &b.t.sums;
        assert_true(targets[0] == s->targets && near(s->language_model, sum[0], 1e-5));
        for (int k = 0; k < 2; k++)
            assert_true(targets[k + 1] == s->mtp_targets[k] && near(s->mtp[k], sum[k + 1], 1e-5));
        assert_int_equal(s->drafts, drafts);
        assert_int_equal(s->accepted, accepted);
        assert_true(b.m.mtp_acceptance == (double)accepted / (double)drafts);
        losses[prenorm] = (sum[1] / (double)targets[1] + sum[2] / (double)targets[2]) / 2;
        assert_true(near(b.m.mtp_loss, losses[prenorm], 1e-5));
        assert_true(near(b.m.loss, sum[0] / (double)targets[0] + 0.3 * losses[prenorm], 1e-5));
        trainer_close(&b.t);
    }
    assert_false(near(losses[0], losses[1], 1e-4));
}

/* Logits that are all 0: every first choice is token 0, every draft is accepted. */
static void acceptance_is_counted(void **unused) {
    (void)unused;
    bench b;
    bench_open(&b, setup("v3_mtp", "14 3|20"));
    float *norms[] = {b.t.p.w + find_weight(&b.t.p, "model.norm.weight")->first,
                      b.t.p.w + find_weight(&b.t.p, "shared_head.norm.weight")->first};
    const int64_t hidden = b.c.model.hidden_size;
    gradients(&b);
    assert_true(b.t.sums.drafts > 20 && b.t.sums.drafts == b.t.sums.mtp_targets[0]);
    assert_true(b.m.mtp_acceptance == (double)b.t.sums.accepted / (double)b.t.sums.drafts);
    assert_true(b.m.mtp_acceptance < 1);
    for (int k = 0; k < 2; k++) memset(norms[k], 0, (size_t)hidden * sizeof **norms);
    gradients(&b);
    assert_true(b.m.mtp_acceptance == 1);
    assert_true(near(b.m.lm_loss, log((double)b.c.model.vocab_size), 1e-6));
    trainer_close(&b.t);
}

/* --- derivatives of the whole ------------------------------------------------------------------------------------ */

static double loss_along(bench *b, const param *x, const double *way, const float *w, double h) {
    for (int64_t j = 0; j < x->n; j++) b->t.p.w[x->first + j] = (float)(w[j] + h * way[j]);
    gradients(b);
    memcpy(b->t.p.w + x->first, w, (size_t)x->n * sizeof *w);
    return b->m.loss;
}

/* The derivative of the whole loss (two documents, two depths) in the direction of a weight's gradient is that
 * gradient's length g. Central differences over h and h / 2 differ by 3/4 of the first one's error, so the second one's
 * is a third of the gap; h changes the loss by 0.02; losses of about 8 are off by some 1e-6 (F32 logits): 2e-6 / h
 * more. Most weights are known to one per cent that way. */
static void derivatives_of_two_depths(void **unused) {
    (void)unused;
    for (int prenorm = 0; prenorm < 2; prenorm++) {
        bench b;
        training c = two_depths("9 14");
        int sharp = 0, all = 0;
        c.cfg.objective.mtp_hidden = prenorm ? MTP_PRE_NORM : MTP_POST_NORM;
        bench_open(&b, c);
        const params *p = &b.t.p;
        gradients(&b);
        float *g = malloc((size_t)p->total * sizeof *g), *w = malloc((size_t)p->total * sizeof *w);
        double *way = malloc((size_t)p->total * sizeof *way);
        memcpy(g, p->g, (size_t)p->total * sizeof *g);
        memcpy(w, p->w, (size_t)p->total * sizeof *w);
        for (int64_t i = 0; i < p->count; i++) {
            const param *x = &p->list[i];
            if (x->buffer || x->expert > 0) continue;
            double length = 0;
            for (int64_t j = 0; j < x->n; j++) length += (double)g[x->first + j] * g[x->first + j];
            length = sqrt(length);
            assert_true(length > 0); /* every weight of both depths learns: shared_head.norm, trap 10 */
            for (int64_t j = 0; j < x->n; j++) way[j] = g[x->first + j] / length;
            const double h = 0.02 / length;
            double d[2];
            for (int k = 0; k < 2; k++) {
                const double step = k ? h / 2 : h;
                d[k] = (loss_along(&b, x, way, w + x->first, step) - loss_along(&b, x, way, w + x->first, -step)) /
                       (2 * step);
            }
            const double tolerance = fabs(d[0] - d[1]) + 2e-6 / h;
            if (fabs(d[1] - length) > tolerance)
                fail_msg("%s: gradient %.6g, difference %.6g +- %.2g", x->name, length, d[1], tolerance);
            sharp += tolerance < 0.01 * length;
            all++;
        }
        print_message("%d of %d derivatives within 1 %%\n", sharp, all);
        assert_true(sharp >= all * 3 / 4);
        free(g), free(w), free(way);
        trainer_close(&b.t);
    }
}

/* The norm before the shared head is the MTP layer's own: it gets a gradient and moves, and the main model's does not
 * depend on it. */
static void trap_10_shared_head_norm(void **unused) {
    (void)unused;
    training c = setup("v3_mtp", "14 3|20");
    trained r;
    c.steps = 1;
    assert_ok(train(&c, &r, &e_));
    const param *own = find_weight(&r.p, "layers.2.shared_head.norm.weight"),
                *main_norm = find_weight(&r.p, "model.norm.weight");
    assert_non_null(own);
    int64_t moved = 0;
    for (int64_t j = 0; j < own->n; j++) moved += r.p.w[own->first + j] != r.w0[own->first + j];
    assert_true(moved > own->n * 9 / 10);
    assert_true(memcmp(r.p.g + own->first, r.p.g + main_norm->first, (size_t)own->n * sizeof(float)) != 0);
    trained_close(&r);
    bench b;
    double loss[2], mtp[2];
    bench_open(&b, c);
    own = find_weight(&b.t.p, "layers.2.shared_head.norm.weight");
    for (int k = 0; k < 2; k++) {
        for (int64_t j = 0; k && j < own->n; j++) b.t.p.w[own->first + j] *= 1.5f;
        gradients(&b);
        loss[k] = b.m.lm_loss, mtp[k] = b.m.mtp_loss;
    }
    assert_true(loss[0] == loss[1] && mtp[0] != mtp[1]);
    trainer_close(&b.t);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(trap_17_packed_documents),
                                       cmocka_unit_test(labels_at_tails_are_masked),
                                       cmocka_unit_test(trap_11_depths_before_and_after_the_norm),
                                       cmocka_unit_test(acceptance_is_counted),
                                       cmocka_unit_test(derivatives_of_two_depths),
                                       cmocka_unit_test(trap_10_shared_head_norm)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
