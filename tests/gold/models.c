#include "models.h"
#include "training.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "convert/convert.h"
#include "eval/logit_kl.h"
#include "eval/trace.h"
#include "format/safetensors_write.h"
#include "infer/generate.h"
#include "kernels/levels.h"

typedef struct model_case {
    gold *g;
    const char *folder, *file;
    char *golden_path;
    json_t *info; /* golden.json */
    safetensors golden;
    char *bf16;    /* folder of the weights that the golden results are of; */
    model *m;      /* that model */
    model *stored; /* of checkpoint/: another one when that is FP8 */
} model_case;

/* The kernel levels may differ by the order of their sums: as much as two implementations of the whole did when the
 * reference data were made. */
static const double LEVELS_DIFFER = 2e-5;

static engine *open_engine(const model_case *c, const model *m, int threads, const char *kernels, compute k,
                           mla_form form) {
    engine *g;
    error e = {0};
    if (engine_open(&g, m, threads, kernels, k, form, &e) == OK) return g;
    gold_say(c->g, false, c->file, "engine", "%s", e.text);
    return NULL;
}

static const char *compute_name(compute k) {
    return k == COMPUTE_F32 ? "f32" : "bf16";
}

/* Removes a folder of files that this program made. */
static void remove_folder(const char *folder) {
    DIR *d = opendir(folder);
    if (!d) return;
    for (struct dirent *x; (x = readdir(d));) {
        char *p = gold_path(folder, x->d_name);
        if (strcmp(x->d_name, ".") != 0 && strcmp(x->d_name, "..") != 0) unlink(p);
        free(p);
    }
    closedir(d);
    rmdir(folder);
}

/* --- prompts ---------------------------------------------------------------------------------------------------- */

typedef struct prompt {
    int32_t *ids;
    int64_t n;
} prompt;

static prompt prompt_of(const model_case *c, const char *name) {
    char full[64];
    snprintf(full, sizeof full, "ids.%s", name);
    const tensor *t = gold_find(&c->golden, full);
    prompt p = {0};
    if (!t || t->type != DT_I32 || t->ndim != 1 || !t->dim[0]) return p;
    p.ids = malloc((size_t)t->dim[0] * sizeof *p.ids);
    if (!p.ids) abort();
    p.n = t->dim[0];
    memcpy(p.ids, t->data, (size_t)p.n * sizeof *p.ids);
    return p;
}

static int64_t vocab_of(const model_case *c) {
    return c->m->cfg.vocab_size;
}

/* All rows of logits, the prompt taken in pieces of `piece` tokens; NULL and a line when that failed. */
static float *all_logits(const model_case *c, engine *g, prompt p, int64_t piece, const char *aspect) {
    const int64_t v = vocab_of(c);
    float *out = malloc((size_t)(p.n * v) * sizeof *out);
    session *s = NULL;
    error e = {0};
    if (!out) abort();
    status st = session_open(&s, g, p.n, &e);
    for (int64_t at = 0; st == OK && at < p.n; at += piece) {
        const int64_t n = p.n - at < piece ? p.n - at : piece;
        st = sessions_extend(&s, 1, &(const int32_t *){p.ids + at}, &n, &n, &e);
        if (st == OK) memcpy(out + at * v, s->logits, (size_t)(n * v) * sizeof *out);
    }
    session_close(s);
    if (st == OK) return out;
    gold_say(c->g, false, c->file, aspect, "%s", e.text);
    free(out);
    return NULL;
}

/* Golden logits of a prompt, aligned; NULL when there are none. */
static float *golden_logits(const model_case *c, const char *name) {
    char full[64];
    snprintf(full, sizeof full, "logits.%s", name);
    const tensor *t = gold_find(&c->golden, full);
    if (!t || t->type != DT_F32 || t->ndim != 2 || t->dim[1] != vocab_of(c)) return NULL;
    float *x = malloc((size_t)tensor_count(t) * sizeof *x);
    if (!x) abort();
    memcpy(x, t->data, (size_t)tensor_count(t) * sizeof *x);
    return x;
}

/* --- everything that a run shows -------------------------------------------------------------------------------- */

static void trace_aspect(const model_case *c, const model *m, const char *kernels, mla_form form, const char *aspect) {
    char *made = gold_path(c->g->scratch, "trace.safetensors");
    engine *g = open_engine(c, m, 2, kernels, COMPUTE_F32, form);
    error e = {0};
    if (g && trace_run(g, c->golden_path, made, NULL, NULL, NULL, &e) != OK)
        gold_say(c->g, false, c->file, aspect, "%s", e.text);
    else if (g) gold_tensors(c->g, c->file, aspect, c->golden_path, made);
    engine_close(g);
    unlink(made);
    free(made);
}

static void forms(const model_case *c) {
    if (!c->m->cfg.kv_lora_rank) return;
    trace_aspect(c, c->m, NULL, MLA_EXPANDED, "expanded");
    trace_aspect(c, c->m, NULL, MLA_ABSORBED, "absorbed");
}

/* --- threads, levels, BF16 -------------------------------------------------------------------------------------- */

static void threads_aspect(const model_case *c, compute k) {
    char aspect[40];
    snprintf(aspect, sizeof aspect, "threads %s", compute_name(k));
    prompt p = prompt_of(c, "p64");
    float *rows[3] = {0};
    for (int i = 0; p.n && i < 3; i++) {
        engine *g = open_engine(c, c->stored, i + 1, NULL, k, MLA_CHEAPER);
        if (g) rows[i] = all_logits(c, g, p, p.n, aspect);
        engine_close(g);
    }
    if (rows[0] && rows[1] && rows[2]) {
        const size_t bytes = (size_t)(p.n * vocab_of(c)) * sizeof(float);
        gold_say(c->g, !memcmp(rows[0], rows[1], bytes) && !memcmp(rows[0], rows[2], bytes), c->file, aspect,
                 "logits of 1, 2 and 3 threads bit by bit, largest difference %.1e",
                 fmax(gold_relative(gold_gap_of(rows[0], rows[1], p.n * vocab_of(c))),
                      gold_relative(gold_gap_of(rows[0], rows[2], p.n * vocab_of(c)))));
    }
    for (int i = 0; i < 3; i++) free(rows[i]);
    free(p.ids);
}

/* Mean KL on p7 and median on p64, at most twice what the reference's own BF16 run has. */
static void bf16_aspect(const model_case *c, const char *kernels, const char *name) {
    static const struct {
        const char *prompt, *key;
        bool median;
    } tests[] = {{"p7", "kl_bf16_mean", false}, {"p64", "kl_bf16_median", true}};
    char aspect[60];
    snprintf(aspect, sizeof aspect, "bf16 %s", name);
    engine *g = open_engine(c, c->stored, 2, kernels, COMPUTE_BF16, MLA_CHEAPER);
    for (int i = 0; g && i < 2; i++) {
        const json_t *stats = json_object_get(json_object_get(c->info, "stats"), tests[i].prompt);
        const json_t *limit = json_object_get(stats, tests[i].key);
        prompt p = prompt_of(c, tests[i].prompt);
        float *golden = golden_logits(c, tests[i].prompt);
        float *ours = p.n && golden && limit ? all_logits(c, g, p, p.n, aspect) : NULL;
        if (ours) {
            const gold_kl kl = gold_kl_of(golden, ours, p.n, vocab_of(c));
            const double x = tests[i].median ? kl.median : kl.mean, theirs = json_number_value(limit);
            gold_say(c->g, x <= 2 * theirs, c->file, aspect, "%s of KL on %s %.2e, the reference's BF16 run %.2e",
                     tests[i].median ? "median" : "mean", tests[i].prompt, x, theirs);
        }
        free(ours);
        free(golden);
        free(p.ids);
    }
    engine_close(g);
}

static void levels_aspect(const model_case *c) {
    prompt p = prompt_of(c, "plong");
    if (!p.n) return;
    float *portable = NULL;
    for (level l = LEVEL_PORTABLE; l <= level_best(); l++) {
        char aspect[60];
        snprintf(aspect, sizeof aspect, "level %s", level_name(l));
        engine *g = open_engine(c, c->m, 2, level_name(l), COMPUTE_F32, MLA_CHEAPER);
        float *rows = g ? all_logits(c, g, p, p.n, aspect) : NULL;
        engine_close(g);
        if (l == LEVEL_PORTABLE) {
            portable = rows;
            if (!rows) break;
        } else if (rows) {
            double d = gold_relative(gold_gap_of(portable, rows, p.n * vocab_of(c)));
            gold_say(c->g, d <= LEVELS_DIFFER, c->file, aspect, "f32 against portable, plong: largest difference %.2e",
                     d);
            free(rows);
        }
        bf16_aspect(c, level_name(l), level_name(l));
    }
    free(portable);
    free(p.ids);
}

/* --- pieces and batches ----------------------------------------------------------------------------------------- */

/* Few rows at once are one by one, to the last bit; and both are the whole prompt up to rounding. */
static void steps_aspect(const model_case *c, compute k) {
    char aspect[40];
    snprintf(aspect, sizeof aspect, "steps %s", compute_name(k));
    prompt p = prompt_of(c, "p64");
    engine *g = open_engine(c, c->m, 2, NULL, k, MLA_CHEAPER);
    float *one = p.n && g ? all_logits(c, g, p, 1, aspect) : NULL;
    const int64_t count = p.n * vocab_of(c);
    for (int64_t piece = 2; one && piece <= OP_FEW_ROWS; piece += 3) {
        float *rows = all_logits(c, g, p, piece, aspect);
        if (rows)
            gold_say(c->g, !memcmp(one, rows, (size_t)count * sizeof *rows), c->file, aspect,
                     "%d tokens at once against one by one, bit by bit; largest difference %.1e", (int)piece,
                     gold_relative(gold_gap_of(one, rows, count)));
        free(rows);
    }
    float *golden = golden_logits(c, "p64");
    float *mixed = one && k == COMPUTE_F32 ? all_logits(c, g, p, 13, aspect) : NULL;
    if (one && mixed && golden) {
        double a = gold_relative(gold_gap_of(golden, one, count)), b = gold_relative(gold_gap_of(golden, mixed, count));
        gold_say(c->g, a <= c->g->limit && b <= c->g->limit, c->file, aspect,
                 "largest difference from the reference one by one %.2e, in pieces of 13 %.2e", a, b);
    }
    free(golden);
    free(mixed);
    free(one);
    engine_close(g);
    free(p.ids);
}

enum { BATCH = 4 };

/* Prompts of unequal lengths in one batch, and then one step of all at once against each alone. */
static void batch_aspect(const model_case *c, compute k) {
    static const char *const names[BATCH] = {"p64", "p1", "plong", "p7"};
    char aspect[40];
    snprintf(aspect, sizeof aspect, "batch %s", compute_name(k));
    engine *g = open_engine(c, c->m, 2, NULL, k, MLA_CHEAPER);
    session *together[BATCH] = {0}, *alone[BATCH] = {0};
    prompt p[BATCH];
    const int32_t *ids[BATCH];
    int64_t n[BATCH], one[BATCH];
    const int32_t next[BATCH] = {3, 5, 7, 11};
    const int64_t v = vocab_of(c);
    error e = {0};
    status st = g ? OK : ERR_NOMEM;
    for (int i = 0; i < BATCH; i++) {
        p[i] = prompt_of(c, names[i]);
        ids[i] = p[i].ids;
        n[i] = p[i].n;
        one[i] = 1;
        if (!p[i].n) st = ERR_FORMAT;
        if (st == OK) st = session_open(&together[i], g, n[i] + 1, &e);
        if (st == OK) st = session_open(&alone[i], g, n[i] + 1, &e);
    }
    if (st == OK) st = sessions_extend(together, BATCH, ids, n, NULL, &e);
    double worst = 0, kl = 0;
    bool same = true;
    for (int i = 0; st == OK && i < BATCH; i++) {
        st = sessions_extend(&alone[i], 1, &ids[i], &n[i], NULL, &e);
        if (st != OK) break;
        worst = fmax(worst, gold_relative(gold_gap_of(alone[i]->logits, together[i]->logits, v)));
        kl = fmax(kl, gold_kl_of(alone[i]->logits, together[i]->logits, 1, v).max);
    }
    if (st == OK && k == COMPUTE_F32)
        gold_say(c->g, worst <= c->g->limit && kl <= GOLD_KL, c->file, aspect,
                 "%d unequal prompts at once against each alone: largest difference %.2e, KL %.2e", BATCH, worst, kl);
    /* the same caches from here on: the step's own difference alone */
    for (int i = 0; st == OK && i < BATCH; i++) {
        session_truncate(together[i], 0);
        st = sessions_extend(&together[i], 1, &ids[i], &n[i], NULL, &e);
    }
    const int32_t *step[BATCH] = {&next[0], &next[1], &next[2], &next[3]};
    if (st == OK) st = sessions_extend(together, BATCH, step, one, NULL, &e);
    for (int i = 0; st == OK && i < BATCH; i++) {
        st = sessions_extend(&alone[i], 1, &step[i], &one[i], NULL, &e);
        if (st == OK) same &= !memcmp(alone[i]->logits, together[i]->logits, (size_t)v * sizeof(float));
    }
    if (st == OK)
        gold_say(c->g, same, c->file, aspect, "a step of %d sessions at once against each alone, bit by bit", BATCH);
    else gold_say(c->g, false, c->file, aspect, "%s", e.text);
    for (int i = 0; i < BATCH; i++) {
        session_close(together[i]);
        session_close(alone[i]);
        free(p[i].ids);
    }
    engine_close(g);
}

/* --- drafts ----------------------------------------------------------------------------------------------------- */

enum { NEW_TOKENS = 32 };

static status continue_prompt(engine *g, prompt p, int drafts, float temperature, generated *a, error *e) {
    session *s;
    TRY(session_open(&s, g, p.n + NEW_TOKENS + MAX_DRAFTS + 1, e));
    const generation o = {
        .sampling = {.temperature = temperature, .top_p = 1, .repetition_penalty = 1, .seed = 7},
        .max_tokens = NEW_TOKENS,
        .drafts = drafts,
    };
    status st = generate(&s, 1, &(const int32_t *){p.ids}, &p.n, &o, NULL, a, e);
    session_close(s);
    return st;
}

/* The answer is the same with any number of drafts, greedy or sampled. */
static void drafts_aspect(const model_case *c, const model *m, const char *what, compute k, float temperature) {
    static const char *const names[] = {"p1", "p7", "p64"};
    char aspect[60];
    snprintf(aspect, sizeof aspect, "%s %s temperature %.1f", what, compute_name(k), (double)temperature);
    engine *g = open_engine(c, m, 2, NULL, k, MLA_CHEAPER);
    int equal = 0, all = 0;
    int64_t proposed = 0, accepted = 0;
    error e = {0};
    status st = OK;
    for (int i = 0; g && st == OK && i < 3; i++) {
        prompt p = prompt_of(c, names[i]);
        generated plain = {0};
        if (p.n) st = continue_prompt(g, p, 0, temperature, &plain, &e);
        for (int drafts = 1; p.n && st == OK && drafts <= 4; drafts++) {
            generated a = {0};
            st = continue_prompt(g, p, drafts, temperature, &a, &e);
            equal += a.n_ids == plain.n_ids && a.n_ids == NEW_TOKENS &&
                     !memcmp(a.ids, plain.ids, (size_t)a.n_ids * sizeof *a.ids);
            all++;
            proposed += a.draft_proposed;
            accepted += a.draft_accepted;
            generated_clear(&a);
        }
        generated_clear(&plain);
        free(p.ids);
    }
    if (st == OK)
        gold_say(c->g, all && equal == all && proposed > 0 && (m == c->m || accepted > 0), c->file, aspect,
                 "%d of %d answers equal to those without drafts; %lld of %lld drafts accepted", equal, all,
                 (long long)accepted, (long long)proposed);
    else gold_say(c->g, false, c->file, aspect, "%s", e.text);
    engine_close(g);
}

/* Random weights accept no drafts. So a model is made of them whose MTP layer is often right: the branches of all
 * blocks are scaled down until the next token is almost a function of the last one, and the MTP layer takes the
 * embedding of that token alone. */
static void make_predictable(const model_config *m, const weights_entry *x, const weights_file *w, uint16_t *to) {
    static const float branch = 0.3f;
    char prefix[40];
    snprintf(prefix, sizeof prefix, "model.layers.%d.", (int)m->num_hidden_layers);
    const char *mtp = strncmp(x->name, prefix, strlen(prefix)) ? "" : x->name + strlen(prefix);
    const int64_t n = tensor_count(&x->t), hidden = m->hidden_size;
    memcpy(to, x->t.data, (size_t)n * 2);
    if (strstr(x->name, "o_proj.weight") || strstr(x->name, "down_proj.weight"))
        for (int64_t i = 0; i < n; i++) to[i] = f32_to_bf16(branch * bf16_to_f32(to[i]));
    else if (!strcmp(mtp, "eh_proj.weight"))
        for (int64_t i = 0; i < n; i++) to[i] = f32_to_bf16(i / (2 * hidden) == i % (2 * hidden));
    else if (!strcmp(mtp, "enorm.weight"))
        for (int64_t i = 0; i < n; i++) to[i] = f32_to_bf16(1);
    else if (!strcmp(mtp, "shared_head.norm.weight")) {
        const weights_entry *norm = weights_find(w, "model.norm.weight");
        if (norm && tensor_count(&norm->t) == n) memcpy(to, norm->t.data, (size_t)n * 2);
    }
}

/* A copy of a BF16 folder with such weights: the new folder's name, or NULL. */
static char *predictable_folder(const model_case *c, error *e) {
    char *to = gold_path(c->g->scratch, "predictable"), *config = gold_path(c->bf16, "config.json"),
         *config_to = gold_path(to, "config.json");
    weights_file *w = NULL;
    str text = {0};
    remove_folder(to);
    status st = weights_open(&w, c->bf16, e);
    const size_t n = st == OK ? weights_count(w) : 0;
    safetensors_entry *list = calloc(n + 1, sizeof *list);
    if (!list) abort();
    for (size_t i = 0; i < n; i++) {
        const weights_entry *x = weights_at(w, i);
        list[i] = (safetensors_entry){.name = x->name, .t = x->t};
        if (x->t.type != DT_BF16) continue;
        uint16_t *copy = malloc((size_t)tensor_count(&x->t) * 2 + 1);
        if (!copy) abort();
        make_predictable(&c->m->cfg, x, w, copy);
        list[i].t.data = copy;
    }
    if (st == OK) st = safetensors_save(to, list, n, SHARD_BYTES, e);
    if (st == OK) st = file_read(&text, config, 1 << 24, e);
    if (st == OK) st = file_save(config_to, text.p, text.n, e);
    for (size_t i = 0; i < n; i++)
        if (list[i].t.type == DT_BF16) free((void *)(uintptr_t)list[i].t.data);
    free(list);
    str_free(&text);
    weights_close(w);
    free(config);
    free(config_to);
    if (st == OK) return to;
    remove_folder(to);
    free(to);
    return NULL;
}

static void accepted_drafts(const model_case *c) {
    error e = {0};
    model *m = NULL;
    char *folder = predictable_folder(c, &e);
    if (!folder || model_open(&m, folder, &e) != OK) {
        gold_say(c->g, false, c->file, "accepted drafts", "%s", e.text);
        free(folder);
        return;
    }
    for (compute k = COMPUTE_F32; k <= COMPUTE_BF16; k++) {
        drafts_aspect(c, m, "accepted drafts", k, 0);
        drafts_aspect(c, m, "accepted drafts", k, 1);
    }
    model_close(m);
    remove_folder(folder);
    free(folder);
}

/* --- logits as JSON lines --------------------------------------------------------------------------------------- */

static void jsonl_aspect(const model_case *c) {
    char *path = gold_path(c->folder, "golden_logits.jsonl");
    if (file_exists(path)) {
        engine *g = open_engine(c, c->m, 2, NULL, COMPUTE_F32, MLA_CHEAPER);
        str summary = {0};
        error e = {0};
        if (g && logit_kl_check(g, NULL, path, GOLD_KL, NULL, NULL, &summary, &e) == OK)
            gold_say(c->g, strstr(summary.p, "\"pass\":true") != NULL, c->file, "golden_logits.jsonl", "%s", summary.p);
        else if (g) gold_say(c->g, false, c->file, "golden_logits.jsonl", "%s", e.text);
        str_free(&summary);
        engine_close(g);
    }
    free(path);
}

/* --- FP8 -------------------------------------------------------------------------------------------------------- */

/* src_bf16/NAME becomes the codes and scales of NAME in the checkpoint. */
static void quantize_aspect(const model_case *c) {
    char *path = gold_path(c->folder, "quantize_source.safetensors"), *checkpoint = gold_path(c->folder, "checkpoint");
    safetensors source = {0};
    weights_file *w = NULL;
    error e = {0};
    size_t codes_wrong = 0, scales_wrong = 0, count = 0;
    status st = file_exists(path) ? safetensors_open(&source, path, &e) : ERR_CANCELLED;
    if (st == OK) st = weights_open_in_place(&w, checkpoint, &e);
    const scale_format f = c->stored->cfg.fp8_ue8m0 ? SCALE_UE8M0 : SCALE_F32;
    for (size_t i = 0; st == OK && i < source.count; i++) {
        const safetensors_entry *x = &source.entries[i];
        char scale_name[300];
        if (strncmp(x->name, "src_bf16/", 9) != 0 || x->t.ndim != 2) continue;
        snprintf(scale_name, sizeof scale_name, "%s_scale_inv", x->name + 9);
        const weights_entry *codes = weights_find(w, x->name + 9), *scales = weights_find(w, scale_name);
        if (!codes || !scales || codes->t.type != DT_E4M3 || scales->t.type != DT_F32 ||
            tensor_count(&codes->t) != tensor_count(&x->t)) {
            st = fail(&e, ERR_FORMAT, "%s is not FP8 in the checkpoint", x->name + 9);
            break;
        }
        const int64_t rows = x->t.dim[0], columns = x->t.dim[1], across = fp8_blocks(columns);
        float *row = malloc((size_t)columns * sizeof *row), *ours = malloc((size_t)across * sizeof *ours);
        uint8_t *made = malloc((size_t)columns);
        if (!row || !ours || !made) abort();
        for (int64_t r = 0; r < rows; r++) {
            if (r % FP8_BLOCK == 0)
                for (int64_t b = 0; b < across; b++) {
                    if (!fp8_block_scale(&ours[b], &x->t, r / FP8_BLOCK, b, f)) ours[b] = NAN;
                    scales_wrong +=
                        memcmp(&ours[b], (const char *)scales->t.data + (r / FP8_BLOCK * across + b) * 4, 4) != 0;
                }
            fp8_load(row, x->t.type, (const char *)x->t.data + (size_t)(r * columns) * dtype_size(x->t.type), columns);
            fp8_quantize(made, row, 0, columns, ours);
            const uint8_t *golden = (const uint8_t *)codes->t.data + r * columns;
            for (int64_t j = 0; j < columns; j++) codes_wrong += made[j] != golden[j];
        }
        count++;
        free(row);
        free(ours);
        free(made);
    }
    if (st == OK)
        gold_say(c->g, count && !codes_wrong && !scales_wrong, c->file, "quantize",
                 "%zu weights, %zu codes and %zu scales differ", count, codes_wrong, scales_wrong);
    else if (st != ERR_CANCELLED) gold_say(c->g, false, c->file, "quantize", "%s", e.text);
    weights_close(w);
    safetensors_close(&source);
    free(path);
    free(checkpoint);
}

/* checkpoint/ as BF16: what the golden results of an FP8 case are of. Returns the new folder, MTP layers showing. */
static char *to_bf16(const model_case *c, error *e) {
    char *from = gold_path(c->folder, "checkpoint"), *expected = gold_path(c->folder, "checkpoint_bf16_expected"),
         *hidden = gold_path(c->g->scratch, "hidden"), *shown = gold_path(c->g->scratch, "shown");
    convert_result r;
    remove_folder(hidden);
    remove_folder(shown);
    if (is_directory(expected)) {
        if (convert_run(&(convert_options){.in = from, .out = hidden, .to = CONVERT_BF16, .mtp = CONVERT_MTP_HIDE}, &r,
                        e) == OK)
            gold_exact(c->g, c->file, "to bf16", expected, hidden);
        else gold_say(c->g, false, c->file, "to bf16", "%s", e->text);
        remove_folder(hidden);
    }
    if (convert_run(&(convert_options){.in = from, .out = shown, .to = CONVERT_BF16, .mtp = CONVERT_MTP_KEEP}, &r, e) !=
        OK) {
        free(shown);
        shown = NULL;
    }
    free(from);
    free(expected);
    free(hidden);
    return shown;
}

/* --- the whole -------------------------------------------------------------------------------------------------- */

static void compare_all(const model_case *c, bool quick) {
    trace_aspect(c, c->m, NULL, MLA_CHEAPER, "f32");
    if (c->stored != c->m) trace_aspect(c, c->stored, NULL, MLA_CHEAPER, "f32 of fp8 weights");
    if (!quick) {
        trace_aspect(c, c->m, "portable", MLA_CHEAPER, "f32 portable");
        forms(c);
        levels_aspect(c);
    } else bf16_aspect(c, NULL, "best");
    for (compute k = COMPUTE_F32; k <= COMPUTE_BF16; k++) {
        threads_aspect(c, k);
        steps_aspect(c, k);
        batch_aspect(c, k);
        if (!c->m->n_mtp) continue;
        drafts_aspect(c, c->m, "drafts", k, 0);
        drafts_aspect(c, c->m, "drafts", k, 1);
    }
    if (c->m->n_mtp) accepted_drafts(c);
    jsonl_aspect(c);
    if (!c->stored->cfg.fp8) return;
    quantize_aspect(c);
    gold_fp8_activations(c->g, c->file, &c->golden, c->stored);
}

void gold_model(gold *g, const char *folder, const char *file, bool quick) {
    model_case c = {.g = g, .folder = folder, .file = file};
    char *info = gold_path(folder, "golden.json"), *checkpoint = gold_path(folder, "checkpoint");
    error e = {0};
    c.golden_path = gold_path(folder, "golden.safetensors");
    status st = json_read(&c.info, info, 1 << 24, &e);
    if (st == OK) st = safetensors_open(&c.golden, c.golden_path, &e);
    if (st == OK) st = model_open(&c.stored, checkpoint, &e);
    c.m = c.stored;
    c.bf16 = checkpoint;
    if (st == OK && c.stored->cfg.fp8) {
        c.m = NULL;
        c.bf16 = to_bf16(&c, &e);
        st = c.bf16 ? model_open(&c.m, c.bf16, &e) : e.code;
    }
    if (st == OK) compare_all(&c, quick);
    else gold_say(g, false, file, "open", "%s", e.text);
    if (c.m != c.stored) model_close(c.m);
    model_close(c.stored);
    if (c.bf16 && c.bf16 != checkpoint) {
        remove_folder(c.bf16);
        free(c.bf16);
    }
    safetensors_close(&c.golden);
    json_decref(c.info);
    free(c.golden_path);
    free(info);
    free(checkpoint);
}
