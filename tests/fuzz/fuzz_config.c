/* libFuzzer: a config.json of any content is read or refused; what is read can be counted and has sane frequencies. */
#include <stdlib.h>
#include "base/json.h"
#include "model/model.h"
#include "model/rope.h"

static status same_names(void *arg, const weight_item *w) {
    (void)w;
    return --*(int64_t *)arg > 0 ? OK : ERR_CANCELLED;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *j;
    model_config c;
    error e;
    if (json_parse(&j, (const char *)data, size, "config.json", &e) != OK) return 0;
    if (config_read(&c, j, &e) == OK) {
        int64_t most = 10000;
        model_each_weight(&c, same_names, &most);
        int64_t dim = c.kv_lora_rank ? c.qk_rope_head_dim : c.head_dim;
        float *f = malloc((size_t)dim * sizeof *f);
        if (f) rope_frequencies(&c.rope, dim, f);
        free(f);
        config_attention_scale(&c);
    }
    json_decref(j);
    return 0;
}
