/* Does not look at what it got. */
#include <stdlib.h>

int main(void) {
    volatile size_t far_too_much = (size_t)1 << 38;
    volatile char *block = malloc(far_too_much);
    block[0] = 1;
    return 3;
}
