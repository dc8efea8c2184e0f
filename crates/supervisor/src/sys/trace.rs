//! Following other processes: ptrace(2). What these do for it is in `join`.
//!
//! `start_unseen` and what it runs are for processes that have been forked and not executed anything: nothing here
//! allocates or locks.

use super::errno::errno;
use core::ffi::c_long;
use core::mem::offset_of;

const SEIZE: u32 = 0x4206;
const INTERRUPT: u32 = 0x4207;
const LISTEN: u32 = 0x4208;
const GET_SYSCALL_INFO: u32 = 0x420e;
const GET_REGISTERS: u32 = 0x4204;
const SET_REGISTERS: u32 = 0x4205;
/// The general registers, among the sets of those two: linux/elf.h.
const NT_PRSTATUS: usize = 1;
/// The same of the general registers alone, as x86 has had them before there were sets: asm/ptrace-abi.h.
const GET_GENERAL_REGISTERS: u32 = 12;
const SET_GENERAL_REGISTERS: u32 = 13;
const SYSCALL: u32 = 24;
const CONT: u32 = 7;
const DETACH: u32 = 17;
const GET_EVENT_MESSAGE: u32 = 0x4201;
const GET_SIGNAL_INFO: u32 = 0x4202;

const OPTIONS: i32 = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACESECCOMP
    | libc::PTRACE_O_TRACEEXIT
    | libc::PTRACE_O_EXITKILL;

const EVENT_STOP: i32 = 128;

/// What became of a followed thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It is gone; the status as wait(2) encodes it.
    Gone(i32),
    /// It is about to make a call that the filter chose.
    Call,
    /// It makes any call, or has made it: it was let go on to that by [`go_on_to_call`].
    CallStop,
    /// It is about to be gone; its process still has its memory, if it is the last thread.
    Ending,
    /// It runs another program now.
    Exec,
    /// It has started another process.
    Forked,
    /// Stopped by a signal, with its whole process, until SIGCONT.
    GroupStop,
    /// About to get this signal.
    Signal(i32),
    /// Anything that wants no answer: a new thread or process, the end of a group stop.
    Other,
}

/// Waits for the next event of any followed thread. `None`: there are none left.
pub(crate) fn wait_any() -> Option<(u32, Event)> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is writable during the call; no usage is asked for.
        let tid = unsafe { libc::wait4(-1, &raw mut status, libc::__WALL, core::ptr::null_mut()) };
        if tid > 0 {
            return Some((tid.unsigned_abs(), event_of(status)));
        }
        if errno() != libc::EINTR {
            return None;
        }
    }
}

/// What became of a wait that does not last for ever.
pub(crate) enum Waited {
    For(u32, Event),
    Nothing,
    /// Nobody is left.
    Nobody,
}

/// The same, but it waits for so many milliseconds at most. Only for a process that has called [`hear_of_events`].
pub(crate) fn wait_any_within(ms: u64) -> Waited {
    for is_last in [false, true] {
        let mut status = 0;
        let options = libc::__WALL | libc::WNOHANG;
        // SAFETY: `status` is writable during the call; no usage is asked for.
        let tid = unsafe { libc::wait4(-1, &raw mut status, options, core::ptr::null_mut()) };
        match tid {
            1.. => return Waited::For(tid.unsigned_abs(), event_of(status)),
            0 if is_last => {}
            0 => super::signals::wait_for(libc::SIGCHLD, ms),
            _ if errno() == libc::EINTR => {}
            _ => return Waited::Nobody,
        }
    }
    Waited::Nothing
}

/// Has the kernel tell this process of each event by SIGCHLD, which stays pending: all signals are blocked here.
pub(crate) fn hear_of_events() {
    super::signals::set_default(libc::SIGCHLD);
}

/// The process that a thread has started, which stands at that event.
pub(crate) fn started_by(tid: u32) -> Option<u32> {
    event_message(tid)
}

/// The status of a thread that is about to be gone, as wait(2) encodes it: its own, or that of its whole process.
pub(crate) fn status_of_ending(tid: u32) -> Option<i32> {
    event_message(tid).map(u32::cast_signed)
}

fn event_message(tid: u32) -> Option<u32> {
    let mut message: libc::c_ulong = 0;
    let got = ptrace(GET_EVENT_MESSAGE, tid, 0, (&raw mut message).addr());
    if got < 0 { None } else { u32::try_from(message).ok() }
}

/// Where a signal comes from that a thread is about to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An access to an address where nothing is mapped.
    NotMapped(u64),
    /// An access to an address where something is mapped that allows no such access.
    Denied(u64),
    /// An instruction that the processor does not let a program make.
    Forbidden,
    /// A process, itself perhaps.
    Sent(u32),
    Other,
}

pub(crate) fn origin_of_signal(tid: u32) -> Origin {
    /// sigaction(2).
    const SEGV_MAPERR: i32 = 1;
    const SEGV_ACCERR: i32 = 2;
    const SI_KERNEL: i32 = 128;
    // SAFETY: all-zero is a valid `siginfo_t`, a struct of integers.
    let mut info: libc::siginfo_t = unsafe { core::mem::zeroed() };
    if ptrace(GET_SIGNAL_INFO, tid, 0, (&raw mut info).addr()) < 0 {
        return Origin::Other;
    }
    match (info.si_signo, info.si_code) {
        // SAFETY: a fault of the kernel's finding carries the address.
        (libc::SIGSEGV, SEGV_MAPERR) => Origin::NotMapped(unsafe { info.si_addr() } as u64),
        // SAFETY: as above.
        (libc::SIGSEGV, SEGV_ACCERR) => Origin::Denied(unsafe { info.si_addr() } as u64),
        (libc::SIGSEGV, SI_KERNEL) => Origin::Forbidden,
        // SAFETY: what kill(2) and tgkill(2) send carries the sender.
        (_, libc::SI_USER | libc::SI_TKILL) => Origin::Sent(unsafe { info.si_pid() }.cast_unsigned()),
        _ => Origin::Other,
    }
}

/// Whether the signal that a thread is about to get came along with that value.
pub(crate) fn is_told(tid: u32, value: u64) -> bool {
    // SAFETY: all-zero is a valid `siginfo_t`, a struct of integers.
    let mut info: libc::siginfo_t = unsafe { core::mem::zeroed() };
    ptrace(GET_SIGNAL_INFO, tid, 0, (&raw mut info).addr()) == 0
        && info.si_code == libc::SI_QUEUE
        // SAFETY: a queued signal has a value.
        && unsafe { info.si_value() }.sival_ptr as u64 == value
}

fn event_of(status: i32) -> Event {
    if !libc::WIFSTOPPED(status) {
        return Event::Gone(status);
    }
    let signal = libc::WSTOPSIG(status);
    match (status >> 16, signal) {
        (libc::PTRACE_EVENT_SECCOMP, _) => Event::Call,
        (libc::PTRACE_EVENT_EXEC, _) => Event::Exec,
        (libc::PTRACE_EVENT_EXIT, _) => Event::Ending,
        (libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK, _) => Event::Forked,
        (EVENT_STOP, libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) => Event::GroupStop,
        (0, signal) if signal == libc::SIGTRAP | 0x80 => Event::CallStop,
        (0, signal) => Event::Signal(signal),
        _ => Event::Other,
    }
}

fn ptrace(request: u32, tid: u32, address: usize, data: usize) -> c_long {
    // SAFETY: of the requests made here only GET_SYSCALL_INFO, GET_EVENT_MESSAGE, GET_SIGNAL_INFO and those for registers take a pointer, and their callers own
    // what that points to.
    unsafe { libc::syscall(libc::SYS_ptrace, c_long::from(request), c_long::from(tid), address, data) }
}

/// Starts to follow process `pid` and all that will descend from it. If this process ends, they are killed: a filter
/// that asks for a tracer which is gone makes each call fail, and a C library that is told "no such call" by
/// brk(2) takes that for an address.
pub(crate) fn seize(pid: u32) -> Result<(), i32> {
    if ptrace(SEIZE, pid, 0, OPTIONS as usize) == 0 { Ok(()) } else { Err(errno()) }
}

/// Has a thread stand still soon, as long as the calling thread lives and does not let it go. Whether that may be.
pub(crate) fn hold(tid: u32) -> bool {
    ptrace(SEIZE, tid, 0, 0) == 0 && ptrace(INTERRUPT, tid, 0, 0) == 0
}

/// Lets a thread go on that the calling thread holds, and get the signal that it may stand at. False: it does not stand yet.
pub(crate) fn let_go(tid: u32) -> bool {
    // SAFETY: all-zero is a valid `siginfo_t`, a struct of integers.
    let mut info: libc::siginfo_t = unsafe { core::mem::zeroed() };
    if ptrace(GET_SIGNAL_INFO, tid, 0, (&raw mut info).addr()) == 0 {
        let stands_for_us = info.si_code >> 8 == EVENT_STOP;
        let signal = if stands_for_us { 0 } else { info.si_signo.unsigned_abs() as usize };
        return ptrace(DETACH, tid, 0, signal) == 0;
    }
    if super::proc::parent_of(tid) == Some(super::process::pid()) && super::proc::state_of(tid) == Some(b'Z')
    {
        return true;
    }
    // Whoever traces the dead is told first, and the parent then.
    let mut status = 0;
    let options = libc::__WALL | libc::WNOHANG;
    // SAFETY: `status` is writable during the call.
    let got = unsafe { libc::wait4(tid.cast_signed(), &raw mut status, options, core::ptr::null_mut()) };
    got < 0 || got > 0 && !libc::WIFSTOPPED(status)
}

/// Lets a stopped thread go on, with a signal unless that is zero. One that was killed meanwhile needs nothing.
pub(crate) fn go_on(tid: u32, signal: i32) {
    ptrace(CONT, tid, 0, signal.unsigned_abs() as usize);
}

/// The same, up to the next begin or return of any system call.
pub(crate) fn go_on_to_call(tid: u32, signal: i32) {
    ptrace(SYSCALL, tid, 0, signal.unsigned_abs() as usize);
}

/// Leaves a thread in its group stop, but hears of its end.
pub(crate) fn leave_stopped(tid: u32) {
    ptrace(LISTEN, tid, 0, 0);
}

/// `struct ptrace_syscall_info` of linux/ptrace.h, as far as it is used.
#[repr(C)]
struct CallInfo {
    kind: u8,
    padding: [u8; 3],
    architecture: u32,
    instruction_pointer: u64,
    stack_pointer: u64,
    /// The call's number and arguments; or its result, and whether that is an error.
    words: [u64; 8],
}

const ENTRY: u8 = 1;
const EXIT: u8 = 2;
const SECCOMP: u8 = 3;

impl CallInfo {
    fn of(tid: u32) -> Option<CallInfo> {
        CallInfo::told(tid).or_else(|| CallInfo::from_registers(tid))
    }

    /// Where the kernel does not tell, as before Linux 5.3, or as user-mode Linux: by what the registers hold. `kind` is then ENTRY
    /// where a call is about to be made, whoever it was that stopped the thread there.
    fn from_registers(tid: u32) -> Option<CallInfo> {
        if !cfg!(target_arch = "x86_64") {
            return None;
        }
        let registers = GeneralRegisters::of(tid)?;
        let word = |index: usize| registers.words.get(index).copied().unwrap_or_default();
        // rax, orig_rax; rdi, rsi, rdx, r10, r8, r9
        let (result, number) = (word(10), word(15));
        // This is what the result is until there is one.
        let is_entry = result == (-i64::from(libc::ENOSYS)).cast_unsigned();
        let words = if is_entry {
            [number, word(14), word(13), word(12), word(7), word(9), word(8), 0]
        } else {
            [result, 0, 0, 0, 0, 0, 0, 0]
        };
        Some(CallInfo { kind: if is_entry { ENTRY } else { EXIT }, words, ..CallInfo::NONE })
    }

    const NONE: CallInfo = CallInfo {
        kind: 0,
        padding: [0; 3],
        architecture: 0,
        instruction_pointer: 0,
        stack_pointer: 0,
        words: [0; 8],
    };

    fn told(tid: u32) -> Option<CallInfo> {
        let mut info = CallInfo::NONE;
        let got = ptrace(GET_SYSCALL_INFO, tid, size_of::<CallInfo>(), (&raw mut info).addr());
        (got >= 0).then_some(info)
    }
}

/// A call that maps memory, as it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MappingCall {
    /// mmap, mremap, mprotect: so many bytes, to be written to or not; the first argument; and whether a limit refuses it.
    /// How large the block is already, where it is to grow. Whether it is a thread's stack, where the call tells.
    Map {
        bytes: u64,
        grown_from: u64,
        writable: bool,
        is_stack: Option<bool>,
        first: u64,
        unlimited: Unlimited,
    },
    /// brk: the address that is to be the end.
    Break { end: u64 },
}

/// What no limit on data refuses. All zero: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Unlimited {
    #[default]
    Nothing = 0,
    /// Private memory, laid over whatever is there.
    LaidOver = 1,
    /// Memory that may be shared, of no file.
    Shared = 2,
    /// The same of a descriptor's, from that byte on.
    SharedFile { fd: i32, offset: u64 } = 3,
    /// Memory for a file, which nobody has mapped for it yet.
    Allocated { fd: i32, offset: u64 } = 4,
}

/// The call that a thread is about to make.
pub(crate) fn call_of(tid: u32) -> Option<MappingCall> {
    let info = CallInfo::of(tid).filter(|info| info.kind == SECCOMP || info.kind == ENTRY)?;
    let [number, first, second, third, fourth, fifth, sixth, _] = info.words;
    let writable = |protection: u64| protection & libc::PROT_WRITE as u64 != 0;
    match c_long::try_from(number).ok()? {
        libc::SYS_mprotect => Some(MappingCall::Map {
            bytes: second,
            grown_from: 0,
            writable: writable(third),
            is_stack: None,
            first,
            unlimited: Unlimited::Nothing,
        }),
        libc::SYS_mmap => {
            let flags = fourth as i32;
            let unlimited = match flags & libc::MAP_TYPE {
                _ if !writable(third) => Unlimited::Nothing,
                libc::MAP_PRIVATE if flags & libc::MAP_FIXED == 0 => Unlimited::Nothing,
                libc::MAP_PRIVATE => Unlimited::LaidOver,
                _ if flags & libc::MAP_ANONYMOUS != 0 => Unlimited::Shared,
                _ => Unlimited::SharedFile { fd: fifth as i32, offset: sixth },
            };
            Some(MappingCall::Map {
                bytes: second,
                grown_from: 0,
                writable: writable(third),
                is_stack: Some(flags & libc::MAP_STACK != 0),
                first,
                unlimited,
            })
        }
        // The old size is counted already.
        libc::SYS_mremap => {
            let bytes = third.saturating_sub(second);
            let unlimited = Unlimited::Nothing;
            let is_stack = Some(false);
            Some(MappingCall::Map { bytes, grown_from: second, writable: true, is_stack, first, unlimited })
        }
        // All other modes give back, or move.
        libc::SYS_fallocate if second as i32 & !libc::FALLOC_FL_KEEP_SIZE == 0 => {
            let unlimited = Unlimited::Allocated { fd: first as i32, offset: third };
            let is_stack = Some(false);
            Some(MappingCall::Map {
                bytes: fourth,
                grown_from: 0,
                writable: true,
                is_stack,
                first,
                unlimited,
            })
        }
        libc::SYS_brk => Some(MappingCall::Break { end: first }),
        _ => None,
    }
}

/// General registers, as NT_PRSTATUS has them: the words of `struct user_regs_struct`, as many as the largest of these has.
const MOST_REGISTERS: usize = 40;

/// What there is to change in a thread that has made a call, so that it makes the same call again: the registers of the
/// instruction and of the result, and how long the instruction is that makes calls.
struct Restart {
    instruction: usize,
    instruction_bytes: u64,
    result: usize,
    /// The first argument's, before the call is made.
    first: usize,
    /// Where the call's number still is; elsewhere the result has taken the place of the first argument.
    number: Option<usize>,
}

const RESTART: Option<Restart> = if cfg!(target_arch = "x86_64") {
    // rip, rax, rdi, orig_rax
    Some(Restart { instruction: 16, instruction_bytes: 2, result: 10, first: 14, number: Some(15) })
} else if cfg!(target_arch = "aarch64") {
    // pc, x0
    Some(Restart { instruction: 32, instruction_bytes: 4, result: 0, first: 0, number: None })
} else if cfg!(target_arch = "riscv64") {
    // pc, a0
    Some(Restart { instruction: 0, instruction_bytes: 4, result: 10, first: 10, number: None })
} else {
    None
};

/// Where the stack of a thread ends that stands still.
pub(crate) fn stack_pointer_of(tid: u32) -> Option<u64> {
    let place = if cfg!(target_arch = "x86_64") {
        19
    } else if cfg!(target_arch = "aarch64") {
        31
    } else if cfg!(target_arch = "riscv64") {
        2
    } else {
        return None;
    };
    GeneralRegisters::of(tid)?.words.get(place).copied()
}

/// Has a thread that stands where it has made a call make it again, whose first argument was this; whether it will.
pub(crate) fn make_call_again(tid: u32, first: u64) -> bool {
    change_registers(tid, |restart, registers| {
        let number = restart.number.map_or(Some(first), |number| registers.get(number).copied())?;
        restart.go_back(registers)?;
        *registers.get_mut(restart.result)? = number;
        Some(())
    })
}

/// Has a thread that is about to make a call not make it, and get ENOMEM for it; whether it will.
pub(crate) fn refuse_call(tid: u32) -> bool {
    change_registers(tid, |restart, registers| {
        *registers.get_mut(restart.result)? = (-i64::from(libc::ENOMEM)).cast_unsigned();
        restart.forget_call(registers);
        Some(())
    }) && forget_call_beside(tid)
}

/// Has the child followed that a thread is about to start, if no tracer is to hear of that: it has the filter, and each call that
/// this stops would fail.
pub(crate) fn follow_hidden_child(tid: u32) {
    let is_clone = |info: CallInfo| info.words[0] == libc::SYS_clone as u64;
    if CallInfo::of(tid).is_some_and(is_clone) {
        change_registers(tid, |restart, registers| {
            *registers.get_mut(restart.first)? &= !(libc::CLONE_UNTRACED as u64);
            Some(())
        });
    }
}

/// Has a thread that is about to make a call come to that again, after whatever signal waits for it; whether it will.
pub(crate) fn come_to_call_again(tid: u32) -> bool {
    change_registers(tid, |restart, registers| {
        if let Some(number) = restart.number {
            *registers.get_mut(restart.result)? = registers.get(number).copied()?;
        }
        restart.go_back(registers)?;
        restart.forget_call(registers);
        Some(())
    }) && forget_call_beside(tid)
}

impl Restart {
    fn go_back(&self, registers: &mut [u64]) -> Option<()> {
        let instruction = registers.get_mut(self.instruction)?;
        *instruction = instruction.wrapping_sub(self.instruction_bytes);
        Some(())
    }

    /// Where the number is among the registers, the call is not made once it is none.
    fn forget_call(&self, registers: &mut [u64]) {
        if let Some(register) = self.number.and_then(|number| registers.get_mut(number)) {
            *register = u64::MAX;
        }
    }
}

/// The same where the call's number is a set of registers by itself: NT_ARM_SYSTEM_CALL. False where neither is known.
fn forget_call_beside(tid: u32) -> bool {
    const NT_ARM_SYSTEM_CALL: usize = 0x404;
    if cfg!(target_arch = "x86_64") {
        return true;
    }
    let mut none = -1i32;
    let mut part = libc::iovec { iov_base: (&raw mut none).cast(), iov_len: size_of_val(&none) };
    cfg!(target_arch = "aarch64")
        && ptrace(SET_REGISTERS, tid, NT_ARM_SYSTEM_CALL, (&raw mut part).addr()) == 0
}

/// Changes the registers of a thread that stands still; whether that could be done.
fn change_registers(tid: u32, change: impl FnOnce(&Restart, &mut [u64]) -> Option<()>) -> bool {
    let (Some(restart), Some(mut registers)) = (RESTART, GeneralRegisters::of(tid)) else { return false };
    change(&restart, &mut registers.words).is_some() && registers.set(tid)
}

struct GeneralRegisters {
    words: [u64; MOST_REGISTERS],
    /// So many bytes of them the kernel has told; `None`: it knows no sets of registers, as user-mode Linux does not.
    told_bytes: Option<usize>,
}

impl GeneralRegisters {
    fn of(tid: u32) -> Option<GeneralRegisters> {
        let mut words = [0u64; MOST_REGISTERS];
        let at = words.as_mut_ptr();
        let mut part = libc::iovec { iov_base: at.cast(), iov_len: size_of_val(&words) };
        if ptrace(GET_REGISTERS, tid, NT_PRSTATUS, (&raw mut part).addr()) >= 0 {
            return Some(GeneralRegisters { words, told_bytes: Some(part.iov_len) });
        }
        (cfg!(target_arch = "x86_64") && ptrace(GET_GENERAL_REGISTERS, tid, 0, at.addr()) >= 0)
            .then_some(GeneralRegisters { words, told_bytes: None })
    }

    fn set(&mut self, tid: u32) -> bool {
        let at = self.words.as_mut_ptr();
        let Some(iov_len) = self.told_bytes else {
            return ptrace(SET_GENERAL_REGISTERS, tid, 0, at.addr()) == 0;
        };
        let mut part = libc::iovec { iov_base: at.cast(), iov_len };
        ptrace(SET_REGISTERS, tid, NT_PRSTATUS, (&raw mut part).addr()) == 0
    }
}

/// Where a thread stands that was let go on to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallStop {
    /// It is about to write `len` bytes at `at` to stdout or stderr.
    Write { fd: u64, at: u64, len: u64 },
    /// It is about to write `count` parts, of which `parts` is the table, to stdout or stderr.
    WriteParts { fd: u64, parts: u64, count: u64 },
    /// It is about to send `len` bytes at `at` to whom its socket is connected with.
    Send { at: u64, len: u64 },
    /// It is about to connect to the address at `at`.
    Connect { at: u64 },
    /// It is about to open the file whose name lies at `path`.
    Open { path: u64 },
    /// It is about to give memory back: munmap.
    Unmap { bytes: u64 },
    /// It is about to read something, to `at`; or, where `parts` is not zero, to the first parts of the table there.
    Read { fd: u64, at: u64, parts: u64 },
    /// It is about to wait: for a time, an event, or the end of a child.
    Wait,
    /// The same, for another thread.
    WaitForThread,
    /// It is about to make another call.
    Other,
    /// It has made its call, which returned a value, or an error's negative number.
    Returned(i64),
}

/// The system call that a thread begins or has made.
pub(crate) fn call_stop_of(tid: u32) -> Option<CallStop> {
    let CallInfo { kind, words: [first, second, third, fourth, _, sixth, ..], .. } = CallInfo::of(tid)?;
    if kind == EXIT {
        return Some(CallStop::Returned(first.cast_signed()));
    }
    if kind != ENTRY {
        return None;
    }
    let is_read = second == libc::STDOUT_FILENO as u64 || second == libc::STDERR_FILENO as u64;
    Some(match c_long::try_from(first).ok()? {
        libc::SYS_write if is_read => CallStop::Write { fd: second, at: third, len: fourth },
        libc::SYS_writev if is_read => CallStop::WriteParts { fd: second, parts: third, count: fourth },
        libc::SYS_sendto if sixth == 0 => CallStop::Send { at: third, len: fourth },
        libc::SYS_connect => CallStop::Connect { at: third },
        libc::SYS_openat => CallStop::Open { path: third },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => CallStop::Open { path: second },
        libc::SYS_munmap => CallStop::Unmap { bytes: third },
        libc::SYS_futex if is_futex_wait(third) => CallStop::WaitForThread,
        libc::SYS_readv | libc::SYS_preadv => CallStop::Read { fd: second, at: third, parts: fourth },
        libc::SYS_recvmsg => {
            let [at, parts] = parts_of_message(tid, third);
            CallStop::Read { fd: second, at, parts: parts.max(1) }
        }
        number if READS.contains(&number) => CallStop::Read { fd: second, at: third, parts: 0 },
        number if WAITS.contains(&number) || WAITS_OF_OLD.contains(&number) => CallStop::Wait,
        _ => CallStop::Other,
    })
}

/// futex(2): FUTEX_WAIT and FUTEX_WAIT_BITSET, with any flags.
fn is_futex_wait(operation: u64) -> bool {
    let flags = libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME;
    [libc::FUTEX_WAIT, libc::FUTEX_WAIT_BITSET].contains(&(operation as i32 & !flags))
}

/// Where a message has its table of parts, and how many they are.
fn parts_of_message(tid: u32, message: u64) -> [u64; 2] {
    let mut header = [0; offset_of!(libc::msghdr, msg_control)];
    let header = read_memory(tid, message, &mut header);
    [offset_of!(libc::msghdr, msg_iov), offset_of!(libc::msghdr, msg_iovlen)].map(|at| {
        let word = header.get(at..).and_then(|word| word.first_chunk());
        word.map_or(0, |word| u64::from_ne_bytes(*word))
    })
}

const READS: [c_long; 4] = [libc::SYS_read, libc::SYS_pread64, libc::SYS_recvfrom, libc::SYS_getdents64];

const WAITS: [c_long; 9] = [
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_pwait,
    libc::SYS_accept4,
    libc::SYS_rt_sigsuspend,
    libc::SYS_wait4,
    libc::SYS_waitid,
];

/// Those that younger architectures do without.
#[cfg(target_arch = "x86_64")]
const WAITS_OF_OLD: [c_long; 5] =
    [libc::SYS_poll, libc::SYS_select, libc::SYS_epoll_wait, libc::SYS_accept, libc::SYS_pause];
#[cfg(not(target_arch = "x86_64"))]
const WAITS_OF_OLD: [c_long; 1] = [libc::SYS_accept];

/// Copies from a followed thread's memory; what could be read, from the beginning of `buffer`.
pub(crate) fn read_memory(tid: u32, at: u64, buffer: &mut [u8]) -> &[u8] {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote =
        libc::iovec { iov_base: core::ptr::without_provenance_mut(at as usize), iov_len: buffer.len() };
    // SAFETY: the buffer is writable for its whole length during the call; the other address is another process's,
    // where the kernel checks it.
    let got =
        unsafe { libc::process_vm_readv(tid.cast_signed(), &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(got).ok().and_then(|got| buffer.get(..got)).unwrap_or_default()
}

/// Starts a process that is a copy of this one, which runs `body` and ends; its number. Neither waitpid(2) with
/// -1 nor SIGCHLD ever tells the program of it: it has no exit signal.
///
/// # Safety
/// `body` runs as between fork and exec: it may neither allocate nor lock, nor panic.
pub(crate) unsafe fn start_unseen(body: impl FnOnce()) -> Result<u32, i32> {
    // The raw call, as fork(3) sets SIGCHLD. All zero, so the order of the arguments, which differs, is of no matter.
    // SAFETY: without a stack and without CLONE_VM this is fork(2).
    let pid = unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) };
    match u32::try_from(pid) {
        Ok(0) => {
            body();
            super::process::exit_now(0)
        }
        Ok(pid) => Ok(pid),
        Err(_) => Err(errno()),
    }
}

/// Reaps a process that `start_unseen` started, if it has ended; whether it is gone.
pub(crate) fn reap_unseen(pid: u32) -> bool {
    // SAFETY: neither status nor usage is asked for.
    let got = unsafe {
        libc::wait4(
            pid.cast_signed(),
            core::ptr::null_mut(),
            libc::__WALL | libc::WNOHANG,
            core::ptr::null_mut(),
        )
    };
    got != 0 && !(got < 0 && errno() == libc::EINTR)
}

/// Reaps a process that `start_unseen` started, and waits for its end if need be.
pub(crate) fn reap_unseen_at_its_end(pid: u32) {
    loop {
        let no_status = core::ptr::null_mut();
        // SAFETY: neither status nor usage is asked for.
        let got = unsafe { libc::wait4(pid.cast_signed(), no_status, libc::__WALL, core::ptr::null_mut()) };
        if got >= 0 || errno() != libc::EINTR {
            return;
        }
    }
}

/// Cuts this process off from what it was forked from: its terminal, process group, directory, signals and
/// descriptors, but for those in `keep`.
pub(crate) fn withdraw(name: &core::ffi::CStr, keep: [i32; 2]) {
    super::signals::block_all();
    // SAFETY: setsid takes nothing.
    unsafe { libc::setsid() };
    step_back(name, keep);
}

/// The same, but it stays in its session and process group, and its signals as they are.
pub(crate) fn step_back(name: &core::ffi::CStr, keep: [i32; 2]) {
    // SAFETY: a C string that outlives the call.
    unsafe { libc::chdir(c"/".as_ptr()) };
    // SAFETY: PR_SET_NAME reads a C string of at most 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    let [low, high] = if keep[0] < keep[1] { keep } else { [keep[1], keep[0]] };
    for (from, to) in [(0, low - 1), (low + 1, high - 1), (high + 1, i32::MAX)] {
        if from <= to {
            close_from_to(from, to);
        }
    }
}

fn close_from_to(from: i32, to: i32) {
    // SAFETY: close_range takes no pointer; nothing in this process uses these descriptors.
    if unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) } == 0 {
        return;
    }
    // Linux before 5.9.
    for fd in from..=to.min(65_535) {
        super::fd::close_number(fd);
    }
}

/// The tracer's part of [`join`](super::join::join): follows the process that asks for it, and tells it so. `known` is its number here, where
/// it may be in a PID namespace of its own. `None`: nobody asks any more, or ptrace(2) was refused.
pub(crate) fn answer(socket: i32, known: Option<u32>) -> Option<u32> {
    let mut number = [0u8; 4];
    // SAFETY: the buffer is writable for its whole length during the call.
    let got = unsafe { libc::read(socket, number.as_mut_ptr().cast(), number.len()) };
    if got != 4 {
        return None;
    }
    let pid = known.unwrap_or(u32::from_ne_bytes(number));
    let seized = seize(pid);
    let answer = seized.map_or_else(|error| error as u8, |()| 0);
    let told = super::fd::write_patiently(socket, &[answer], 0);
    super::fd::close_number(socket);
    (told && seized.is_ok()).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_are_told_apart() {
        let stop = |signal: i32, event: i32| event << 16 | signal << 8 | 0x7f;
        for (status, expected) in [
            (3 << 8, Event::Gone(3 << 8)),
            (libc::SIGSEGV, Event::Gone(libc::SIGSEGV)),
            (stop(libc::SIGTRAP | 0x80, 0), Event::CallStop),
            (stop(libc::SIGTRAP, 0), Event::Signal(libc::SIGTRAP)),
            (stop(libc::SIGSTOP, 0), Event::Signal(libc::SIGSTOP)),
            (stop(libc::SIGSTOP, EVENT_STOP), Event::GroupStop),
            (stop(libc::SIGTRAP, EVENT_STOP), Event::Other),
            (stop(libc::SIGTRAP, libc::PTRACE_EVENT_SECCOMP), Event::Call),
            (stop(libc::SIGTRAP, libc::PTRACE_EVENT_EXEC), Event::Exec),
            (stop(libc::SIGTRAP, libc::PTRACE_EVENT_EXIT), Event::Ending),
            (stop(libc::SIGTRAP, libc::PTRACE_EVENT_CLONE), Event::Other),
            (stop(libc::SIGTRAP, libc::PTRACE_EVENT_FORK), Event::Forked),
            (stop(libc::SIGTRAP, libc::PTRACE_EVENT_VFORK), Event::Forked),
        ] {
            assert_eq!(event_of(status), expected, "{status:#x}");
        }
    }
}
