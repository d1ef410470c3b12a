/* The sandbox against programs that do what they should not: each test says what the program tries, and looks from
 * outside whether anything of it is left. All run twice: with the namespaces that the kernel gives, and without. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "no_namespaces.h"
#include "reward/sandbox.h"
#include <cmocka.h>

static const sandbox_limits usual = {.seconds = 60, .memory = UINT64_C(1) << 30, .output = 1 << 20};

static sandbox_result result_of(const char *const *argv, const char *input, size_t n, const sandbox_limits *l) {
    sandbox_result r;
    error e;
    if (sandbox_run(argv, input, n, l, &r, &e) != OK) fail_msg("%s", e.text);
    return r;
}

/* A time to sleep that is this process's own, to be found again among all processes: "sleep @1" in scripts. */
static void mark(char *out, size_t size, const char *text) {
    size_t n = 0;
    for (; *text && n + 16 < size; text++)
        if (*text == '@') n += (size_t)snprintf(out + n, size - n, "7654.%07d", (int)getpid());
        else out[n++] = *text;
    assert_int_equal(*text, 0);
    out[n] = 0;
}

static sandbox_result shell(const char *script, const sandbox_limits *l) {
    char text[1024];
    mark(text, sizeof text, script);
    return result_of((const char *const[]){"sh", "-c", text, NULL}, "", 0, l);
}

static void release(sandbox_result *r) {
    str_free(&r->out);
    str_free(&r->err);
}

static void ends(const char *script, const sandbox_limits *l, sandbox_end end, int code) {
    sandbox_result r = shell(script, l);
    if (r.end != end || (code >= 0 && r.code != code))
        fail_msg("%s: end %d, code %d, %s", script, r.end, r.code, r.err.p ? r.err.p : "");
    release(&r);
}

static void says(const char *script, const char *text) {
    sandbox_result r = shell(script, &usual);
    if (r.end != SANDBOX_EXITED || r.code != 0) fail_msg("%s: end %d, code %d", script, r.end, r.code);
    assert_string_equal(r.out.p ? r.out.p : "", text);
    release(&r);
}

/* Process 1 of its own namespace? */
static bool has_namespaces(void) {
    sandbox_result r = shell("echo $$", &usual);
    bool first = r.out.n == 2 && r.out.p[0] == '1';
    release(&r);
    return first;
}

/* --- what is left ------------------------------------------------------------------------------------------------ */

static int entries(const char *folder) {
    DIR *d = opendir(folder);
    int n = -2; /* . and .. */
    assert_non_null(d);
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static bool command_holds(const char *pid, const char *word) {
    char path[300], text[4096];
    snprintf(path, sizeof path, "/proc/%s/cmdline", pid);
    int fd = open(path, O_RDONLY);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : 0;
    if (fd >= 0) close(fd);
    return n > 0 && memmem(text, (size_t)n, word, strlen(word));
}

/* Processes with the word in their command line, but for this one. */
static int alive(const char *marked) {
    DIR *d = opendir("/proc");
    char own[32], word[32];
    int n = 0;
    assert_non_null(d);
    snprintf(own, sizeof own, "%d", (int)getpid());
    mark(word, sizeof word, marked);
    for (struct dirent *x; (x = readdir(d));)
        if (x->d_name[0] >= '1' && x->d_name[0] <= '9' && strcmp(x->d_name, own) != 0)
            n += command_holds(x->d_name, word);
    closedir(d);
    return n;
}

/* What was killed without a namespace is buried by somebody else, in a moment. */
static void none_is_left(const char *word) {
    for (int i = 0; i < 1000 && alive(word); i++) usleep(10000);
    assert_int_equal(alive(word), 0);
}

static char folder[] = "/tmp/hadal-test-XXXXXX", temporary[64];

static int make_folder(void **state) {
    (void)state;
    memcpy(folder + sizeof folder - 7, "XXXXXX", 6);
    assert_non_null(mkdtemp(folder));
    snprintf(temporary, sizeof temporary, "%s/tmp", folder);
    assert_int_equal(mkdir(temporary, 0700), 0);
    return setenv("TMPDIR", temporary, 1);
}

/* After every group of tests: no folder of any sandbox is left. */
static int remove_folder(void **state) {
    (void)state;
    int left = rmdir(temporary);
    return rmdir(folder) != 0 || left != 0;
}

/* --- well-behaved ------------------------------------------------------------------------------------------------ */

static void input_and_output(void **state) {
    (void)state;
    static char big[300000]; /* more than a pipe holds */
    for (size_t i = 0; i < sizeof big; i++) big[i] = (char)(i * 7 % 251);
    sandbox_result r = result_of((const char *const[]){"cat", NULL}, big, sizeof big, &usual);
    assert_int_equal(r.end, SANDBOX_EXITED);
    assert_int_equal(r.code, 0);
    assert_int_equal(r.out.n, sizeof big);
    assert_memory_equal(r.out.p, big, sizeof big);
    release(&r);
    r = result_of((const char *const[]){"sh", "-c", "cat < /dev/stdin", NULL}, "again", 5, &usual);
    assert_string_equal(r.out.p, "again");
    release(&r);
    r = result_of((const char *const[]){"true", NULL}, big, sizeof big, &usual); /* does not read it */
    assert_int_equal(r.end, SANDBOX_EXITED);
    assert_int_equal(r.out.n, 0);
    release(&r);
    ends("exit 7", &usual, SANDBOX_EXITED, 7);
    says("exec 0<&-; echo x; exec 2>&-; echo y", "x\ny\n");
}

static void errors_are_cut(void **state) {
    (void)state;
    sandbox_result r =
        shell("i=0; while [ $i -lt 3000 ]; do echo \"line $i of many\" >&2; i=$((i+1)); done; printf end >&2", &usual);
    assert_int_equal(r.err.n, 4096);
    assert_string_equal(r.err.p + 4096 - 21, "line 2999 of many\nend");
    release(&r);
}

static void surroundings(void **state) {
    (void)state;
    setenv("HADAL_TEST_KEY", "secret", 1);
    int fd = open("/dev/null", O_RDONLY); /* not close-on-exec */
    assert_int_equal(dup2(fd, 200), 200);
    says("echo \"[$HADAL_TEST_KEY]\"; [ -e /proc/self/fd/200 ] || echo closed; ls -A", "[]\nclosed\n");
    says("[ \"$HOME\" = \"$PWD\" ] && [ \"$TMPDIR\" = \"$PWD\" ] && touch file && ls", "file\n");
    close(200);
    close(fd);
    unsetenv("HADAL_TEST_KEY");
    says("grep -c '^NoNewPrivs:.*1' /proc/self/status; grep '^CapEff' /proc/self/status | tr -d 'a-zA-Z:\\t'",
         "1\n0000000000000000\n");
}

static void not_a_program(void **state) {
    (void)state;
    sandbox_result r;
    error e;
    assert_int_equal(sandbox_run((const char *const[]){"hadal-no-such-program", NULL}, "", 0, &usual, &r, &e), ERR_IO);
    assert_string_equal(e.text,
                        "hadal-no-such-program: there is no such program in PATH: install it, or give its path");
    assert_int_equal(sandbox_run((const char *const[]){"/etc/passwd", NULL}, "", 0, &usual, &r, &e), ERR_IO);
    assert_non_null(strstr(e.text, "not a program"));
    assert_int_equal(sandbox_run((const char *const[]){"/no/such", NULL}, "", 0, &usual, &r, &e), ERR_IO);
    assert_non_null(strstr(e.text, "no such file"));
    char path[80]; /* may be executed, but is no program */
    snprintf(path, sizeof path, "%s/text", folder);
    int fd = open(path, O_WRONLY | O_CREAT, 0755);
    assert_int_equal(write(fd, "\1\2\3\4", 4), 4);
    close(fd);
    assert_int_equal(sandbox_run((const char *const[]){path, NULL}, "", 0, &usual, &r, &e), ERR_IO);
    assert_non_null(strstr(e.text, "the system refuses it to be executed"));
    unlink(path);
}

/* --- without end ------------------------------------------------------------------------------------------------- */

static void hangs(void **state) {
    (void)state;
    sandbox_limits l = usual;
    l.seconds = 0.3;
    ends("sleep @1", &l, SANDBOX_TIME, -1);
    ends("exec >&- 2>&-; sleep @1", &l, SANDBOX_TIME, -1);
    ends("trap '' TERM HUP INT; sleep @1; sleep @1", &l, SANDBOX_TIME, -1);
    ends("kill -STOP 0; sleep @1", &l, SANDBOX_TIME, -1);
    sandbox_result r = shell("echo before; sleep @1", &l);
    assert_int_equal(r.end, SANDBOX_TIME);
    assert_string_equal(r.out.p, "before\n");
    release(&r);
    none_is_left("@1");
}

/* Stopped long before the wall time, or this test takes ten minutes. */
static void computes_without_end(void **state) {
    (void)state;
    sandbox_limits l = usual;
    l.seconds = 600;
    l.cpu_seconds = 0.5;
    ends("while :; do :; done", &l, SANDBOX_TIME, -1);
}

static void writes_without_end(void **state) {
    (void)state;
    sandbox_limits l = usual;
    l.output = 12345;
    sandbox_result r = shell("yes", &l);
    assert_int_equal(r.end, SANDBOX_OUTPUT);
    assert_int_equal(r.out.n, 12345);
    release(&r);
    l.output = 4;
    sandbox_result exact = shell("printf 1234", &l), more = shell("printf 12345", &l);
    assert_int_equal(exact.end, SANDBOX_EXITED);
    assert_int_equal(more.end, SANDBOX_OUTPUT);
    assert_string_equal(more.out.p, "1234");
    release(&exact);
    release(&more);
    l = usual;
    l.seconds = 0.3;
    ends("yes >&2", &l, SANDBOX_TIME, -1);
    says("yes > file 2>&-; [ $(stat -c %s file) -le 67108864 ] && echo cut", "cut\n");
}

static void takes_all_memory(void **state) {
    (void)state;
    const char *doubled = "x=0123456789abcdef; i=0; while [ $i -lt 20 ]; do x=$x$x; i=$((i+1)); done; echo ${#x}";
    sandbox_limits l = usual;
    sandbox_result r = shell(doubled, &l); /* 16 MiB */
    assert_string_equal(r.out.p, "16777216\n");
    release(&r);
    l.memory = 16 << 20;
    r = shell(doubled, &l);
    assert_true((r.end == SANDBOX_EXITED && r.code != 0) || r.end == SANDBOX_SIGNAL);
    assert_int_equal(r.out.n, 0);
    release(&r);
}

/* 400 processes that wait; how many can start is up to the limits, that none stays is not. */
static void forks_without_end(void **state) {
    (void)state;
    sandbox_limits l = usual;
    l.seconds = 3;
    sandbox_result r = shell("i=0; while [ $i -lt 400 ]; do sleep @2 & i=$((i+1)); done; wait", &l);
    assert_int_not_equal(r.end, SANDBOX_OUTPUT);
    release(&r);
    none_is_left("@2");
    r = shell("sed -n 's/^Max processes *\\([0-9]*\\) .*/\\1/p' /proc/self/limits", &usual);
    assert_true(r.out.n && atol(r.out.p) >= 256 && atol(r.out.p) < 1000000);
    release(&r);
}

static void crashes(void **state) {
    (void)state;
    char self[4096] = {0};
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    sandbox_limits l = usual;
    l.memory = 0; /* sanitizers take terabytes of addresses */
    sandbox_result r = result_of((const char *const[]){self, "crash", NULL}, "", 0, &l);
    assert_int_equal(r.end, SANDBOX_SIGNAL);
    assert_true(r.code == SIGILL || r.code == SIGTRAP);
    release(&r);
}

/* --- out of the box ---------------------------------------------------------------------------------------------- */

static void leaves_a_daemon(void **state) {
    (void)state;
    ends("(trap '' HUP TERM; (setsid sh -c 'touch up; sleep @4' || { touch up; sleep @4; }) &) \n"
         "while [ ! -e up ]; do sleep 0.01; done",
         &usual, SANDBOX_EXITED, 0);
    none_is_left("@4");
    ends("sleep @4 & exec true", &usual, SANDBOX_EXITED, 0); /* it holds the pipes open */
    none_is_left("@4");
}

static void signals_others(void **state) {
    (void)state;
    char script[200];
    assert_int_equal(kill(getpid(), 0), 0);
    snprintf(script, sizeof script, "kill -0 %d 2>&- || echo no; kill -0 -1 2>&- || echo no", (int)getpid());
    says(has_namespaces() ? "kill -0 -1 2>&- || echo no; kill -0 2 2>&- || echo no" : script, "no\nno\n");
}

static void writes_elsewhere(void **state) {
    (void)state;
    if (!has_namespaces() && syscall(SYS_landlock_create_ruleset, NULL, 0, 1) < 1) {
        printf("SKIP read-only files: the kernel gives neither namespaces nor Landlock\n");
        skip();
    }
    char script[300], path[80];
    snprintf(path, sizeof path, "%s/there", folder);
    snprintf(script, sizeof script, "touch %s 2>&- || echo no; rm -rf %s 2>&-; echo x > /dev/null && echo null", path,
             temporary);
    says(script, "no\nnull\n");
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(access(temporary, F_OK), 0);
}

static void leaves_files(void **state) {
    (void)state;
    ends("mkdir -p a/b/c && touch a/x a/b/c/y && ln -s / a/root && mkfifo a/b/fifo && mkdir -p shut/in && touch "
         "shut/in/z && "
         "chmod 0 shut/in shut; "
         "i=0; while [ $i -lt 300 ]; do mkdir d && cd d && touch f; i=$((i+1)); done",
         &usual, SANDBOX_EXITED, 0);
    assert_int_equal(entries(temporary), 0);
    assert_int_equal(access("/", F_OK), 0);
}

/* The test's own other half: what can be reached from inside? Prints a word for each that can. */
static int reach(const char *port, const char *path) {
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct sockaddr_un named = {.sun_family = AF_UNIX};
    char uring[256] = {0};
    snprintf(named.sun_path, sizeof named.sun_path, "%s", path);
    int tcp = socket(AF_INET, SOCK_STREAM, 0), udp = socket(AF_INET, SOCK_DGRAM, 0),
        local = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(tcp, (struct sockaddr *)&to, sizeof to) == 0) puts("tcp");
    if (sendto(udp, "x", 1, 0, (struct sockaddr *)&to, sizeof to) == 1) puts("udp");
    if (connect(local, (struct sockaddr *)&named, sizeof named) == 0) puts("unix");
    if (socket(AF_INET6, SOCK_DGRAM, 0) >= 0 || socket(AF_NETLINK, SOCK_RAW, 0) >= 0) puts("others");
    if (syscall(SYS_io_uring_setup, 1, uring) >= 0 || errno != EPERM) puts("uring");
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, (int[2]){0}) == 0) puts("pair");
    fflush(stdout);
    _exit(0);
}

static int listen_on(int family, const struct sockaddr *a, socklen_t n, int type) {
    int fd = socket(family, type | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, a, n), 0);
    if (type == SOCK_STREAM) assert_int_equal(listen(fd, 10), 0);
    return fd;
}

static void tries_the_network(void **state) {
    (void)state;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct sockaddr_un named = {.sun_family = AF_UNIX};
    socklen_t n = sizeof here;
    char port[16];
    snprintf(named.sun_path, sizeof named.sun_path, "%s/socket", folder);
    int tcp = listen_on(AF_INET, (struct sockaddr *)&here, sizeof here, SOCK_STREAM);
    assert_int_equal(getsockname(tcp, (struct sockaddr *)&here, &n), 0);
    int udp = listen_on(AF_INET, (struct sockaddr *)&here, sizeof here, SOCK_DGRAM);
    int local = listen_on(AF_UNIX, (struct sockaddr *)&named, sizeof named, SOCK_STREAM);
    snprintf(port, sizeof port, "%d", ntohs(here.sin_port));
    char self[4096] = {0};
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    const char *const argv[] = {self, "reach", port, named.sun_path, NULL};
    sandbox_limits l = usual;
    l.memory = 0; /* sanitizers take terabytes of addresses */
    sandbox_result shut = result_of(argv, "", 0, &l);
    assert_string_equal(shut.out.p, "pair\n");
    assert_int_equal(recv(udp, (char[8]){0}, 8, MSG_DONTWAIT), -1);
    l.network = true; /* the same, allowed, can be reached: the test can fail */
    sandbox_result open = result_of(argv, "", 0, &l);
    assert_int_equal(strncmp(open.out.p, "tcp\nudp\nunix\n", 13), 0);
    assert_int_equal(recv(udp, (char[8]){0}, 8, MSG_DONTWAIT), 1);
    release(&shut);
    release(&open);
    close(tcp);
    close(udp);
    close(local);
    unlink(named.sun_path);
}

/* --- many -------------------------------------------------------------------------------------------------------- */

enum { RUNS = 250 }; /* in each of two threads, with and without namespaces */

static void *many(void *arg) {
    int thread = *(int *)arg, good = 0;
    for (int i = 0; i < RUNS; i++) {
        char text[32];
        sandbox_result r;
        int n = snprintf(text, sizeof text, "%d.%d", thread, i);
        if (sandbox_run((const char *const[]){"cat", NULL}, text, (size_t)n, &usual, &r, NULL) != OK) continue;
        good += r.end == SANDBOX_EXITED && r.code == 0 && r.out.n == (size_t)n && memcmp(r.out.p, text, r.out.n) == 0;
        release(&r);
    }
    *(int *)arg = good;
    return NULL;
}

static void many_in_two_threads(void **state) {
    (void)state;
    pthread_t t[2];
    int number[2] = {0, 1}, before = entries("/proc/self/fd");
    while (waitpid(-1, NULL, WNOHANG) > 0) {} /* orphans of other tests, if this is process 1 */
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&t[i], NULL, many, &number[i]), 0);
    for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
    assert_int_equal(number[0], RUNS);
    assert_int_equal(number[1], RUNS);
    assert_int_equal(entries("/proc/self/fd"), before);
    assert_int_equal(entries(temporary), 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

/* Who runs the sandbox is killed: nothing of the program stays. */
static void the_host_dies(void **state) {
    (void)state;
    char time[32];
    mark(time, sizeof time, "@5");
    pid_t host = fork();
    assert_true(host >= 0);
    if (host == 0) {
        sandbox_result r;
        sandbox_run((const char *const[]){"sleep", time, NULL}, "", 0, &usual, &r, NULL);
        _exit(1);
    }
    for (int i = 0; i < 1000 && !alive("@5"); i++) usleep(10000);
    assert_int_equal(alive("@5"), 1);
    kill(host, SIGKILL);
    assert_int_equal(waitpid(host, NULL, 0), host);
    none_is_left("@5");
    DIR *d = opendir(temporary); /* its folder is all that a killed host leaves */
    for (struct dirent *x; (x = readdir(d));)
        if (x->d_name[0] != '.') unlinkat(dirfd(d), x->d_name, AT_REMOVEDIR);
    closedir(d);
}

static int tests(bool namespaces) {
    const struct CMUnitTest list[] = {cmocka_unit_test(input_and_output),
                                      cmocka_unit_test(errors_are_cut),
                                      cmocka_unit_test(surroundings),
                                      cmocka_unit_test(not_a_program),
                                      cmocka_unit_test(hangs),
                                      cmocka_unit_test(computes_without_end),
                                      cmocka_unit_test(writes_without_end),
                                      cmocka_unit_test(takes_all_memory),
                                      cmocka_unit_test(forks_without_end),
                                      cmocka_unit_test(crashes),
                                      cmocka_unit_test(leaves_a_daemon),
                                      cmocka_unit_test(signals_others),
                                      cmocka_unit_test(writes_elsewhere),
                                      cmocka_unit_test(leaves_files),
                                      cmocka_unit_test(tries_the_network),
                                      cmocka_unit_test(many_in_two_threads),
                                      cmocka_unit_test(the_host_dies)};
    return cmocka_run_group_tests_name(namespaces ? "sandbox" : "sandbox without namespaces", list, make_folder,
                                       remove_folder);
}

int main(int argc, char **argv) {
    if (argc == 4 && !strcmp(argv[1], "reach")) return reach(argv[2], argv[3]);
    if (argc == 2 && !strcmp(argv[1], "crash")) __builtin_trap();
    return both_ways(tests);
}
