//! Descendants that ask for something, at a socket that is named after the worker's record, and at one beside the library, which
//! network namespaces have in common.
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
use super::terms::Terms;
use crate::record::{Child, Claims, Failed};
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// How long one that has come may take to say what it wants: it says so at once, on a machine that lets it.
const PATIENCE: Duration = Duration::from_secs(1);

/// What has ended is forgotten from this number on: a loop of a shell's starts as many as it likes.
const MOST_KEPT: usize = 64;

pub(super) struct Followers {
    listener: UnixListener,
    beside_library: Option<Door>,
    /// `None`: nobody is followed.
    terms: Option<Terms>,
    followed: Vec<Inference>,
    /// What was found of those that are not kept.
    stops: u64,
}

impl Followers {
    /// Listens for the descendants of a worker whose record has this inode, and that preloads these libraries.
    pub(super) fn listen(inode: u64, terms: Option<Terms>, preload: &OsStr) -> io::Result<Followers> {
        let address = SocketAddr::from_abstract_name(sys::memfd::keepers_name(inode).as_bytes())?;
        let listener = UnixListener::bind_addr(&address)?;
        listener.set_nonblocking(true)?;
        let library = preload.as_bytes().split(|byte| b": ".contains(byte)).next().unwrap_or_default();
        let beside_library = Door::open(library, inode).ok();
        Ok(Followers { listener, beside_library, terms, followed: Vec::new(), stops: 0 })
    }

    /// Readable when somebody has come.
    pub(super) fn arrivals(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [Some(self.listener.as_fd()), self.beside_library.as_ref().map(|door| door.listener.as_fd())]
    }

    /// Gives everybody who has come what it asks for, if it descends from `worker`. One that gets nothing goes on without.
    pub(super) fn attend(&mut self, worker: u32, record: BorrowedFd<'_>, ledger: Option<BorrowedFd<'_>>) {
        let come = || {
            let beside = || self.beside_library.as_ref()?.listener.accept().ok();
            self.listener.accept().ok().or_else(beside)
        };
        let come: Vec<UnixStream> = std::iter::from_fn(come).map(|(stream, _)| stream).collect();
        for stream in come {
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

    /// Why the worker died, if it passed on the end of one that was followed. `failed`: the child whose end that would be, as
    /// far as is known, and the one whose end the first process of a PID namespace would have passed on. `tells`: it would have
    /// told of it.
    pub(super) fn verdict(
        &self,
        worker: u32,
        status: ExitStatus,
        at_ms: u64,
        [failed, of_init]: [Option<Failed>; 2],
        tells: bool,
    ) -> Option<Claims> {
        let is_childs = |inference: &Inference, failed: Failed| match failed.child {
            Child::Number(child) => inference.is_for(child),
            Child::DeadAfter(ms) => inference.has_fallen_after(ms, failed.of),
        };
        let is_of_init = |inference: &Inference| of_init.is_some_and(|failed| is_childs(inference, failed));
        let is_it = |inference: &&Inference| {
            let namespace = inference.namespace();
            inference.is_for(worker)
                || match failed {
                    // Bubblewrap's first process hands the code over, and is not waited for.
                    Some(failed) => {
                        let is_it = |(init, above)| [init, above].map(Child::Number).contains(&failed.child);
                        is_childs(inference, failed) || namespace.is_some_and(is_it) && is_of_init(inference)
                    }
                    None => {
                        !tells || namespace.is_some_and(|(_, above)| above == worker) && is_of_init(inference)
                    }
                }
        };
        self.followed
            .iter()
            .rev()
            .filter(is_it)
            .find_map(|inference| inference.verdict_of_descendant(status, at_ms))
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

/// A socket with a place in the file system, which is removed with it.
struct Door {
    listener: UnixListener,
    place: PathBuf,
}

impl Door {
    fn open(library: &[u8], inode: u64) -> io::Result<Door> {
        let place = sys::memfd::keepers_place(library, inode).ok_or(io::ErrorKind::InvalidInput)?;
        let place = place.as_bytes().strip_suffix(b"\0").unwrap_or_default();
        let place = Path::new(OsStr::from_bytes(place));
        // A memory file has no directory, and what others may write to is not for this.
        let directory = place.parent().ok_or(io::ErrorKind::InvalidInput)?;
        if !place.is_absolute() || directory.starts_with("/proc") {
            return Err(io::ErrorKind::Unsupported.into());
        }
        clear(directory);
        let listener = UnixListener::bind(place)?;
        let door = Door { listener, place: place.to_owned() };
        door.listener.set_nonblocking(true)?;
        // A descendant may be another user; who asks is looked at.
        fs::set_permissions(&door.place, Permissions::from_mode(0o666))?;
        Ok(door)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.place);
    }
}

/// Removes what was left behind by those that were killed, an hour ago or more.
fn clear(directory: &Path) {
    const OLD: Duration = Duration::from_secs(3600);
    const MOST: usize = 64;
    let is_left = |place: &Path| {
        let found = fs::symlink_metadata(place).ok().filter(|found| found.file_type().is_socket());
        let age = found.and_then(|found| found.modified().ok()?.elapsed().ok());
        let is_refused = || {
            UnixStream::connect(place).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        };
        age.is_some_and(|age| age > OLD) && is_refused()
    };
    let is_ours = |place: &PathBuf| {
        place.file_name().is_some_and(|name| name.as_bytes().starts_with(b"keeper-")) && is_left(place)
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    for place in entries.take(MOST).filter(is_ours) {
        let _ = fs::remove_file(place);
    }
}
