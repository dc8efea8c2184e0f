// Ways of a C++ program to meet the end of its memory: `eat WAY [CODE]`.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <list>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

using Block = std::vector<char>;

[[noreturn]] static void eat()
{
    std::list<Block> held;
    for (;;)
        held.emplace_back(64 << 10, '\7');
}

static unsigned long work()
{
    std::map<std::string, Block> table;
    for (int i = 0; i < 4000; i++) {
        table[std::to_string(i % 100)] = Block(16 << 10, static_cast<char>(i));
    }
    unsigned long sum = 0;
    for (const auto &[name, block] : table)
        sum += name.size() + static_cast<unsigned char>(block[0]);
    return sum;
}

/* One more thread, which uses some of its stack, says so, and waits. */
static void start_thread(std::list<std::thread> &threads)
{
    static std::atomic<bool> used;
    used = false;
    threads.emplace_back([] {
        volatile char stack[1 << 20];
        for (std::size_t at = 0; at < sizeof stack; at += 4096)
            stack[at] = 7;
        used = true;
        for (;;)
            pause();
    });
    while (!used)
        std::this_thread::yield();
}

static void eat_noexcept() noexcept
{
    eat();
}

int main(int argc, char **argv)
{
    const std::string way = argc > 1 ? argv[1] : "";
    const int code = argc > 2 ? std::atoi(argv[2]) : 0;
    std::printf("pid %ld\n", static_cast<long>(getpid()));
    std::fflush(stdout);

    if (way == "uncaught") {
        eat();
    } else if (way == "uncaught-vector") {
        std::vector<std::string> lines;
        for (;;)
            lines.emplace_back(100, 'x');
    } else if (way == "uncaught-array") {
        // More than an address can be: bad_array_new_length or bad_alloc, as the library likes.
        volatile std::size_t count = ~std::size_t{0} / 2;
        std::unique_ptr<long[]> block(new long[count]);
        return block[0] != 0;
    } else if (way == "uncaught-thread") {
        std::thread([] { eat(); }).join();
    } else if (way == "noexcept") {
        eat_noexcept();
    } else if (way == "threads") {
        std::list<std::thread> threads;
        for (;;)
            start_thread(threads);
    } else if (way == "nothrow") {
        for (;;) {
            char *block = new (std::nothrow) char[64 << 10];
            std::memset(block, 7, 64 << 10);
        }
    } else if (way == "caught") {
        try {
            eat();
        } catch (const std::exception &error) {
            std::cerr << "eat: " << error.what() << '\n';
            return 1;
        }
    } else if (way == "caught-silent") {
        try {
            eat();
        } catch (const std::bad_alloc &) {
            return 1;
        }
    } else if (way == "recover") {
        try {
            eat();
        } catch (const std::bad_alloc &) {
        }
        std::cout << "recovered " << work() << '\n';
        return code;
    } else if (way == "recover-handler") {
        // The new-handler gives back a ballast, once.
        static char *ballast = new char[16 << 20];
        std::memset(ballast, 7, 16 << 20);
        std::set_new_handler([] {
            if (!ballast)
                throw std::bad_alloc();
            delete[] ballast;
            ballast = nullptr;
        });
        std::list<Block> held;
        while (ballast)
            held.emplace_back(64 << 10, '\7');
        std::cout << "recovered " << work() << '\n';
        return code;
    } else if (way == "own") {
        std::cout << "own " << work() << '\n';
        return code;
    } else {
        std::cerr << "eat: no such way: " << way << '\n';
    }
    return 77;
}
