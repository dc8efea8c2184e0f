//! A file that a profile names, as it is read for names. A panic of a library over it is foreseen, and costs the names.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use oomguard::__fuzz;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::{env, fs, panic, process};

static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    // The fuzzer's own hook aborts.
    panic::set_hook(Box::new(|_| {}));
    env::temp_dir().join(format!("oomguard-fuzz-named-{}", process::id()))
});

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((address, file)) = data.split_first_chunk::<2>() else { return Corpus::Reject };
    fs::write(&*FILE, file).unwrap();
    __fuzz::named_file(&FILE, u16::from_ne_bytes(*address).into());
    Corpus::Keep
});
