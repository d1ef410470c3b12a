/* Continues a text with a model: the library in its shortest form.
 *
 *     complete MODEL_FOLDER "Once upon a time"
 *
 * Build: gcc complete.c $(pkg-config --cflags --libs hadal) -o complete */
#include <hadal.h>
#include <stdio.h>

static int show(void *arg, const hadal_token *t) {
    (void)arg;
    fwrite(t->text, 1, t->n, stdout);
    fflush(stdout);
    return 0; /* go on */
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: complete MODEL_FOLDER TEXT\n");
        return 2;
    }
    hadal_error e;
    hadal_model *model = NULL;
    hadal_session *session = NULL;
    hadal_result answer = {0};
    int32_t *ids = NULL;
    size_t n = 0, length = 0;
    while (argv[2][length]) length++;

    int failed = hadal_model_open(&model, argv[1], NULL, &e);
    if (!failed && !hadal_model_tokenizer(model)) {
        fprintf(stderr, "complete: this checkpoint has no tokenizer\n");
        hadal_model_close(model);
        return 1;
    }
    if (!failed) failed = hadal_session_open(&session, model, 256, &e);
    if (!failed)
        failed = hadal_tokenize(hadal_model_tokenizer(model), argv[2], length, HADAL_ADD_SPECIAL, &ids, &n, &e);
    if (!failed) {
        hadal_sampling sampling;
        hadal_sampling_defaults(model, &sampling);
        sampling.max_tokens = 64;
        failed = hadal_generate(session, ids, (int)n, &sampling, show, NULL, &answer, &e);
    }
    if (failed) fprintf(stderr, "complete: %s\n", e.text);
    else printf("\n[%d tokens, %s]\n", answer.n_ids, answer.finish);

    hadal_result_clear(&answer);
    hadal_free(ids);
    hadal_session_close(session);
    hadal_model_close(model);
    return failed ? 1 : 0;
}
