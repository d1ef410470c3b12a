/* What every subcommand is made of: a row in the table of commands, its options, its exit code, its errors.
 * One table of options serves parsing, --help and shell completion. */
#ifndef HADAL_CLI_CLI_H
#define HADAL_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "base/json.h"
#include "hadal.h"

enum { EXIT_FINE = 0, EXIT_FAILED = 1, EXIT_WRONG = 2, EXIT_INTERRUPTED = 130 };

typedef enum option_kind {
    OPT_SWITCH, /* bool */
    OPT_TEXT,   /* const char * */
    OPT_INT,    /* int, from min to max */
    OPT_REAL,   /* double, from min to max */
    OPT_SEED,   /* seed */
    OPT_TEXTS   /* texts: may be given several times */
} option_kind;

typedef struct seed {
    bool given;
    uint64_t value;
} seed;

enum { MAX_TEXTS = 256 };
typedef struct texts {
    int n;
    const char *v[MAX_TEXTS];
} texts;

typedef struct option {
    const char *name;  /* without the dashes; NULL ends a table */
    char letter;       /* 0: none */
    const char *value; /* its name in the help; "a|b" allows these words only; NULL: a switch */
    option_kind kind;
    size_t at; /* offset of the field in the settings */
    double min, max;
    const char *help;
} option;

typedef struct option_group { /* options that several commands share live in a struct of their own */
    const char *title;
    const option *rows;
    size_t at; /* offset of that struct in the command's settings */
} option_group;

enum { MAX_GROUPS = 4 };
typedef struct command {
    const char *name, *arguments, *summary; /* "run", "MODEL", one sentence */
    const char *more;                       /* further lines of the help, or NULL */
    const char *examples;                   /* one a line */
    option_group groups[MAX_GROUPS];
    int min_args, max_args;
    size_t size;          /* of the settings */
    const void *defaults; /* settings before parsing; NULL: zeros */
    bool environment;     /* --some-option may also be given as HADAL_SOME_OPTION */
    int (*run)(void *settings, int n, char **args);
} command;

extern const command *const commands[]; /* ends with NULL; commands.c */

/* Parses and runs one command; args begins after the command's name. Gives the exit code. */
int command_run(const command *c, int n, char **args);
const command *command_find(const char *name); /* NULL: none */
void command_help(const command *c);
void commands_help(void);
int commands_completion(void);         /* a script for bash */
int unknown_command(const char *name); /* says so, with the nearest name; gives EXIT_WRONG */

/* One line "hadal: ..." on stderr; control characters are made visible. Give the exit code that belongs to it. */
int wrong(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int no_memory(void);
int report(const hadal_error *e);
int report_base(const error *e);

/* Exists, and holds a config.json when it is a folder that should be a model. EXIT_FINE, or says what is missing. */
int need_file(const char *path);
int need_model(const char *folder);

int print_json(const json_t *v);              /* indented, with a newline; EXIT_FINE or EXIT_FAILED */
int print_json_line(const json_t *v);         /* on one line */
int parse_own_json(json_t **out, char *text); /* of the library; frees the text; EXIT_FINE, or an exit code */

/* Reads a file, or standard input for "-", without its last newline. *text: free() it. EXIT_FINE, or an exit code. */
int read_text(const char *path, char **text, size_t *n);

#endif
