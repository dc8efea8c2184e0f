/* Takes and gives back blocks of many sizes: `alloc ROUNDS`. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIVE 4096

static uint64_t state = 1;
static uint64_t draw(void) {
    state ^= state << 13; state ^= state >> 7; state ^= state << 17;
    return state;
}

int main(int argc, char **argv) {
    static char *live[LIVE];
    unsigned long rounds = argc > 1 ? strtoul(argv[1], 0, 10) : 1000000, sum = 0;
    for (unsigned long i = 0; i < rounds; i++) {
        uint64_t number = draw(), at = number % LIVE, size;
        /* Most are small; one in 16 has up to 64 KiB, and one in 2048 up to 2 MiB. */
        if (number >> 12 & 15) size = 16 + (number >> 20) % 1000;
        else if (number >> 16 & 127) size = 1024 + (number >> 24) % (63 << 10);
        else size = 65536 + (number >> 24) % (2 << 20);
        free(live[at]);
        live[at] = malloc(size);
        if (!live[at]) return 9;
        memset(live[at], 1, size < 4096 ? size : 4096);
        sum += (unsigned char)live[at][size / 2];
    }
    printf("%lu\n", sum);
    return 0;
}
