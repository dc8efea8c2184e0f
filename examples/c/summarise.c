/*
 * Summarises a CSV of requests, all of it held in memory, within LIMIT:
 *
 *     cc -std=c99 -O2 -o summarise summarise.c $(pkg-config --cflags --libs oomguard)
 *     ./summarise 64Mi requests.csv
 *
 * Beside the rows it keeps a cache that it can do without. When an allocation is refused the cache goes, and the program
 * with it only if that was not enough: exit code 198, where its own `die` says 1.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <inttypes.h>
#include <oomguard.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct row {
    struct row *next;
    unsigned long millis;
    char text[];
};

/* What a row looks like on the screen: made again when it is asked for and gone. */
struct page {
    struct page *next;
    char text[480];
};

struct table {
    struct row *rows;
    unsigned long count;
};

/* Volatile, because a malloc may change it, which no compiler expects. */
static struct page *volatile cache;
static volatile unsigned cache_dropped;

/* Called in the midst of a malloc. `cache` is whole whenever this program calls malloc: see remember(). */
static void drop_cache(void *unused)
{
    (void)unused;
    cache_dropped += cache != NULL;
    while (cache != NULL) {
        struct page *page = cache;
        cache = page->next;
        free(page);
    }
}

/* Called when all is lost: no malloc, no stdio. */
static void last_words(void *table)
{
    unsigned long count = ((const struct table *)table)->count;
    char text[80];
    int length = snprintf(text, sizeof text, "summarise: memory ran out after %lu rows\n", count);
    if (length > 0 && write(STDERR_FILENO, text, (size_t)length) < 0)
        return; /* there is nobody left to tell */
}

static void *die(const char *what)
{
    fprintf(stderr, "summarise: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void *allocate(size_t size)
{
    void *memory = malloc(size);
    return memory != NULL ? memory : die("malloc");
}

static void remember(const char *line)
{
    struct page *page = allocate(sizeof *page);
    snprintf(page->text, sizeof page->text, "%.479s", line);
    page->next = cache; /* after the malloc, which may have dropped the cache */
    cache = page;
}

static void add(struct table *table, const char *line)
{
    size_t length = strlen(line) + 1;
    struct row *row = allocate(sizeof *row + length);
    const char *last = strrchr(line, ',');
    memcpy(row->text, line, length);
    row->millis = last != NULL ? strtoul(last + 1, NULL, 10) : 0;
    row->next = table->rows;
    table->rows = row;
    table->count++;
    remember(line);
}

int main(int argc, char **argv)
{
    static struct table table;
    struct oomguard_status status;
    unsigned long total = 0;
    char *line = NULL;
    size_t capacity = 0;
    FILE *input;

    if (argc != 3) {
        fprintf(stderr, "usage: summarise LIMIT INPUT\n");
        return 2;
    }
    if (oomguard_arm(argv[1]) != 0)
        die(argv[1]);
    if (oomguard_on_reclaim(drop_cache, NULL) != 0 || oomguard_on_exhausted(last_words, &table) != 0)
        die("callbacks");

    input = fopen(argv[2], "r");
    if (input == NULL)
        die(argv[2]);
    if (getline(&line, &capacity, input) < 0) /* the column names */
        die(argv[2]);
    while (getline(&line, &capacity, input) >= 0)
        add(&table, line);
    free(line);
    fclose(input);

    for (const struct row *row = table.rows; row != NULL; row = row->next)
        total += row->millis;
    printf("%lu requests, %lu ms\n", table.count, total);
    if (oomguard_status(&status, sizeof status) == 0 && status.limit != OOMGUARD_UNKNOWN)
        fprintf(stderr, "summarise: %" PRIu64 " of %" PRIu64 " MiB left, cache dropped %s\n", status.headroom >> 20,
                status.limit >> 20, cache_dropped > 0 ? "yes" : "no");
    return 0;
}
