// A large block is refused where all else is mapped: small ones still have what the heap has at its end.

#include <stdlib.h>
#include <sys/mman.h>

static void map_the_rest(void) {
    while (mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED) {
    }
}

int main(void) {
    free(malloc(100));
    map_the_rest();
    if (malloc(1 << 20)) return 3;
    map_the_rest();
    for (int got = 0; got < 500; got++) {
        if (!malloc(100)) return 4;
    }
    return 0;
}
