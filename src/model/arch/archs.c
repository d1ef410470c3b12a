/* The families. A new one is a file like these lines' entries and a line here. */
#include <string.h>
#include "model/block.h"

extern const arch arch_deepseek_v2, arch_deepseek_v3, arch_deepseek_v32, arch_qwen2, arch_llama;

static const arch *const archs[] = {&arch_deepseek_v2, &arch_deepseek_v3, &arch_deepseek_v32, &arch_qwen2, &arch_llama};

const arch *arch_find(const char *model_type) {
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (strcmp(archs[i]->model_type, model_type) == 0) return archs[i];
    return NULL;
}

const char *arch_names(void) {
    return "deepseek_v2, deepseek_v3, deepseek_v32, qwen2 and llama";
}
