//! Allocates and frees under dhat, which keeps account of every allocation.

#[path = "pairs/mod.rs"]
mod pairs;

#[global_allocator]
static DHAT: dhat::Alloc = dhat::Alloc;

fn main() {
    // Writes no file.
    let _profiler = dhat::Profiler::builder().testing().build();
    pairs::run_as_told();
}
