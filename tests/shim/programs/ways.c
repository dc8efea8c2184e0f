/* Ways for a C program to die of a refused request, to survive it, and to die of something else. The argument says
 * which. "Handled" means: did other things with memory since. */
#define _GNU_SOURCE
#include <assert.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <error.h>
#include <libintl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <locale.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Above every limit that the test sets. */
static volatile size_t much = (size_t)1 << 30;
/* Broken fixtures must not look like the failure we want. */
extern long __fdelt_chk(long);
extern ssize_t __read_chk(int, void *, size_t, size_t);
enum { BROKEN = 99 };

/* Past the shim, which after a refusal takes it for what the refusal led to. */
static void broken(void) {
    kill(getpid(), SIGKILL);
}

/* Its catalogue has two messages in a language of its own. A static program has its own words: the library stands before
 * gettext and setlocale, and finds no other ones behind. */
static void translate(void) {
    static const char catalogue[] = "\xde\x12\x04\x95\0\0\0\0\3\0\0\0\x1c\0\0\0\x34\0\0\0\0\0\0\0\0\0\0\0"
        "\0\0\0\0\x4c\0\0\0\x16\0\0\0\x4d\0\0\0\x10\0\0\0\x64\0\0\0"
        "\x28\0\0\0\x75\0\0\0\x18\0\0\0\x9e\0\0\0\x15\0\0\0\xb7\0\0\0"
        "\0Cannot allocate memory\0memory exhausted\0"
        "Content-Type: text/plain; charset=UTF-8\n\0Nicht genug Speicher da.\0Speicher aufgebraucht";
    char name[] = "/tmp/oomguard-ways-XXXXXX", path[64];
    if (getauxval(AT_BASE) == 0) return;
    if (mkdtemp(name) == NULL) broken();
    const char *const parts[] = {"/xx", "/LC_MESSAGES"};
    snprintf(path, sizeof path, "%s", name);
    for (int i = 0; i < 2; i++) { strcat(path, parts[i]); if (mkdir(path, 0700) != 0) broken(); }
    strcat(path, "/ways.mo");
    FILE *file = fopen(path, "w");
    if (file == NULL || fwrite(catalogue, sizeof catalogue, 1, file) != 1 || fclose(file) != 0) broken();
    if (setenv("LANGUAGE", "xx", 1) != 0 || setlocale(LC_ALL, "C.UTF-8") == NULL) broken();
    bindtextdomain("ways", name); textdomain("ways");
    if (strcmp(gettext("memory exhausted"), "Speicher aufgebraucht") != 0) broken();
    /* It is mapped by now. */
    unlink(path);
    for (int i = 1; i >= 0; i--) { *strrchr(path, '/') = 0; rmdir(path); }
    rmdir(name);
}

static char *_(const char *text) { return gettext(text); }

/* More than a message takes, from what costs no memory. */
static void read_on(void) {
    static char buffer[1 << 16];
    int fd = open("/dev/zero", O_RDONLY);
    if (fd < 0 || read(fd, buffer, sizeof buffer) != sizeof buffer) broken();
    close(fd);
}

/* As much as shows that it has got over it. */
static void take_and_leave(void) {
    for (int i = 0; i < 64; i++) {
        char *block = malloc(1 << 20);
        if (block == NULL) broken();
        memset(block, 1, 1 << 20);
        free(block);
    }
}

static void refuse(void) {
    if (malloc(much) != NULL) broken();
}

static void handle(void) {
    for (int i = 0; i < 200; i++) {
        char *volatile block = malloc(4000);
        block[0] = 1;
        free(block);
    }
}

static void fill(void) {
    for (size_t size = 1 << 20; size >= 64; size /= 2) {
        char *block;
        while ((block = malloc(size)) != NULL) memset(block, 1, size);
    }
}

static void *map_bytes(size_t bytes) {
    return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void *map(void) { return map_bytes(much); }

/* There is room for one of these, and not for two. */
static volatile size_t half = 160 << 20;

/* Is refused what could be had, but for the block that comes back. */
static char *refuse_half(void) {
    char *held = malloc(half);
    if (held == NULL || malloc(half) != NULL) broken();
    return held;
}

/* The same, and now there is room again. */
static void refuse_for_now(void) {
    free(refuse_half());
}

/* Address space that nothing can be written to: a limit on data does not count it. */
static char *reserve(size_t size) {
    return mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static void take(int number, size_t size) {
    for (int i = 0; i < number; i++) {
        char *volatile block = malloc(size);
        if (block == NULL) broken();
        free(block);
    }
}

enum { LARGE = 8 << 20 };

/* Takes large blocks until one is refused; the last of them. */
static char *fill_with_large(void) {
    char *last = NULL, *block;
    while ((block = malloc(LARGE)) != NULL) last = block;
    return last;
}

static void write_at(size_t address) {
    *(volatile char *)address = 1;
}

static void *write_to_null(void *argument) {
    write_at(0);
    return argument;
}

static void *refuse_here(void *argument) { refuse(); return argument; }
static void *abort_here(void *nothing) { (void)nothing; abort(); }

static void in_a_thread(void *(*body)(void *)) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, body, NULL) != 0 || pthread_join(thread, NULL) != 0) broken();
}

/* All at once. */
static void in_threads(void *(*body)(void *)) {
    pthread_t threads[8];
    for (int i = 0; i < 8; i++) if (pthread_create(&threads[i], NULL, body, NULL) != 0) broken();
    for (int i = 0; i < 8; i++) if (pthread_join(threads[i], NULL) != 0) broken();
}

/* One ends, and the others shortly after the last handler of the program's own has run: some while that one is judged. */
static pthread_barrier_t all_refused;
static volatile int is_leaving;
static void leave_first(void) { is_leaving = 1; }
static void *refuse_with_all(void *argument) {
    refuse();
    if (pthread_barrier_wait(&all_refused) == PTHREAD_BARRIER_SERIAL_THREAD) return argument;
    while (!is_leaving) sched_yield();
    static int number;
    usleep(50 * __atomic_fetch_add(&number, 1, __ATOMIC_RELAXED));
    return argument;
}
static void end_in_threads(void *(*body)(void *)) {
    if (pthread_barrier_init(&all_refused, NULL, 8) != 0 || atexit(leave_first) != 0) broken();
    in_threads(body);
}
static void *say_so_and_exit(void *nothing) {
    refuse_with_all(nothing);
    fputs("out of memory\n", stderr);
    exit(1);
}
static void *say_other(void *nothing) {
    fputs("error: no such table\n", stderr);
    return nothing;
}
static void *say_other_and_exit(void *nothing) {
    refuse_with_all(nothing);
    say_other(nothing);
    exit(3);
}

static void *allocate_for_ever(void *nothing) {
    for (;;) { char *volatile block = malloc(300000); if (block) block[0] = 1; free(block); sched_yield(); }
    return nothing;
}
/* What others allocate meanwhile is more than a program on its way out does. */
static void among_others(void) {
    pthread_t thread;
    for (int i = 0; i < 2; i++) if (pthread_create(&thread, NULL, allocate_for_ever, NULL) != 0) broken();
    usleep(10000);
}
static void *allocate_much(void *nothing) {
    for (int i = 0; i < 10000; i++) { char *volatile block = malloc(300000); if (block) block[0] = 1; free(block); }
    return nothing;
}

/* By then they have ended, and there is nothing to wait for. */
static void in_threads_that_end_first(void *(*body)(void *)) {
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) if (pthread_create(&threads[i], NULL, body, NULL) != 0) broken();
    for (int i = 0; i < 2; i++) while (pthread_tryjoin_np(threads[i], NULL) != 0) continue;
}

static atomic_int pieces_of_work, is_to_work, is_done;
static void *work_when_told(void *nothing) {
    while (!is_to_work) sched_yield();
    while (!is_done) { char *volatile block = malloc(300000); free(block); pieces_of_work++; sched_yield(); }
    return nothing;
}

/* More processor time than it takes to give all back. */
static void compute_by(clockid_t clock) {
    struct timespec now;
    long until = 0;
    do {
        for (volatile int i = 0; i < 100000; i++);
        clock_gettime(clock, &now);
        long ms = now.tv_sec * 1000 + now.tv_nsec / 1000000;
        if (until == 0) until = ms + 120;
        if (ms >= until) return;
    } while (1);
}
static void compute(void) { compute_by(CLOCK_PROCESS_CPUTIME_ID); }

/* What it has to say goes elsewhere. */
static void write_on(void) {
    int fd = open("/dev/null", O_WRONLY);
    for (int i = 0; i < 1000; i++)
        if (write(fd, "row\n", 4) != 4) broken();
    close(fd);
}

static void *sleep_long(void *argument) {
    sleep(100);
    return argument;
}

static int start_threads(void) {
    pthread_t thread;
    for (int i = 0; i < 4000; i++) {
        int error = pthread_create(&thread, NULL, sleep_long, NULL);
        if (error != 0) return error;
    }
    broken();
}

static void on_fault(int signal) {
    _exit(40 + signal);
}

static sigjmp_buf left;

static void leave(int signal) {
    siglongjmp(left, signal);
}

static void *leave_an_abort(void *nothing) {
    if (sigsetjmp(left, 1) == 0 && malloc(much) == NULL) abort();
    return nothing;
}

static void leave_by_code(int signal) {
    (void)!write(2, "leaving\n", 8);
    _exit(signal);
}

/* As Python's faulthandler does. */
static void tell_word_by_word(int signal) {
    const char *const words[] = {"Fatal error: Segmentation fault\n", "  File \"", "worker.py", "\", line ", "12", " in ", "eat", "\n"};
    struct sigaction action = {.sa_handler = SIG_DFL};
    for (int i = 0; i < 200; i++) {
        const char *word = words[i % 8];
        if (write(2, word, strlen(word)) < 0) broken();
    }
    sigaction(signal, &action, NULL);
    raise(signal);
}

static void raise_again(int signal) {
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigaction(signal, &action, NULL);
    raise(signal);
}

static void look_untouched(void) {
    struct sigaction found;
    for (int signal = 1; signal < 32; signal++) {
        if (sigaction(signal, NULL, &found) == 0 && (found.sa_handler != SIG_DFL || found.sa_flags != 0)) _exit(21);
    }
    int watched[] = {SIGABRT, SIGSEGV, SIGILL, SIGTRAP};
    for (int i = 0; i < 4; i++) {
        if (signal(watched[i], on_fault) != SIG_DFL) _exit(22);
        if (sigaction(watched[i], NULL, &found) != 0 || found.sa_handler != on_fault) _exit(23);
        if (signal(watched[i], SIG_IGN) != on_fault) _exit(24);
        if (signal(watched[i], SIG_DFL) != SIG_IGN) _exit(25);
        if (sigaction(watched[i], NULL, &found) != 0 || found.sa_handler != SIG_DFL) _exit(26);
    }
    if (signal(SIGUSR1, on_fault) != SIG_DFL || signal(SIGUSR1, SIG_DFL) != on_fault) _exit(28);
    if (signal(4000, SIG_DFL) != SIG_ERR || errno != EINVAL) _exit(27);
}

static void exit_with_child(pid_t child) {
    int status;
    if (waitpid(child, &status, 0) != child) broken();
    exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
}

/* Handling a refusal takes memory, and so on: until the stack is full. */
static int handle_by_asking_for_more(int depth) {
    volatile char message[4096];
    message[depth & 4095] = 1;
    if (malloc(much) != NULL) broken();
    return handle_by_asking_for_more(depth + 1) + message[7];
}

/* From now on nothing may be opened, and no limit or account asked for: the kernel kills for it. */
static void forbid(void) {
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prlimit64, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getrusage, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog filter = {sizeof program / sizeof *program, program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) != 0) _exit(3);
}

/* As libseccomp does: no such flag for the one, and no filter for the other. */
static void ask_about_filters(void) {
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 1, NULL) == 0) broken();
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, NULL) == 0) broken();
}

/* A client that comes back every few milliseconds. */
static void serve(void) {
    for (int i = 0; i < 300; i++) usleep(2000);
}

#define WAY(name) else if (strcmp(way, name) == 0)

int main(int count, char **arguments) {
    if (count < 2) return BROKEN;
    const char *way = arguments[1];
    char *block;
    if (0) {}
    /* --- dies of a refusal --- */
    WAY("exit") { refuse(); return 1; }
    WAY("exit at once") { refuse(); _exit(1); }
    WAY("exit with perror") { refuse(); errno = ENOMEM; perror("ways"); exit(2); }
    WAY("exit with a full heap") { fill(); exit(1); }
    WAY("exit with text in a buffer") { printf("kept"); refuse(); exit(1); }
    WAY("exit, after a few allocations") { refuse(); take(24, 100); exit(1); }
    WAY("exit, after one of some size") { refuse(); take(1, 48 << 10); exit(1); }
    WAY("exit, still short of the block after much work") { refuse_half(); take(60, 1 << 20); exit(1); }
    WAY("exit, a small block found in a full heap") {
        char *spare = malloc(4000);
        fill(); if (malloc(4000) != NULL) broken();
        free(spare); take(1, 4000); exit(1);
    }
    WAY("exit, after address space was reserved") {
        char *reserved = reserve(2 * much);
        refuse(); mprotect(reserved, 2 * much, PROT_READ); reserve(2 * much); exit(1);
    }
    WAY("exit, other words before the refusal") {
        refuse(); handle(); fputs("reading the second file\n", stderr); refuse_for_now(); exit(1);
    }
    WAY("message, long after") { refuse(); handle(); fprintf(stderr, "ways: out of memory\n"); exit(1); }
    WAY("message by write") { refuse(); handle(); if (write(2, "Out Of Memory\n", 14) != 14) {} exit(1); }
    WAY("message by writev") {
        struct iovec parts[] = {{"ways: ", 6}, {"MemoryError", 11}};
        refuse(); handle(); if (writev(2, parts, 2) != 17) {} exit(1);
    }
    WAY("message by write to stdout") { refuse(); handle(); if (write(1, "Out Of Memory\n", 14) != 14) {} exit(1); }
    WAY("message by writev to stdout") {
        struct iovec parts[] = {{"ways: ", 6}, {"MemoryError", 11}};
        refuse(); handle(); if (writev(1, parts, 2) != 17) {} exit(1);
    }
    WAY("message after a refused mapping") { if (map() != MAP_FAILED) broken(); perror("ways"); exit(1); }
    WAY("null") { block = malloc(much); block[0] = 1; }
    WAY("null, far into the block") { block = malloc(much); block[much / 2] = 1; }
    WAY("null, a member of a small block") { fill(); write_at(60 << 10); }
    WAY("null, after another thread was refused") { block = malloc(much); in_a_thread(refuse_here); block[0] = 1; }
    WAY("null, after a refused mapping") { if (map() != MAP_FAILED) broken(); write_at(0); }
    WAY("MAP_FAILED") { block = map(); block[5] = 1; }
    WAY("MAP_FAILED, far into the block") { block = map(); block[much / 2] = 1; }
    WAY("MAP_FAILED, before the block") { block = map(); block[-16] = 1; }
    WAY("abort") { refuse(); abort(); }
    WAY("SIGABRT after an abort that was left") {
        signal(SIGABRT, leave); if (sigsetjmp(left, 1) == 0) abort();
        signal(SIGABRT, SIG_DFL); refuse(); raise(SIGABRT);
    }
    WAY("abort, after a refused mapping") { if (map() != MAP_FAILED) broken(); abort(); }
    WAY("words of Rust's library after a refused mapping, then for ever") {
        if (map() != MAP_FAILED) broken();
        (void)!write(2, "memory allocation of 7 bytes failed\n", 36);
        for (;;) pause();
    }
    WAY("trap, after a refused mapping") { if (map() != MAP_FAILED) broken(); __builtin_trap(); }
    WAY("assert that the mapping is there") { char *at = map(); assert(at != MAP_FAILED); }
    WAY("abort, whose handler leaves by a code") { signal(SIGABRT, leave_by_code); fill(); abort(); }
    WAY("abort, whose handler leaves by a code, on a stack of its own") {
        struct sigaction action = {.sa_handler = leave_by_code, .sa_flags = SA_ONSTACK};
        static char stack[64 << 10];
        stack_t its = {.ss_sp = stack, .ss_size = sizeof stack};
        if (sigaltstack(&its, NULL) != 0 || sigaction(SIGABRT, &action, NULL) != 0) broken();
        fill(); abort();
    }
    WAY("abort, whose handler raises it again") { signal(SIGABRT, raise_again); fill(); abort(); }
    WAY("message of each of its threads") { end_in_threads(say_so_and_exit); }
    WAY("message, among others who work") { among_others(); refuse(); fputs("out of memory\n", stderr); usleep(50000); exit(1); }
    WAY("null, among others who work") { among_others(); block = malloc(much); usleep(20000); block[0] = 1; }
    WAY("message in colours") { refuse(); handle(); fputs("\33[1;31mOut \33[1mof\33[0m\33[31m memory\33[0m\n", stderr); exit(1); }
    WAY("assert that the block is there") { block = malloc(much); assert(block != NULL); }
    WAY("trap with a full heap") { fill(); __builtin_trap(); }
    WAY("trap with a message") { refuse(); handle(); fputs("out of memory\n", stderr); __builtin_trap(); }
    WAY("handler that tells of it word by word, and raises again") { signal(SIGSEGV, tell_word_by_word); block = malloc(much); block[0] = 1; }
    WAY("handler that raises again") { signal(SIGSEGV, raise_again); block = malloc(much); block[0] = 1; }
    WAY("calloc") { if (calloc(much, 1) == NULL) exit(1); }
    WAY("realloc") { if (realloc(malloc(100), much) == NULL) exit(1); }
    WAY("reallocarray") { if (reallocarray(malloc(100), much, 1) == NULL) exit(1); }
    WAY("aligned_alloc") { if (aligned_alloc(64, much) == NULL) exit(1); }
    WAY("posix_memalign") { void *at; if (posix_memalign(&at, 64, much) == ENOMEM) exit(1); }
    WAY("thread") { start_threads(); exit(1); }
    WAY("quick_exit") { refuse(); quick_exit(2); }
    WAY("exit_group by its number") { refuse(); syscall(SYS_exit_group, 2); }
    WAY("a signal to itself") { refuse(); raise(SIGTERM); }
    WAY("a signal to itself, after a message") { refuse(); handle(); fputs("malloc failed\n", stderr); kill(getpid(), SIGINT); }
    WAY("a signal of a crash to itself, after a message") { fill(); fputs("out of memory\n", stderr); raise(SIGSEGV); }
    WAY("message in another language") { translate(); refuse(); handle(); fputs(_("memory exhausted"), stderr); exit(1); }
    WAY("message in another language, in a format") {
        translate(); refuse(); handle(); fprintf(stderr, "ways: %s\n", _("memory exhausted")); exit(1);
    }
    WAY("message in another language, letter by letter") {
        translate(); refuse(); handle(); for (const char *letter = _("memory exhausted"); *letter; letter++) putc(*letter, stderr); exit(1);
    }
    WAY("a long message, letter by letter") {
        refuse();
        for (const char *letter = "option -d: out of memory, and try --help or --manual for more about it"; *letter; letter++) putc(*letter, stderr);
        exit(2);
    }
    WAY("what ENOMEM is called, asked by strerror_r") {
        char text[100]; refuse(); handle(); dprintf(2, "%s", strerror_r(ENOMEM, text, sizeof text)); exit(1);
    }
    WAY("trap above the limit") { block = malloc(much); if (!block) __builtin_trap(); broken(); }
    WAY("message, tidied up by another program") { refuse(); handle(); fputs("out of memory\n", stderr); if (system("exit 0") != 0) broken(); exit(1); }
    WAY("says what it wanted") { refuse(); fputs("ways: could not create the table\n", stderr); exit(1); }
    WAY("message by error") { refuse(); handle(); error(1, ENOMEM, "%s", "reading"); }
    WAY("message by error, words among the arguments") { refuse(); handle(); error(1, 0, "%s", "memory exhausted"); }
    WAY("message by errx") { refuse(); handle(); errx(1, "line %d: %s", 7, "out of memory"); }
    WAY("message put together") { refuse(); handle(); fprintf(stderr, "%s: %5.1f %s\n", "ways", 1.5, "memory exhausted"); exit(1); }
    WAY("message put together of more than there are registers") {
        const char text[] = {'o', 'u', 't', ' ', 'o', 'f', ' ', 'm', 'e', 'm', 'o', 'r', 'y'};
        refuse(); handle(); fprintf(stderr, "%*d %d %d %d %d [%s] %.*s\n", 5, 1, 2, 3, 4, 5, "error", (int)sizeof text, text); exit(1);
    }
    WAY("message put together from a list") { refuse(); handle(); say("%s %d %d %d: %s\n", "ways", 1, 2, 3, "Cannot allocate memory"); exit(1); }
    WAY("message by printf") { refuse(); handle(); printf("ways: %s\n", "Out of memory!"); exit(1); }
    WAY("message, then other words") { refuse(); handle(); fputs("out of memory\nways: giving up now\n", stderr); exit(1); }
    WAY("message, then a backtrace that takes memory to print") {
        refuse(); handle(); fputs("ways: cannot allocate memory\n\nError termination. Backtrace:\n", stderr);
        fputs("#0  0x7eff212218c2 in ???\n", stderr); take_and_leave(); fputs("#1  0x7eff212223b9 in main\n\tat ways.c:1\n", stderr);
        exit(1);
    }
    WAY("mapping by its number, message") {
        if (syscall(SYS_mmap, NULL, much, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != -1) broken();
        say("%s\n", "can't allocate space"); exit(1);
    }
    WAY("a full stack, of handling it") { return handle_by_asking_for_more(0); }
    WAY("exit under a filter") { char *held = malloc(half); forbid(); if (malloc(half) != NULL) broken(); exit(held != NULL); }
    WAY("child of fork") { pid_t child = fork(); if (child == 0) { refuse(); exit(1); } exit_with_child(child); }
    /* --- survives it --- */
    WAY("survives") { refuse(); handle(); exit(0); }
    WAY("survives, own code") { refuse(); handle(); exit(3); }
    WAY("error ends a program that was refused nothing") { error(5, ENOENT, "%s %d %d %d %d %d %.1f", "x", 1, 2, 3, 4, 5, 0.5); }
    WAY("err ends a program that was refused nothing") { err(6, "%d", 1); }
    WAY("errx ends a program that was refused nothing") { errx(7, "%d", 1); }
    WAY("survives, told to end, and says so by its code") { refuse(); handle(); fputs("request refused: out of memory\n", stderr); exit(128 + SIGTERM); }
    WAY("survives, told to end, with a full heap") { fill(); exit(128 + SIGTERM); }
    WAY("survives, another error by error") { refuse(); handle(); error(3, ENOENT, "table"); }
    WAY("survives, another error by perror") { refuse(); handle(); errno = EISDIR; perror("t"); exit(3); }
    WAY("survives, passes on how a child ended") {
        pid_t child; refuse(); handle(); if ((child = fork()) == 0) _exit(4); exit_with_child(child);
    }
    WAY("survives, passes on how a program ended, with a full heap") {
        fill(); pid_t child = vfork(); if (child == 0) { execl("/bin/sh", "sh", "-c", "exit 5", (char *)0); _exit(77); } exit_with_child(child);
    }
    WAY("survives with a word, passes on how system ended") {
        refuse(); handle(); fputs("out of memory, a smaller table it is\n", stderr); exit(WEXITSTATUS(system("exit 6")));
    }
    WAY("survives by mapping a file") {
        int file = memfd_create("table", 0); refuse();
        if (ftruncate(file, much) != 0 || mmap(NULL, much, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) == MAP_FAILED) broken();
        exit(3);
    }
    WAY("survives by a smaller buffer") {
        char *volatile kept = malloc(180 << 20), *volatile small;
        if (kept == NULL || malloc(100 << 20) != NULL || (small = malloc(30 << 20)) == NULL) broken();
        exit(3);
    }
    WAY("survives by half of a mapping") {
        size_t bytes = (size_t)200 << 20;
        char *volatile kept = malloc(100 << 20);
        if (kept == NULL || map_bytes(bytes) != MAP_FAILED || map_bytes(bytes / 2) == MAP_FAILED) broken();
        exit(5);
    }
    WAY("survives with fewer threads") {
        if (start_threads() != EAGAIN) broken();
        usleep(1000); exit(3);
    }
    WAY("survives, then has too many threads") {
        struct rlimit none = {0, 0}; pthread_t thread; int error;
        if (getuid() == 0 && setuid(65534) != 0) broken();
        refuse(); fputs("out of memory\n", stderr);
        if (setrlimit(RLIMIT_NPROC, &none) != 0 || (error = pthread_create(&thread, NULL, sleep_long, NULL)) != EAGAIN) broken();
        fprintf(stderr, "ways: pthread_create failed: %s\n", strerror(error)); exit(3);
    }
    WAY("survives, looks up what it does not say") { translate(); refuse(); handle(); _("memory exhausted"); exit(3); }
    WAY("survives, looks up what it does not say, and says what else went wrong") {
        translate(); refuse(); handle(); _("memory exhausted"); strerror(ENOMEM); fputs("ways: the table has no rows\n", stderr); exit(3);
    }
    WAY("survives, looks up another failure, in silence") { refuse(); _("unknown function"); exit(3); }
    WAY("survives, tells the last error there was") { refuse(); handle(); fprintf(stderr, "last OS error: %s\n", strerror(ENOMEM)); exit(3); }
    WAY("survives, tells the last error there was, in another language") {
        translate(); refuse(); handle(); fprintf(stderr, "last OS error: %s\n", _("Cannot allocate memory")); exit(3);
    }
    WAY("survives with a word, works, and fails in silence") {
        refuse(); fputs("ways: cannot allocate memory\n", stderr); take_and_leave(); fputs("#1 of 2 done\n", stderr);
        take_and_leave(); exit(3);
    }
    WAY("survives, reads what is left") { read_on(); refuse(); read_on(); exit(3); }
    WAY("survives with a full heap, reads what is left") { read_on(); fill(); read_on(); exit(3); }
    WAY("survives, fails to create something else") { refuse(); handle(); fputs("ways: could not create the table\n", stderr); exit(3); }
    WAY("survives, fails to create something, and says why") { refuse(); fputs("ways: could not create t: No such file\n", stderr); exit(3); }
    WAY("survives a large request, other words") { refuse(); fputs("main.conf:3: unknown keyword\n", stderr); exit(3); }
    WAY("survives a large request, works, fails in silence") { refuse(); compute(); exit(3); }
    WAY("survives a large request, writes, fails in silence") { refuse(); write_on(); exit(3); }
    WAY("survives a large request, works, then null of its own") { refuse(); compute(); write_to_null(NULL); }
    WAY("survives a large request, other words, aborts") { refuse(); fputs("main.conf:3: unknown keyword\n", stderr); abort(); }
    WAY("survives a large request in a thread, aborts") { in_a_thread(refuse_here); abort(); }
    WAY("survives a large request in a thread, fails in silence") { in_a_thread(refuse_here); exit(3); }
    WAY("survives a large request, aborts in a thread") { refuse(); in_a_thread(abort_here); }
    WAY("survives a thread") { if (start_threads() == EAGAIN) exit(0); }
    WAY("survives a mapping, own code") { if (map() == MAP_FAILED) exit(3); }
    WAY("survives many mappings") { for (int i = 0; i < 10000; i++) if (map() != MAP_FAILED) broken(); handle(); exit(3); }
    WAY("survives, aborts for a reason of its own") { refuse(); handle(); abort(); }
    WAY("survives a mapping, maps less, aborts") {
        if (map() != MAP_FAILED || mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) broken();
        abort();
    }
    WAY("survives with a full heap, aborted by another") {
        pid_t parent = getpid();
        fill();
        if (fork() == 0) { kill(parent, SIGABRT); _exit(0); }
        for (;;) pause();
    }
    WAY("survives with a full heap, and frees what is no block") {
        char *volatile at = malloc(100);
        fill(); free(at + 8);
    }
    WAY("survives with no page left, and frees what is no block") {
        char *volatile at = malloc(100);
        fill();
        while (map_bytes(4096) != MAP_FAILED);
        free(at + 8);
    }
    WAY("survives, leaves an abort, own code") {
        signal(SIGABRT, leave); fill(); if (sigsetjmp(left, 1) == 0) abort();
        exit(3);
    }
    WAY("survives with a word, leaves an abort, own code") {
        signal(SIGABRT, leave); refuse(); fputs("ways: out of memory\n", stderr); if (sigsetjmp(left, 1) == 0) abort();
        fputs("ways: t: No such file or directory\n", stderr); exit(3);
    }
    WAY("survives, a file is not there, aborts") { refuse(); fputs("ways: x.ini: No such file or directory\n", stderr); abort(); }
    WAY("survives, then SIGSEGV of its own") { refuse(); raise(SIGSEGV); }
    WAY("survives, then divides by zero") { refuse(); raise(SIGFPE); }
    WAY("survives, another assertion") { refuse(); assert(count == 77); }
    WAY("survives, asked for too much by mistake") { if (malloc((size_t)-64) == NULL) exit(3); }
    WAY("survives, gone on with as much as was refused") { refuse_for_now(); take(1, half); exit(3); }
    WAY("survives, gone on with a mapping") {
        refuse_for_now();
        exit(mmap(NULL, half, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? BROKEN : 3);
    }
    WAY("survives, gone on with a larger mapping") {
        block = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        refuse_for_now();
        exit(mremap(block, 4096, half + 4096, MREMAP_MAYMOVE) == MAP_FAILED ? BROKEN : 3);
    }
    WAY("survives, gone on with a mapping made writable") {
        refuse_for_now(); block = reserve(half); exit(mprotect(block, half, PROT_READ | PROT_WRITE) == 0 ? 3 : BROKEN);
    }
    WAY("survives, gone on with more heap") { refuse_for_now(); exit(sbrk(half) == (void *)-1 ? BROKEN : 3); }
    WAY("survives by many allocations") { refuse(); take(40, 100); exit(3); }
    WAY("survives by one of some size") { refuse(); take(1, 80 << 10); exit(3); }
    WAY("survives by much in small pieces") {
        char *spare = malloc(512 << 10);
        fill_with_large(); free(spare); take(100, 100 << 10); exit(3);
    }
    WAY("survives by posix_memalign") {
        void *volatile at;
        refuse();
        for (int i = 0; i < 200; i++) if (posix_memalign((void **)&at, 64, 4000) == 0) free(at);
        exit(3);
    }
    WAY("survives, says why it ends") {
        refuse_for_now(); fputs("no such file or directory\n", stderr); exit(3);
    }
    WAY("survives, then another block is not there") {
        block = NULL; refuse(); take(3, 100); assert(block != NULL);
    }
    WAY("survives, then a trap") { refuse(); handle(); __builtin_trap(); }
    WAY("survives, then a trap after one block") { refuse(); block = malloc(100); __builtin_trap(); }
    WAY("survives, then a trap that says why") { fill(); fputs("Check failed: 1 == 2\n", stderr); __builtin_trap(); }
    WAY("survives, then far from null") { fill(); write_at(1 << 20); }
    WAY("survives, then null of its own") { refuse_for_now(); write_at(0); }
    WAY("survives, gets what was refused, then null of its own") { free(fill_with_large()); block = malloc(LARGE); write_at(0); }
    WAY("survives a mapping, then far from it") { if (map() != MAP_FAILED) broken(); write_at(2 * much); }
    WAY("survives, then null in another thread") {
        pthread_t thread;
        refuse();
        if (pthread_create(&thread, NULL, write_to_null, NULL) != 0) broken();
        pthread_join(thread, NULL);
    }
    WAY("survives, then killed by another") {
        refuse(); if (fork() == 0) { kill(getppid(), SIGSEGV); _exit(0); }
        for (;;) pause();
    }
    WAY("survives, exits with 256") { refuse(); exit(256); }
    WAY("mapping refused for another reason, then null") {
        if (mmap(NULL, much, PROT_READ, MAP_SHARED, -1, 0) != MAP_FAILED || errno != EBADF) broken();
        write_at(0);
    }
    WAY("errno") { errno = 0; refuse(); exit(errno == ENOMEM ? 0 : 20); }
    WAY("errno of mmap") { errno = 0; if (map() != MAP_FAILED) _exit(20); exit(errno == ENOMEM ? 0 : 21); }
    WAY("errno of posix_memalign") { void *at; errno = 7; if (posix_memalign(&at, 64, much) != ENOMEM) _exit(20); exit(errno == ENOMEM ? 0 : 21); }
    WAY("bad alignment") { void *at; exit(posix_memalign(&at, 3, 64) == EINVAL ? 3 : BROKEN); }
    WAY("posix_memalign asked for too much by mistake") {
        void *at; exit(posix_memalign(&at, 64, (size_t)-4096) == ENOMEM ? 3 : BROKEN);
    }
    WAY("realloc to nothing") {
        volatile size_t none = 0;
        errno = ENOMEM; /* left from before */
        exit(realloc(malloc(100), none) == NULL ? 3 : BROKEN);
    }
    WAY("reallocarray to nothing") {
        volatile size_t none = 0;
        errno = ENOMEM;
        exit(reallocarray(malloc(100), none, 8) == NULL ? 3 : BROKEN);
    }
    WAY("no huge pages") {
        if (mmap(NULL, 2 << 20, 3, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0) == MAP_FAILED) perror("ways");
        exit(3);
    }
    WAY("a hole in a mapping") {
        block = mmap(NULL, 3 << 12, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        munmap(block + 4096, 4096);
        if (mprotect(block, 3 << 12, PROT_READ | PROT_WRITE) == 0) broken();
        perror("ways"); exit(3);
    }
    WAY("a hole in a mapping, in a full heap") {
        block = mmap(NULL, 3 << 12, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        munmap(block + 4096, 4096);
        void *volatile all = NULL;
        for (size_t size = (size_t)256 << 20; size > 4096 && all == NULL; size -= 1 << 20) all = sbrk(size) == (void *)-1 ? NULL : block;
        serve();
        if (mprotect(block, 3 << 12, PROT_READ | PROT_WRITE) == 0) broken();
        exit(3);
    }
    WAY("a size that nobody can have") { volatile size_t most = SIZE_MAX / 2; if (malloc(most) == NULL) perror("ways"); exit(3); }
    WAY("a mapping that nobody can have") {
        if (mmap(NULL, (size_t)1 << 50, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED) perror("ways");
        exit(3);
    }
    WAY("survives, says that an allocation is done") {
        refuse(); fputs("memory allocation of the pool is done: 60 MiB\n", stderr); handle(); exit(0);
    }
    WAY("survives, other words of each of its threads") { end_in_threads(say_other_and_exit); }
    WAY("survives, and has others do its work before it can wait for it") {
        refuse(); in_threads_that_end_first(allocate_much); exit(3);
    }
    WAY("survives, and looks again and again whether threads that it had have done its work") {
        pthread_t threads[2];
        for (int i = 0; i < 2; i++) if (pthread_create(&threads[i], NULL, work_when_told, NULL) != 0) broken();
        /* Twice as much is more than the limit, which could hold it once. */
        much = 160 << 20;
        if (malloc(much) == NULL) broken();
        refuse(); is_to_work = 1;
        compute_by(CLOCK_THREAD_CPUTIME_ID);
        while (pieces_of_work < 10000) continue;
        is_done = 1; exit(3);
    }
    WAY("survives with a word, then another thread's under a filter") {
        refuse(); forbid(); fputs("out of memory\n", stderr); in_a_thread(say_other); exit(3);
    }
    WAY("reads more than there is room for") {
        int ends[2];
        char bytes[64];
        signal(SIGABRT, leave);
        if (pipe(ends) != 0 || write(ends[1], bytes, 48) != 48) broken();
        /* The C library aborts; a static program of ours reads what there is room for. */
        exit(sigsetjmp(left, 1) == 0 && __read_chk(ends[0], bytes, 48, 32) > 32 ? 4 : 0);
    }
    WAY("message, after a question about filters") {
        ask_about_filters(); refuse(); fputs("out of memory\n", stderr); exit(1);
    }
    WAY("survives, other words, after a question about filters") {
        ask_about_filters(); refuse(); say_other(NULL); exit(3);
    }
    WAY("survives, and may only read and write from then on") {
        refuse();
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) broken();
        char byte;
        if (read(0, &byte, 1) < 0 || write(2, "a line of words\n", 16) != 16) broken();
        syscall(SYS_exit, 3);
    }
    WAY("survives, and has others do its work") { refuse(); in_threads(allocate_much); exit(3); }
    WAY("survives an abort in each of its threads") {
        signal(SIGABRT, leave);
        for (int i = 0; i < 3; i++) {
            pthread_t thread;
            if (pthread_create(&thread, NULL, leave_an_abort, NULL) != 0 || pthread_join(thread, NULL) != 0) broken();
        }
        exit(0);
    }
    WAY("survives, ended by the C library over something else") { refuse(); __fdelt_chk(1 << 20); }
    WAY("survives, words that claim nothing") {
        refuse_for_now(); handle();
        fputs("using jemalloc 5.3\ncheck passed: no memory leaks found\nenomemo: bad key\nrole \"malloc\"\n", stderr); exit(3);
    }
    WAY("survives with a word, then another exception") {
        refuse_for_now(); fputs("MemoryError: job 1 skipped\n", stderr); handle(); fputs("KeyError: 'id'\n", stderr); exit(3);
    }
    WAY("survives with a word, ended by its administrator") {
        refuse(); fputs("ERROR:  out of memory\n", stderr);
        fputs("FATAL:  terminating connection due to administrator command\n", stderr); exit(1);
    }
    WAY("survives with a word, then a file is not there") {
        refuse_for_now(); fputs("out of memory, dropping the cache\n", stderr); handle();
        say("ways: input.csv: %s\n", "No such file or directory"); exit(3);
    }
    WAY("survives with a word, serves, ends") { refuse(); fputs("MemoryError: request refused\n", stderr); serve(); exit(143); }
    WAY("survives, serves, ends with a block still missing") { refuse_half(); serve(); exit(143); }
    WAY("survives under a filter") { char *held = malloc(half); forbid(); if (malloc(half) != NULL) broken(); free(held); handle(); exit(3); }
    WAY("over a reservation") {
        char *place = reserve((size_t)1 << 30);
        if (mmap(place, (size_t)1 << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED) exit(21);
        for (size_t at = 0; at < (size_t)1 << 30; at += 4 << 20)
            if (mmap(place + at, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
                exit(at >= (size_t)200 << 20 && at <= (size_t)256 << 20 ? 0 : 20);
        broken();
    }
    WAY("over mappings of its own, again and again") {
        char *place = mmap(NULL, (size_t)150 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (int i = 0; i < 100; i++)
            if (mmap(place, (size_t)150 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) exit(20);
        exit(0);
    }
    WAY("too many mappings") {
        for (long i = 0; i < 100000; i++)
            if (mmap(NULL, 4096, i & 1 ? PROT_READ : PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) { perror("ways"); exit(3); }
        exit(3);
    }
    WAY("child of fork that exits") { refuse(); handle(); pid_t child = fork(); if (child == 0) exit(4); exit_with_child(child); }
    WAY("child of fork, after a message of its parent") {
        int status;
        refuse(); handle(); fputs("out of memory\n", stderr);
        pid_t child = fork(); if (child == 0) exit(4);
        exit(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 4 ? 0 : 20);
    }
    WAY("child of vfork that exits") { refuse(); handle(); pid_t child = vfork(); if (child == 0) _exit(4); exit_with_child(child); }
    WAY("shell") { refuse(); handle(); int status = system("exit 6"); exit(WEXITSTATUS(status)); }
    /* --- dies of something else --- */
    WAY("own code") { exit(5); }
    WAY("null of its own") { block = NULL; *(volatile char *)block = 1; }
    WAY("kill") { kill(getpid(), SIGSEGV); }
    WAY("trap") { __builtin_trap(); }
    WAY("abort of its own") { abort(); }
    WAY("abort, ignored") { signal(SIGABRT, SIG_IGN); abort(); }
    WAY("handler of its own") { signal(SIGSEGV, on_fault); *(volatile char *)NULL = 1; }
    WAY("brk") { char *end = sbrk(0); exit(brk(end + 4096) == 0 && sbrk(0) == end + 4096 ? 0 : 20); }
    WAY("looks untouched") { look_untouched(); exit(0); }
    WAY("handler taken back") { look_untouched(); block = malloc(much); block[0] = 1; }
    else return BROKEN;
    broken();
}
