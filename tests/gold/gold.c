/* make gold GOLD=DIR: every comparison with the reference data of a folder, whatever cases it holds:
 *
 *   models/NAME, components, tokenizers/NAME, chat, training/NAME, grpo/NAME
 *
 * One line for each file and aspect, then "N passed, N failed". Exit status 1 when something failed or nothing was
 * there. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "components.h"
#include "grpo.h"
#include "models.h"
#include "text.h"
#include "training.h"

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Calls f for every folder inside DIR/group, in the order of their names. */
static void each_folder(gold *g, const char *dir, const char *group,
                        void (*f)(gold *g, const char *folder, const char *file)) {
    char *inside = gold_path(dir, group), *names[1000];
    int n = 0;
    DIR *d = opendir(inside);
    for (struct dirent *x; d && (x = readdir(d)) && n < 1000;)
        if (x->d_name[0] != '.') names[n++] = gold_path(group, x->d_name);
    if (d) closedir(d);
    qsort(names, (size_t)n, sizeof *names, by_text);
    for (int i = 0; i < n; i++) {
        char *folder = gold_path(dir, names[i]);
        if (is_directory(folder)) f(g, folder, names[i]);
        free(folder);
        free(names[i]);
    }
    free(inside);
}

static void model_folder(gold *g, const char *folder, const char *file) {
    gold_model(g, folder, file, false);
}

int main(int argc, char **argv) {
    char scratch[] = "/tmp/hadal-gold-XXXXXX";
    if (argc != 2 || !is_directory(argv[1])) {
        fprintf(stderr, "usage: gold DIR\n");
        return 2;
    }
    if (!mkdtemp(scratch)) {
        perror(scratch);
        return 2;
    }
    gold g = {.out = stdout, .scratch = scratch, .limit = GOLD_F32};
    each_folder(&g, argv[1], "models", model_folder);
    gold_components(&g, argv[1]);
    each_folder(&g, argv[1], "tokenizers", gold_tokenizer);
    gold_chat(&g, argv[1]);
    each_folder(&g, argv[1], "training", gold_training);
    each_folder(&g, argv[1], "grpo", gold_grpo);
    rmdir(scratch);
    printf("%d passed, %d failed\n", g.passed, g.failed);
    return g.failed || !g.passed;
}
