/* Is refused memory in a loop, until so many milliseconds of processor time are used: stall WAY MS. Ends with 0. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { LARGE = 1 << 30 };

static long used_ms(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void *work(void *ignored) {
    for (volatile unsigned long n = 0;; n++) {}
    return ignored;
}

static void *sleep_long(void *ignored) {
    sleep(1000);
    return ignored;
}

int main(int count, char **arguments) {
    const char *way = arguments[1];
    long most_ms = atol(arguments[2]);
    FILE *file = fopen("/dev/null", "w");
    pthread_t thread;
    void *volatile kept;
    unsigned long tries = 0;
    int zero = open("/dev/zero", O_RDONLY);
    char text[256];
    if (!strcmp(way, "others-work")) pthread_create(&thread, NULL, work, NULL);
    if (!strcmp(way, "waits-among-others")) pthread_create(&thread, NULL, sleep_long, NULL);
    /* What is used up in time here must not be what the guard looks at. */
    clockid_t clock = strncmp(way, "waits", 5) ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
    for (long from = used_ms(clock); used_ms(clock) - from < most_ms; tries++) {
        if (!strncmp(way, "maps", 4)) {
            kept = mmap(NULL, LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (!way[4]) continue;
        }
        if (!strcmp(way, "computes"))
            for (volatile int n = 0; n < 100000; n++) {}
        kept = malloc(LARGE);
        if (!strcmp(way, "allocates") && tries % 16 == 0) free(malloc(100));
        if (!strncmp(way, "waits", 5)) usleep(1000);
        if (!strcmp(way, "waits-and-reads") && read(zero, text, sizeof text) != sizeof text) _exit(8);
        if (!strcmp(way, "writes") && tries % 16 == 0) { fputc('x', file); fflush(file); }
    }
    (void)kept;
    (void)count;
    _exit(tries > 500 ? 0 : 7);
}
