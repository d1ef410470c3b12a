/* Parsing options, help, errors and exit codes, JSON and text in and out: what the subcommands share. */
#include "cli/cli.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/str.h"
#include "cli/term.h"

/* ---- errors ---------------------------------------------------------------------------------------------------- */

static void complain(const char *text) {
    str s = {0};
    str_puts(&s, "hadal: ");
    term_escape(&s, text, strlen(text));
    for (size_t i = 0; i < s.n; i++) /* one line, whatever a file name holds */
        if (s.p[i] == '\n') s.p[i] = ' ';
    str_putc(&s, '\n');
    fflush(stdout);
    fputs(s.failed ? "hadal: memory is out\n" : s.p, stderr);
    str_free(&s);
}

int wrong(const char *fmt, ...) {
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    complain(text);
    return EXIT_WRONG;
}

int no_memory(void) {
    complain("memory is out");
    return EXIT_FAILED;
}

static int exit_code(int code) {
    switch (code) {
    case OK: return EXIT_FINE;
    case ERR_FORMAT:
    case ERR_ARG:
    case ERR_UNSUPPORTED: return EXIT_WRONG;
    case ERR_CANCELLED: return EXIT_INTERRUPTED;
    default: return EXIT_FAILED;
    }
}

int report(const hadal_error *e) {
    complain(e->code == HADAL_ERR_CANCELLED ? "interrupted" : e->text);
    return exit_code(e->code);
}

int report_base(const error *e) {
    complain(e->text);
    return exit_code((int)e->code);
}

/* ---- options --------------------------------------------------------------------------------------------------- */

static int imin(int a, int b) {
    return a < b ? a : b;
}

/* Edit distance of two words; words longer than any of ours are simply far away. */
static int distance(const char *a, const char *b) {
    enum { MOST = 40 };
    size_t n = strlen(a), m = strlen(b);
    if (n > MOST || m > MOST) return 1000;
    int row[MOST + 1];
    for (size_t j = 0; j <= m; j++) row[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int corner = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int here = imin(imin(row[j], row[j - 1]) + 1, corner + (a[i - 1] != b[j - 1]));
            corner = row[j];
            row[j] = here;
        }
    }
    return row[m];
}

/* Keeps in *best the candidate nearest to `word`, if it is near enough to be meant. */
static void consider(const char *word, const char *candidate, const char **best, int *best_distance) {
    int d = distance(word, candidate), prefix = *word && strncmp(word, candidate, strlen(word)) == 0;
    if (prefix) d = 1;
    if (d < *best_distance && d <= 1 + (int)strlen(word) / 3) {
        *best = candidate;
        *best_distance = d;
    }
}

static int unknown_option(const command *c, const char *name) {
    const char *best = NULL;
    int d = 1000;
    for (int g = 0; g < MAX_GROUPS && c->groups[g].rows; g++)
        for (const option *o = c->groups[g].rows; o->name; o++) consider(name, o->name, &best, &d);
    consider(name, "help", &best, &d);
    if (best) return wrong("unknown option --%s, did you mean --%s? try 'hadal %s --help'", name, best, c->name);
    return wrong("unknown option --%s; try 'hadal %s --help'", name, c->name);
}

int unknown_command(const char *name) {
    const char *best = NULL;
    int d = 1000;
    for (int i = 0; commands[i]; i++) consider(name, commands[i]->name, &best, &d);
    if (best) return wrong("unknown command '%s', did you mean '%s'? try 'hadal --help'", name, best);
    return wrong("unknown command '%s'; try 'hadal --help'", name);
}

static const option *find_option(const command *c, const char *name, size_t n, char letter, size_t *at) {
    for (int g = 0; g < MAX_GROUPS && c->groups[g].rows; g++)
        for (const option *o = c->groups[g].rows; o->name; o++)
            if (letter ? o->letter == letter : strlen(o->name) == n && memcmp(o->name, name, n) == 0) {
                *at = c->groups[g].at + o->at;
                return o;
            }
    return NULL;
}

/* Whether `word` is one of "a|b|c". */
static bool is_choice(const char *choices, const char *word) {
    size_t n = strlen(word);
    for (const char *p = choices; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
        if (strncmp(p, word, n) == 0 && (p[n] == '|' || !p[n]) && n) return true;
    return false;
}

static int set_number(const command *c, const option *o, const char *value, void *field) {
    char *end;
    errno = 0;
    double v = strtod(value, &end);
    bool whole = o->kind == OPT_INT;
    if (end == value || *end || !isfinite(v) || (whole && v != floor(v)))
        return wrong("--%s is '%s', wanted a %snumber; try 'hadal %s --help'", o->name, value, whole ? "whole " : "",
                     c->name);
    if (v < o->min || v > o->max)
        return wrong("--%s is %s, wanted %.10g to %.10g; try 'hadal %s --help'", o->name, value, o->min, o->max,
                     c->name);
    if (whole) *(int *)field = (int)v;
    else *(double *)field = v;
    return EXIT_FINE;
}

static int set_option(const command *c, const option *o, const char *value, void *field) {
    if (o->value && strchr(o->value, '|') && !is_choice(o->value, value))
        return wrong("--%s is '%s', wanted %s; try 'hadal %s --help'", o->name, value, o->value, c->name);
    switch (o->kind) {
    case OPT_SWITCH: *(bool *)field = true; return EXIT_FINE;
    case OPT_TEXT: *(const char **)field = value; return EXIT_FINE;
    case OPT_INT:
    case OPT_REAL: return set_number(c, o, value, field);
    case OPT_SEED: {
        char *end;
        errno = 0;
        unsigned long long v = strtoull(value, &end, 10);
        if (*value < '0' || *value > '9' || *end || errno || v > INT64_MAX)
            return wrong("--%s is '%s', wanted a whole number from 0; try 'hadal %s --help'", o->name, value, c->name);
        *(seed *)field = (seed){true, v};
        return EXIT_FINE;
    }
    case OPT_TEXTS: {
        texts *t = field;
        if (t->n == MAX_TEXTS) return wrong("--%s is given more than %d times", o->name, MAX_TEXTS);
        t->v[t->n++] = value;
        return EXIT_FINE;
    }
    }
    return EXIT_FINE;
}

/* One option at args[*i], whose value may be args[*i + 1]. */
static int parse_option(const command *c, char *settings, int n, char **args, int *i) {
    char *arg = args[*i], *value = NULL;
    const option *o;
    size_t at = 0;
    if (arg[1] == '-') {
        value = strchr(arg, '=');
        size_t length = value ? (size_t)(value - arg) - 2 : strlen(arg) - 2;
        o = find_option(c, arg + 2, length, 0, &at);
        if (!o) {
            arg[length + 2] = 0;
            return unknown_option(c, arg + 2);
        }
        if (value) value++;
    } else {
        o = find_option(c, NULL, 0, arg[1], &at);
        if (!o) return wrong("unknown option %s; try 'hadal %s --help'", arg, c->name);
        if (arg[2]) value = arg + 2;
    }
    if (!o->value && value) return wrong("--%s takes no value; try 'hadal %s --help'", o->name, c->name);
    if (o->value && !value) {
        if (*i + 1 == n) return wrong("--%s wants %s after it; try 'hadal %s --help'", o->name, o->value, c->name);
        value = args[++*i];
    }
    return set_option(c, o, value, settings + at);
}

static int parse(const command *c, char *settings, int *n, char **args) {
    int kept = 0;
    bool options = true;
    for (int i = 0; i < *n; i++) {
        if (options && strcmp(args[i], "--") == 0) options = false;
        else if (!options || args[i][0] != '-' || !args[i][1]) args[kept++] = args[i];
        else {
            int code = parse_option(c, settings, *n, args, &i);
            if (code) return code;
        }
    }
    *n = kept;
    if (kept < c->min_args) return wrong("%s is missing; try 'hadal %s --help'", c->arguments, c->name);
    if (kept > c->max_args)
        return wrong("unexpected '%s' after the arguments; try 'hadal %s --help'", args[c->max_args], c->name);
    return EXIT_FINE;
}

/* HADAL_SOME_OPTION stands for --some-option; a switch is on unless it says 0, no, off or false. */
static int parse_environment(const command *c, char *settings) {
    for (int g = 0; g < MAX_GROUPS && c->groups[g].rows; g++)
        for (const option *o = c->groups[g].rows; o->name; o++) {
            char name[64] = "HADAL_";
            size_t n = strlen(name);
            for (const char *p = o->name; *p && n + 1 < sizeof name; p++)
                name[n++] = *p == '-' ? '_' : (char)(*p >= 'a' && *p <= 'z' ? *p - 'a' + 'A' : *p);
            const char *value = getenv(name);
            if (!value || !*value || (!o->value && is_choice("0|no|off|false", value))) continue;
            int code = set_option(c, o, value, settings + c->groups[g].at + o->at);
            if (code) return code;
        }
    return EXIT_FINE;
}

int command_run(const command *c, int n, char **args) {
    for (int i = 0; i < n && strcmp(args[i], "--") != 0; i++)
        if (strcmp(args[i], "--help") == 0 || strcmp(args[i], "-h") == 0) {
            command_help(c);
            return EXIT_FINE;
        }
    char *settings = calloc(1, c->size + 1);
    if (!settings) return no_memory();
    if (c->defaults) memcpy(settings, c->defaults, c->size);
    int code = c->environment ? parse_environment(c, settings) : EXIT_FINE;
    if (!code) code = parse(c, settings, &n, args);
    if (!code) code = c->run(settings, n, args);
    free(settings);
    return code;
}

const command *command_find(const char *name) {
    for (int i = 0; commands[i]; i++)
        if (strcmp(commands[i]->name, name) == 0) return commands[i];
    return NULL;
}

/* ---- help and completion --------------------------------------------------------------------------------------- */

static void option_line(char letter, const char *name, const char *value, const char *help) {
    char left[64], short_name[8] = "    ";
    if (letter) snprintf(short_name, sizeof short_name, "-%c, ", letter);
    snprintf(left, sizeof left, "%s--%s%s%s", short_name, name, value ? " " : "", value ? value : "");
    if (strlen(left) > 29) printf("  %s\n  %-29s %s\n", left, "", help);
    else printf("  %-29s %s\n", left, help);
}

static void indented(const char *lines, const char *before) {
    for (const char *p = lines; *p;) {
        size_t n = strcspn(p, "\n");
        printf("%s%.*s\n", before, (int)n, p);
        p += n + (p[n] == '\n');
    }
}

void command_help(const command *c) {
    printf("usage: hadal %s%s%s%s\n\nhadal %s %s.\n", c->name, *c->arguments ? " " : "", c->arguments,
           c->groups[0].rows ? " [options]" : "", c->name, c->summary);
    if (c->more) printf("%s\n", c->more);
    for (int g = 0; g < MAX_GROUPS && c->groups[g].rows; g++) {
        printf("\n%s:\n", c->groups[g].title);
        for (const option *o = c->groups[g].rows; o->name; o++) option_line(o->letter, o->name, o->value, o->help);
        if (g == 0) option_line('h', "help", NULL, "this text");
    }
    if (c->environment) printf("\nAn option may also come from the environment: --some-option as HADAL_SOME_OPTION.\n");
    printf("\nExamples:\n");
    indented(c->examples, "  ");
}

void commands_help(void) {
    printf("hadal %s runs and trains DeepSeek-family models, from their Hugging Face folders.\n\n"
           "usage: hadal COMMAND [arguments]\n\nCommands:\n",
           hadal_version());
    for (int i = 0; commands[i]; i++) printf("  %-12s%s\n", commands[i]->name, commands[i]->summary);
    printf("\nExamples:\n"
           "  hadal run ./DeepSeek-V2-Lite-Chat -p \"Why is the sea salty?\"\n"
           "  hadal chat ./DeepSeek-R1-Distill-Qwen-1.5B\n"
           "  hadal info ./DeepSeek-V3/config.json\n"
           "\n'hadal COMMAND --help' tells more about one command.\n");
}

int commands_completion(void) {
    printf("# bash completion of hadal: source <(hadal completion)\n"
           "_hadal() {\n"
           "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words=\n"
           "    case \"${COMP_WORDS[1]} $before\" in\n");
    for (int i = 0; commands[i]; i++)
        for (int g = 0; g < MAX_GROUPS && commands[i]->groups[g].rows; g++)
            for (const option *o = commands[i]->groups[g].rows; o->name; o++) {
                if (!o->value || !strchr(o->value, '|')) continue;
                printf("    '%s --%s') words='", commands[i]->name, o->name);
                for (const char *p = o->value; *p; p++) putchar(*p == '|' ? ' ' : *p);
                printf("' ;;\n");
            }
    printf("    esac\n"
           "    if [[ $COMP_CWORD -eq 1 ]]; then words='");
    for (int i = 0; commands[i]; i++) printf("%s%s", i ? " " : "", commands[i]->name);
    printf("'\n    elif [[ -z $words && $word == -* ]]; then\n        case ${COMP_WORDS[1]} in\n");
    for (int i = 0; commands[i]; i++) {
        printf("        %s) words='--help", commands[i]->name);
        for (int g = 0; g < MAX_GROUPS && commands[i]->groups[g].rows; g++)
            for (const option *o = commands[i]->groups[g].rows; o->name; o++) printf(" --%s", o->name);
        printf("' ;;\n");
    }
    printf("        esac\n"
           "    fi\n"
           "    [[ -n $words ]] && mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n"
           "}\n"
           "complete -o default -F _hadal hadal\n");
    return EXIT_FINE;
}

/* ---- files and JSON -------------------------------------------------------------------------------------------- */

int need_file(const char *path) {
    return file_exists(path) ? EXIT_FINE : wrong("%s: %s", path, strerror(errno));
}

int need_model(const char *folder) {
    int code = need_file(folder);
    if (code) return code;
    if (!is_directory(folder)) return wrong("%s: not a folder; a model is a folder with a config.json", folder);
    char *config = path_join(folder, "config.json"), *state = path_join(folder, "state.json"),
         *run = path_join(folder, "run.yaml");
    if (!config || !state || !run) code = no_memory();
    else if (!file_exists(config) && (file_exists(state) || file_exists(run)))
        code = wrong("%s: this is of a training: 'hadal convert %s OUT' makes a model of it", folder, folder);
    else if (!file_exists(config)) code = wrong("%s: no config.json in this folder", folder);
    free(config);
    free(state);
    free(run);
    return code;
}

int read_text(const char *path, char **text, size_t *n) {
    enum { MOST = 64 << 20 };
    str s = {0};
    error e = {0};
    int code = EXIT_FINE;
    if (strcmp(path, "-") == 0) {
        char block[4096];
        for (size_t got; (got = fread(block, 1, sizeof block, stdin)) > 0 && s.n <= MOST;) str_add(&s, block, got);
        if (ferror(stdin) && term_interrupts) code = EXIT_INTERRUPTED;
        else if (ferror(stdin)) code = wrong("standard input: %s", strerror(errno));
        else if (s.n > MOST) code = wrong("standard input: more than %d MiB", MOST >> 20);
        else if (str_check(&s, &e)) code = report_base(&e);
    } else {
        code = need_file(path);
        if (!code && file_read(&s, path, MOST, &e)) code = report_base(&e);
    }
    if (s.n && s.p[s.n - 1] == '\n') s.p[--s.n] = 0;
    *n = s.n;
    *text = str_take(&s);
    if (!code && !*text) code = no_memory();
    return code;
}

static int print_dump(const json_t *v, size_t flags) {
    char *text = json_dumps(v, flags | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    if (!text) return no_memory();
    term_puts(stdout, text);
    putchar('\n');
    free(text);
    return EXIT_FINE;
}

int print_json(const json_t *v) {
    return print_dump(v, JSON_INDENT(2));
}

int print_json_line(const json_t *v) {
    return print_dump(v, 0);
}

int parse_own_json(json_t **out, char *text) {
    error e = {0};
    int code = json_parse(out, text, strlen(text), "the library's answer", &e) ? report_base(&e) : EXIT_FINE;
    hadal_free(text);
    return code;
}
