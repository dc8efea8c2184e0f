//! Allocates and frees through a guard around the system allocator, which profiles unless `OOMGUARD_PROFILE` says no.

#[path = "pairs/mod.rs"]
mod pairs;

oomguard::guard!(profile = on);

fn main() {
    pairs::run_as_told();
}
