/*
 * oomguard 0.1.0: run out of memory on your own terms.
 *
 * This file is the manual for C and C++ (C99, C++11 and later). The library gives a process a memory limit of its own,
 * below the container's. When an allocation is refused at that limit and the program does not survive it, the process
 * leaves with exit code 198 and a report, before the kernel kills the whole container with SIGKILL.
 *
 *     cc program.c $(pkg-config --cflags --libs oomguard)              linked
 *     LD_PRELOAD=liboomguard.so ./program                              preloaded, nothing compiled anew
 *     oomguard run --limit 512Mi -- ./program                          preloaded by the launcher
 *
 * Linked or preloaded, it is armed before main(): the environment (below) is read, the limit is looked up and set.
 * A program that wants nothing more calls no function at all. Whoever links a library that is not called has to say
 * so to the linker: `-Wl,--no-as-needed -loomguard`, as oomguard.pc does.
 *
 * liboomguard.a is linked in place of the shared library by its path. In a fully static program (glibc) both libraries
 * define malloc and its kin, and the first is taken: `cc -static program.c liboomguard.a -Wl,-z,muldefs`. One that
 * starts threads needs glibc's pthread_create behind ours, too: `-Wl,-u,__pthread_create`.
 *
 * What counts as out of memory
 *     A refusal (NULL from malloc, std::bad_alloc, MAP_FAILED) is not yet a death: a program that copes with it goes on
 *     and keeps its own exit code. One that dies of it ends with 198 instead: abort(), a write through the NULL that it
 *     did not check, an uncaught std::bad_alloc, or a non-zero exit that the refusal led to. An assertion, another
 *     exception, a bug's SIGSEGV or an ordinary exit(1) stay what they are.
 *
 * Units
 *     All sizes are bytes. A limit is written as in the environment: "536870912", "512Mi" (powers of 1024), "512M"
 *     (powers of 1000), "1.5GiB", "80%" (of the container's limit), "auto" (90 % of the container's limit; none outside
 *     a container), or "off".
 *
 * Threads and signals
 *     Each function says what it may be called from. None of them aborts, throws or calls exit(). All set errno where
 *     they fail, and leave it alone where they do not.
 *
 * Where the library stands aside
 *     In a process with raised privileges (set-user-ID, file capabilities), and in a Rust program with
 *     oomguard::guard!(), whose own guard is in charge. It then passes every call on, and oomguard_arm() and
 *     oomguard_status() say ENOTSUP.
 */
#ifndef OOMGUARD_H
#define OOMGUARD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header; oomguard_version() gives the library's. */
#define OOMGUARD_VERSION "0.1.0"

/* ---- Exit codes --------------------------------------------------------------------------------------------------- */

/* Out of memory: the process reached its own limit and could not go on. OOMGUARD_EXIT_CODE replaces it. */
#define OOMGUARD_EXIT_OUT_OF_MEMORY 198

/* The guard could not do its job: wrong text, or a limit that cannot be set or is below what is in use at start. */
#define OOMGUARD_EXIT_CANNOT_GUARD 125

/* ---- Environment variables ---------------------------------------------------------------------------------------- */
/* For a parent that sets them for its children. Read once, before main(). A value that cannot be used ends the process
 * with 125 and one line on stderr that names the variable, the value, and what would be accepted. */

#define OOMGUARD_VARIABLE_LIMIT "OOMGUARD_LIMIT"           /* a limit; unset: what oomguard_arm() says, else "auto" */
#define OOMGUARD_VARIABLE_MEASURE "OOMGUARD_MEASURE"       /* "address-space", "data" or "resident"; unset: address-space, or what oomguard run says */
#define OOMGUARD_VARIABLE_EXIT_CODE "OOMGUARD_EXIT_CODE"   /* 1 to 255; unset: 198 */
#define OOMGUARD_VARIABLE_ON_REFUSAL "OOMGUARD_ON_REFUSAL" /* "deferred" or "immediate"; unset: deferred */
#define OOMGUARD_VARIABLE_VERDICT "OOMGUARD_VERDICT"       /* the evidence that suffices: "likely" or "exact"; unset: likely */
#define OOMGUARD_VARIABLE_STALL "OOMGUARD_STALL"           /* how long it may be refused and get nowhere: "10s", "off" */
#define OOMGUARD_VARIABLE_EXIT_ON_UNCAUGHT "OOMGUARD_EXIT_ON_UNCAUGHT" /* "1": what ends a thread ends the process */
#define OOMGUARD_VARIABLE_RESERVE "OOMGUARD_RESERVE"       /* bytes kept back for the last words; unset: 4Mi */
#define OOMGUARD_VARIABLE_REPORT "OOMGUARD_REPORT"         /* a file's path, or "fd:N"; unset: none */
#define OOMGUARD_VARIABLE_TOKEN "OOMGUARD_TOKEN"           /* text that the report repeats; unset: none */
#define OOMGUARD_VARIABLE_QUIET "OOMGUARD_QUIET"           /* "1": no lines on stderr when memory runs out */

/* ---- The report --------------------------------------------------------------------------------------------------- */
/* One JSON object on one line, written to OOMGUARD_REPORT with one write(2). Its keys: docs/report.md. A parent
 * should read it: a program may exit with 198 by itself, but only the guard repeats the parent's token. */

#define OOMGUARD_REPORT_VERSION 1       /* the value of its first key, "oomguard" */
#define OOMGUARD_REPORT_MAX_BYTES 2048  /* the longest line, newline included */
#define OOMGUARD_TOKEN_MAX_BYTES 64     /* the longest OOMGUARD_TOKEN */

/* ---- Defaults ----------------------------------------------------------------------------------------------------- */

#define OOMGUARD_AUTO_PERCENT 90                /* "auto" is this share of the container's limit */
#define OOMGUARD_DEFAULT_RESERVE_BYTES 4194304  /* kept back for the last words */
#define OOMGUARD_DEFAULT_STALL_MS 10000         /* processor time in a loop of refusals, before it ends */
#define OOMGUARD_LAST_WORDS_DEADLINE_MS 2000    /* what all callbacks of oomguard_on_exhausted() have together */
#define OOMGUARD_CALLBACKS_MAX 16               /* how many of each kind can be registered */

/* ---- Functions ---------------------------------------------------------------------------------------------------- */

/*
 * The version of the library that is loaded, as text: "0.1.0". Static: never freed, never NULL.
 *
 * From: anywhere, signal handlers included.
 */
const char *oomguard_version(void);

/*
 * What the source code says about the limit: text as under Units. Call it first thing in main(), before threads start.
 *
 * The environment has the last word: with OOMGUARD_LIMIT set this does nothing and returns 0. Without it, the limit
 * becomes what `limit` says, in place of the "auto" that held since before main(). A lower rlimit that the process was
 * started with always stays in force; oomguard_status() then names it as the source.
 *
 * Returns 0, or -1 with nothing changed and errno
 *     EINVAL   not a limit, or NULL
 *     ENOMEM   below what is in use already
 *     ENOTSUP  the library stands aside in this process
 *     EPERM or another of setrlimit(2)'s
 *
 * From: any thread. Not from a signal handler or a callback.
 */
int oomguard_arm(const char *limit);

/*
 * From now on the limit is `limit`, whatever the environment says: for a worker whose next job may have more or less than
 * the last. Otherwise as oomguard_arm(), and from the same places.
 */
int oomguard_set_limit(const char *limit);

/*
 * What the process is at: the report says it as its `token`, in the place of OOMGUARD_TOKEN. At most
 * OOMGUARD_TOKEN_MAX_BYTES are kept, as a copy. NULL: nothing in particular, and the token is the environment's again.
 *
 * From: any thread, signal handlers and callbacks included; two threads that call it at once leave some of both names.
 */
void oomguard_task(const char *name);

/* No limit, or not known. */
#define OOMGUARD_UNKNOWN UINT64_MAX

/* What the limit counts. */
#define OOMGUARD_ADDRESS_SPACE 1 /* every mapping: RLIMIT_AS */
#define OOMGUARD_DATA 2          /* private writable memory: RLIMIT_DATA */
#define OOMGUARD_RESIDENT 3      /* memory in use, swapped out included: RLIMIT_DATA, moved at each refusal */

/* Who set the limit. */
#define OOMGUARD_SOURCE_NONE 0        /* nobody: there is none */
#define OOMGUARD_SOURCE_ENVIRONMENT 1 /* OOMGUARD_LIMIT */
#define OOMGUARD_SOURCE_SOURCE 2      /* the source code: oomguard_arm() */
#define OOMGUARD_SOURCE_CGROUP 3      /* the container: "auto" */
#define OOMGUARD_SOURCE_RLIMIT 4      /* an rlimit that was there before, and is lower */
#define OOMGUARD_SOURCE_BUDGET 5      /* the budget that the process shares with others */
#define OOMGUARD_SOURCE_CHANGED 6     /* somebody moved the rlimit since the start */

struct oomguard_status {
    size_t size;       /* the bytes of this structure that the library filled in */
    uint64_t limit;    /* bytes; OOMGUARD_UNKNOWN: there is none */
    uint64_t in_use;   /* bytes of what the limit counts; OOMGUARD_UNKNOWN: there is no /proc */
    uint64_t headroom; /* bytes left until the limit; OOMGUARD_UNKNOWN: there is none */
    uint64_t refusals; /* allocations refused so far and passed on to the program */
    int measure;       /* OOMGUARD_ADDRESS_SPACE, OOMGUARD_DATA or OOMGUARD_RESIDENT */
    int source;        /* OOMGUARD_SOURCE_... */
    int armed;         /* 1: the guard holds this process; the function fails where it does not */
    int reserved;      /* 0 */
    uint64_t budget;   /* bytes that the process and others may have together; OOMGUARD_UNKNOWN: it shares none */
    uint64_t lease;    /* bytes that it may have of them for now; OOMGUARD_UNKNOWN: it shares none */
    uint64_t waiting_ms; /* how long a thread has been waiting until others leave room there; OOMGUARD_UNKNOWN: none waits */
};

/*
 * The limit and how near the process is to it. Give the size of your own structure, sizeof(struct oomguard_status):
 * no more than that is written, so a program compiled against another version of this header works with any library.
 *
 *     struct oomguard_status status;
 *     if (oomguard_status(&status, sizeof status) == 0 && status.limit != OOMGUARD_UNKNOWN) ...
 *
 * Returns 0, or -1 with errno
 *     EINVAL   `status` is NULL, or `size` has no room for the member `size`
 *     ENOTSUP  the guard is not armed: the library stands aside in this process
 *
 * Reads /proc/self/status: system calls, and no allocation. From: any thread, signal handlers and callbacks included.
 */
int oomguard_status(struct oomguard_status *status, size_t size);

/*
 * Have `callback(argument)` called when an allocation is refused, before the refusal is passed on: free something, and
 * the allocation is tried again.
 *
 * It runs in the thread whose allocation was refused, in the midst of that malloc(): a lock that the thread may hold
 * already must not be taken again, so prefer pthread_mutex_trylock(). It may allocate; what is refused to it is simply
 * refused. One thread at a time runs callbacks, in the order of registration. It must return: no longjmp, no exception.
 * Compilers take malloc for a function that changes no variable: what the callback changes and the code around a malloc
 * reads has to be volatile or atomic.
 *
 * Returns 0, or -1 with errno
 *     EINVAL   `callback` is NULL
 *     ENOSPC   there are OOMGUARD_CALLBACKS_MAX already
 *
 * There is no way to take one back, so `argument` and the code have to stay: not from a library that is closed again.
 * From: any thread. Not from a signal handler.
 */
int oomguard_on_reclaim(void (*callback)(void *argument), void *argument);

/*
 * Last words: have `callback(argument)` called once when the process has run out of memory, after the report is written
 * and before it exits.
 *
 * It runs in the thread that could not go on, in the midst of what it did (a malloc, an abort, a signal handler), with
 * OOMGUARD_RESERVE bytes to allocate from. Other threads go on until they need memory, and may hold any lock: prefer
 * write(2), fsync(2), unlink(2). All callbacks together have OOMGUARD_LAST_WORDS_DEADLINE_MS; then the process exits,
 * even if one of them hangs.
 *
 * Returns and from: as oomguard_on_reclaim().
 */
int oomguard_on_exhausted(void (*callback)(void *argument), void *argument);

#ifdef __cplusplus
}
#endif

#endif
