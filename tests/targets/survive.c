/* Uses what the library stands in front of, is refused something, copes, and ends well. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void *work(void *argument) {
    free(malloc(100));
    return argument;
}

int main(void) {
    char *block = malloc(100);
    pthread_t thread;
    volatile size_t far_too_much = (size_t)1 << 62;
    if (!block || !(block = realloc(block, 10000)))
        return 1;
    memset(block, 1, 10000);
    if (pthread_create(&thread, NULL, work, NULL) || pthread_join(thread, NULL))
        return 1;
    free(block);
    if (malloc(far_too_much))
        return 1;
    void *map = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || munmap(map, 1 << 20))
        return 1;
    return 0;
}
