#include "cli/line.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>
#include <readline/history.h>
#include <readline/readline.h>
#include "base/file.h"
#include "cli/term.h"

enum { MOST_LINES = 1000 };

/* Waits for a key with Ctrl-C let through only here, so that none is missed between looking and waiting. Ctrl-C ends
 * the line as Enter does; line_read sees the flag. */
static int next_key(FILE *f) {
    sigset_t interrupt, before;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    sigprocmask(SIG_BLOCK, &interrupt, &before);
    int fd = fileno(f), ready = 0;
    while (!term_interrupts && ready <= 0) {
        fd_set set;
        FD_ZERO(&set);
        FD_SET(fd, &set);
        ready = pselect(fd + 1, &set, NULL, NULL, NULL, &before);
        if (ready < 0 && errno != EINTR) break;
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    return term_interrupts ? '\r' : rl_getc(f);
}

/* $XDG_STATE_HOME/hadal/history, readable by its owner only; NULL when there is no place for it. */
static char *history_file(void) {
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char *base = state && *state == '/' ? strdup(state) : home ? path_join(home, ".local/state") : NULL;
    char *folder = base ? path_join(base, "hadal") : NULL, *path = NULL;
    if (folder && make_directory(folder, NULL) == OK) path = path_join(folder, "history");
    int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd >= 0) close(fd);
    else {
        free(path);
        path = NULL;
    }
    free(folder);
    free(base);
    return path;
}

void line_open(line_reader *r) {
    *r = (line_reader){.edited = term_is(stdin) && term_is(stdout)};
    if (!r->edited) return;
    rl_readline_name = "hadal";
    rl_catch_signals = 0;
    rl_getc_function = next_key;
    rl_bind_key('\t', rl_insert); /* file names are no help in a conversation */
    stifle_history(MOST_LINES);
    r->history = history_file();
    if (r->history) read_history(r->history);
}

void line_close(line_reader *r) {
    if (r->history) history_truncate_file(r->history, MOST_LINES);
    free(r->history);
    *r = (line_reader){0};
}

static line_kind read_edited(line_reader *r, const char *prompt, char **text, bool *empty) {
    char *line = readline(prompt);
    if (term_interrupts) {
        *empty = !line || !*line;
        free(line);
        term_interrupts = 0;
        return LINE_INTERRUPTED;
    }
    if (!line) {
        putchar('\n'); /* Ctrl-D leaves the cursor behind the prompt */
        return LINE_END;
    }
    if (strspn(line, " \t") < strlen(line)) {
        add_history(line);
        if (r->history) append_history(1, r->history);
    }
    *text = line;
    return LINE_TEXT;
}

line_kind line_read(line_reader *r, const char *prompt, char **text, bool *empty) {
    *text = NULL;
    *empty = true;
    fflush(stdout);
    if (r->edited) return read_edited(r, prompt, text, empty);
    size_t room = 0;
    errno = 0;
    ssize_t n = getline(text, &room, stdin);
    if (n < 0) {
        free(*text);
        *text = NULL;
        if (!term_interrupts) return LINE_END;
        clearerr(stdin);
        term_interrupts = 0;
        return LINE_INTERRUPTED;
    }
    if (n && (*text)[n - 1] == '\n') (*text)[n - 1] = 0;
    return LINE_TEXT;
}
