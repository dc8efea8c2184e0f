//! Allocates and frees through a guard around the system allocator.

#[path = "pairs/mod.rs"]
mod pairs;

oomguard::guard!();

fn main() {
    pairs::run_as_told();
}
