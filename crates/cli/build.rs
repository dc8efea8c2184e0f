//! Builds the shim with the profile made for it, so that the launcher can carry it along: from the repository, or, where
//! this package came alone, from the sources that it carries in `library`. OOMGUARD_LIBRARY names one that is built already.

use flate2::Compression;
use flate2::write::GzEncoder;
use std::env;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn main() {
    let here = PathBuf::from(set_by_cargo("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(set_by_cargo("OUT_DIR"));
    println!("cargo::rerun-if-env-changed=OOMGUARD_LIBRARY");
    let library = if let Some(built) = env::var_os("OOMGUARD_LIBRARY") {
        let built = PathBuf::from(built);
        println!("cargo::rerun-if-changed={}", built.display());
        Some(built)
    } else if here.join("../shim/Cargo.toml").is_file() {
        for watched in ["../core", "../engine", "../shim", "../../Cargo.toml", "../../Cargo.lock"] {
            println!("cargo::rerun-if-changed={watched}");
        }
        build(&here.join("../shim"), &out.join("shim"), &[])
    } else {
        println!("cargo::rerun-if-changed=library");
        build_alone(&here, &out)
    };
    let library = library.expect("the shim could not be built: see above");
    let content = fs::read(&library).unwrap_or_else(|error| panic!("{}: {error}", library.display()));
    // As long as it is not needed, it is half as large so.
    let packed = out.join("liboomguard.so.gz");
    let mut writer = GzEncoder::new(Vec::new(), Compression::best());
    writer
        .write_all(&content)
        .and_then(|()| fs::write(&packed, writer.finish()?))
        .expect("OUT_DIR is writable");
    println!("cargo::rustc-env=OOMGUARD_SHIM={}", packed.display());
    println!("cargo::rustc-env=OOMGUARD_SHIM_FINGERPRINT={:016x}", fingerprint(&content));
}

/// Builds the package in `shim`; where the library lies then.
fn build(shim: &Path, target_directory: &Path, options: &[&str]) -> Option<PathBuf> {
    let target = set_by_cargo("TARGET");
    let mut build = Command::new(set_by_cargo("CARGO"));
    build
        .args(["build", "--quiet", "--profile", "shim", "--target", &target])
        .arg("--manifest-path")
        .arg(shim.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target_directory)
        .args(options);
    // Half the time for those who only try something; what is optimized is what users get.
    if set_by_cargo("PROFILE") == "debug" {
        build.args(["--config", "profile.shim.lto=\"off\"", "--config", "profile.shim.codegen-units=16"]);
    }
    // A static launcher still carries a shared library; and what a lint or coverage run asks for is not for it.
    for ours_alone in [
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTFLAGS",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "CARGO_TARGET_DIR",
    ] {
        build.env_remove(ours_alone);
    }
    if options.contains(&"--offline") {
        build.stderr(Stdio::null());
    }
    let built = build.status().unwrap_or_else(|error| panic!("cannot run cargo to build the shim: {error}"));
    built.success().then(|| target_directory.join(target).join("shim/liboomguard.so"))
}

/// The same from this package's own sources. What they depend on was fetched for the launcher, in the versions of its lock
/// file or in the newest: both are tried before anything is fetched, as there may be no network.
fn build_alone(here: &Path, out: &Path) -> Option<PathBuf> {
    let (source, target_directory) = (out.join("source"), out.join("shim"));
    lay_out(&here.join("library"), &source);
    let (lock, own_lock) = (here.join("Cargo.lock"), source.join("Cargo.lock"));
    let locked = lock.is_file() && fs::copy(&lock, &own_lock).is_ok();
    let at_once =
        if locked { build(&source.join("crates/shim"), &target_directory, &["--offline"]) } else { None };
    at_once
        .or_else(|| {
            let _ = fs::remove_file(&own_lock);
            build(&source.join("crates/shim"), &target_directory, &["--offline"])
        })
        .or_else(|| build(&source.join("crates/shim"), &target_directory, &[]))
}

/// Puts what `library` holds where the repository has it, with manifests of what the shim needs.
fn lay_out(library: &Path, source: &Path) {
    let _ = fs::remove_dir_all(source);
    let write = |path: &str, text: String| fs::write(source.join(path), text).expect("a file below OUT_DIR");
    let link = |from: &str, to: &str| {
        symlink(library.join(from), source.join(to)).expect("a link below OUT_DIR");
    };
    for (package, manifest, more) in
        [("core", "core.toml", None), ("engine", "engine.toml", None), ("shim", "shim.toml", Some("[lib]"))]
    {
        let here = format!("crates/{package}");
        fs::create_dir_all(source.join(&here)).expect("a directory below OUT_DIR");
        link(package, &format!("{here}/src"));
        let sections = ["[package]", "[features]", "[dependencies]"].into_iter().chain(more);
        write(&format!("{here}/Cargo.toml"), Manifest::read(library, manifest).sections(sections));
    }
    link("shim_build.rs", "crates/shim/build.rs");
    let whole = Manifest::read(library, "workspace.toml");
    write(
        "Cargo.toml",
        format!(
            "[workspace]\nmembers = [\"crates/shim\"]\nresolver = \"3\"\n\n{}",
            whole.sections(["[profile.shim]"])
        ),
    );
}

/// A manifest that this package carries.
struct Manifest {
    name: &'static str,
    text: String,
}

impl Manifest {
    fn read(library: &Path, name: &'static str) -> Manifest {
        let text = fs::read_to_string(library.join(name));
        Manifest { name, text: text.unwrap_or_else(|error| panic!("this package carries {name}: {error}")) }
    }

    /// The lines from this title to the next.
    fn section<'a>(&'a self, title: &'static str) -> impl Iterator<Item = &'a str> {
        let mut lines = self.text.lines().skip_while(move |line| *line != title);
        let title = lines.next().unwrap_or_else(|| panic!("{} has no {title}", self.name));
        std::iter::once(title).chain(lines.take_while(|line| !line.starts_with('[')))
    }

    fn sections(&self, titles: impl IntoIterator<Item = &'static str>) -> String {
        let lines = titles.into_iter().flat_map(|title| self.section(title));
        lines.flat_map(|line| [line, "\n"]).collect()
    }
}

/// FNV-1a: tells versions apart by their file's name; what is there is compared by its checksum and size.
fn fingerprint(content: &[u8]) -> u64 {
    content
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn set_by_cargo(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name} for build scripts"))
}
