/* hadal version, hadal help, hadal completion: what the program says about itself. */
#include <readline/readline.h>
#include <stdio.h>
#include <sys/utsname.h>
#include "cli/commands.h"

static int run_version(void *settings, int n, char **args) {
    (void)settings, (void)n, (void)args;
    struct utsname u;
    printf("hadal %s\n", hadal_version());
    if (uname(&u) == 0) printf("machine   %s %s\n", u.sysname, u.machine);
    printf("compiler  %s\njansson   %s\nreadline  %s\n", __VERSION__, jansson_version_str(), rl_library_version);
    return EXIT_FINE;
}

static int run_help(void *settings, int n, char **args) {
    (void)settings;
    const command *c = n ? command_find(args[0]) : NULL;
    if (n && !c) return unknown_command(args[0]);
    if (c) command_help(c);
    else commands_help();
    return EXIT_FINE;
}

static int run_completion(void *settings, int n, char **args) {
    (void)settings, (void)n, (void)args;
    return commands_completion();
}

const command command_version = {
    .name = "version",
    .arguments = "",
    .summary = "prints the version of hadal and of the libraries it uses",
    .examples = "hadal version\nhadal --version",
    .run = run_version,
};

const command command_help_on = {
    .name = "help",
    .arguments = "[COMMAND]",
    .summary = "explains hadal or one of its commands",
    .examples = "hadal help\nhadal help run",
    .max_args = 1,
    .run = run_help,
};

const command command_completion = {
    .name = "completion",
    .arguments = "",
    .summary = "prints a completion script for bash",
    .examples = "source <(hadal completion)\n"
                "hadal completion > ~/.local/share/bash-completion/completions/hadal",
    .run = run_completion,
};
