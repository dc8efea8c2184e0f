//! What the linker is told: the name that programs linked with liboomguard.so remember, one for each major version;
//! that it is never unloaded, as its exit and signal handlers cannot be taken back; and to take the unwinder that std's
//! backtraces want from the compiler's archive. A preloaded library whose libgcc_s.so is not there ends every program in
//! the loader, and small images do not have it.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CC");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,liboomguard.so.{}", env!("CARGO_PKG_VERSION_MAJOR"));
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let Ok(output) = Command::new(compiler).arg("-print-file-name=libgcc_eh.a").output() else { return };
    // The bare name where there is none, as with clang alone: then libgcc_s.so it is.
    let archive = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if let Some(directory) = Path::new(&archive).parent().filter(|directory| directory.is_absolute()) {
        println!("cargo::rustc-link-search=native={}", directory.display());
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}
