/* A job with an answer that can be checked: `job SHAPE KIB SEED WIDTH END`. It takes so much memory, writes a number of its own to each
   page, reads them all back, and prints their sum: the same for each shape. Built twice, as a dynamic and as a static program.
   Who is refused memory ends as END says: copes (prints "refused", exit code 3), aborts, or exits with 1 and a word. */
#define _GNU_SOURCE
#include <pthread.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define BLOCK_PAGES 24
#define COPED 3
#define LEFT 4

extern char **environ;
static const char *end;
static const char *self;
static uint64_t seed;

static uint64_t number(uint64_t page) {
    uint64_t z = seed + (page + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void cope(void) {
    static int has_said; /* of two threads one */
    if (__atomic_exchange_n(&has_said, 1, __ATOMIC_SEQ_CST)) pause();
    if (write(1, "refused\n", 8) < 0) _exit(9);
    _exit(COPED);
}

static void refused(void) {
    if (!strcmp(end, "copes")) cope();
    fprintf(stderr, "job: out of memory\n");
    if (!strcmp(end, "aborts")) abort();
    exit(1);
}

/* What another process of this job ended with. */
static void heed(int status) {
    if (status == 0) return;
    /* As a parent that copes; what one that was spawned has said of it was for us. */
    if (WIFEXITED(status) && (WEXITSTATUS(status) == 198 || WEXITSTATUS(status) == COPED)) cope();
    if (WIFEXITED(status)) _exit(WEXITSTATUS(status));
    fprintf(stderr, "job: a child ended by signal %d\n", WTERMSIG(status));
    if (WTERMSIG(status) == SIGKILL) _exit(LEFT);
    if (WTERMSIG(status) == SIGABRT) _exit(LEFT + 1);
    _exit(9);
}

static void fill(char *at, uint64_t first, uint64_t pages) {
    for (uint64_t i = 0; i < pages; i++) *(uint64_t *)(at + i * PAGE) = number(first + i);
}

/* Holds what it has for a while, once, so that others want theirs meanwhile. */
static void hold(void) {
    static int has_held;
    if (!__atomic_exchange_n(&has_held, 1, __ATOMIC_RELAXED)) usleep(50000 + number(3) % 450000);
}

static uint64_t sum_of(const char *at, uint64_t pages) {
    hold();
    uint64_t sum = 0;
    for (uint64_t i = 0; i < pages; i++) sum += *(const uint64_t *)(at + i * PAGE);
    return sum;
}

/* In blocks below the size from which malloc maps each. */
static uint64_t in_blocks(uint64_t first, uint64_t pages) {
    uint64_t count = (pages + BLOCK_PAGES - 1) / BLOCK_PAGES, sum = 0;
    char **blocks = malloc(count * sizeof *blocks);
    if (!blocks) refused();
    for (uint64_t b = 0; b < count; b++) {
        uint64_t from = b * BLOCK_PAGES, many = pages - from < BLOCK_PAGES ? pages - from : BLOCK_PAGES;
        blocks[b] = malloc(many * PAGE);
        if (!blocks[b]) refused();
        fill(blocks[b], first + from, many);
    }
    for (uint64_t b = 0; b < count; b++) {
        uint64_t from = b * BLOCK_PAGES, many = pages - from < BLOCK_PAGES ? pages - from : BLOCK_PAGES;
        sum += sum_of(blocks[b], many);
        free(blocks[b]);
    }
    free(blocks);
    return sum;
}

static uint64_t in_one(uint64_t first, uint64_t pages) {
    char *block = malloc(pages * PAGE + 1);
    if (!block) refused();
    fill(block, first, pages);
    uint64_t sum = sum_of(block, pages);
    free(block);
    return sum;
}

static char *map(uint64_t pages, int flags, int fd) {
    char *at = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (at == MAP_FAILED) refused();
    return at;
}

/* Mapped at once, used later and by and by. */
static uint64_t late(uint64_t pages) {
    char *at = map(pages, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    usleep(100000 + number(pages) % 600000);
    for (uint64_t from = 0; from < pages; from += 1024) {
        fill(at + from * PAGE, from, pages - from < 1024 ? pages - from : 1024);
        usleep(10000);
    }
    return sum_of(at, pages);
}

struct part { uint64_t first, pages, sum; };

static void *in_thread(void *argument) {
    struct part *part = argument;
    part->sum = in_blocks(part->first, part->pages);
    return NULL;
}

static struct part part_of(uint64_t pages, uint64_t width, uint64_t index) {
    uint64_t from = pages * index / width, to = pages * (index + 1) / width;
    return (struct part){from, to - from, 0};
}

static uint64_t threads(uint64_t pages, uint64_t width) {
    pthread_t thread[16];
    struct part part[16];
    uint64_t sum = 0;
    for (uint64_t i = 0; i < width; i++) {
        part[i] = part_of(pages, width, i);
        if (pthread_create(&thread[i], NULL, in_thread, &part[i])) refused();
    }
    for (uint64_t i = 0; i < width; i++) {
        pthread_join(thread[i], NULL);
        sum += part[i].sum;
    }
    return sum;
}

/* Children write to memory that all share. */
static uint64_t shared(uint64_t pages, uint64_t width) {
    char *at = map(pages, MAP_SHARED | MAP_ANONYMOUS, -1);
    for (uint64_t i = 0; i < width; i++) {
        pid_t pid = fork();
        if (pid < 0) refused();
        if (pid == 0) {
            struct part part = part_of(pages, width, i);
            fill(at + part.first * PAGE, part.first, part.pages);
            _exit(0);
        }
    }
    int status, worst = 0;
    while (wait(&status) > 0) worst = worst ? worst : status;
    heed(worst);
    return sum_of(at, pages);
}

static uint64_t in_memfd(uint64_t pages) {
    int fd = memfd_create("job", 0);
    if (fd < 0 || ftruncate(fd, pages * PAGE)) refused();
    char *at = map(pages, MAP_SHARED, fd);
    fill(at, 0, pages);
    return sum_of(at, pages);
}

/* Children write to half of what they share with their parent by fork(2), and so come to hold it themselves. */
static uint64_t forked(uint64_t pages, uint64_t width) {
    uint64_t half = pages / 2;
    char *at = map(half, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    fill(at, 0, half);
    int answers[2];
    if (pipe(answers)) _exit(9);
    for (uint64_t i = 0; i < width; i++) {
        pid_t pid = fork();
        if (pid < 0) refused();
        if (pid == 0) {
            struct part part = part_of(half, width, i);
            fill(at + part.first * PAGE, half + part.first, part.pages);
            uint64_t sum = sum_of(at + part.first * PAGE, part.pages);
            if (write(answers[1], &sum, sizeof sum) != sizeof sum) _exit(9);
            _exit(0);
        }
    }
    int status, worst = 0;
    while (wait(&status) > 0) worst = worst ? worst : status;
    heed(worst);
    uint64_t sum = sum_of(at, half), answer;
    for (uint64_t i = 0; i < width; i++) {
        if (read(answers[0], &answer, sizeof answer) != sizeof answer) _exit(9);
        sum += answer;
    }
    if (pages % 2) sum += in_one(2 * half, 1);
    return sum;
}

/* Others of its kind, started by posix_spawn(3), do a part each. */
static uint64_t spawned(uint64_t pages, uint64_t width) {
    int answers[16];
    for (uint64_t i = 0; i < width; i++) {
        int ends[2];
        if (pipe(ends)) _exit(9);
        struct part part = part_of(pages, width, i);
        char shape[64], kib[32], of[32];
        snprintf(shape, sizeof shape, "part:%llu", (unsigned long long)part.first);
        snprintf(kib, sizeof kib, "%llu", (unsigned long long)part.pages * 4);
        snprintf(of, sizeof of, "%llu", (unsigned long long)seed);
        char *words[] = {(char *)self, shape, kib, of, "1", (char *)end, NULL};
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
        posix_spawn_file_actions_addclose(&actions, ends[0]);
        pid_t pid;
        if (posix_spawn(&pid, self, &actions, NULL, words, environ)) refused();
        posix_spawn_file_actions_destroy(&actions);
        close(ends[1]);
        answers[i] = ends[0];
    }
    int status, worst = 0;
    while (wait(&status) > 0) worst = worst ? worst : status;
    heed(worst);
    uint64_t sum = 0;
    for (uint64_t i = 0; i < width; i++) {
        char text[64] = {0};
        if (read(answers[i], text, sizeof text - 1) <= 0) _exit(9);
        sum += strtoull(text + 4, NULL, 16);
    }
    return sum;
}

/* Takes and gives back, before it needs it all. */
static uint64_t churn(uint64_t pages) {
    for (uint64_t round = 0; round < 4; round++) {
        uint64_t some = 1 + number(round) % pages;
        if (round % 2) in_one(0, some); else in_blocks(0, some);
    }
    return in_one(0, pages);
}

int main(int argc, char **argv) {
    if (argc < 6) return 9;
    const char *shape = argv[1];
    uint64_t pages = strtoull(argv[2], NULL, 10) / 4, width = strtoull(argv[4], NULL, 10), sum = 0;
    seed = strtoull(argv[3], NULL, 10);
    end = argv[5];
    self = argv[0];
    if (!strcmp(shape, "blocks")) sum = in_blocks(0, pages);
    else if (!strcmp(shape, "one")) sum = in_one(0, pages);
    else if (!strcmp(shape, "late")) sum = late(pages);
    else if (!strcmp(shape, "threads")) sum = threads(pages, width);
    else if (!strcmp(shape, "shared")) sum = shared(pages, width);
    else if (!strcmp(shape, "memfd")) sum = in_memfd(pages);
    else if (!strcmp(shape, "forked")) sum = forked(pages, width);
    else if (!strcmp(shape, "spawned")) sum = spawned(pages, width);
    else if (!strcmp(shape, "churn")) sum = churn(pages);
    else if (!strncmp(shape, "part:", 5)) sum = in_blocks(strtoull(shape + 5, NULL, 10), pages);
    else if (!strcmp(shape, "exec")) {
        /* Half of it, and the rest as another program. */
        char rest[64];
        uint64_t half = pages / 2;
        snprintf(rest, sizeof rest, "rest:%llu:%llu", (unsigned long long)half, (unsigned long long)in_blocks(0, half));
        char *words[] = {argv[0], rest, argv[2], argv[3], argv[4], argv[5], NULL};
        execv(argv[0], words);
        return 9;
    } else if (!strncmp(shape, "rest:", 5)) {
        char *after;
        uint64_t half = strtoull(shape + 5, &after, 10);
        sum = strtoull(after + 1, NULL, 10) + in_blocks(half, pages - half);
    } else return 9;
    printf("sum %llx\n", (unsigned long long)sum);
    return fflush(stdout) ? 9 : 0;
}
