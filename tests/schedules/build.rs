//! A copy of the ledger with few rows, whose atomics are those of `atomic.rs`.

use std::path::PathBuf;
use std::{env, fs};

const LEDGER: &str = "../../crates/core/src/ledger.rs";

fn main() {
    println!("cargo::rerun-if-changed={LEDGER}");
    let text = fs::read_to_string(LEDGER).unwrap_or_else(|error| panic!("{LEDGER}: {error}"));
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    // What it says of itself as a file.
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with("//!")).collect();
    let mut text = text.join("\n");
    let replaced = [
        ("core::sync::atomic::{AtomicU64, Ordering}", "crate::atomic::{AtomicU64, Ordering}"),
        ("const ROWS: usize = 1024", "const ROWS: usize = 3"),
    ];
    for (from, to) in replaced {
        // What is not there any more would be a model of something else.
        assert!(text.contains(from), "{LEDGER}: no {from:?} in it");
        text = text.replace(from, to);
    }
    for name in ["pub struct Ledger {", "struct Head {", "struct Death {", "pub struct Row {"] {
        assert!(text.contains(name), "{LEDGER}: no {name:?} in it");
        text = text.replace(&format!("\n{name}"), &format!("\n#[derive(Default)]\n{name}"));
    }
    let to = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("ledger.rs");
    fs::write(to, text).expect("a directory of ours");
}
