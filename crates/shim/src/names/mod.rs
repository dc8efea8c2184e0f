//! The names that the library exports, each one call inwards.
//!
//! Definitions here come before those of the C library (ld.so(8), symbol lookup), for the program and its libraries.

#![allow(clippy::missing_safety_doc)] // Each function's contract is that of the C library's function of its name.

mod bytes;
mod dlopen;
mod exec_lists;
mod formatted;
mod system_call;

use crate as inner;
use core::ffi::{c_char, c_int, c_uint, c_ulong, c_void};

/// Early among the constructors, so that allocations of the others are already guarded.
#[used]
#[unsafe(link_section = ".init_array.00001")]
static ARM: unsafe extern "C" fn(c_int, *const *const c_char, *const *const c_char) = inner::arm;

/// Defines names of the C library.
macro_rules! export {
    ($($(#[$attribute:meta])* fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? => $inner:path;)*) => {
        $(
            $(#[$attribute])*
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $type),*) $(-> $result)? {
                // SAFETY: the arguments are the caller's, whose contract is the same.
                unsafe { $inner($($argument),*) }
            }
        )*
    };
}

export! {
    fn malloc(bytes: usize) -> *mut c_void => inner::malloc;
    fn calloc(number: usize, size: usize) -> *mut c_void => inner::calloc;
    fn realloc(block: *mut c_void, bytes: usize) -> *mut c_void => inner::realloc;
    fn reallocarray(block: *mut c_void, number: usize, size: usize) -> *mut c_void => inner::reallocarray;
    fn memalign(align: usize, bytes: usize) -> *mut c_void => inner::memalign;
    fn aligned_alloc(align: usize, bytes: usize) -> *mut c_void => inner::aligned_alloc;
    fn posix_memalign(block: *mut *mut c_void, align: usize, bytes: usize) -> c_int => inner::posix_memalign;
    fn valloc(bytes: usize) -> *mut c_void => inner::valloc;
    fn pvalloc(bytes: usize) -> *mut c_void => inner::pvalloc;

    fn mmap(at: *mut c_void, bytes: usize, protection: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void
        => inner::mmap;
    fn mmap64(at: *mut c_void, bytes: usize, protection: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void
        => inner::mmap;
    fn mremap(at: *mut c_void, old_bytes: usize, bytes: usize, flags: c_int, to: *mut c_void) -> *mut c_void
        => inner::mremap;
    fn mprotect(at: *mut c_void, bytes: usize, protection: c_int) -> c_int => inner::mprotect;
    fn fallocate(fd: c_int, mode: c_int, offset: i64, bytes: i64) -> c_int => inner::fallocate;
    fn fallocate64(fd: c_int, mode: c_int, offset: i64, bytes: i64) -> c_int => inner::fallocate;
    fn posix_fallocate(fd: c_int, offset: i64, bytes: i64) -> c_int => inner::posix_fallocate;
    fn posix_fallocate64(fd: c_int, offset: i64, bytes: i64) -> c_int => inner::posix_fallocate;
    fn brk(end: *mut c_void) -> c_int => inner::brk;
    fn sbrk(more: isize) -> *mut c_void => inner::sbrk;

    fn pthread_create(
        thread: *mut libc::pthread_t,
        attributes: *const libc::pthread_attr_t,
        body: extern "C" fn(*mut c_void) -> *mut c_void,
        argument: *mut c_void
    ) -> c_int => inner::pthread_create;

    fn read(fd: c_int, to: *mut c_void, len: usize) -> isize => inner::read;
    fn __read_chk(fd: c_int, to: *mut c_void, len: usize, room: usize) -> isize => inner::read_chk;
    fn readv(fd: c_int, parts: *mut c_void, count: c_int) -> isize => inner::readv;
    fn pread(fd: c_int, to: *mut c_void, len: usize, offset: usize) -> isize => inner::pread;
    fn pread64(fd: c_int, to: *mut c_void, len: usize, offset: usize) -> isize => inner::pread;
    fn __pread64_chk(fd: c_int, to: *mut c_void, len: usize, offset: usize, room: usize) -> isize => inner::pread_chk;
    fn preadv(fd: c_int, parts: *mut c_void, count: c_int, offset: usize) -> isize => inner::preadv;
    fn preadv64(fd: c_int, parts: *mut c_void, count: c_int, offset: usize) -> isize => inner::preadv;
    fn recv(fd: c_int, to: *mut c_void, len: usize, flags: c_int) -> isize => inner::recv;
    fn recvfrom(fd: c_int, to: *mut c_void, len: usize, flags: c_int, from: usize, from_len: usize) -> isize
        => inner::recvfrom;
    fn recvmsg(fd: c_int, message: *mut c_void, flags: c_int) -> isize => inner::recvmsg;
    fn fread(to: *mut c_void, size: usize, number: usize, stream: *mut c_void) -> usize => inner::fread;
    fn fread_unlocked(to: *mut c_void, size: usize, number: usize, stream: *mut c_void) -> usize => inner::fread_unlocked;
    fn __fread_chk(to: *mut c_void, room: usize, size: usize, number: usize, stream: *mut c_void) -> usize
        => inner::fread_chk;
    fn fclose(stream: *mut c_void) -> c_int => inner::fclose;
    fn write(fd: c_int, bytes: *const c_void, len: usize) -> isize => inner::write;
    fn writev(fd: c_int, parts: *const libc::iovec, count: c_int) -> isize => inner::writev;
    fn fwrite(bytes: *const c_void, size: usize, number: usize, stream: *mut c_void) -> usize => inner::fwrite;
    fn fputs(text: *const c_char, stream: *mut c_void) -> c_int => inner::fputs;
    fn puts(text: *const c_char) -> c_int => inner::puts;
    fn fflush(stream: *mut c_void) -> c_int => inner::fflush;
    fn perror(text: *const c_char) -> () => inner::perror;
    fn strerror(number: c_int) -> *mut c_char => inner::strerror;
    fn strerror_r(number: c_int, text: *mut c_char, len: usize) -> *mut c_char => inner::strerror_r;
    fn strerror_l(number: c_int, locale: *mut c_void) -> *mut c_char => inner::strerror_l;
    fn gettext(text: *const c_char) -> *mut c_char => inner::gettext;
    fn dgettext(domain: *const c_char, text: *const c_char) -> *mut c_char => inner::dgettext;
    fn dcgettext(domain: *const c_char, text: *const c_char, category: c_int) -> *mut c_char => inner::dcgettext;
    fn ngettext(one: *const c_char, more: *const c_char, number: c_ulong) -> *mut c_char => inner::ngettext;
    fn setlocale(category: c_int, locale: *const c_char) -> *mut c_char => inner::setlocale;
    fn iconv_open(to: *const c_char, from: *const c_char) -> *mut c_void => inner::iconv_open;
    fn __assert_fail(expression: *const c_char, file: *const c_char, line: c_uint, function: *const c_char) -> !
        => inner::assert_fail;
    fn sigaction(signal: c_int, action: *const libc::sigaction, old: *mut libc::sigaction) -> c_int
        => inner::sigaction;
    fn signal(signal: c_int, handler: usize) -> usize => inner::signal;
    fn raise(signal: c_int) -> c_int => inner::raise;
    fn kill(pid: libc::pid_t, signal: c_int) -> c_int => inner::kill;
    fn prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int => inner::prctl;

    fn execve(path: *const c_char, arguments: *const *const c_char, environment: *const *const c_char) -> c_int
        => inner::execve;
    fn execv(path: *const c_char, arguments: *const *const c_char) -> c_int => inner::execv;
    fn execvp(name: *const c_char, arguments: *const *const c_char) -> c_int => inner::execvp;
    fn execvpe(name: *const c_char, arguments: *const *const c_char, environment: *const *const c_char) -> c_int
        => inner::execvpe;
    fn system(command: *const c_char) -> c_int => inner::system;
    fn popen(command: *const c_char, mode: *const c_char) -> *mut libc::FILE => inner::popen;
    fn pclose(stream: *mut libc::FILE) -> c_int => inner::pclose;
    fn wait(status: *mut c_int) -> libc::pid_t => inner::wait;
    fn wait3(status: *mut c_int, options: c_int, usage: *mut c_void) -> libc::pid_t => inner::wait3;
    fn wait4(pid: libc::pid_t, status: *mut c_int, options: c_int, usage: *mut c_void) -> libc::pid_t
        => inner::wait4;
    fn waitpid(pid: libc::pid_t, status: *mut c_int, options: c_int) -> libc::pid_t => inner::waitpid;
    fn waitid(kind: c_int, id: libc::id_t, info: *mut libc::siginfo_t, options: c_int) -> c_int
        => inner::waitid;
    fn posix_spawn(
        pid: *mut libc::pid_t,
        path: *const c_char,
        actions: *const c_void,
        attributes: *const c_void,
        arguments: *const *const c_char,
        environment: *const *const c_char
    ) -> c_int => inner::posix_spawn;
    fn posix_spawnp(
        pid: *mut libc::pid_t,
        name: *const c_char,
        actions: *const c_void,
        attributes: *const c_void,
        arguments: *const *const c_char,
        environment: *const *const c_char
    ) -> c_int => inner::posix_spawnp;

    fn oomguard_arm(limit: *const c_char) -> c_int => inner::arm_with_limit;
    fn oomguard_set_limit(limit: *const c_char) -> c_int => inner::set_limit;
    fn oomguard_task(name: *const c_char) -> () => inner::set_task;
    fn oomguard_status(status: *mut c_void, size: usize) -> c_int => inner::status;
}

#[unsafe(no_mangle)]
pub extern "C" fn abort() -> ! {
    inner::abort()
}

#[unsafe(no_mangle)]
pub extern "C" fn _exit(code: c_int) -> ! {
    inner::exit_at_once(code)
}

#[unsafe(no_mangle)]
pub extern "C" fn _Exit(code: c_int) -> ! {
    inner::exit_at_once(code)
}

#[unsafe(no_mangle)]
pub extern "C" fn quick_exit(code: c_int) -> ! {
    inner::quick_exit(code)
}

#[unsafe(no_mangle)]
pub extern "C" fn oomguard_version() -> *const c_char {
    inner::VERSION.as_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn oomguard_on_reclaim(
    callback: Option<extern "C" fn(*mut c_void)>,
    argument: *mut c_void,
) -> c_int {
    inner::on_reclaim(callback, argument)
}

#[unsafe(no_mangle)]
pub extern "C" fn oomguard_on_exhausted(
    callback: Option<extern "C" fn(*mut c_void)>,
    argument: *mut c_void,
) -> c_int {
    inner::on_exhausted(callback, argument)
}
