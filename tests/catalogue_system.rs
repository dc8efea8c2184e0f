//! The catalogue of ways to die and not to die, over the allocator `std::alloc::System`.

mod catalogue;
mod common;

// No limit of the runner's own: each role is started with the one that it is to meet.
oomguard::guard!(limit = "off", allocator = std::alloc::System);

fn main() -> std::process::ExitCode {
    catalogue::main("system")
}
