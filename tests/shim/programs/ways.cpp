// Ways for a C++ program; the argument says which.
#include <cstdlib>
#include <iostream>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

static volatile std::size_t much = std::size_t(1) << 30;

static void handle() {
    for (int i = 0; i < 200; i++) std::vector<char>(4000 + i).at(i) = 1;
}

static void refuse() {
    try { std::vector<char> block(much); std::_Exit(99); } catch (const std::bad_alloc &) {}
}

int main(int, char **arguments) {
    std::string way = arguments[1];
    if (way == "uncaught") { std::vector<char> block(much); std::cout << block[1]; }
    if (way == "uncaught in noexcept") { [&]() noexcept { std::vector<char> block(much); std::cout << block[1]; }(); }
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
