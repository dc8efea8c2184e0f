//! A program that uses this crate without a guard, as a parent does, has nothing of the guard in it: no constructor
//! that reads the environment, and the C library's own `write`, `abort` and `pthread_create`.

mod common;

use common::child::{End, Start};
use libtest_mimic::{Arguments, Trial};
use std::ffi::{CStr, c_void};
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os(common::ROLE).is_some() {
        let limit: oomguard::Limit = "512Mi".parse().expect("a limit");
        let is_called = oomguard::Registration::on_exhausted(|| ()).is_in_effect();
        let is_told = oomguard::on_pressure(0.5, || ()).expect("a fraction");
        println!("{limit} {:?} {is_called} {is_told}", oomguard::status().limit);
        return ExitCode::SUCCESS;
    }
    let trials = vec![
        Trial::test("the environment does not matter to it", || {
            let remains = Start::role("speak")
                .env("OOMGUARD_LIMIT", "nonsense")
                .env("OOMGUARD_EXIT_CODE", "0")
                .run()?;
            assert_eq!(
                (remains.end(), remains.stdout.as_str()),
                (End::Exit(0), "536870912 None false false\n")
            );
            assert_eq!(remains.stderr, "");
            Ok(())
        }),
        Trial::test("it calls the C library's own functions", || {
            for (name, address) in [
                ("write", libc::write as *const c_void),
                ("abort", libc::abort as *const c_void),
                ("pthread_create", libc::pthread_create as *const c_void),
            ] {
                let object = object_of(address);
                assert!(object.contains("libc.so"), "{name} is in {object}");
            }
            Ok(())
        }),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The file that the code at `address` was loaded from.
fn object_of(address: *const c_void) -> String {
    // SAFETY: all-zero is a valid `Dl_info`: null pointers.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is writable during the call.
    assert_ne!(unsafe { libc::dladdr(address, &raw mut info) }, 0);
    // SAFETY: dladdr found the object, whose name is a C string.
    unsafe { CStr::from_ptr(info.dli_fname) }.to_string_lossy().into_owned()
}
