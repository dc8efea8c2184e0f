/* Preloaded behind the shim: counts what reaches the C library's allocator, in a file that outlives the process. Only
 * requests of the size that the test has refused are left out. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile unsigned long *counter;
static void *(*real_malloc)(size_t);
static void *(*real_calloc)(size_t, size_t);
static void *(*real_realloc)(void *, size_t);

static void count(size_t bytes) {
    if (counter != NULL && bytes < (size_t)1 << 30) (*counter)++;
    /* The refusal starts the count. */
    if (counter != NULL && bytes == (size_t)1 << 30) *counter = 1000;
}

__attribute__((constructor)) static void begin(void) {
    real_malloc = dlsym(RTLD_NEXT, "malloc");
    real_calloc = dlsym(RTLD_NEXT, "calloc");
    real_realloc = dlsym(RTLD_NEXT, "realloc");
    int fd = open(getenv("COUNTER"), O_RDWR | O_CREAT, 0600);
    if (ftruncate(fd, 4096) == 0) counter = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
}

void *malloc(size_t bytes) { count(bytes); if (!real_malloc) begin(); return real_malloc(bytes); }
void *calloc(size_t number, size_t size) { count(number * size); if (!real_calloc) begin(); return real_calloc(number, size); }
void *realloc(void *block, size_t bytes) { count(bytes); if (!real_realloc) begin(); return real_realloc(block, bytes); }
