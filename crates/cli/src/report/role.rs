//! Which functions in a stack are the program's, and which only stand between it and the allocator, or before its
//! `main`. Told by their demangled names, and by their files: where debug information is kept small, inlined functions have
//! names without their modules. Pure.

/// What a function does in a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It fetches memory for whoever wanted it: the allocator, the guard, std's containers.
    Allocator,
    Program,
    /// It starts programs and threads.
    Runtime,
}

/// Crates whose functions are asked for memory by others; the last one is what std's maps are made of.
const ALLOCATOR_CRATES: [&str; 7] =
    ["oomguard", "oomguard_core", "oomguard_engine", "alloc", "core", "__rustc", "hashbrown"];

/// Other functions of that kind.
const ALLOCATOR_FUNCTIONS: [&str; 10] = [
    "__rust_alloc",
    "__rust_alloc_zeroed",
    "__rust_realloc",
    "__rg_alloc",
    "__rdl_alloc",
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
];

const RUNTIME_FUNCTIONS: [&str; 7] =
    ["main", "_start", "start_thread", "clone", "clone3", "__clone", "__clone3"];

/// The C library, and where its threads were once.
const RUNTIME_LIBRARIES: [&str; 3] = ["libc.so.", "libc-2.", "libpthread"];

/// Where the code of such functions is: in these files of the guard's package …
const ALLOCATOR_FILES: [&str; 4] = ["allocator.rs", "profile/mod.rs", "profile/sampler.rs", "refusal.rs"];

/// … and in the standard library.
const ALLOCATOR_DIRECTORIES: [&str; 5] = [
    "library/alloc/src/",
    "library/core/src/",
    "library/std/src/alloc",
    "library/std/src/collections/",
    "/hashbrown-",
];

const RUNTIME_DIRECTORIES: [&str; 5] = [
    "library/std/src/rt.rs",
    "library/std/src/sys/",
    "library/std/src/panic",
    "library/std/src/thread/",
    "nptl/",
];

/// The standard library: its crates, and where their code and that of what they are made of is.
const LIBRARY_CRATES: [&str; 3] = ["std", "alloc", "core"];
const LIBRARY_DIRECTORIES: [&str; 4] =
    ["library/std/src/", "library/alloc/src/", "library/core/src/", "/rust/deps/"];

impl Role {
    pub fn of(name: &str, file: Option<&str>) -> Role {
        let lies_in = |directories: &[&str]| {
            file.is_some_and(|file| directories.iter().any(|directory| file.contains(directory)))
        };
        if is_allocator(name) || lies_in(&ALLOCATOR_DIRECTORIES) || file.is_some_and(is_in_guard) {
            Role::Allocator
        } else if name == "main" && file.is_some() {
            // The program's own; that which std makes for the C library has no file.
            Role::Program
        } else if is_runtime(name) || lies_in(&RUNTIME_DIRECTORIES) {
            Role::Runtime
        } else {
            Role::Program
        }
    }

    /// Code without a name, told by where it lies: what calls `main` is not among the functions that the C library
    /// exports.
    pub fn of_unnamed(place: &str) -> Role {
        if RUNTIME_LIBRARIES.iter().any(|library| place.starts_with(library)) {
            Role::Runtime
        } else {
            Role::Program
        }
    }

    /// Innermost functions of that kind come before the program's.
    pub fn precedes_program(self) -> bool {
        self == Role::Allocator
    }

    /// Outermost functions of that kind come behind the program's: std calls `main` and a thread's closure through
    /// functions of `core` and `alloc`.
    pub fn follows_program(self) -> bool {
        self != Role::Program
    }
}

/// Whether a function is the standard library's: its source tells, or its name where there is none.
pub fn is_of_library(name: &str, file: Option<&str>) -> bool {
    match file {
        Some(file) => LIBRARY_DIRECTORIES.iter().any(|directory| file.contains(directory)),
        None => is_of_crates(name, &LIBRARY_CRATES),
    }
}

fn is_allocator(name: &str) -> bool {
    let starts = ["std::alloc::", "std::collections::"];
    ALLOCATOR_FUNCTIONS.contains(&name.split('@').next().unwrap_or(name))
        || type_and_trait(name).is_some_and(|(_, of_trait)| of_trait.starts_with("core::alloc::"))
        || is_of_crates(name, &ALLOCATOR_CRATES)
        || starts.iter().any(|start| name.starts_with(start))
}

/// Whether a file is one of those, in the repository or in the package that cargo has unpacked.
fn is_in_guard(file: &str) -> bool {
    let packages = ALLOCATOR_FILES.iter().filter_map(|name| file.strip_suffix(name)?.strip_suffix("/src/"));
    packages.into_iter().any(|package| {
        package.ends_with("crates/engine")
            || package.rsplit('/').next().is_some_and(|folder| folder.starts_with("oomguard-engine-"))
    })
}

/// What `<Type as Trait>::method` begins with.
fn type_and_trait(name: &str) -> Option<(&str, &str)> {
    let rest = name.strip_prefix('<')?;
    Some(rest.split_once(" as ").unwrap_or((rest, "")))
}

fn is_of_crates(name: &str, crates: &[&str]) -> bool {
    let Some((of_type, of_trait)) = type_and_trait(name) else { return begins_with_crate(name, crates) };
    let of_type = of_type.trim_start_matches(['&', '[', '(', '*', '<']);
    let of_type = of_type.trim_start_matches("mut ").trim_start_matches("const ").trim_start_matches("dyn ");
    // The type's crate decides; where the type has none (T, u8, [T]), the trait's.
    begins_with_crate(of_type, crates)
        || !of_type.split('<').next().unwrap_or(of_type).contains("::") && begins_with_crate(of_trait, crates)
}

fn begins_with_crate(path: &str, crates: &[&str]) -> bool {
    let of_crate = path.split("::").next().filter(|of_crate| of_crate.len() < path.len());
    // Symbols of version 0 may carry the crate's hash: alloc[1a2b].
    let of_crate = of_crate.map(|of_crate| of_crate.split('[').next().unwrap_or(of_crate));
    of_crate.is_some_and(|of_crate| crates.contains(&of_crate))
}

fn is_runtime(name: &str) -> bool {
    let plain = name.split('@').next().unwrap_or(name);
    RUNTIME_FUNCTIONS.contains(&plain)
        || [
            "std::rt::",
            "std::sys::",
            "std::panic",
            "std::thread::",
            "<std::thread::",
            "__rust_try",
            "__libc_start_",
        ]
        .iter()
        .any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_told_apart_by_their_names() {
        for name in [
            "__rust_alloc",
            "__rustc::__rust_alloc_zeroed",
            "__rustc[e5f1]::__rust_realloc",
            "oomguard_engine::profile::sampler::event",
            "<oomguard_engine::interface::Guard<A> as core::alloc::global::GlobalAlloc>::alloc",
            "<mimalloc::MiMalloc as core::alloc::global::GlobalAlloc>::realloc",
            "alloc::raw_vec::RawVecInner<A>::grow_amortized",
            "<alloc::vec::Vec<T> as core::iter::traits::collect::FromIterator<T>>::from_iter",
            "<u8 as alloc::vec::spec_from_elem::SpecFromElem>::from_elem",
            "<T as alloc::slice::<impl [T]>::to_vec_in::ConvertVec>::to_vec",
            "<[T]>::to_vec_in::alloc",
            "core::ops::function::FnOnce::call_once",
            "std::alloc::alloc",
            "malloc@plt",
            "hashbrown::raw::RawTable<T,A>::reserve_rehash",
            "std::collections::hash::map::HashMap<K,V,S>::insert",
        ] {
            let expected = if name.starts_with("<[T]>") { Role::Program } else { Role::Allocator };
            assert_eq!(Role::of(name, None), expected, "{name}");
        }
        for name in [
            "postmortem::Index::insert",
            "oomguard_app::run",
            "allocator::pool",
            "<my::Row as core::clone::Clone>::clone",
            "<csv::reader::Reader<R>>::read_record",
            "std::fs::read_to_string::inner",
            "alloc",
            "core",
            "app::main",
        ] {
            assert_eq!(Role::of(name, None), Role::Program, "{name}");
        }
        for name in [
            "main",
            "std::rt::lang_start_internal",
            "__libc_start_main@@GLIBC_2.34",
            "__libc_start_main_impl",
        ] {
            assert_eq!(Role::of(name, None), Role::Runtime, "{name}");
        }
    }

    #[test]
    fn functions_without_their_modules_are_told_apart_by_their_files() {
        for (name, file, role) in [
            ("push", "/rustc/ab12/library/alloc/src/vec/mod.rs", Role::Allocator),
            ("note_allocation", "/home/me/oomguard-engine-0.1.0/src/profile/sampler.rs", Role::Allocator),
            ("alloc", "crates/engine/src/allocator.rs", Role::Allocator),
            ("alloc", "/home/me/app/src/allocator.rs", Role::Program),
            ("call_once", "/rustc/ab12/library/core/src/ops/function.rs", Role::Allocator),
            ("lang_start", "/rustc/ab12/library/std/src/rt.rs", Role::Runtime),
            ("read_to_string", "/rustc/ab12/library/std/src/fs.rs", Role::Program),
            ("main", "src/main.rs", Role::Program),
            ("add_words", "src/index.rs", Role::Program),
        ] {
            assert_eq!(Role::of(name, Some(file)), role, "{name} {file}");
        }
    }

    #[test]
    fn the_standard_library_is_told_by_its_source_or_by_its_names() {
        for (name, file) in [
            ("std::io::default_read_to_end", None),
            ("<std::io::Lines<B> as core::iter::traits::iterator::Iterator>::next", None),
            ("<T as std::io::Read>::read_to_string", None),
            ("std[1a2b]::fs::read", None),
            ("read_until", Some("/rustc/ab12/library/std/src/io/mod.rs")),
            ("next<my::Rows>", Some("library/core/src/iter/adapters/map.rs")),
        ] {
            assert!(is_of_library(name, file), "{name}");
        }
        for (name, file) in [
            ("app::load", None),
            ("<my::Reader as std::io::Read>::read", None),
            ("stdlib::read", None),
            ("read", Some("/home/me/.cargo/registry/src/index/csv-1.3.0/src/reader.rs")),
            ("std::io::read", Some("src/std.rs")),
        ] {
            assert!(!is_of_library(name, file), "{name}");
        }
    }

    #[test]
    fn code_of_the_c_library_needs_no_name() {
        for place in ["libc.so.6+0x2724a", "libc-2.31.so+0x10", "libpthread-2.31.so+0x10"] {
            assert_eq!(Role::of_unnamed(place), Role::Runtime, "{place}");
        }
        for place in ["worker+0x1010", "libcrypto.so.3+0x10", "[0x7f0000]", "0x10"] {
            assert_eq!(Role::of_unnamed(place), Role::Program, "{place}");
        }
    }
}
