// Ways for a C++ program; the argument says which.
#include <chrono>
#include <cstdlib>
#include <future>
#include <iostream>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

static volatile std::size_t much = std::size_t(1) << 30;

static void handle() {
    for (int i = 0; i < 200; i++) std::vector<char>(4000 + i).at(i) = 1;
}

static void refuse() {
    try { std::vector<char> block(much); std::_Exit(99); } catch (const std::bad_alloc &) {}
}

// What others allocate meanwhile is more than a program on its way out does.
static void among_others() {
    for (int i = 0; i < 2; i++) std::thread([] { for (;;) std::vector<char>(300000).at(7) = 1; }).detach();
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
}

int main(int, char **arguments) {
    std::string way = arguments[1];
    if (way == "uncaught") { std::vector<char> block(much); std::cout << block[1]; }
    if (way == "uncaught in noexcept") { [&]() noexcept { std::vector<char> block(much); std::cout << block[1]; }(); }
    if (way == "of a task, among others who work") {
        among_others();
        auto task = std::async(std::launch::async, [] { std::vector<char> block(much); return block[1]; });
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        return task.get();
    }
    if (way == "survives, another exception, among others who work") { among_others(); refuse(); throw std::runtime_error("another"); }
    if (way == "caught, exit") { try { std::vector<char> block(much); } catch (const std::bad_alloc &error) { std::cerr << error.what() << '\n'; return 1; } }
    if (way == "survives, own code") { refuse(); handle(); return 3; }
    if (way == "survives, another exception") { refuse(); throw std::runtime_error("another"); }
    if (way == "a pool of its own is used up") throw std::bad_alloc();
    if (way == "survives, and aborts while it does") {
        try { std::vector<char> block(much); } catch (const std::bad_alloc &) { handle(); std::abort(); }
    }
    if (way == "nothrow, null") { char *block = new (std::nothrow) char[much]; block[0] = 1; }
    return 99;
}
