//! What stands for a function that takes as many arguments as its caller likes where the linker finds no other one, as in
//! a static program, which is linked with ours only: the arguments as a list (stdarg(3)), handed to a function that takes one.

use super::streams::stdout;
use core::ffi::{c_char, c_int, c_void};

/// Defines `$name` with so many named arguments, which go to `$takes_list`, and a list of the others behind them.
#[cfg(target_arch = "x86_64")]
macro_rules! as_list {
    ($name:ident, $named:tt, $takes_list:path) => {
        #[unsafe(naked)]
        pub(super) unsafe extern "C" fn $name() {
            // The list, and behind it the registers, as System V's ABI for AMD64 has them (3.5.7).
            core::arch::naked_asm!(
                "push rbp",
                "mov rbp, rsp",
                "sub rsp, 208",
                "mov [rsp + 32], rdi",
                "mov [rsp + 40], rsi",
                "mov [rsp + 48], rdx",
                "mov [rsp + 56], rcx",
                "mov [rsp + 64], r8",
                "mov [rsp + 72], r9",
                "movaps [rsp + 80], xmm0",
                "movaps [rsp + 96], xmm1",
                "movaps [rsp + 112], xmm2",
                "movaps [rsp + 128], xmm3",
                "movaps [rsp + 144], xmm4",
                "movaps [rsp + 160], xmm5",
                "movaps [rsp + 176], xmm6",
                "movaps [rsp + 192], xmm7",
                "mov dword ptr [rsp], {used}",
                "mov dword ptr [rsp + 4], 48",
                "lea rax, [rbp + 16]",
                "mov [rsp + 8], rax",
                "lea rax, [rsp + 32]",
                "mov [rsp + 16], rax",
                concat!("mov ", register_behind!($named), ", rsp"),
                "call {takes_list}",
                "leave",
                "ret",
                used = const 8 * $named,
                takes_list = sym $takes_list,
            )
        }
    };
}

#[cfg(target_arch = "aarch64")]
macro_rules! as_list {
    ($name:ident, $named:tt, $takes_list:path) => {
        #[unsafe(naked)]
        pub(super) unsafe extern "C" fn $name() {
            // The list, and behind it the registers, as the procedure call standard for AArch64 has them (B.3).
            core::arch::naked_asm!(
                "stp x29, x30, [sp, #-16]!",
                "mov x29, sp",
                "sub sp, sp, #224",
                "stp x0, x1, [sp, #32]",
                "stp x2, x3, [sp, #48]",
                "stp x4, x5, [sp, #64]",
                "stp x6, x7, [sp, #80]",
                "stp q0, q1, [sp, #96]",
                "stp q2, q3, [sp, #128]",
                "stp q4, q5, [sp, #160]",
                "stp q6, q7, [sp, #192]",
                "add x16, x29, #16",
                "str x16, [sp]",
                "add x16, sp, #96",
                "str x16, [sp, #8]",
                "add x16, sp, #224",
                "str x16, [sp, #16]",
                "mov w16, #{unused}",
                "str w16, [sp, #24]",
                "mov w16, #-128",
                "str w16, [sp, #28]",
                concat!("mov ", register_behind!($named), ", sp"),
                "bl {takes_list}",
                "mov sp, x29",
                "ldp x29, x30, [sp], #16",
                "ret",
                unused = const 8 * $named - 64,
                takes_list = sym $takes_list,
            )
        }
    };
}

/// The register of the argument behind so many.
#[cfg(target_arch = "x86_64")]
macro_rules! register_behind {
    (1) => {
        "rsi"
    };
    (2) => {
        "rdx"
    };
    (3) => {
        "rcx"
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! register_behind {
    (1) => {
        "x1"
    };
    (2) => {
        "x2"
    };
    (3) => {
        "x3"
    };
}

as_list!(fprintf_chk, 3, vfprintf_chk);
as_list!(printf_chk, 2, vprintf_chk);
as_list!(error, 3, verror);
as_list!(err, 2, verr);
as_list!(errx, 2, verrx);
as_list!(warn, 1, vwarn);
as_list!(warnx, 1, vwarnx);

unsafe extern "C" {
    // glibc's other name for it, and the functions of err(3), which nobody hides.
    fn _IO_vfprintf(stream: *mut c_void, format: *const c_char, list: *mut c_void) -> c_int;
    fn verr(code: c_int, format: *const c_char, list: *mut c_void) -> !;
    fn verrx(code: c_int, format: *const c_char, list: *mut c_void) -> !;
    fn vwarn(format: *const c_char, list: *mut c_void);
    fn vwarnx(format: *const c_char, list: *mut c_void);
    static program_invocation_name: *const c_char;
    static stderr: *mut c_void;
}

/// # Safety
/// The arguments of a fortified vfprintf(3).
pub(super) unsafe extern "C" fn vfprintf_chk(
    stream: *mut c_void,
    _: c_int,
    format: *const c_char,
    list: *mut c_void,
) -> c_int {
    // SAFETY: the arguments are the caller's, whose contract is the same but for the flag.
    unsafe { _IO_vfprintf(stream, format, list) }
}

unsafe extern "C" fn vprintf_chk(_: c_int, format: *const c_char, list: *mut c_void) -> c_int {
    // SAFETY: a variable of the C library, set before constructors run.
    let stream = unsafe { stdout };
    // SAFETY: as above.
    unsafe { _IO_vfprintf(stream, format, list) }
}

/// error(3), whose function that takes a list glibc keeps to itself.
unsafe extern "C" fn verror(status: c_int, number: c_int, format: *const c_char, list: *mut c_void) {
    // SAFETY: all streams.
    unsafe { libc::fflush(core::ptr::null_mut()) };
    // SAFETY: a variable of the C library, set before constructors run.
    let stream = unsafe { stderr };
    let say = |text: *const c_char| {
        // SAFETY: a C string, and a stream of the C library's.
        unsafe { libc::fputs(text, stream.cast()) };
    };
    // SAFETY: as above.
    say(unsafe { program_invocation_name });
    say(c": ".as_ptr());
    // SAFETY: the arguments are the caller's.
    unsafe { _IO_vfprintf(stream, format, list) };
    if number != 0 {
        say(c": ".as_ptr());
        // SAFETY: gives a C string.
        say(unsafe { libc::strerror(number) });
    }
    say(c"\n".as_ptr());
    if status != 0 {
        // SAFETY: what error(3) does.
        unsafe { libc::exit(status) }
    }
}
