//! Allocates and frees under cap, which counts what is live.

#[path = "pairs/mod.rs"]
mod pairs;

#[global_allocator]
static CAP: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, 1 << 50);

fn main() {
    pairs::run_as_told();
}
