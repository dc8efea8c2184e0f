/* A library that defines the calls which map memory by syscall(2), as tcmalloc (gperftools) does to see them all. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

void *mmap(void *at, size_t bytes, int protection, int flags, int fd, long offset) {
    return (void *)syscall(SYS_mmap, at, bytes, protection, flags, fd, offset);
}

void *mmap64(void *at, size_t bytes, int protection, int flags, int fd, long offset) {
    return mmap(at, bytes, protection, flags, fd, offset);
}

void *mremap(void *at, size_t before, size_t bytes, int flags, ...) {
    va_list list;
    va_start(list, flags);
    void *to = va_arg(list, void *);
    va_end(list);
    return (void *)syscall(SYS_mremap, at, before, bytes, flags, to);
}

int mprotect(void *at, size_t bytes, int protection) { return syscall(SYS_mprotect, at, bytes, protection); }
