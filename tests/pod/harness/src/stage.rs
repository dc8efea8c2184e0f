//! A root directory for the guest that holds what one program needs: itself, its
//! libraries, and what the caller includes, each under its own absolute path.

use crate::Error;
use crate::run_directory::make_public;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

const DIRECTORIES: [&str; 9] = ["dev", "proc", "sys", "etc", "run", "root", "tmp", "var", "usr"];

const FILES: [(&str, &str); 4] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1 localhost pod\n::1 localhost\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
];

pub struct Stage {
    root: PathBuf,
    /// Paths already followed, as they were asked for.
    seen: HashSet<PathBuf>,
    /// Programs and libraries among the files copied, whose libraries are still to add.
    binaries: Vec<PathBuf>,
}

impl Stage {
    pub fn new(root: PathBuf) -> Result<Stage, Error> {
        for name in DIRECTORIES {
            let path = root.join(name);
            make_public(&path).map_err(Error::on("make", &path))?;
        }
        for (name, content) in FILES {
            let path = root.join(name);
            fs::write(&path, content)
                .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o644)))
                .map_err(Error::on("write", &path))?;
        }
        let tmp = root.join("tmp");
        fs::set_permissions(&tmp, Permissions::from_mode(0o1777))
            .map_err(Error::on("open to all users", &tmp))?;
        Ok(Stage { root, seen: HashSet::new(), binaries: Vec::new() })
    }

    /// A file with its libraries or its interpreter, or a directory with all in it.
    pub fn add(&mut self, path: &Path) -> Result<(), Error> {
        self.copy(path)?;
        // One pass is enough: ldd lists the libraries of libraries too.
        for library in libraries(&std::mem::take(&mut self.binaries))? {
            self.copy(&library)?;
        }
        self.binaries.clear();
        Ok(())
    }

    fn copy(&mut self, path: &Path) -> Result<(), Error> {
        if !self.seen.insert(path.to_owned()) {
            return Ok(());
        }
        let real = self.walk(path)?;
        if real.is_dir() {
            for entry in fs::read_dir(&real).map_err(Error::on("list", &real))? {
                let entry = entry.map_err(Error::on("list", &real))?.path();
                // A link in an included directory may lead nowhere, as on the host.
                if entry.exists() {
                    self.copy(&entry)?;
                }
            }
        }
        Ok(())
    }

    /// Remakes each component of the path, links as links; returns where it leads.
    fn walk(&mut self, path: &Path) -> Result<PathBuf, Error> {
        let mut here = PathBuf::from("/");
        let mut rest = components_reversed(path);
        while let Some(name) = rest.pop() {
            if name == ".." {
                here.pop();
                continue;
            }
            let host = here.join(&name);
            let kind = fs::symlink_metadata(&host).map_err(Error::on("find", &host))?.file_type();
            let guest = self.root.join(host.strip_prefix("/").expect("it starts at the root"));
            if kind.is_symlink() {
                let target = fs::read_link(&host).map_err(Error::on("read the link", &host))?;
                unless_there(symlink(&target, &guest)).map_err(Error::on("make", &guest))?;
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                rest.extend(components_reversed(&target));
                continue;
            }
            if kind.is_dir() {
                unless_there(make_public(&guest)).map_err(Error::on("make", &guest))?;
            } else if kind.is_file() && !guest.exists() {
                self.copy_file(&host, &guest)?;
            }
            here = host;
        }
        Ok(here)
    }

    fn copy_file(&mut self, host: &Path, guest: &Path) -> Result<(), Error> {
        fs::copy(host, guest).map_err(Error::on("copy", host))?;
        let mut start = Vec::new();
        File::open(host)
            .and_then(|file| file.take(256).read_to_end(&mut start))
            .map_err(Error::on("read", host))?;
        if start.starts_with(b"\x7fELF") {
            self.binaries.push(host.to_owned());
        } else if let Some(line) = start.strip_prefix(b"#!") {
            for interpreter in interpreters(line) {
                self.copy(&interpreter)?;
            }
        }
        Ok(())
    }
}

/// Of a script's first line: its program, and for `env NAME` that one too.
fn interpreters(line: &[u8]) -> Vec<PathBuf> {
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty()).map(OsStr::from_bytes);
    let program = words.next().map(PathBuf::from).filter(|program| program.is_file());
    let is_env = program.as_ref().is_some_and(|program| program.ends_with("env"));
    let named = words.next().filter(|_| is_env).and_then(find_program);
    program.into_iter().chain(named).collect()
}

/// As a shell finds it: a path as it stands, a plain name in PATH.
pub fn find_program(name: &OsStr) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return std::path::absolute(name).ok().filter(|path| path.is_file());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// The libraries and the loader of these files.
fn libraries(binaries: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    if binaries.is_empty() {
        return Ok(Vec::new());
    }
    // Its status says only that some file was static.
    let output = Command::new("ldd").args(binaries).output().map_err(Error::on("run", Path::new("ldd")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter_map(library).collect())
}

/// Of ldd's "name => /path (0x…)" or "/path (0x…)"; its other lines name no file.
fn library(line: &str) -> Option<PathBuf> {
    let (before, _) = line.trim().rsplit_once(" (0x")?;
    let path = before.rsplit_once(" => ").map_or(before, |(_, path)| path);
    path.starts_with('/').then(|| PathBuf::from(path))
}

fn components_reversed(path: &Path) -> Vec<std::ffi::OsString> {
    path.components()
        .rev()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

fn unless_there(made: std::io::Result<()>) -> std::io::Result<()> {
    match made {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_files_that_ldd_names() {
        for (line, file) in [
            (
                "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f00)",
                Some("/lib/x86_64-linux-gnu/libc.so.6"),
            ),
            ("\t/lib64/ld-linux-x86-64.so.2 (0x00007f00)", Some("/lib64/ld-linux-x86-64.so.2")),
            ("\tlinux-vdso.so.1 (0x00007fff)", None),
            ("\tlibgone.so => not found", None),
            ("\tnot a dynamic executable", None),
            ("/bin/a:", None),
        ] {
            assert_eq!(library(line), file.map(PathBuf::from), "{line}");
        }
    }

    #[test]
    fn a_script_brings_its_interpreter() {
        assert_eq!(interpreters(b" /bin/sh -eu\nrest"), [PathBuf::from("/bin/sh")]);
        let both = interpreters(b"/usr/bin/env sh\n");
        assert_eq!(both[0], Path::new("/usr/bin/env"));
        assert!(both[1].ends_with("sh"));
    }
}
