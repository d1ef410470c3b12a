/* The subcommands: one file each. */
#ifndef HADAL_CLI_COMMANDS_H
#define HADAL_CLI_COMMANDS_H

#include "cli/cli.h"

extern const command command_run_model;                                          /* cmd_run.c */
extern const command command_chat;                                               /* cmd_chat.c */
extern const command command_serve;                                              /* cmd_serve.c */
extern const command command_info;                                               /* cmd_info.c */
extern const command command_tokenize;                                           /* cmd_tokenize.c */
extern const command command_convert;                                            /* cmd_convert.c */
extern const command command_init;                                               /* cmd_init.c */
extern const command command_check;                                              /* cmd_check.c */
extern const command command_trace;                                              /* cmd_trace.c */
extern const command command_bench;                                              /* cmd_bench.c */
extern const command command_data;                                               /* cmd_data.c */
extern const command command_eval;                                               /* cmd_eval.c */
extern const command command_plot;                                               /* cmd_plot.c */
extern const command command_train;                                              /* cmd_train.c */
extern const command command_grpo, command_sample, command_distill, command_dpo; /* cmd_post.c */
extern const command command_r1;                                                 /* cmd_r1.c */
extern const command command_completion;                                         /* cmd_version.c */
extern const command command_help_on;                                            /* cmd_version.c */
extern const command command_version;                                            /* cmd_version.c */

#endif
