//! A copy of the ledger with few rows, whose atomics are those of `atomic.rs`.

use std::path::PathBuf;
use std::{env, fs};

const LEDGER: &str = "../../crates/core/src/ledger";
const PARTS: [&str; 3] = ["deaths", "row", "turns"];

fn main() {
    let mut text = read(&format!("{LEDGER}.rs"));
    let replaced = [
        ("const ROWS: usize = 1024".to_owned(), "const ROWS: usize = 3".to_owned()),
        ("pub struct Ledger {".into(), "#[derive(Default)]\npub struct Ledger {".into()),
        ("struct Head {".into(), "#[derive(Default)]\nstruct Head {".into()),
    ];
    let parts = PARTS.map(|part| {
        let of_part = read(&format!("{LEDGER}/{part}.rs"));
        let of_part = ["pub(super) struct Death {", "pub struct Row {"].into_iter().fold(of_part, |text, name| {
            text.replace(name, &format!("#[derive(Default)]\n{name}"))
        });
        (format!("mod {part};"), format!("mod {part} {{\n{of_part}}}"))
    });
    for (from, to) in replaced.into_iter().chain(parts) {
        // What is not there any more would be a model of something else.
        assert!(text.contains(&from), "{LEDGER}: no {from:?} in it");
        text = text.replace(&from, &to);
    }
    let to = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("ledger.rs");
    fs::write(to, text).expect("a directory of ours");
}

/// A file with the atomics, without its tests, and what it says of itself as a file.
fn read(path: &str) -> String {
    println!("cargo::rerun-if-changed={path}");
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let text: String = text.lines().filter(|line| !line.starts_with("//!")).flat_map(|line| [line, "\n"]).collect();
    let text = text.replace("use core::sync::atomic::", "use crate::atomic::");
    assert!(text.contains("use crate::atomic::") == text.contains("AtomicU64"), "{path}: whose atomics?");
    text
}
