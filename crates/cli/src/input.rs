//! The command's stdin, which several tries share: a file is read again from where it was, anything else is not there twice.

use rustix::fs::SeekFrom;
use std::os::fd::BorrowedFd;

#[derive(Clone)]
pub struct Input {
    /// Where the first try begins to read. `None`: it is a pipe, a socket, a terminal.
    start: Option<u64>,
}

impl Input {
    pub fn now() -> Input {
        Input { start: rustix::fs::seek(stdin(), SeekFrom::Current(0)).ok() }
    }

    /// Whether what was read of it cannot be read again.
    pub fn is_lost(&self) -> bool {
        self.start.is_none() && rustix::fs::fstat(stdin()).is_ok()
    }

    /// Another try is to read what the first one has read.
    pub fn rewind(&self) {
        if let Some(start) = self.start {
            // What could be sought in before can be now.
            let _ = rustix::fs::seek(stdin(), SeekFrom::Start(start));
        }
    }
}

fn stdin() -> BorrowedFd<'static> {
    rustix::stdio::stdin()
}
