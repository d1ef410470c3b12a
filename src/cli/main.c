/* hadal, the program: finds the subcommand, runs it, and sees that what it printed has arrived. */
#include <errno.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "cli/cli.h"

/* Whether the reader of our output went away: the other end of the pipe is closed. */
static bool reader_left(void) {
    struct pollfd p = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return poll(&p, 1, 0) == 1 && (p.revents & (POLLERR | POLLHUP));
}

/* A full disk must not look like success. A reader that went away is no news: it ends quietly. */
static int close_output(int code) {
    bool lost = ferror(stdout);
    errno = 0;
    if (fflush(stdout) == 0 && !lost) return code;
    if (!reader_left()) wrong("the output could not be written%s%s", errno ? ": " : "", errno ? strerror(errno) : "");
    return code ? code : EXIT_FAILED;
}

static int dispatch(int n, char **args) {
    if (n < 2) return wrong("which command? try 'hadal --help'");
    const char *name = args[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        commands_help();
        return EXIT_FINE;
    }
    if (strcmp(name, "--version") == 0) name = "version";
    const command *c = command_find(name);
    return c ? command_run(c, n - 2, args + 2) : unknown_command(name);
}

int main(int argc, char **argv) {
    setlocale(LC_CTYPE, "");  /* for line editing; numbers keep their points */
    signal(SIGXFSZ, SIG_IGN); /* a file past the size limit is a failed write, which says so, and no sudden death */
    return close_output(dispatch(argc, argv));
}
