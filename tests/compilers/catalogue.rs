//! The catalogue of `tests/catalogue_system.rs`, built by every promised compiler and in every way to build.

#![cfg_attr(alloc_error_hook, feature(alloc_error_hook))]

#[path = "../catalogue/mod.rs"]
mod catalogue;
#[path = "../common/mod.rs"]
mod common;

// No limit of the runner's own: each role is started with the one that it is to meet.
oomguard::guard!(limit = "off", allocator = std::alloc::System);

fn main() -> std::process::ExitCode {
    catalogue::main("system")
}
