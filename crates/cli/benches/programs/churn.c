/* `churn SEED`: takes and gives back blocks of up to 2 MiB at random, until it is killed. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    unsigned random = argc > 1 ? atoi(argv[1]) * 2654435761u + 1 : 1;
    char *blocks[8] = {0};
    for (;;) {
        random = random * 1664525 + 1013904223;
        int place = random >> 29;
        size_t bytes = ((random >> 8) & 31) << 16;
        free(blocks[place]);
        blocks[place] = malloc(bytes);
        if (blocks[place]) memset(blocks[place], 1, bytes);
        if (!((random >> 4) & 7)) usleep(100);
    }
}
