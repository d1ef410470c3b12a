#include "cli/generate.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "base/clock.h"
#include "cli/term.h"

/* ---- opening --------------------------------------------------------------------------------------------------- */

#define AT(field) offsetof(machine_options, field)
const option machine_rows[] = {
    {"threads", 't', "N", OPT_INT, AT(threads), 0, 4096, "threads; 0: one per processor (default)"},
    {"compute", 0, "bf16|f32", OPT_TEXT, AT(compute), 0, 0, "type of the operands of matrix products"},
    {"kernels", 0, "portable|avx2|avx512|avx512bf16|amx", OPT_TEXT, AT(kernels), 0, 0,
     "instructions to use; default: the best of the machine"},
    {0},
};
#undef AT

int open_model(hadal_model **out, const char *folder, const machine_options *o) {
    int code = need_model(folder);
    if (code) return code;
    hadal_error e = {0};
    progress p = {.what = "opening the model"};
    hadal_model_options mo = {.size = sizeof mo,
                              .threads = o->threads,
                              .compute = o->compute,
                              .kernels = o->kernels,
                              .progress = progress_call,
                              .progress_arg = &p};
    int st = hadal_model_open(out, folder, &mo, &e);
    progress_end(&p);
    return st ? report(&e) : EXIT_FINE;
}

/* ---- sampling -------------------------------------------------------------------------------------------------- */

#define AT(field) offsetof(sampling_options, field)
const option sampling_rows[] = {
    {"max-tokens", 'n', "N", OPT_INT, AT(max_tokens), 0, 1 << 30, "longest answer; 0: until the context is full"},
    {"temperature", 0, "T", OPT_REAL, AT(temperature), 0, 100, "0: always the most likely token"},
    {"top-k", 0, "K", OPT_INT, AT(top_k), 0, 1 << 30, "among the K most likely tokens; 0: off"},
    {"top-p", 0, "P", OPT_REAL, AT(top_p), 0, 1, "among the tokens that make up this probability; 1: off"},
    {"min-p", 0, "P", OPT_REAL, AT(min_p), 0, 1, "among tokens at least P times as likely as the first; 0: off"},
    {"repetition-penalty", 0, "X", OPT_REAL, AT(repetition_penalty), 0, 100, "divides what came before; 1: off"},
    {"presence-penalty", 0, "X", OPT_REAL, AT(presence_penalty), -100, 100, "subtracted from what was said; 0: off"},
    {"frequency-penalty", 0, "X", OPT_REAL, AT(frequency_penalty), -100, 100, "the same for each time it was said"},
    {"seed", 0, "N", OPT_SEED, AT(seed), 0, 0, "same seed, same answer; default: another each time"},
    {"stop", 0, "TEXT", OPT_TEXTS, AT(stop), 0, 0, "ends the answer before this text (several are possible)"},
    {"ignore-eos", 0, NULL, OPT_SWITCH, AT(ignore_eos), 0, 0, "goes on after the end-of-text token"},
    {"drafts", 0, "N", OPT_INT, AT(drafts), 0, 16, "speculative decoding: N tokens drafted by the MTP layer a step"},
    {0},
};
#undef AT

void sampling_of(hadal_sampling *out, const hadal_model *m, const sampling_options *o) {
    *out = (hadal_sampling){.size = sizeof *out};
    hadal_sampling_defaults(m, out);
    out->size = sizeof *out;
    if (o->max_tokens >= 0) out->max_tokens = o->max_tokens;
    if (o->top_k >= 0) out->top_k = o->top_k;
    if (o->drafts >= 0) out->drafts = o->drafts;
    if (o->temperature >= 0) out->temperature = (float)o->temperature;
    if (o->top_p >= 0) out->top_p = (float)o->top_p;
    if (o->min_p >= 0) out->min_p = (float)o->min_p;
    if (o->repetition_penalty >= 0) out->repetition_penalty = (float)o->repetition_penalty;
    if (o->presence_penalty != 0) out->presence_penalty = (float)o->presence_penalty;
    if (o->frequency_penalty != 0) out->frequency_penalty = (float)o->frequency_penalty;
    if (o->stop.n) {
        out->stop = o->stop.v;
        out->n_stop = o->stop.n;
    }
    out->ignore_eos = o->ignore_eos;
    if (o->seed.given) out->seed = o->seed.value;
    else {
        uint32_t word = 0; /* 32 bits are enough, and every JSON reader keeps them exactly */
        if (getrandom(&word, sizeof word, 0) != (ssize_t)sizeof word) word = (uint32_t)(clock_seconds() * 1e6);
        out->seed = word;
    }
}

/* ---- what it cost --------------------------------------------------------------------------------------------- */

void describe_result(str *out, const hadal_result *r) {
    int read = r->prompt_tokens - r->cached_tokens;
    str_addf(out, "prompt %d tokens", r->prompt_tokens);
    if (r->cached_tokens) str_addf(out, " (%d cached)", r->cached_tokens);
    if (r->prompt_seconds > 0) str_addf(out, ", %.1f tokens/s", read / r->prompt_seconds);
    if (r->prompt_seconds < 1) str_addf(out, ", first token after %.0f ms", 1000 * r->prompt_seconds);
    else str_addf(out, ", first token after %.1f s", r->prompt_seconds);
    str_addf(out, "; answer %d tokens", r->n_ids);
    if (r->n_ids > 1 && r->seconds > 0) str_addf(out, ", %.1f tokens/s", (r->n_ids - 1) / r->seconds);
    if (r->draft_proposed)
        str_addf(out, "; drafts %d of %d accepted (%.0f %%)", r->draft_accepted, r->draft_proposed,
                 100.0 * r->draft_accepted / r->draft_proposed);
}
