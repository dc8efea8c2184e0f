//! The catalogue of ways to die and not to die, with the profiler on.

mod catalogue;
mod common;

oomguard::guard!(limit = "off", profile = "64KiB", allocator = std::alloc::System);

fn main() -> std::process::ExitCode {
    catalogue::main("system")
}
