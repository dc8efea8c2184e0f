//! A stderr that nobody reads holds up no launcher.

use crate::add;
use crate::started::{Started, launcher};
use libtest_mimic::Trial;
use std::io::{PipeReader, PipeWriter, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "a_stderr_that_nobody_reads_holds_up_no_launcher", || {
        let hungry = std::env::current_exe().unwrap();
        let hungry = hungry.to_str().unwrap();
        for (arguments, code) in [
            // A line at the start and at the end, and a line of JSON.
            (&["--retries", "1", "--json=fd:2", "-m", "40Mi", "--", hungry, "role", "fail-unheard"][..], 198),
            // Nothing runs.
            (&["-m", "4g", "--", "true"], 125),
            (&["-m", "1Gi", "--", "/nowhere"], 127),
        ] {
            let (_unread, full) = full_pipe();
            let mut launcher = launcher();
            let started = Started::new(launcher.arg("run").args(arguments).stderr(full.try_clone().unwrap()));
            assert_eq!(started.end().0, Some(code), "{arguments:?}");
            // It is the user's, and others may write to it.
            assert_eq!(flags(&full) & libc::O_NONBLOCK, 0, "{arguments:?}");
        }
    });
    add(trials, "a_stderr_whose_reader_is_gone_ends_no_launcher", || {
        for (arguments, code) in [(["-m", "4g", "--", "true"], 125), (["-m", "1Gi", "--", "/nowhere"], 127)] {
            for stderr in without_reader() {
                let mut launcher = launcher();
                let started = Started::new(launcher.arg("run").args(arguments).stderr(stderr));
                assert_eq!(started.end().0, Some(code), "{arguments:?}");
            }
        }
    });
}

/// A pipe, and a socket, as a service has.
fn without_reader() -> [OwnedFd; 2] {
    let (_, pipe) = std::io::pipe().unwrap();
    let (_, socket) = UnixStream::pair().unwrap();
    [pipe.into(), socket.into()]
}

/// A pipe whose next write waits for ever.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    set_flags(&writer, libc::O_NONBLOCK);
    for size in [4096, 1] {
        while writer.write(&vec![b'x'; size]).is_ok() {}
    }
    set_flags(&writer, 0);
    (reader, writer)
}

fn flags(file: &PipeWriter) -> i32 {
    // SAFETY: F_GETFL takes no pointer.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) }
}

fn set_flags(file: &PipeWriter, flags: i32) {
    // SAFETY: F_SETFL takes no pointer.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) };
}
