/* Threads that are refused and go on, so that counting begins and ends in two of them at once; then a refusal that is
 * plainly got over. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile int stop;

static void *hammer(void *unused) {
    while (!stop) {
        void *volatile block = malloc((size_t)1 << 40);
        free(block);
        for (int i = 0; i < 3; i++) {
            block = malloc(9 << 20);
            free(block);
        }
    }
    return unused;
}

int main(void) {
    pthread_t threads[8];
    for (int i = 0; i < 8; i++) pthread_create(&threads[i], NULL, hammer, NULL);
    usleep(30000);
    stop = 1;
    for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
    if (malloc((size_t)1 << 40) != NULL) return 99;
    for (int i = 0; i < 20000; i++) {
        void *volatile block = malloc(64 << 10);
        if (block != NULL) memset(block, 1, 64);
        free(block);
    }
    return 3;
}
