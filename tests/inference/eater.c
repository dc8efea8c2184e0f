/* A program that no shim can enter: it runs out of memory, or does not, in the way that its first argument says. */
#define _GNU_SOURCE
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static char *self;
static volatile sig_atomic_t caught;
static void *volatile kept;

static int is(const char *role, const char *name) { return strcmp(role, name) == 0; }

static void *eat(size_t step) {
    for (;;) {
        char *block = malloc(step);
        if (!block) return NULL;
        memset(block, 1, step);
        kept = block;
    }
}

static void *eat_and_abort(void *unused) {
    (void)unused;
    eat(64 << 10);
    abort();
}

static void refuse(void) {
    kept = malloc((size_t)1 << 40);
    if (kept) _exit(99);
}

static void *refuse_in_a_thread(void *unused) {
    refuse();
    return unused;
}

static void *just_abort(void *unused) {
    (void)unused;
    abort();
}

static void *sleep_a_while(void *unused) {
    struct timespec time = {.tv_nsec = 100000000};
    nanosleep(&time, NULL);
    return unused;
}

static void say_and_crash(int number) {
    (void)!write(2, "worker: crash handler\n", 22);
    signal(number, SIG_DFL);
    raise(number);
}

/* 64 MiB at once, a quarter of the limit. */
static void work(void) {
    char *blocks[64];
    for (int i = 0; i < 64; i++) {
        blocks[i] = malloc(1 << 20);
        if (!blocks[i]) _exit(99);
        memset(blocks[i], 1, 1 << 20);
    }
    for (int i = 0; i < 64; i++) free(blocks[i]);
}

enum { BLOCK = 1 << 20 };
static char *mapped[1024];
static int blocks;

/* Fills the limit with mappings, and uses them where that is what it counts. */
static void map_all(void) {
    const char *measure = getenv("OOMGUARD_MEASURE");
    int counts_what_is_used = measure && is(measure, "resident");
    for (; blocks < 1024; blocks++) {
        char *block = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED) return;
        if (counts_what_is_used) memset(block, 1, BLOCK);
        mapped[blocks] = block;
    }
    _exit(99);
}

static int map_and_leave(void *unused) {
    (void)unused;
    return mmap(NULL, BLOCK, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED;
}

static void unmap_all(void) {
    while (blocks > 0) munmap(mapped[--blocks], BLOCK);
}

static long used_milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* So much processor time, in memory that is there already, and with few system calls: this clock is one, and who has
   made thousands of them since a refusal is followed no longer. */
static void compute(int milliseconds) {
    long until = used_milliseconds() + milliseconds;
    do {
        for (volatile int i = 0; i < 100000; i++);
    } while (used_milliseconds() < until);
}

static int become(char *role) {
    char *arguments[] = {self, role, NULL};
    execv(self, arguments);
    return 99;
}

static void *become_in_a_thread(void *role) {
    become(role);
    return NULL;
}

static int end_of(pid_t child) {
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return 99;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int forked(char *role) {
    pid_t child = fork();
    return child ? end_of(child) : become(role);
}

static int spawned(char *role) {
    pid_t child;
    char *arguments[] = {self, role, NULL};
    return posix_spawn(&child, self, NULL, NULL, arguments, environ) ? 99 : end_of(child);
}

static int vforked(char *role) {
    char *arguments[] = {self, role, NULL};
    pid_t child = vfork();
    if (child == 0) {
        execv(self, arguments);
        _exit(99);
    }
    return end_of(child);
}

static void count(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)context;
    if (info->si_code == SI_QUEUE && info->si_value.sival_int == caught) caught++;
}

/* A hundred signals, each with its value. */
static int signals(void) {
    struct sigaction action = {.sa_sigaction = count, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, NULL);
    for (int i = 0; i < 100; i++) {
        union sigval value = {.sival_int = i};
        sigqueue(getpid(), SIGUSR1, value);
    }
    return caught == 100 ? 0 : 1;
}

static int is_stopped(pid_t pid) {
    char path[32], line[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file || !fgets(line, sizeof line, file)) _exit(99);
    fclose(file);
    char state = strrchr(line, ')')[2];
    return state == 'T' || state == 't';
}

/* What a shell sees of a job that is stopped and continued. */
static int job_control(void) {
    int status, seen[2];
    char byte = 0;
    if (pipe(seen)) return 99;
    pid_t child = fork();
    if (child == 0) {
        /* A group of its own, whose parent is in another one: SIGTSTP does not stop orphaned groups. */
        setpgid(0, 0);
        /* It waits until its parent has seen it go on, which another stop or its end would hide. */
        raise(SIGSTOP);
        if (read(seen[0], &byte, 1) != 1) _exit(99);
        raise(SIGTSTP);
        if (read(seen[0], &byte, 1) != 1) _exit(99);
        _exit(17);
    }
    for (int i = 0; i < 2; i++) {
        int signal = i ? SIGTSTP : SIGSTOP;
        if (waitpid(child, &status, WUNTRACED) != child) return 1;
        if (!WIFSTOPPED(status) || WSTOPSIG(status) != signal) return 2;
        usleep(20000);
        if (waitpid(child, &status, WNOHANG | WUNTRACED) != 0 || !is_stopped(child)) return 3;
        kill(child, SIGCONT);
        if (waitpid(child, &status, WCONTINUED) != child || !WIFCONTINUED(status)) return 4;
        if (write(seen[1], &byte, 1) != 1) return 99;
    }
    return end_of(child) == 17 ? 0 : 5;
}

static void *nothing(void *unused) {
    void *volatile block = malloc(1000);
    free(block);
    return unused;
}

static int threads(void *(*body)(void *), int rounds) {
    pthread_t all[64];
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 256 << 10);
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < 64; i++)
            if (pthread_create(&all[i], &small, body, NULL)) abort();
        for (int i = 0; i < 64; i++) pthread_join(all[i], NULL);
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 2) return 99;
    char *role = argv[1];
    self = argv[0];
    if (is(role, "checked")) {
        eat(1 << 20);
        fputs("no memory\n", stderr);
        return 1;
    }
    if (is(role, "small")) {
        eat(64);
        return 2;
    }
    if (is(role, "unchecked"))
        for (;;) memset(malloc(1 << 20), 1, 1 << 20);
    if (is(role, "huge")) {
        refuse();
        return 7;
    }
    if (is(role, "grow")) {
        char *all = NULL;
        for (size_t size = 1 << 20;; size *= 2) {
            all = realloc(all, size);
            memset(all, 1, size);
        }
    }
    if (is(role, "threads eat")) return threads(eat_and_abort, 1);
    if (is(role, "threads")) return threads(nothing, 20);
    if (is(role, "cope")) {
        refuse();
        return 0;
    }
    if (is(role, "cope and fail")) {
        refuse();
        work();
        return 3;
    }
    if (is(role, "full and recovered")) {
        void *blocks[1024];
        int n = 0;
        while (n < 1024 && (blocks[n] = malloc(1 << 20))) memset(blocks[n++], 1, 1 << 20);
        if (n == 1024) return 99;
        while (n > 0) free(blocks[--n]);
        work();
        return 3;
    }
    if (is(role, "tell, tidy up and fail")) {
        map_all();
        perror("mmap");
        unmap_all();
        compute(30);
        return 3;
    }
    if (is(role, "tidy up and fail")) {
        map_all();
        compute(30);
        unmap_all();
        return 3;
    }
    if (is(role, "tidy up, go on and fail")) {
        map_all();
        unmap_all();
        compute(30);
        return 3;
    }
    if (is(role, "tidy up, take some of it again and fail")) {
        map_all();
        unmap_all();
        for (int i = 0; i < 4000; i++) {
            kept = malloc(100);
            if (!kept) _exit(99);
        }
        return 3;
    }
    if (is(role, "wait for the threads that there are, and fail")) {
        static pthread_t threads[4096];
        int count = 0;
        while (count < 4096 && pthread_create(&threads[count], NULL, sleep_a_while, NULL) == 0) count++;
        while (count > 0) pthread_join(threads[--count], NULL);
        return 3;
    }
    if (is(role, "tidy up, miss a file and fail")) {
        map_all();
        unmap_all();
        return fopen("/no/such/file", "r") ? 99 : 3;
    }
    if (is(role, "tidy up, tell the system's log and fail")) {
        // As syslog(3) does.
        const char message[] = "<11>Nov 26 21:00:00 eater: out of memory";
        int ends[2];
        map_all();
        unmap_all();
        if (fopen("/no/such/file", "r") || socketpair(AF_UNIX, SOCK_DGRAM, 0, ends)) return 99;
        return send(ends[0], message, sizeof message, MSG_NOSIGNAL) < 0 ? 99 : 3;
    }
    if (is(role, "start a child that is not to be traced")) {
        int status = -1;
        char *stack = malloc(64 << 10);
        if (!stack) return 99;
        pid_t child = clone(map_and_leave, stack + (64 << 10), CLONE_UNTRACED | SIGCHLD, NULL);
        return waitpid(child, &status, 0) == child && status == 0 ? 0 : 98;
    }
    if (is(role, "refused, with results in the buffer")) {
        printf("these are the results up to here\n");
        refuse();
        return 3;
    }
    if (is(role, "cope and fail otherwise")) {
        refuse();
        fputs("input.csv: no such file\n", stderr);
        return 3;
    }
    /* The helper ends well; what is wrong is the command line. */
    if (is(role, "go without, start a helper and print the usage")) {
        map_all();
        spawned("nothing");
        puts("usage: eater ROLE");
        return 1;
    }
    if (is(role, "go without, start a helper in the background")) {
        map_all();
        pid_t child = fork();
        if (child == 0) _exit(0);
        return 2;
    }
    if (is(role, "go without and pass a helper's end on")) {
        map_all();
        return forked("fail at once");
    }
    if (is(role, "go without and sleep")) {
        map_all();
        usleep(1000);
        return 3;
    }
    if (is(role, "go without, read on and fail")) {
        map_all();
        char buffer[64];
        int file = open("/proc/self/stat", O_RDONLY);
        return read(file, buffer, sizeof buffer) > 0 ? 3 : 99;
    }
    if (is(role, "go without and miss a file")) {
        map_all();
        perror("input.csv");
        errno = ENOENT;
        perror("input.csv");
        return 3;
    }
    /* There is room for it, where one block was, and nothing else gives way to it. */
    if (is(role, "go without, and write to a page that is to be read")) {
        map_all();
        char *at = mapped[--blocks];
        munmap(at, BLOCK);
        volatile char *page =
            mmap(at, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (page != at) return 99;
        page[8] = 1;
    }
    if (is(role, "sleep, try again and give up")) {
        map_all();
        usleep(1000);
        return malloc(2 * BLOCK) ? 99 : 1;
    }
    if (is(role, "abort after words")) {
        eat(1 << 20);
        fputs("worker: memory exhausted\n", stderr);
        abort();
    }
    if (is(role, "words in colours, tidy up and fail")) {
        eat(1 << 20);
        fputs("\33[1;31mworker: out \33[0m\33[1mof memory\33[0m\n", stderr);
        return 1;
    }
    if (is(role, "interrupt itself after words")) {
        eat(1 << 20);
        fputs("Memory allocation still failed after 10 retries, giving up.\n", stderr);
        raise(SIGINT);
    }
    if (is(role, "interrupted by a child after words")) {
        pid_t worker = getpid();
        // Whoever runs the tests in the background may ignore it.
        signal(SIGINT, SIG_DFL);
        eat(1 << 20);
        fputs("worker: out of memory, for now\n", stderr);
        if (fork() == 0) kill(worker, SIGINT), _exit(0);
        for (;;) pause();
    }
    if (is(role, "unchecked, with a handler of its own")) {
        signal(SIGSEGV, say_and_crash);
        char *volatile block = malloc((size_t)1 << 40);
        block[5] = 1;
    }
#ifdef __x86_64__
    if (is(role, "full, and crash of something else")) {
        map_all();
        __asm__ volatile("hlt");
    }
#endif
    if (is(role, "a thread copes, and another fails")) {
        pthread_t thread;
        pthread_create(&thread, NULL, refuse_in_a_thread, NULL);
        pthread_join(thread, NULL);
        fputs("input.csv: bad line 3\n", stderr);
        return 3;
    }
    if (is(role, "tidy up and abort")) {
        map_all();
        unmap_all();
        abort();
    }
    if (is(role, "go without, and abort in another thread")) {
        pthread_t thread;
        refuse();
        pthread_create(&thread, NULL, just_abort, NULL);
        pthread_join(thread, NULL);
    }
    if (is(role, "assert the mapping")) {
        void *at = mmap(NULL, (size_t)1 << 40, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert(at != MAP_FAILED);
    }
    if (is(role, "assert the block")) {
        map_all();
        char *block = malloc(BLOCK);
        assert(block != NULL);
    }
    if (is(role, "assert something else")) {
        map_all();
        assert(argc == 4);
    }
    if (is(role, "cope and be killed")) {
        refuse();
        raise(SIGTERM);
    }
    if (is(role, "fail")) {
        work();
        return 3;
    }
    if (is(role, "fail at once")) return 3;
    if (is(role, "nothing")) return 0;
    if (is(role, "crash")) abort();
    if (is(role, "refused, then another program")) {
        refuse();
        return become("fail at once");
    }
    if (is(role, "another program, then refused")) return become("checked");
    if (is(role, "another program in a thread")) {
        pthread_t thread;
        pthread_create(&thread, NULL, become_in_a_thread, "checked");
        pause();
    }
    if (is(role, "fork passes on")) return forked("checked");
    if (is(role, "fork passes a signal on")) return forked("unchecked");
    if (is(role, "spawn passes on")) return spawned("checked");
    if (is(role, "vfork passes on")) return vforked("checked");
    if (is(role, "fork passes a recovered one on")) return forked("tidy up, go on and fail");
    if (is(role, "fork ignores")) return forked("checked"), 0;
    if (is(role, "fork passes on through another")) return forked("fork passes on");
    if (is(role, "fork gets over it, and its parent fails alike")) return forked("fork ignores"), 1;
    if (is(role, "fork fails otherwise")) return forked("checked"), 9;
    if (is(role, "fork passes another failure on")) return forked("fail");
    if (is(role, "signals")) return signals();
    if (is(role, "job control")) return job_control();
    if (is(role, "pairs")) {
        for (int i = 0; i < 20000; i++) {
            char *block = malloc(200 << 10);
            block[0] = 1;
            kept = block;
            free(block);
        }
        return 0;
    }
    if (is(role, "sleep")) {
        puts("ready");
        fflush(stdout);
        for (;;) pause();
    }
    return 99;
}
