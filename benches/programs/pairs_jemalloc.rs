//! Allocates and frees through jemalloc; `_RJEM_MALLOC_CONF` says whether that profiles.

#[path = "pairs/mod.rs"]
mod pairs;

#[global_allocator]
static JEMALLOC: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    pairs::run_as_told();
}
