//! The catalogue of ways to die and not to die, over the allocator `tikv_jemallocator::Jemalloc`.

#[path = "../catalogue/mod.rs"]
mod catalogue;
#[path = "../common/mod.rs"]
mod common;

// No limit of the runner's own: each role is started with the one that it is to meet.
oomguard::guard!(limit = "off", allocator = tikv_jemallocator::Jemalloc);

fn main() -> std::process::ExitCode {
    catalogue::main("jemalloc")
}
