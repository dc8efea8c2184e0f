//! `oomguard`: arguments to library calls to exit code. `run` gives any program the contract; `report` says which
//! code held the memory of a dead one; `doctor` says what holds here.
//!
//! `main` is C's, as Rust's runtime changes what the command is to inherit: it ignores SIGPIPE, and opens descriptors 0
//! to 2 where they are closed. That is the only unsafe code here.
#![cfg_attr(not(test), no_main)]
// A test program has a `main` of its own, which calls none of this.
#![cfg_attr(test, allow(dead_code, unused_imports))]
#![deny(unsafe_code)]

mod arguments;
mod doctor;
mod environment;
mod hints;
mod input;
mod postmortem;
mod report;
mod run;
mod screen;
mod shim;
mod stderr;
mod target;
mod top;
mod usage;

use arguments::{Arguments, Task};
use clap::{CommandFactory, Parser};
use oomguard::contract::{BECOME, EXIT_CANNOT_GUARD};
use rustix::fs::{Mode, OFlags};
use std::ffi::{CStr, OsString, c_char, c_int};
use std::io::IsTerminal;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::ffi::OsStringExt;

/// # Safety
/// Called by the C library, with the arguments and the environment that the kernel made.
#[cfg(not(test))]
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(
    count: c_int,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) -> c_int {
    if count > 3 {
        // SAFETY: there are more than three arguments.
        unsafe { become_another(arguments) };
    }
    // SAFETY: by contract; nothing has changed either yet.
    let [arguments, environment] = [arguments, environment].map(|list| unsafe { texts(list) });
    let code = act(arguments, environment);
    // Writes out what stdout still holds, which Rust's own start-up code would have done after `main`.
    std::process::exit(i32::from(code))
}

/// # Safety
/// C strings up to a null pointer.
#[cfg(not(test))]
#[allow(unsafe_code)]
unsafe fn texts(list: *const *const c_char) -> Vec<OsString> {
    let mut texts = Vec::new();
    loop {
        // SAFETY: no further than the null pointer.
        let text = unsafe { list.add(texts.len()) };
        // SAFETY: as above.
        let text = unsafe { text.read() };
        if text.is_null() {
            return texts;
        }
        // SAFETY: a C string, by contract.
        let text = unsafe { CStr::from_ptr(text) };
        texts.push(OsString::from_vec(text.to_bytes().to_vec()));
    }
}

/// Becomes another program, if the first argument says so, before anything has been changed that it inherits. Comes back
/// where that does not work.
///
/// # Safety
/// There are more than three arguments, C strings up to a null pointer.
#[cfg(not(test))]
#[allow(unsafe_code)]
unsafe fn become_another(arguments: *const *const c_char) {
    // SAFETY: by contract.
    let at = |index| unsafe { arguments.add(index) };
    // SAFETY: by contract.
    let word = |index| unsafe { at(index).read() };
    // SAFETY: a C string, by contract.
    if unsafe { CStr::from_ptr(word(1)) } == BECOME {
        // SAFETY: a path and a list of arguments, by contract.
        unsafe { libc::execv(word(2), at(3)) };
        std::process::exit(127);
    }
}

/// `environment`: what the command is to find, to the letter.
fn act(arguments: Vec<OsString>, environment: Vec<OsString>) -> u8 {
    fill_standard_numbers();
    let words = arguments;
    let arguments = match Arguments::try_parse_from(&words) {
        Ok(arguments) => arguments,
        Err(error) => {
            match usage::line(&error) {
                Some(line) => {
                    screen::say(&line);
                    run::tell_of_wrong_options(&words, &line);
                }
                None if error.use_stderr() && !std::io::stderr().is_terminal() => {
                    stderr::write_patiently(error.render().to_string().as_bytes())
                }
                // What cannot be printed cannot be helped: the code still says it.
                None => drop(error.print()),
            }
            return if error.use_stderr() { EXIT_CANNOT_GUARD } else { 0 };
        }
    };
    match arguments.task {
        Task::Run(options) => run::run(options, environment),
        Task::Report(options) => report::report(&options),
        Task::Top(options) => top::top(&options),
        Task::Doctor(options) => doctor::doctor(&options),
        Task::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "oomguard", &mut std::io::stdout());
            0
        }
    }
}

/// Where 0, 1 or 2 is closed, nothing of ours may get that number. The command finds it closed again.
fn fill_standard_numbers() {
    while let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        if null.as_raw_fd() > 2 {
            break;
        }
        // Kept for as long as this process lives.
        let _ = null.into_raw_fd();
    }
}
