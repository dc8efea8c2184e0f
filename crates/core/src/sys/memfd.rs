//! Pages that two processes share: memfd_create(2), sealed so that neither can pull them away from under the other.

use super::fd::Fd;
use super::raw;
use crate::text::Text;
use core::ffi::CStr;
use core::mem::offset_of;

/// What keeps either process from pulling them away.
pub const SEALS: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// Opens the file behind a descriptor of process `pid`: proc_pid_fd(5). Signal-safe.
pub fn open_of(pid: u32, fd: i32) -> Option<Fd> {
    let mut path = Text::<48>::new();
    path.push("/proc/");
    path.push_number(u64::from(pid));
    path.push("/fd/");
    path.push_number(u64::from(fd.unsigned_abs()));
    path.push_bytes(&[0]);
    super::fd::open(
        CStr::from_bytes_until_nul(path.as_bytes()).ok()?,
        libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK,
    )
}

/// What a process asks of the supervisor that keeps its record, in the first byte that it sends: the record.
pub const ASKS_FOR_THE_RECORD: u8 = b'R';
/// The same: the ledger of the budget that it shares.
pub const ASKS_FOR_THE_LEDGER: u8 = b'L';

/// The name of the socket where it does so: abstract, as unix(7) has it, and after the record.
pub fn keepers_name(inode: u64) -> Text<48> {
    let mut name = Text::new();
    name.push("oomguard-record-");
    name.push_number(inode);
    name
}

/// What an address has room for, with a NUL at the end.
pub const PLACE_BYTES: usize = 108;

/// The place of the same socket beside the library at this path, for those in another network namespace, from where no abstract
/// name can be reached. `None`: it is too long, or there is no directory.
pub fn keepers_place(library: &[u8], inode: u64) -> Option<Text<PLACE_BYTES>> {
    let directory = library.get(..=crate::text::last_position(library, b'/')?)?;
    let mut place = Text::from_bytes(directory);
    place.push("keeper-");
    place.push_number(inode);
    place.push_bytes(&[0]);
    (!place.is_cut()).then_some(place)
}

/// A connection to the supervisor that keeps the record with this inode, if there is one that listens. Signal-safe.
pub fn connect_to_keeper(inode: u64) -> Option<Fd> {
    let mut abstract_name = Text::<PLACE_BYTES>::from_bytes(&[0]);
    abstract_name.push_bytes(keepers_name(inode).as_bytes());
    connect(abstract_name.as_bytes()).or_else(|| {
        let (_, library) = super::objects::object_of(connect_to_keeper as *const () as usize)?;
        connect(keepers_place(library.to_bytes(), inode)?.as_bytes())
    })
}

fn connect(name: &[u8]) -> Option<Fd> {
    // SAFETY: takes numbers.
    let socket = unsafe { raw::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    let socket = Fd::own(socket)?;
    // SAFETY: all-zero is a valid address, a struct of numbers.
    let mut address: libc::sockaddr_un = unsafe { core::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    let len = (offset_of!(libc::sockaddr_un, sun_path) + name.len()) as libc::socklen_t;
    // SAFETY: an address of that length, readable during the call.
    let result = unsafe { raw::connect(socket.number(), &raw const address, len) };
    (result == 0).then_some(socket)
}

/// Room for one descriptor in a message: cmsg(3).
#[repr(C, align(8))]
pub struct Control(pub [u8; 64]);

/// A message of one part, with room for a descriptor.
pub fn message(part: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: all-zero is a valid message, a struct of numbers and null pointers.
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut *part, 1);
    message.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: arithmetic.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<i32>() as u32) } as _;
    message
}

/// The record with this inode and of so many bytes, behind a descriptor of process `pid`. Another user may not open it, and in another
/// PID namespace it is not found: whoever keeps it is asked. Signal-safe.
pub fn record_of(pid: u32, fd: i32, inode: u64, bytes: usize) -> Option<Fd> {
    open_of(pid, fd)
        .filter(|fd| sealed_inode(fd.number(), bytes) == Some(inode))
        .or_else(|| ask_for(ASKS_FOR_THE_RECORD, inode))
}

/// Asks the supervisor that keeps the record with this inode for that, or for `what` else, where it cannot be opened: by another
/// user, in another namespace. Signal-safe.
pub fn ask_for(what: u8, inode: u64) -> Option<Fd> {
    const PATIENCE_MS: i32 = 1000;
    let keeper = connect_to_keeper(inode)?;
    if !super::fd::send(keeper.number(), &[what]) {
        return None;
    }
    let mut poll = libc::pollfd { fd: keeper.number(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, writable during the call.
    if unsafe { raw::poll(&raw mut poll, 1, PATIENCE_MS) } <= 0 {
        return None;
    }
    let mut byte = 0u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = Control([0; 64]);
    let mut message = message(&mut part, &mut control);
    // SAFETY: the message's parts are this function's own, and writable during the call.
    let got = unsafe { raw::recvmsg(keeper.number(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    // SAFETY: a message that the kernel has filled in.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: null, or in `control`, which is as large as the kernel was told.
    let header = unsafe { header.as_ref() }?;
    if got != 1 || header.cmsg_level != libc::SOL_SOCKET || header.cmsg_type != libc::SCM_RIGHTS {
        return None;
    }
    // SAFETY: as above.
    let data: *const i32 = unsafe { libc::CMSG_DATA(header) }.cast();
    // SAFETY: the kernel puts descriptors there, which are numbers; one, as there is no room for more.
    Fd::own(unsafe { data.read_unaligned() })
}

/// Whether descriptor `fd` is such a file of `bytes`; its inode number, which no other such file has.
pub fn sealed_inode(fd: i32, bytes: usize) -> Option<u64> {
    // SAFETY: F_GET_SEALS takes no pointer.
    let seals = unsafe { raw::fcntl(fd, libc::F_GET_SEALS) };
    if seals < 0 || seals & SEALS != SEALS {
        return None;
    }
    let stat = super::fd::stat_of(fd)?;
    (usize::try_from(stat.st_size) == Ok(bytes)).then_some(stat.st_ino)
}

/// Maps the sealed file `fd`, shared and for good: it is never unmapped.
pub fn map_for_ever(fd: i32, bytes: usize) -> Option<*mut u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let at = unsafe { libc::mmap(core::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd, 0) };
    (at != libc::MAP_FAILED).then_some(at.cast())
}
