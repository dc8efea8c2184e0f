//! Copies of the guard's files in which the atomics are loom's. The guard keeps its own: an alias there would have to give up
//! constants for statics, which is what the guard has instead of start-up code.

use std::path::{Path, PathBuf};
use std::{env, fs};

const GUARD: &str = "../../crates/engine/src";

fn main() {
    Copy::of("notes.rs")
        .with("oomguard_core::thread_own!", "crate::sys::local::thread_own!")
        .with("&raw const MAPPED", "&raw const *MAPPED")
        .with("&MAPPED", "&*MAPPED")
        .with("&REQUESTED", "&*REQUESTED")
        // A store that comes after another thread's exchange stays after it. Loom knows that of a swap only.
        .with(
            "note.bytes.store(request.bytes.saturating_add(1), Release);",
            "note.bytes.swap(request.bytes.saturating_add(1), Release);",
        )
        .write("notes.rs");
    Copy::of("../../core/src/busy.rs").write("busy.rs");
    // As small as can be: two samples are in each other's way.
    Copy::of("profile/live.rs")
        .with("const FILTER_SLOTS: usize = 16 << 10;", "const FILTER_SLOTS: usize = 1;")
        .with("[const { AtomicU8::new(0) }; FILTER_SLOTS]", "std::array::from_fn(|_| AtomicU8::new(0))")
        .with("const WAYS: usize = 8;", "const WAYS: usize = 2;")
        .with("const BUCKETS: usize = 4096;", "const BUCKETS: usize = 1;")
        .write("live.rs");
    Copy::of("owner.rs").write("owner.rs");
    Copy::of("standing.rs")
        .only(&[
            "static WINNER",
            "pub enum Standing",
            "pub fn here",
            "pub fn is_under_way",
            "pub(super) fn is_anybody_dying",
            "pub(super) fn win",
        ])
        .write("who_speaks.rs");
    Copy::of("unwind/mod.rs")
        .only(&["pub(super) struct Rules", "impl Rules", "fn set_of", "const WAYS", "const SETS"])
        .with("const WAYS: usize = 4;", "const WAYS: usize = 1;")
        .with("const SETS: usize = 512;", "const SETS: usize = 1;")
        .with("    fn find(", "    pub fn find(")
        .with("    fn keep(", "    pub fn keep(")
        .write("rules.rs");
}

struct Copy {
    path: PathBuf,
    text: String,
}

impl Copy {
    fn of(name: &str) -> Copy {
        let path = Path::new(GUARD).join(name);
        println!("cargo::rerun-if-changed={}", path.display());
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // Its own tests, and what is said of the file as a whole.
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let text: Vec<&str> = text.lines().filter(|line| !line.starts_with("//!")).collect();
        Copy { path, text: text.join("\n") + "\n" }
    }

    /// What is not there any more would be a model of something else.
    fn with(self, from: &str, to: &str) -> Copy {
        assert!(self.text.contains(from), "{}: no {from:?} in it", self.path.display());
        Copy { text: self.text.replace(from, to), ..self }
    }

    /// The items that begin so, each up to its end.
    fn only(self, beginnings: &[&str]) -> Copy {
        let mut text = String::from("use core::sync::atomic::{AtomicU64, Ordering};\n");
        for beginning in beginnings {
            let start = self.text.find(&format!("\n{beginning}"));
            let start =
                start.unwrap_or_else(|| panic!("{}: no {beginning:?} in it", self.path.display())) + 1;
            let item = &self.text[start..];
            let line = item.lines().next().unwrap_or_default();
            let len = if line.ends_with(';') { line.len() + 1 } else { item.find("\n}\n").unwrap_or(0) + 3 };
            if beginning.contains("enum") {
                text += "#[derive(Clone, Copy, PartialEq, Eq, Debug)]\n";
            }
            text += &item[..len];
        }
        Copy { text, ..self }
    }

    fn write(self, name: &str) {
        let mut copy = String::new();
        for line in self.text.lines() {
            let line = line.replace("core::sync::atomic", "loom::sync::atomic").replace("const fn", "fn");
            // What the package takes from that one, the model has itself.
            let line = line.replace("oomguard_core::", "crate::");
            // A static of ours begins and ends in one line.
            match line.strip_prefix("static ") {
                Some(rest) => {
                    assert!(rest.ends_with(';'), "{}: {line}", self.path.display());
                    copy += &format!("loom::lazy_static! {{ static ref {rest} }}\n");
                }
                None => copy += &format!("{line}\n"),
            }
        }
        let to = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join(name);
        fs::write(to, copy).expect("a directory of ours");
    }
}
