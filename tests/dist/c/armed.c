/* The same with a limit of its own, which it asks the library for. */
#include <oomguard.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    const size_t block = 1 << 20;
    oomguard_arm("64MiB");
    for (;;) {
        void *volatile memory = malloc(block);
        if (memory == NULL) abort();
        memset(memory, 1, block);
    }
}
