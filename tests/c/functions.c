/* Every function of the header, its errors and its errno: functions MEASURE SOURCE, with what status has to say. */
#define _DEFAULT_SOURCE /* posix_memalign, reallocarray */
#include <errno.h>
#include <oomguard.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "line %d: %s (errno %d)\n", __LINE__, #condition, errno);                                  \
            exit(77);                                                                                                  \
        }                                                                                                              \
    } while (0)

#define FAILS(call, error) CHECK((errno = 0, (call)) == -1 && errno == (error))

/* Volatile, as the compiler takes malloc for a function that changes no variable. */
static char *volatile kept;
static volatile int given_back;

static void give_back(void *argument)
{
    CHECK(argument == &given_back);
    given_back++;
    errno = EDOM; /* the program's, but not the allocation's */
    free(kept);
    kept = NULL;
}

static void nothing(void *argument)
{
    (void)argument;
}

int main(int argc, char **argv)
{
    struct oomguard_status status, before;
    int registered;
    volatile size_t many = (size_t)-1; /* more than the compiler lets pass */
    unsigned char *bytes = (unsigned char *)&status;
    void *volatile huge; /* or the compiler leaves out the malloc that is only freed again */

    CHECK(argc == 3);
    CHECK(strcmp(oomguard_version(), OOMGUARD_VERSION) == 0);

    FAILS(oomguard_status(NULL, sizeof status), EINVAL);
    FAILS(oomguard_status(&status, sizeof status.size - 1), EINVAL);
    FAILS(oomguard_on_reclaim(NULL, NULL), EINVAL);
    FAILS(oomguard_on_exhausted(NULL, NULL), EINVAL);

    if (strcmp(argv[2], "environment") != 0) {
        FAILS(oomguard_arm(NULL), EINVAL);
        FAILS(oomguard_arm(""), EINVAL);
        FAILS(oomguard_arm("plenty"), EINVAL);
        CHECK(oomguard_status(&before, sizeof before) == 0);
        FAILS(oomguard_arm("4096"), ENOMEM);
        CHECK(oomguard_status(&status, sizeof status) == 0);
        CHECK(status.limit == before.limit && status.source == before.source);
    }

    errno = 1234;
    CHECK(oomguard_arm("256Mi") == 0);
    CHECK(oomguard_status(&status, sizeof status) == 0 && errno == 1234);
    CHECK(status.size == sizeof status && status.armed == 1 && status.reserved == 0 && status.refusals == 0);
    CHECK(status.measure == (strcmp(argv[1], "data") == 0 ? OOMGUARD_DATA : OOMGUARD_ADDRESS_SPACE));
    if (strcmp(argv[2], "environment") == 0) {
        CHECK(status.source == OOMGUARD_SOURCE_ENVIRONMENT && status.limit == (uint64_t)1 << 30);
        CHECK(oomguard_arm("128Mi") == 0); /* nothing changes */
        CHECK(oomguard_status(&status, sizeof status) == 0 && status.limit == (uint64_t)1 << 30);
        CHECK(oomguard_set_limit("512Mi") == 0); /* whatever the environment says */
        CHECK(oomguard_status(&status, sizeof status) == 0 && status.limit == (uint64_t)512 << 20);
        CHECK(status.source == OOMGUARD_SOURCE_SOURCE && oomguard_set_limit("1Gi") == 0);
        CHECK(oomguard_status(&status, sizeof status) == 0 && status.limit == (uint64_t)1 << 30);
    } else {
        CHECK(status.source == OOMGUARD_SOURCE_SOURCE && status.limit == (uint64_t)256 << 20);
        CHECK(oomguard_arm("300Mi") == 0); /* up again */
        CHECK(oomguard_status(&status, sizeof status) == 0 && status.limit == (uint64_t)300 << 20);
    }
    FAILS(oomguard_set_limit("plenty"), EINVAL);
    FAILS(oomguard_set_limit("4096"), ENOMEM);
    oomguard_task("job 17");
    oomguard_task(NULL);
    CHECK(status.in_use > 0 && status.in_use < status.limit && status.headroom == status.limit - status.in_use);

    /* No more is written than there is room for. */
    memset(&status, 0xAA, sizeof status);
    CHECK(oomguard_status(&status, offsetof(struct oomguard_status, in_use)) == 0);
    CHECK(status.size == offsetof(struct oomguard_status, in_use));
    CHECK(bytes[offsetof(struct oomguard_status, in_use)] == 0xAA && bytes[sizeof status - 1] == 0xAA);

    /* A refusal that a callback cures, and one that nothing can. */
    CHECK(oomguard_on_reclaim(give_back, (void *)&given_back) == 0);
    for (registered = 1; registered < OOMGUARD_CALLBACKS_MAX; registered++)
        CHECK(oomguard_on_reclaim(nothing, NULL) == 0);
    FAILS(oomguard_on_reclaim(nothing, NULL), ENOSPC);
    CHECK(oomguard_status(&status, sizeof status) == 0);
    kept = malloc((size_t)status.headroom / 4 * 3);
    CHECK(kept != NULL);
    huge = malloc((size_t)status.headroom / 2);
    CHECK(huge != NULL);
    CHECK(given_back == 1 && kept == NULL);
    free(huge);
    kept = malloc((size_t)status.headroom / 4 * 3);
    CHECK(kept != NULL);
    CHECK(posix_memalign((void **)&huge, 64, (size_t)status.headroom / 2) == 0);
    CHECK(given_back == 2 && errno != EDOM);
    free(huge);
    huge = reallocarray(NULL, 10, 10);
    CHECK(huge != NULL);
    errno = 0;
    CHECK(reallocarray(huge, many, 2) == NULL && errno == ENOMEM);
    free(huge);
    CHECK(oomguard_status(&status, sizeof status) == 0 && status.refusals == 0);
    errno = 0;
    huge = malloc((size_t)status.limit);
    CHECK(huge == NULL && errno == ENOMEM && given_back == 3);
    CHECK(oomguard_status(&status, sizeof status) == 0 && status.refusals == 1);

    printf("%s done\n", oomguard_version());
    return 0;
}
