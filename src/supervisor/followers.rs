//! Descendants that ask to be followed: a guarded process that becomes a program which its guard does not get into (a
//! static one, Go, musl) says so first, at a socket that is named after the worker's record. Each gets a tracer of its own,
//! so a worker whose descendants all have the guard runs without any.

use super::inference::Inference;
use super::tracer::Terms;
use crate::record::Claims;
use crate::sys;
use crate::sys::join::ASKS_TO_BE_FOLLOWED;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::ExitStatus;
use std::time::Duration;

/// How long one that has come may take to say what it wants: it says so at once.
const PATIENCE: Duration = Duration::from_millis(100);

/// What has ended is forgotten from this number on: a loop of a shell's starts as many as it likes.
const MOST_KEPT: usize = 64;

pub(super) struct Followers {
    listener: UnixListener,
    terms: Terms,
    followed: Vec<Inference>,
    /// What was found of those that are not kept.
    stops: u64,
}

impl Followers {
    /// Listens for the descendants of a worker whose record has this inode.
    pub(super) fn listen(inode: u64, terms: Terms) -> io::Result<Followers> {
        let address = SocketAddr::from_abstract_name(sys::join::name_of(inode).as_bytes())?;
        let listener = UnixListener::bind_addr(&address)?;
        listener.set_nonblocking(true)?;
        Ok(Followers { listener, terms, followed: Vec::new(), stops: 0 })
    }

    /// Readable when somebody has come.
    pub(super) fn arrivals(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Gives everybody who has come what it asks for. One that fails goes on without.
    pub(super) fn attend(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if let Ok(inference) = self.follow(stream) {
                self.forget_the_oldest();
                self.followed.push(inference);
            }
        }
    }

    fn follow(&self, mut stream: UnixStream) -> io::Result<Inference> {
        let (pid, user) = sys::join::peer(stream.as_raw_fd()).ok_or_else(io::Error::last_os_error)?;
        // Whose process it is the kernel asks again when it is to be traced.
        if pid == 0 || user != sys::process::effective_user() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut asked = [0];
        stream.read_exact(&mut asked)?;
        if asked != [ASKS_TO_BE_FOLLOWED] {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Inference::follow(stream, pid, self.terms)
    }

    fn forget_the_oldest(&mut self) {
        if self.followed.len() >= MOST_KEPT {
            self.stops += self.followed.remove(0).stops();
        }
    }

    /// Why the worker died, if it passed on the end of one that was followed.
    pub(super) fn verdict(&self, status: ExitStatus) -> Option<Claims> {
        self.followed.iter().rev().find_map(|inference| inference.verdict_of_descendant(status))
    }

    /// What those that were followed died of, if it was a refusal: the last one of each.
    pub(super) fn fallen(&self) -> Vec<Claims> {
        self.followed.iter().filter_map(Inference::fallen).collect()
    }

    pub(super) fn stops(&self) -> u64 {
        self.followed.iter().map(Inference::stops).sum::<u64>() + self.stops
    }
}
