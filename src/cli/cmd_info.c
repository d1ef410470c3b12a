/* hadal info: what a model is and what it needs, without reading its weights. */
#include "base/file.h"
#include "cli/commands.h"
#include "cli/conversation.h"
#include "cli/table.h"

typedef struct settings {
    int context;
    bool json;
} settings;

#define AT(field) offsetof(settings, field)
static const option rows[] = {
    {"context", 'c', "N", OPT_INT, AT(context), 0, 1 << 30, "tokens for which memory is reckoned; 0: the model's most"},
    {"json", 0, NULL, OPT_SWITCH, AT(json), 0, 0, "JSON, with plain numbers"},
    {0},
};
#undef AT

static int run(void *given, int n, char **args) {
    (void)n;
    const settings *o = given;
    json_t *info;
    int code = is_directory(args[0]) ? need_model(args[0]) : need_file(args[0]);
    if (!code) code = model_info(args[0], o->context, &info);
    if (code) return code;
    if (o->json) code = print_json(info);
    else print_table(info);
    json_decref(info);
    return code;
}

const command command_info = {
    .name = "info",
    .arguments = "MODEL",
    .summary = "tells what a model is and how much memory it needs",
    .more = "MODEL is a Hugging Face folder or a config.json alone. Weights are not read.",
    .examples = "hadal info ./DeepSeek-V2-Lite\n"
                "hadal info ./DeepSeek-V3/config.json --context 32768\n"
                "hadal info ./DeepSeek-V3 --json",
    .groups = {{"Options", rows, 0}},
    .min_args = 1,
    .max_args = 1,
    .size = sizeof(settings),
    .run = run,
};
