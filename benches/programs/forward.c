/* The least that a malloc in front of the C library's can do: call that, and look whether it gave null. */
#include <stdlib.h>

void *__libc_malloc(size_t bytes);
void *(*volatile forward_to)(size_t) = __libc_malloc;
volatile size_t refused;

EXPORTED void *malloc(size_t bytes) {
    void *block = forward_to(bytes);
    if (!block)
        refused = bytes;
    return block;
}
