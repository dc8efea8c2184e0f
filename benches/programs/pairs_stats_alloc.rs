//! Allocates and frees under stats_alloc, which counts allocations and bytes.

#[path = "pairs/mod.rs"]
mod pairs;

#[global_allocator]
static STATS: stats_alloc::StatsAlloc<std::alloc::System> = stats_alloc::StatsAlloc::system();

fn main() {
    pairs::run_as_told();
}
