#include "post/export.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/file.h"
#include "base/pool.h"
#include "convert/convert.h"
#include "format/native.h"
#include "train/checkpoint.h"

/* convert.json marks a folder that was left unfinished. */
bool is_exported(const char *folder) {
    char *marker = path_join(folder, "convert.json");
    bool done = is_directory(folder) && !(marker && file_exists(marker));
    free(marker);
    return done;
}

static char *folder_of(const char *run, int64_t step) {
    char name[32];
    snprintf(name, sizeof name, "hf-%08" PRId64, step);
    return path_join(run, name);
}

static status convert(const train_config *c, const run_hooks *hooks, const char *from, const char *to, error *e) {
    convert_options o = {.in = from, .out = to, .to = CONVERT_SAME};
    convert_result r = {0};
    if (hooks) {
        o.progress = hooks->progress;
        o.progress_arg = hooks->arg;
    }
    TRY(pool_open(&o.threads, pool_size(c->training.threads), e));
    status s = convert_run(&o, &r, e);
    pool_close(o.threads);
    return s;
}

status export_newest(const train_config *c, const run_hooks *hooks, char **out, error *e) {
    const char *run = c->checkpoint.folder;
    char *from = NULL, *to = NULL;
    int64_t step = 0;
    *out = NULL;
    status s = checkpoint_newest(run, &from, &step, e);
    if (s == OK && trains_adapters(c)) {
        free(from);
        if (!(from = path_join(run, "merged"))) s = fail(e, ERR_NOMEM, "memory is out");
    }
    if (s == OK && from && !(to = folder_of(run, step))) s = fail(e, ERR_NOMEM, "memory is out");
    if (s == OK && to && !is_exported(to)) s = convert(c, hooks, from, to, e);
    if (s == OK && from && trains_adapters(c)) s = native_remove(from, e);
    free(from);
    if (s == OK) *out = to;
    else free(to);
    return s;
}
