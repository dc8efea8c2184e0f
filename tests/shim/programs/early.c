/* Memory at times when little else works: before main, in a signal handler, in threads that fork, and with libraries
 * that bring thread-local storage of their own, loaded while memory is being refused. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile size_t much = (size_t)1 << 30;
static void *early;

__attribute__((constructor(101))) static void before_main(void) {
    early = malloc(100);
    early = realloc(early, 10000);
    if (early == NULL || malloc(much) != NULL) _exit(99);
}

static volatile int handled;
static void on_signal(int signal) {
    (void)signal;
    if (malloc(much) == NULL) handled++;
}

static void *fork_and_allocate(void *argument) {
    for (int i = 0; i < 50; i++) {
        pid_t child = fork();
        if (child == 0) {
            void *block = malloc(5000);
            _exit(block != NULL && malloc(much) == NULL ? 0 : 1);
        }
        int status;
        if (waitpid(child, &status, 0) != child) _exit(98);
        free(malloc(300));
    }
    return argument;
}

static void *refuse(void *argument) {
    if (malloc(much) != NULL) _exit(97);
    return argument;
}

int main(int count, char **arguments) {
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGUSR1, &action, NULL);
    for (int i = 0; i < 100; i++) {
        raise(SIGUSR1);
        free(malloc(1000));
    }
    if (handled != 100) return 96;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, fork_and_allocate, NULL);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    /* Each library is another module with thread-local storage; the thread's table of them is then out of date. */
    for (int i = 1; i < count; i++) {
        if (dlopen(arguments[i], RTLD_NOW | RTLD_LOCAL) == NULL) return 95;
        pthread_create(&threads[0], NULL, refuse, NULL);
        pthread_join(threads[0], NULL);
        refuse(NULL);
    }
    for (int i = 0; i < 1000; i++) free(malloc(i));
    free(early);
    puts("done");
    return 0;
}
