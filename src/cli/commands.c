/* The table of subcommands, in the order of the help. */
#include "cli/commands.h"

const command *const commands[] = {
    &command_run_model, &command_chat,    &command_serve, &command_info,
    &command_tokenize,  &command_convert, &command_init,  &command_check,
    &command_trace,     &command_bench,   &command_train, &command_grpo,
    &command_sample,    &command_distill, &command_dpo,   &command_r1,
    &command_data,      &command_eval,    &command_plot,  &command_completion,
    &command_help_on,   &command_version, NULL,
};
