//! The few system calls that the guard and the parent need, each behind a small safe function.
//!
//! No policy lives here. The code here allocates nothing, takes no lock and does not panic (an error of a system
//! call is its number), and what it asks of the C library is async-signal-safe, with these exceptions:
//! - `symbols`, `objects`: the dynamic linker takes its own lock, and may allocate to keep an object.
//! - `memory::trim_heap`, `raise_malloc_thresholds`, `cap_arenas`: malloc takes its locks; the second one allocates.
//! - `c_library::call_in_children`: the C library takes its lock, and allocates where there are many of them.
//! - `process::thread_key` and `set_thread_key`: see there.
//!
//! Statics of several pages, which few processes touch, lie in `.bss.large`: between the small ones they would spread those over
//! many pages, each of which costs the start of every process a fault.
//!
//! This is one of the places where `unsafe` is allowed.

pub mod bare;
pub mod c_library;
pub mod clock;
pub mod errno;
pub mod fd;
pub mod image;
pub mod imports;
pub mod join;
pub mod local;
pub mod memfd;
pub mod memory;
pub mod objects;
pub mod proc;
pub mod process;
pub mod raw;
pub mod signals;
pub mod symbols;
pub mod valgrind;

#[cfg(test)]
mod tests {
    /// What is said above of our own code. That of start-up and of a death is also counted, in tests/no_allocation.rs.
    #[test]
    fn nothing_here_names_what_allocates_or_locks() {
        const WORDS: [&str; 10] = [
            "String",
            "format!",
            "Vec<",
            "vec![",
            "Box",
            ".to_owned()",
            ".to_vec()",
            ".sort_by",
            ".lock()",
            "OnceLock",
        ];
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sys");
        let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let mut looked_at = 0;
        for file in files.filter(|file| !file.ends_with("mod.rs")) {
            let source = std::fs::read_to_string(&file).unwrap();
            let code = source.lines().take_while(|line| *line != "mod tests {");
            for line in code.filter(|line| !line.trim_start().starts_with("//")) {
                assert!(!WORDS.iter().any(|word| line.contains(word)), "{file:?}: {line}");
            }
            looked_at += 1;
        }
        assert!(looked_at > 5, "only {looked_at} files in {directory}");
    }
}
