#include "cli/term.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/clock.h"

volatile sig_atomic_t term_interrupts;

static void on_interrupt(int signal_number) {
    (void)signal_number;
    term_interrupts = term_interrupts + 1;
    if (term_interrupts >= 3) _exit(130);
}

void term_catch_interrupt(void) {
    struct sigaction a = {.sa_handler = on_interrupt}; /* without SA_RESTART: reads of the prompt shall wake up */
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
}

bool term_is(FILE *f) {
    return isatty(fileno(f));
}

bool term_has_color(FILE *f) {
    const char *no = getenv("NO_COLOR"), *kind = getenv("TERM");
    return !(no && *no) && kind && strcmp(kind, "dumb") != 0 && term_is(f);
}

void term_escape(str *out, const char *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i], next = i + 1 < n ? (unsigned char)p[i + 1] : 0;
        if (c == '\r') str_puts(out, "\\r");
        else if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f) str_addf(out, "\\x%02x", c);
        else if (c == 0xc2 && next >= 0x80 && next < 0xa0) { /* U+0080..U+009F: the controls with the high bit */
            str_addf(out, "\\u%04x", next);
            i++;
        } else str_putc(out, (char)c);
    }
}

void term_write(FILE *f, const char *p, size_t n, bool dim) {
    if (!n) return;
    if (!term_is(f)) {
        fwrite(p, 1, n, f);
        return;
    }
    str s = {0};
    bool styled = dim && term_has_color(f);
    if (styled) str_puts(&s, "\033[2m");
    term_escape(&s, p, n);
    if (styled) str_puts(&s, "\033[0m");
    if (!s.failed) fwrite(s.p, 1, s.n, f);
    str_free(&s);
}

void term_puts(FILE *f, const char *text) {
    term_write(f, text, strlen(text), false);
}

static void human(str *out, double v, double step, const char *const units[], int n) {
    int u = 0;
    while (v >= step && u + 1 < n) v /= step, u++;
    str_addf(out, "%.*f%s%s", u == 0 || v >= 100 ? 0 : v >= 10 ? 1 : 2, v, *units[u] ? " " : "", units[u]);
}

void human_bytes(str *out, double bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    human(out, bytes, 1024, units, 6);
}

void human_count(str *out, double count) {
    static const char *const units[] = {"", "K", "M", "B", "T"};
    human(out, count, 1000, units, 5);
}

void human_time(str *out, double seconds) {
    if (!(seconds < 360000)) seconds = 359999; /* 99:59:59 is "long" */
    int s = (int)(seconds + 0.5);
    if (s >= 3600) str_addf(out, "%d:%02d:%02d", s / 3600, s / 60 % 60, s % 60);
    else str_addf(out, "%d:%02d", s / 60, s % 60);
}

static void items(str *out, double count) {
    if (count < 1e6) str_addf(out, "%.0f", count);
    else human_count(out, count);
}

static void draw(const progress *p, double now, uint64_t done, uint64_t total, const char *what) {
    double seconds = now - p->stage;
    double rate = seconds > 0 && done > p->first ? (double)(done - p->first) / seconds : 0;
    void (*amount)(str *, double) = p->bytes ? human_bytes : items;
    str s = {0};
    term_escape(&s, what, strlen(what));
    if (total) str_addf(&s, "  %d %%  ", (int)(100.0 * (double)done / (double)total));
    else str_puts(&s, "  ");
    amount(&s, (double)done);
    if (total) {
        str_puts(&s, " of ");
        amount(&s, (double)total);
    }
    if (rate > 0) {
        str_puts(&s, "  ");
        amount(&s, rate);
        str_puts(&s, "/s");
    }
    if (rate > 0 && total > done) {
        str_puts(&s, "  ETA ");
        human_time(&s, (double)(total - done) / rate);
    }
    struct winsize size = {0};
    size_t width = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 10 ? size.ws_col : 80u;
    if (!s.failed) fprintf(stderr, "\r%.*s\033[K", (int)(s.n < width ? s.n : width - 1), s.p);
    fflush(stderr);
    str_free(&s);
}

int progress_call(void *arg, uint64_t done, uint64_t total, const char *what) {
    progress *p = arg;
    double now = clock_seconds();
    if (!p->begun) p->start = now;
    if (!p->begun || done < p->last) { /* the next stage counts anew */
        p->stage = now;
        p->first = done;
    }
    p->begun = true;
    p->last = done;
    if (now - p->start > 2 && now - p->drawn >= 0.1 && term_is(stderr)) {
        draw(p, now, done, total, p->what ? p->what : what ? what : "working");
        p->drawn = now;
        p->shown = true;
    }
    return term_interrupts > 0;
}

void progress_end(progress *p) {
    if (!p->shown) return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    p->shown = false;
}
