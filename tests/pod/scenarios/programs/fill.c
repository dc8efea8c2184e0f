/* How much of a budget can be filled: `fill COUNT HOW`. So many processes take blocks and touch them, all at the same time, until one is
   refused; it prints what all hold together by then, in bytes. HOW: `forked` children, or programs that were `executed`.

   `fill COUNT write MIB MOST`: so many children write as fast as they can to so many MiB that they share with their parent, and stay until
   all are done or gone. It prints how many of them left with 198, and how long it took from when they had written MOST MiB until
   the first of them was gone, in milliseconds.

   `fill untraced PROGRAM ARGUMENTS...`: that program where nobody may trace anybody, as some seccomp profiles have it. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST 64
#define BLOCK (64 << 10)

struct common {
    unsigned long held[MOST];
    int is_over;
};

static void fill(struct common *common, int number) {
    while (!__atomic_load_n(&common->is_over, __ATOMIC_SEQ_CST)) {
        char *block = malloc(BLOCK);
        if (!block) {
            unsigned long sum = 0;
            for (int i = 0; i < MOST; i++) sum += __atomic_load_n(&common->held[i], __ATOMIC_SEQ_CST);
            if (!__atomic_exchange_n(&common->is_over, 1, __ATOMIC_SEQ_CST)) printf("%lu\n", sum), fflush(stdout);
            _exit(0);
        }
        memset(block, 1, BLOCK);
        __atomic_fetch_add(&common->held[number], BLOCK, __ATOMIC_SEQ_CST);
    }
    _exit(0);
}

static unsigned long now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000ul + now.tv_nsec / 1000;
}

/* `held`: the pages written, how many are done or gone, and when the most were written. */
static int write_to_shared(struct common *common, int count, unsigned long pages, unsigned long most) {
    char *block = mmap(0, pages << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int left = 0, status;
    unsigned long gone_us = 0;
    for (unsigned long i = 0; i < pages; i++) block[i << 12] = 1;
    for (int child = 0; child < count; child++) {
        if (fork()) continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (!__atomic_load_n(&common->is_over, __ATOMIC_SEQ_CST)) usleep(100);
        for (unsigned long i = 0; i < pages; i++) {
            block[i << 12] = 2;
            if (__atomic_add_fetch(&common->held[0], 1, __ATOMIC_SEQ_CST) == most)
                __atomic_store_n(&common->held[2], now_us(), __ATOMIC_SEQ_CST);
        }
        __atomic_fetch_add(&common->held[1], 1, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&common->held[1], __ATOMIC_SEQ_CST) < (unsigned long)count) usleep(1000);
        _exit(0);
    }
    usleep(500000); /* the launcher looks at them, and sees that nothing happens */
    __atomic_store_n(&common->is_over, 1, __ATOMIC_SEQ_CST);
    while (wait(&status) > 0) {
        if (!gone_us) gone_us = now_us();
        if (status && !(WIFEXITED(status) && WEXITSTATUS(status) == 198)) return 8;
        if (status) left++, __atomic_fetch_add(&common->held[1], 1, __ATOMIC_SEQ_CST);
    }
    unsigned long full_us = common->held[2];
    printf("%d %lu\n", left, full_us && gone_us > full_us ? (gone_us - full_us) / 1000 : 0);
    return 0;
}

static int untraced(char **command) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ptrace, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return 7;
    execv(command[0], command);
    return 9;
}

int main(int argc, char **argv) {
    if (!strcmp(argv[1], "untraced")) return untraced(argv + 2);
    if (argc == 5) {
        void *common = mmap(0, sizeof(struct common), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        return write_to_shared(common, atoi(argv[1]), atol(argv[3]) << 8, atol(argv[4]) << 8);
    }
    if (argc == 4) /* executed: the descriptor, and its number */
        fill(mmap(0, sizeof(struct common), PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argv[2]), 0), atoi(argv[3]));
    int count = atoi(argv[1]), fd = memfd_create("common", 0), worst = 0, status;
    if (ftruncate(fd, sizeof(struct common))) return 9;
    struct common *common = mmap(0, sizeof *common, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    for (int i = 0; i < count; i++) {
        if (fork()) continue;
        if (!strcmp(argv[2], "forked")) fill(common, i);
        char descriptor[16], number[16];
        sprintf(descriptor, "%d", fd), sprintf(number, "%d", i);
        execl(argv[0], argv[0], "part", descriptor, number, (char *)0);
        _exit(9);
    }
    while (wait(&status) > 0) if (status) worst = status;
    return worst ? 8 : 0;
}
