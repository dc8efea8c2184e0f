// Summarises a CSV of requests by service, all of it held in memory, within LIMIT:
//
//     c++ -std=c++11 -O2 -o summarise summarise.cpp $(pkg-config --cflags --libs oomguard)
//     ./summarise 64Mi requests.csv
//
// When an allocation is refused its cache goes; if that was not enough, the std::bad_alloc that nobody catches ends the
// program with 198 in place of an abort.
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <fstream>
#include <iostream>
#include <map>
#include <new>
#include <oomguard.h>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <unordered_map>

namespace {

struct Service {
    unsigned long requests = 0;
    unsigned long millis = 0;
    std::deque<std::string> rows; // a vector would ask for ever larger blocks, which a heap in pieces cannot give
};

// What was looked up once, by line. It can be dropped at any time but while it is being changed: the callback runs in the
// midst of an operator new, perhaps this cache's own. A std::mutex may not be tried by the thread that holds it; a flag may.
class Cache {
public:
    void remember(const std::string &line)
    {
        if (busy_.test_and_set(std::memory_order_acquire))
            return;
        Release release{busy_};
        try {
            pages_[line] = std::string(480, '.');
        } catch (const std::bad_alloc &) {
            clear(); // what a cache cannot hold is no reason to die
        }
    }

    void drop()
    {
        if (busy_.test_and_set(std::memory_order_acquire))
            return;
        Release release{busy_};
        clear();
    }

    bool was_dropped() const { return dropped_ > 0; }

private:
    struct Release {
        std::atomic_flag &busy;
        ~Release() { busy.clear(std::memory_order_release); }
    };

    void clear()
    {
        dropped_ += !pages_.empty();
        std::unordered_map<std::string, std::string>().swap(pages_);
    }

    std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
    std::unordered_map<std::string, std::string> pages_;
    unsigned dropped_ = 0;
};

void check(int result, const char *what)
{
    if (result != 0)
        throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
}

std::map<std::string, Service> read(const char *path, Cache &cache)
{
    std::ifstream input(path);
    std::string line;
    if (!std::getline(input, line)) // the column names
        throw std::runtime_error(std::string(path) + ": cannot be read");
    std::map<std::string, Service> services;
    while (std::getline(input, line)) {
        const auto first = line.find(','), second = line.find(',', first + 1), last = line.rfind(',');
        if (second == std::string::npos)
            throw std::runtime_error(std::string(path) + ": not a row: " + line);
        Service &service = services[line.substr(first + 1, second - first - 1)];
        service.requests += 1;
        service.millis += std::stoul(line.substr(last + 1));
        service.rows.push_back(line);
        cache.remember(line);
    }
    return services;
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 3) {
        std::cerr << "usage: summarise LIMIT INPUT\n";
        return 2;
    }
    static Cache cache;
    static const char last_words[] = "summarise: memory ran out\n";
    try {
        check(oomguard_arm(argv[1]), argv[1]);
        check(oomguard_on_reclaim([](void *of) { static_cast<Cache *>(of)->drop(); }, &cache), "on_reclaim");
        check(oomguard_on_exhausted(
                  [](void *) {
                      if (write(STDERR_FILENO, last_words, sizeof last_words - 1) < 0)
                          return; // there is nobody left to tell
                  },
                  nullptr),
              "on_exhausted");
        for (const auto &entry : read(argv[2], cache))
            std::cout << entry.first << ' ' << entry.second.requests << ' ' << entry.second.millis << '\n';
    } catch (const std::runtime_error &error) {
        std::cerr << "summarise: " << error.what() << '\n';
        return 1;
    }
    struct oomguard_status status;
    if (oomguard_status(&status, sizeof status) == 0 && status.limit != OOMGUARD_UNKNOWN)
        std::cerr << "summarise: " << (status.headroom >> 20) << " of " << (status.limit >> 20)
                  << " MiB left, cache dropped " << (cache.was_dropped() ? "yes" : "no") << '\n';
    return 0;
}
