#include "format/model_files.h"

#include <stdlib.h>
#include "base/file.h"

static status copy(const char *from, const char *to, error *e) {
    mapping m;
    TRY(file_map(&m, from, e));
    status s = file_save(to, m.p, m.n, e);
    file_unmap(&m);
    return s;
}

status model_file_copy(const char *from, const char *to, const char *name, error *e) {
    char *in = path_join(from, name), *out = path_join(to, name);
    status s = in && out ? OK : fail(e, ERR_NOMEM, "memory is out");
    if (s == OK && file_exists(in)) s = copy(in, out, e);
    free(in);
    free(out);
    return s;
}

status model_files_copy(const char *from, const char *to, error *e) {
    static const char *const names[] = {"generation_config.json", "tokenizer.json",      "tokenizer_config.json",
                                        "tokenizer.model",        "vocab.json",          "merges.txt",
                                        "added_tokens.json",      "chat_template.jinja", "special_tokens_map.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) TRY(model_file_copy(from, to, names[i], e));
    return OK;
}

status model_folder_copy(const char *from, const char *to, error *e) {
    TRY(make_directory(to, e));
    if (!is_directory(from)) {
        char *out = path_join(to, "config.json");
        status s = out ? copy(from, out, e) : fail(e, ERR_NOMEM, "memory is out");
        free(out);
        return s;
    }
    TRY(model_files_copy(from, to, e));
    TRY(model_file_copy(from, to, "model.safetensors.index.json", e));
    return model_file_copy(from, to, "config.json", e);
}
