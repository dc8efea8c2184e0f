// Preloaded into a real program by tests/programs/run: meets an ENOMEM at the start of main and gets over it, as a
// library of the program might. BEFORE says which: `refused` (more than the limit), or `benign` (no limit explains it).
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

static void *volatile block;

static void before(void) {
  const char *which = getenv("BEFORE");
  if (which && strcmp(which, "refused") == 0) {
    struct rlimit data, space;
    // The launcher is one of the programs that this is loaded into, and has no limit.
    if (getrlimit(RLIMIT_DATA, &data) == 0 && getrlimit(RLIMIT_AS, &space) == 0 &&
        (data.rlim_cur != RLIM_INFINITY || space.rlim_cur != RLIM_INFINITY)) {
      block = malloc((size_t)20 << 30);
      free(block);
    }
  }
  if (which && strcmp(which, "benign") == 0) {
    void *huge = mmap(NULL, (size_t)64 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (huge != MAP_FAILED)
      munmap(huge, (size_t)64 << 20);
    // A hole in the middle of the range.
    char *range = mmap(NULL, 3 * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (range != MAP_FAILED) {
      munmap(range + 4096, 4096);
      mprotect(range, 3 * 4096, PROT_READ | PROT_WRITE);
      munmap(range, 4096);
      munmap(range + 2 * 4096, 4096);
    }
    // No process has so much address space.
    size_t impossible = SIZE_MAX / 2;
    block = malloc(impossible);
    free(block);
  }
}

static int (*main_of_program)(int, char **, char **);

static int main_after(int argc, char **argv, char **envp) {
  before();
  return main_of_program(argc, argv, envp);
}

// Not in a constructor: the guard's own has to run first.
int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*rtld_fini)(void), void *stack_end) {
  int (*start)(int (*)(int, char **, char **), int, char **, void (*)(void), void (*)(void), void (*)(void), void *) =
      dlsym(RTLD_NEXT, "__libc_start_main");
  main_of_program = main;
  return start(main_after, argc, argv, init, fini, rtld_fini, stack_end);
}
