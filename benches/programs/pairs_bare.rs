//! Allocates and frees through the bare system allocator.

#[path = "pairs/mod.rs"]
mod pairs;

// Said out loud, so that both programs reach their allocator by the same way.
#[global_allocator]
static BARE: std::alloc::System = std::alloc::System;

fn main() {
    pairs::run_as_told();
}
