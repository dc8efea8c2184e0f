//! A program's file, as the supervisor reads it before it starts the program: interpreter, notes, versions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oomguard::__fuzz;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;
use std::{env, fs, process};

static FILE: LazyLock<File> = LazyLock::new(|| {
    let path = env::temp_dir().join(format!("oomguard-fuzz-program-{}", process::id()));
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    fs::remove_file(path).unwrap();
    file
});

fuzz_target!(|data: &[u8]| {
    FILE.set_len(0).unwrap();
    FILE.write_all_at(data, 0).unwrap();
    __fuzz::program(&FILE);
});
