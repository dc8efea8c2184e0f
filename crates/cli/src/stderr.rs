//! Stderr, which may be a pipe that nobody empties: the launcher waits for no reader beyond a deadline.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, ReadWriteFlags, pwritev2, write};
use rustix::net::{SendFlags, send};
use rustix::stdio::stderr;
use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a reader may take to make room.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// As much as fits into a pipe that has any room: PIPE_BUF of pipe(7).
const AT_ONCE_BYTES: usize = 4096;

/// Nobody read in time once. Relaxed: it stands by itself, and one more wait is none too many.
static IS_GIVEN_UP: AtomicBool = AtomicBool::new(false);

/// Writes all of it, or as much as somebody reads: nobody may be listening any more.
pub fn write_patiently(mut rest: &[u8]) {
    let kind = fstat(stderr()).map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode));
    let at_once = if kind == FileType::RegularFile { rest.len() } else { AT_ONCE_BYTES };
    let patience = if IS_GIVEN_UP.load(Ordering::Relaxed) { Duration::ZERO } else { PATIENCE };
    let until = Instant::now() + patience;
    while !rest.is_empty() {
        let piece = rest.get(..at_once).unwrap_or(rest);
        match write_if_ready(piece, kind, until.saturating_duration_since(Instant::now())) {
            // As some devices do, for ever.
            Ok(0) => return,
            Ok(written) => rest = rest.get(written..).unwrap_or(&[]),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => return IS_GIVEN_UP.store(error == Errno::AGAIN, Ordering::Relaxed),
        }
    }
}

/// `O_NONBLOCK` will not do: it would be set for everybody who has this pipe.
fn write_if_ready(piece: &[u8], kind: FileType, patience: Duration) -> rustix::io::Result<usize> {
    let stderr = stderr();
    let patience = Timespec::try_from(patience).map_err(|_| Errno::INVAL)?;
    let mut asked = [PollFd::new(&stderr, PollFlags::OUT)];
    match poll(&mut asked, Some(&patience)) {
        Ok(0) => return Err(Errno::AGAIN),
        // Nobody reads any more: writing would be SIGPIPE.
        Ok(_) if asked.iter().any(|answer| answer.revents().contains(PollFlags::ERR)) => {
            return Err(Errno::PIPE);
        }
        // Where RLIMIT_NOFILE is zero, nothing may be asked.
        Ok(_) | Err(Errno::INVAL) => {}
        Err(error) => return Err(error),
    }
    // Somebody else may be faster to fill a pipe. Linux before 6.5 cannot look and write in one.
    if kind == FileType::Fifo {
        match pwritev2(stderr, &[IoSlice::new(piece)], WHERE_IT_STANDS, ReadWriteFlags::NOWAIT) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            result => return result,
        }
    }
    // poll(2) tells neither that its reader is gone, nor how much there is room for.
    if kind == FileType::Socket {
        return send(stderr, piece, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }
    write(stderr, piece)
}

/// As for write(2).
const WHERE_IT_STANDS: u64 = u64::MAX;
