/* Hoards until there is no more, and does not cope. It names nothing of oomguard's: being linked is enough. */
#include <stdlib.h>
#include <string.h>

int main(void) {
    const size_t block = 1 << 20;
    for (;;) {
        void *volatile memory = malloc(block);
        if (memory == NULL) abort();
        memset(memory, 1, block);
    }
}
