/* Ends by its first word, each in the C library's own way: tests/one_library/run. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void *wait_for_ever(void *argument) {
    pause();
    return argument;
}

static void eat(void) {
    char *block;
    while ((block = malloc(1 << 20)) != NULL)
        memset(block, 1, 1 << 20);
}

static int start_threads(void) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 8 << 20);
    for (;;) {
        pthread_t thread;
        int error = pthread_create(&thread, &attributes, wait_for_ever, NULL);
        if (error != 0) {
            fprintf(stderr, "cannot start a thread: %s\n", strerror(error));
            return 6;
        }
    }
}

static int start(char **words) {
    pid_t child;
    int status;
    if (posix_spawn(&child, words[0], NULL, NULL, words, environ) != 0 || waitpid(child, &status, 0) < 0)
        return 120;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 121;
}

int main(int count, char **words) {
    const char *way = count > 1 ? words[1] : "";
    if (strcmp(way, "fine") == 0) {
        puts("fine");
        return 0;
    }
    if (strcmp(way, "says") == 0) {
        printf("kept in the stream, ");
        eat();
        fputs("out of memory\n", stderr);
        return 5;
    }
    if (strcmp(way, "perror") == 0) {
        eat();
        perror("eat");
        exit(3);
    }
    if (strcmp(way, "calloc") == 0) {
        char *block;
        while ((block = calloc(1, 1 << 20)) != NULL)
            memset(block, 1, 1 << 20);
        fputs("cannot allocate memory\n", stderr);
        return 4;
    }
    if (strcmp(way, "abort") == 0) {
        eat();
        abort();
    }
    if (strcmp(way, "unchecked") == 0)
        for (;;)
            memset(malloc(1 << 20), 1, 1 << 20);
    if (strcmp(way, "threads") == 0)
        return start_threads();
    /* Twins: it recovers; it ends of something else. */
    if (strcmp(way, "recovers") == 0) {
        void *block = malloc((size_t)1 << 40);
        puts(block == NULL ? "did without" : "has it");
        return 0;
    }
    if (strcmp(way, "other") == 0) {
        void *volatile block = malloc((size_t)1 << 40);
        for (int i = 0; block == NULL && i < 100; i++)
            free(malloc(1 << 16));
        fputs("no such file\n", stderr);
        return 7;
    }
    if (strcmp(way, "starts") == 0)
        return start(words + 2);
    return 99;
}
