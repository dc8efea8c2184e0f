//! What the linker is told: the name that programs linked with liboomguard.so remember, one for each major version; that it
//! is never unloaded, as its exit and signal handlers cannot be taken back; and that it needs nothing: no other library, no
//! version of any function, no code of the compiler's that runs at the start. So one file serves glibc and musl, old and
//! new: what is not in all of them is looked for when the library is loaded.

use std::path::Path;

/// Functions of glibc's that the shared library looks up, and that not every C library has.
const IN_STATIC_PROGRAMS: [&str; 14] = [
    "_IO_fclose",
    "_IO_fflush",
    "_IO_fprintf",
    "_IO_fputs",
    "_IO_fread",
    "_IO_fwrite",
    "_IO_popen",
    "_IO_printf",
    "_IO_puts",
    "_IO_vfprintf",
    "__sbrk",
    "__sigaction",
    "on_exit",
    "pthread_attr_getstacksize",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let name = concat!("liboomguard.so.", env!("CARGO_PKG_VERSION_MAJOR"));
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,{name}");
    name_beside_the_library(name);
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    for option in ["-nostdlib", "-nostartfiles"] {
        println!("cargo::rustc-cdylib-link-arg={option}");
    }
    // What is written to begins at a page of its own: each page less that is written to is a start that costs a microsecond less.
    // Only lld, which is Rust's linker there, has this.
    if std::env::var_os("CARGO_CFG_TARGET_ARCH").is_some_and(|arch| arch == "x86_64") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,separate-loadable-segments");
    }
    // The C library's own are chosen when they are linked, by code that may not be ready then: see `bytes`.
    for (name, ours) in [
        ("memcpy", "memcpy"),
        ("memmove", "memmove"),
        ("memset", "memset"),
        ("memcmp", "memcmp"),
        ("bcmp", "memcmp"),
        ("strlen", "strlen"),
    ] {
        println!("cargo::rustc-cdylib-link-arg=-Wl,--defsym={name}=oomguard_{ours}");
    }
    // What the same code calls in a static program only, where no dynamic linker can be asked for the function: null.
    for name in IN_STATIC_PROGRAMS {
        println!("cargo::rustc-cdylib-link-arg=-Wl,--defsym={name}=0");
    }
}

/// What is linked with the library where cargo puts it looks for the name that it remembers there, too.
fn name_beside_the_library(name: &str) {
    let out = std::env::var_os("OUT_DIR").expect("cargo sets it");
    // PROFILE/build/PACKAGE/out
    let Some(profile) = Path::new(&out).ancestors().nth(3) else { return };
    // There from an earlier build, or nobody may write there: then only who links it there misses it.
    #[cfg(unix)]
    let _ = std::os::unix::fs::symlink("liboomguard.so", profile.join(name));
    #[cfg(not(unix))]
    let _ = profile.join(name);
}
