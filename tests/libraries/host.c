/* A host of libraries. Its arguments are what it does, one after the other. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "oomguard.h"

#define BROKEN 77

static const char *path;
static void *handle;
static uint64_t (*limit)(void);
static void (*hoard)(uint64_t);
static _Bool (*recovers)(void);
static int (*status)(void *, size_t);

static void must(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "host: %s: %s\n", what, dlerror());
        _exit(BROKEN);
    }
}

static void open_library(int flags)
{
    handle = dlopen(path, flags);
    must(handle != NULL, "dlopen");
    limit = (uint64_t (*)(void))dlsym(handle, "guarded_limit");
    hoard = (void (*)(uint64_t))dlsym(handle, "guarded_hoard");
    recovers = (_Bool (*)(void))dlsym(handle, "guarded_recovers");
    status = (int (*)(void *, size_t))dlsym(handle, "oomguard_status");
}

static void *open_in_thread(void *unused)
{
    open_library(RTLD_NOW | RTLD_LOCAL);
    return unused;
}

static void *work(void *unused)
{
    void *block;
    while ((block = malloc(10000))) {
        free(block);
        usleep(1000);
    }
    must(0, "malloc in a thread");
    return unused;
}

static void act(const char *action, const char *argument, int *used);

static void in_child(const char *action, const char *argument, int *used)
{
    int ended;
    pid_t child = fork();
    if (child == 0) {
        act(action, argument, used);
        _exit(BROKEN);
    }
    must(waitpid(child, &ended, 0) == child, "waitpid");
    printf("%d\n", WIFSIGNALED(ended) ? 128 + WTERMSIG(ended) : WEXITSTATUS(ended));
    *used = 1;
}

static void act(const char *action, const char *argument, int *used)
{
    struct rlimit rlimit;
    pthread_t thread;
    const char *number = argument ? argument : "";

    *used = 0;
    if (!strcmp(action, "open"))
        open_library(RTLD_NOW | RTLD_LOCAL);
    else if (!strcmp(action, "open-global"))
        open_library(RTLD_LAZY | RTLD_GLOBAL);
    else if (!strcmp(action, "open-in-thread")) {
        must(!pthread_create(&thread, NULL, open_in_thread, NULL), "pthread_create");
        must(!pthread_join(thread, NULL), "pthread_join");
    } else if (!strcmp(action, "threads")) {
        for (int i = 0; i < 4; i++)
            must(!pthread_create(&thread, NULL, work, NULL), "pthread_create");
    } else if (!strcmp(action, "close"))
        must(!dlclose(handle), "dlclose");
    else if (!strcmp(action, "fill")) {
        size_t bytes = (size_t)atoi(number) << 20;
        must(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED, "mmap");
        *used = 1;
    } else if (!strcmp(action, "rlimit")) {
        getrlimit(RLIMIT_AS, &rlimit);
        printf("%lld\n", rlimit.rlim_cur == RLIM_INFINITY ? 0LL : (long long)rlimit.rlim_cur);
    } else if (!strcmp(action, "limit")) {
        struct oomguard_status now = {0};
        if (limit)
            now.limit = limit();
        else if (status(&now, sizeof now))
            now.limit = 0;
        printf("%llu\n", (unsigned long long)now.limit);
    } else if (!strcmp(action, "hoard")) {
        hoard((uint64_t)atoi(number) << 20);
        *used = 1;
    } else if (!strcmp(action, "recover"))
        must(recovers(), "recovers");
    else if (!strcmp(action, "fork"))
        in_child(argument, NULL, used);
    else if (!strcmp(action, "exit-3"))
        exit(3);
    else if (!strcmp(action, "_exit-4"))
        _exit(4);
    else if (!strcmp(action, "abort"))
        abort();
    else if (!strcmp(action, "segv"))
        *(volatile int *)8 = 1;
    else
        must(0, action);
}

int main(int argc, char **argv)
{
    int used;
    setvbuf(stdout, NULL, _IONBF, 0);
    path = argv[1];
    for (int i = 2; i < argc; i++) {
        act(argv[i], argv[i + 1], &used);
        i += used;
    }
    return 0;
}
