/*
 * Ways of a C program to meet the end of its memory: `eat WAY [CODE]`. Prints its pid first, as all programs here do.
 * Built three times: dynamic, static with glibc, static with musl.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BLOCK = 64 << 10 };

/* What was had, as a list through the blocks themselves. */
static void *held;

static void *hold(void *block, size_t size)
{
    memset(block, 7, size);
    *(void **)block = held;
    return held = block;
}

static void release(void)
{
    while (held) {
        void *next = *(void **)held;
        free(held);
        held = next;
    }
}

/* Fills the heap until a block is refused. */
static void fill(size_t size)
{
    for (void *block; (block = malloc(size));)
        hold(block, size);
}

static int fail(const char *what)
{
    perror(what);
    return 1;
}

/* Work that needs memory, as a program does that has gone on. */
static unsigned long work(void)
{
    unsigned long sum = 0;
    for (int round = 0; round < 20000; round++) {
        char *block = malloc(BLOCK);
        if (!block)
            exit(77);
        memset(block, round, BLOCK);
        sum += (unsigned char)block[round];
        free(block);
    }
    return sum;
}

/* Uses some of its stack, says so, and waits. */
static void *use_and_wait(void *used)
{
    volatile char stack[64 << 10];
    for (size_t at = 0; at < sizeof stack; at += 4096)
        stack[at] = 7;
    sem_post(used);
    for (;;)
        pause();
}

static void *eat_in_thread(void *unused)
{
    (void)unused;
    for (;;)
        hold(malloc(BLOCK), BLOCK);
}

int main(int argc, char **argv)
{
    const char *way = argc > 1 ? argv[1] : "";
    int code = argc > 2 ? atoi(argv[2]) : 0;
    printf("pid %ld\n", (long)getpid());
    fflush(stdout);

    if (!strcmp(way, "silent")) {
        fill(BLOCK);
        return 1;
    } else if (!strcmp(way, "perror")) {
        fill(BLOCK);
        return fail("malloc");
    } else if (!strcmp(way, "_exit")) {
        fill(BLOCK);
        _exit(2);
    } else if (!strcmp(way, "small")) {
        fill(48);
        return fail("malloc");
    } else if (!strcmp(way, "huge")) {
        if (!malloc((size_t)1 << 40))
            return fail("malloc");
    } else if (!strcmp(way, "impossible")) {
        /* Whatever the limit: no process can have so much. */
        if (!malloc(SIZE_MAX / 4))
            return fail("malloc");
    } else if (!strcmp(way, "abort")) {
        fill(BLOCK);
        fprintf(stderr, "eat: memory exhausted\n");
        abort();
    } else if (!strcmp(way, "abort-silent")) {
        fill(BLOCK);
        abort();
    } else if (!strcmp(way, "unchecked")) {
        for (;;)
            memset(malloc(BLOCK), 7, BLOCK);
    } else if (!strcmp(way, "unchecked-late")) {
        /* The first store goes far into the block that there is not. */
        for (;;) {
            char *block = malloc(1 << 20);
            for (int page = 255; page >= 0; page--)
                block[page * 4096] = 7;
        }
    } else if (!strcmp(way, "unchecked-thread")) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, eat_in_thread, NULL))
            return 77;
        pthread_join(thread, NULL);
    } else if (!strcmp(way, "unchecked-copy")) {
        /* A read of what strdup could not give. */
        static char text[BLOCK];
        memset(text, 'x', sizeof text - 1);
        for (volatile size_t sum = 0;;)
            sum += strlen(strdup(text));
    } else if (!strcmp(way, "realloc")) {
        void *block = NULL;
        for (size_t size = 1 << 20;; size += 1 << 20) {
            void *larger = realloc(block, size);
            if (!larger)
                return fail("realloc");
            memset(block = larger, 7, size);
        }
    } else if (!strcmp(way, "aligned")) {
        for (void *block; !(errno = posix_memalign(&block, 4096, BLOCK));)
            hold(block, BLOCK);
        return fail("posix_memalign");
    } else if (!strcmp(way, "calloc")) {
        for (void *block; (block = calloc(16, BLOCK / 16));)
            hold(block, BLOCK);
        return fail("calloc");
    } else if (!strcmp(way, "mmap")) {
        for (void *block; (block = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
                          != MAP_FAILED;)
            hold(block, 1 << 20);
        return fail("mmap");
    } else if (!strcmp(way, "threads")) {
        pthread_t thread;
        sem_t used;
        sem_init(&used, 0, 0);
        while (!(errno = pthread_create(&thread, NULL, use_and_wait, &used)))
            sem_wait(&used);
        return fail("pthread_create");
    } else if (!strcmp(way, "recover")) {
        fill(BLOCK);
        release();
        printf("recovered %lu\n", work());
        return code;
    } else if (!strcmp(way, "recover-huge")) {
        /* One request is too large; a smaller one does. */
        void *block = malloc((size_t)1 << 40);
        if (!block)
            block = malloc(8 << 20);
        if (!block)
            return 77;
        memset(block, 7, 8 << 20);
        printf("recovered %lu\n", work());
        return code;
    } else if (!strcmp(way, "recover-grow")) {
        /* Gives all back and takes on another job of half the size. */
        fill(BLOCK);
        size_t jobs = 0;
        for (void *block = held; block; block = *(void **)block)
            jobs++;
        release();
        for (size_t job = 0; job < jobs / 2; job++) {
            void *block = malloc(BLOCK);
            if (!block)
                return 77;
            hold(block, BLOCK);
        }
        printf("recovered %lu\n", work());
        return code;
    } else if (!strcmp(way, "recover-cache")) {
        /* A cache drops a part of what it holds, and the rest stays. */
        fill(BLOCK);
        for (int i = 0; i < 512 && held; i++) {
            void *next = *(void **)held;
            free(held);
            held = next;
        }
        printf("recovered %lu\n", work());
        return code;
    } else if (!strcmp(way, "own")) {
        printf("own %lu\n", work());
        return code;
    } else {
        fprintf(stderr, "eat: no such way: %s\n", way);
        return 77;
    }
    return 77;
}
