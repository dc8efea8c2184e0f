// Programs that are hard to judge: `adversary WAY [CODE]`. The first letter of a way tells what is true: `r-` was refused
// memory, got over it, and dies of something else; `e-` dies of the refusal, and hides it.
#include <cassert>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <new>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

static std::vector<char *> held;

static void fill()
{
    held.reserve(1 << 16);
    for (;;) {
        char *block = static_cast<char *>(std::malloc(64 << 10));
        if (!block)
            return;
        std::memset(block, 7, 64 << 10);
        held.push_back(block);
    }
}

static void release()
{
    for (char *block : held)
        std::free(block);
    held.clear();
}

// Fills the heap, and gives all of it back.
static void fill_and_release()
{
    fill();
    release();
}

// 128 MiB of allocations, in small pieces.
static void work()
{
    unsigned sum = 0;
    for (int i = 0; i < 2000; i++) {
        char *block = static_cast<char *>(std::malloc(64 << 10));
        if (!block)
            _exit(77);
        std::memset(block, i, 64 << 10);
        sum += static_cast<unsigned char>(block[i]);
        std::free(block);
    }
    std::printf("worked %u\n", sum);
}

// Work in memory that is there already.
static void work_in_place()
{
    for (int i = 0; i < 200; i++)
        for (char *block : held)
            block[i] = static_cast<char>(i);
}

static void unrelated_message() { std::fputs("adversary: input.csv: no such file\n", stderr); }

struct Node {
    long value;
    Node *next;
};

static void read_through_null()
{
    Node *volatile node = nullptr;
    std::printf("%p\n", static_cast<void *>(node->next));
}

[[noreturn]] static void unrelated_assertion()
{
    volatile int rows = 3;
    assert(rows == 4);
    _exit(77);
}

int main(int argc, char **argv)
{
    const std::string way = argc > 1 ? argv[1] : "";
    const int code = argc > 2 ? std::atoi(argv[2]) : 3;
    std::printf("pid %ld\n", static_cast<long>(getpid()));
    std::fflush(stdout);

    // --- something else --------------------------------------------------------------------------------------------
    if (way == "r-huge-exit") {
        // One absurd request, answered by a smaller one.
        if (std::malloc(static_cast<std::size_t>(1) << 40))
            return 77;
        unrelated_message();
        return code;
    } else if (way == "r-exit") {
        fill_and_release();
        unrelated_message();
        return code;
    } else if (way == "r-work-exit") {
        fill_and_release();
        work();
        return code;
    } else if (way == "r-full-exit") {
        fill();
        unrelated_message();
        return code;
    } else if (way == "r-full-work-exit") {
        fill();
        work_in_place();
        unrelated_message();
        return code;
    } else if (way == "r-part-work-exit") {
        fill();
        for (int i = 0; i < 100; i++) {
            std::free(held.back());
            held.pop_back();
        }
        work();
        return code;
    } else if (way == "r-logged-work-exit") {
        fill();
        write(2, "adversary: out of memory, dropping the cache\n", 45);
        release();
        work();
        return code;
    } else if (way == "r-logged-exit") {
        fill();
        write(2, "adversary: out of memory, dropping the cache\n", 45);
        release();
        unrelated_message();
        return code;
    } else if (way == "r-abort") {
        fill_and_release();
        std::abort();
    } else if (way == "r-work-abort") {
        fill_and_release();
        work();
        std::abort();
    } else if (way == "r-assert") {
        fill_and_release();
        unrelated_assertion();
    } else if (way == "r-full-assert") {
        fill();
        unrelated_assertion();
    } else if (way == "r-throw") {
        fill_and_release();
        throw std::runtime_error("input.csv: no such file");
    } else if (way == "r-full-throw") {
        fill();
        for (int i = 0; i < 4; i++) {
            std::free(held.back());
            held.pop_back();
        }
        throw std::runtime_error("input.csv: no such file");
    } else if (way == "r-null") {
        fill_and_release();
        read_through_null();
    } else if (way == "r-work-null") {
        fill_and_release();
        work();
        read_through_null();
    } else if (way == "r-full-null") {
        fill();
        work_in_place();
        read_through_null();
    } else if (way == "r-full-term") {
        fill();
        raise(SIGTERM);
    } else if (way == "r-quota") {
        // No refusal at all: a quota of the program's own.
        write(2, "adversary: out of memory: quota of 16 jobs reached\n", 51);
        return code;
    }

    // --- memory ----------------------------------------------------------------------------------------------------
    if (way == "e-release-perror") {
        fill();
        int error = errno;
        release();
        errno = error;
        std::perror("malloc");
        return code;
    } else if (way == "e-release-fprintf") {
        fill_and_release();
        std::fprintf(stderr, "%s: cannot allocate %d bytes\n", argv[0], 64 << 10);
        return code;
    } else if (way == "e-release-write") {
        fill_and_release();
        write(2, "adversary: out of memory\n", 25);
        return code;
    } else if (way == "e-release-silent") {
        fill_and_release();
        return code;
    } else if (way == "e-cleanup") {
        // What a tidy program does: gives back, saves its state, says so in a file.
        fill_and_release();
        for (int i = 0; i < 100; i++) {
            std::string line(1000, 'x');
            if (FILE *file = std::fopen("state", "a")) {
                std::fputs(line.c_str(), file);
                std::fclose(file);
            }
        }
        return code;
    } else if (way == "e-retries") {
        // Tries again ten times, and gives up.
        for (int i = 0; i < 10; i++) {
            fill();
            usleep(1000);
        }
        return code;
    } else if (way == "e-smaller") {
        // Asks for half as much each time, and gives up in the end.
        for (std::size_t size = 256 << 20; size >= 16; size /= 2)
            while (void *block = std::malloc(size))
                std::memset(block, 7, size);
        return code;
    } else if (way == "e-rethrown") {
        // The exception travels as another one.
        try {
            try {
                std::vector<std::vector<char>> all;
                for (;;)
                    all.emplace_back(64 << 10);
            } catch (const std::bad_alloc &error) {
                throw std::runtime_error(std::string("job failed: ") + error.what());
            }
        } catch (const std::runtime_error &error) {
            std::fputs(error.what(), stderr);
            return code;
        }
    } else if (way == "e-large-silent") {
        // One request for more than the limit, and no word about it.
        if (!std::malloc(100 << 20))
            return code;
    } else if (way == "e-large-unchecked") {
        static_cast<char *>(std::malloc(100 << 20))[0] = 7;
    } else if (way == "e-full-exit") {
        fill();
        return code;
    } else if (way == "e-assert") {
        fill();
        void *block = std::malloc(64 << 10);
        assert(block != nullptr);
        return 77;
    }
    return 77;
}
