//! Which compiler is it? Only a nightly one lets a program set an alloc-error hook.

use std::process::Command;

fn main() {
    println!("cargo:rustc-check-cfg=cfg(alloc_error_hook)");
    println!("cargo:rerun-if-changed=build.rs");
    let rustc = std::env::var_os("RUSTC").expect("cargo says which compiler it runs");
    let said = Command::new(rustc).arg("--version").output().expect("a compiler says its version");
    if String::from_utf8_lossy(&said.stdout).contains("-nightly") {
        println!("cargo:rustc-cfg=alloc_error_hook");
    }
}
