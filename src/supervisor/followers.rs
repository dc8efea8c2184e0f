//! Descendants that ask for something, at a socket that is named after the worker's record.
//!
//! A guarded process that becomes a program which its guard does not get into (a static one, Go, musl) asks to be followed
//! first. Each gets a tracer of its own, so a worker whose descendants all have the guard runs without any.
//!
//! One that cannot open the record asks for that: another user's, or one in another PID namespace. So it does for the ledger
//! of the budget that it shares.

use super::descendants;
use super::inference::Inference;
use super::sys;
use super::sys::join::ASKS_TO_BE_FOLLOWED;
use super::sys::memfd::{ASKS_FOR_THE_LEDGER, ASKS_FOR_THE_RECORD};
use super::tracer::Terms;
use crate::record::Claims;
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
    /// `None`: nobody is followed.
    terms: Option<Terms>,
    followed: Vec<Inference>,
    /// What was found of those that are not kept.
    stops: u64,
}

impl Followers {
    /// Listens for the descendants of a worker whose record has this inode.
    pub(super) fn listen(inode: u64, terms: Option<Terms>) -> io::Result<Followers> {
        let address = SocketAddr::from_abstract_name(sys::memfd::keepers_name(inode).as_bytes())?;
        let listener = UnixListener::bind_addr(&address)?;
        listener.set_nonblocking(true)?;
        Ok(Followers { listener, terms, followed: Vec::new(), stops: 0 })
    }

    /// Readable when somebody has come.
    pub(super) fn arrivals(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Gives everybody who has come what it asks for, if it descends from `worker`. One that gets nothing goes on without.
    pub(super) fn attend(&mut self, worker: u32, record: BorrowedFd<'_>, ledger: Option<BorrowedFd<'_>>) {
        while let Ok((stream, _)) = self.listener.accept() {
            if let Ok(Some(inference)) = self.answer(stream, worker, record, ledger) {
                self.forget_the_oldest();
                self.followed.push(inference);
            }
        }
    }

    fn answer(
        &self,
        mut stream: UnixStream,
        worker: u32,
        record: BorrowedFd<'_>,
        ledger: Option<BorrowedFd<'_>>,
    ) -> io::Result<Option<Inference>> {
        let pid = sys::join::peer(stream.as_raw_fd()).ok_or_else(io::Error::last_os_error)?;
        if !descendants::descends_from(pid, worker) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut asked = [0];
        stream.read_exact(&mut asked)?;
        match (asked, self.terms) {
            ([ASKS_FOR_THE_RECORD], _) => sys::memfd::hand_over(stream.as_fd(), record).map(|()| None),
            ([ASKS_FOR_THE_LEDGER], _) => {
                let ledger = ledger.ok_or(io::ErrorKind::NotFound)?;
                sys::memfd::hand_over(stream.as_fd(), ledger).map(|()| None)
            }
            // Whether it may be traced, the kernel asks again.
            ([ASKS_TO_BE_FOLLOWED], Some(terms)) => Inference::follow(stream, pid, terms).map(Some),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
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

    /// What those that were followed were refused, whether they got over it or not.
    pub(super) fn refused(&self) -> Vec<Claims> {
        self.followed.iter().filter_map(Inference::refused).collect()
    }

    /// The limit on what is resident is another one now: of those that are followed, and of those that are yet to come.
    pub(super) fn set_limit(&mut self, bytes: u64) -> io::Result<()> {
        if let Some(terms) = &mut self.terms {
            terms.resident_limit = Some(bytes);
        }
        self.followed.iter().try_for_each(|inference| inference.set_limit(bytes))
    }

    pub(super) fn stops(&self) -> u64 {
        self.followed.iter().map(Inference::stops).sum::<u64>() + self.stops
    }
}
