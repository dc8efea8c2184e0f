//! The guard allocates nothing: neither at start-up, nor between a refusal and the exit.
//!
//! The C library's whole allocator is counted, as that is where every allocation of this program ends, whoever makes
//! it. The counts lie in a page that the parent shares and reads after the child's death.

mod common;
#[path = "catalogue/fill.rs"]
#[allow(dead_code)] // Only a part is used here.
mod fill;

use common::child::{End, Start};
use libtest_mimic::{Arguments, Failed, Trial};
use std::ffi::{c_int, c_void};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

#[global_allocator]
static GUARD: oomguard::Guard<std::alloc::System, oomguard::Profiled> =
    oomguard::Guard::profiled(std::alloc::System);

/// The descriptor of the shared page in the child.
const PAGE_FD: c_int = 250;

/// What the two processes share. Relaxed throughout: one of them is dead when the other one reads.
#[repr(C)]
struct Page {
    /// Calls of the allocator so far.
    calls: AtomicU64,
    /// `calls` when a request was last refused; zero if none was.
    calls_at_refusal: AtomicU64,
    /// `calls` before and after the guard's constructor, and the soft limit at these moments.
    calls_before: AtomicU64,
    calls_after: AtomicU64,
    limit_before: AtomicU64,
    limit_after: AtomicU64,
}

static PAGE: AtomicPtr<Page> = AtomicPtr::new(null_mut());

fn page() -> Option<&'static Page> {
    // SAFETY: null, or the page mapped by `map_page`, which is never unmapped.
    unsafe { PAGE.load(Relaxed).as_ref() }
}

fn map_page(fd: c_int) -> *mut Page {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new shared mapping at an address of the kernel's choice.
    let at = unsafe { libc::mmap(null_mut(), 4096, protection, libc::MAP_SHARED, fd, 0) };
    if at == libc::MAP_FAILED { null_mut() } else { at.cast() }
}

#[used]
#[unsafe(link_section = ".preinit_array")]
static MAP_FIRST: extern "C" fn() = {
    extern "C" fn map_first() {
        PAGE.store(map_page(PAGE_FD), Relaxed);
    }
    map_first
};

// The guard's constructor has priority 1: these run right before and right after it.
#[used]
#[unsafe(link_section = ".init_array.00000")]
static BEFORE_GUARD: extern "C" fn() = {
    extern "C" fn note() {
        if let Some(page) = page() {
            page.calls_before.store(page.calls.load(Relaxed), Relaxed);
            page.limit_before.store(soft_limit(), Relaxed);
        }
    }
    note
};

#[used]
#[unsafe(link_section = ".init_array.00002")]
static AFTER_GUARD: extern "C" fn() = {
    extern "C" fn note() {
        if let Some(page) = page() {
            page.calls_after.store(page.calls.load(Relaxed), Relaxed);
            page.limit_after.store(soft_limit(), Relaxed);
        }
    }
    note
};

fn soft_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable during the call.
    unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) };
    limit.rlim_cur
}

/// The C library's allocator under the names by which a program's own reaches it.
mod real {
    use super::c_void;
    unsafe extern "C" {
        #[link_name = "__libc_malloc"]
        pub fn malloc(bytes: usize) -> *mut c_void;
        #[link_name = "__libc_calloc"]
        pub fn calloc(count: usize, bytes: usize) -> *mut c_void;
        #[link_name = "__libc_realloc"]
        pub fn realloc(block: *mut c_void, bytes: usize) -> *mut c_void;
        #[link_name = "__libc_memalign"]
        pub fn memalign(align: usize, bytes: usize) -> *mut c_void;
        #[link_name = "__libc_free"]
        pub fn free(block: *mut c_void);
    }
}

fn counted(block: *mut c_void) -> *mut c_void {
    if let Some(page) = page() {
        let calls = page.calls.fetch_add(1, Relaxed) + 1;
        if block.is_null() {
            page.calls_at_refusal.store(calls, Relaxed);
        }
    }
    block
}

#[unsafe(no_mangle)]
unsafe extern "C" fn malloc(bytes: usize) -> *mut c_void {
    // SAFETY: the caller's arguments, whose contract is the same.
    counted(unsafe { real::malloc(bytes) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn calloc(count: usize, bytes: usize) -> *mut c_void {
    // SAFETY: the caller's arguments, whose contract is the same.
    counted(unsafe { real::calloc(count, bytes) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(block: *mut c_void, bytes: usize) -> *mut c_void {
    // SAFETY: the caller's arguments, whose contract is the same.
    counted(unsafe { real::realloc(block, bytes) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aligned_alloc(align: usize, bytes: usize) -> *mut c_void {
    // SAFETY: the caller's arguments, whose contract is the same.
    counted(unsafe { real::memalign(align, bytes) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_memalign(block: *mut *mut c_void, align: usize, bytes: usize) -> c_int {
    // SAFETY: the caller's arguments, whose contract is the same.
    let made = counted(unsafe { real::memalign(align, bytes) });
    if made.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller's pointer is writable by contract.
    unsafe { block.write(made) };
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn free(block: *mut c_void) {
    if !block.is_null() {
        counted(block);
    }
    // SAFETY: the caller's argument, whose contract is the same.
    unsafe { real::free(block) }
}

const ROLES: &[(&str, fn())] = &[
    ("one huge request", fill::one_huge_request),
    ("many pieces", || fill::eat(64 << 10)),
    ("full to the brim", || {
        fill::heap().keep();
        fill::eat(1 << 10)
    }),
    ("in a thread", || {
        let _ = std::thread::spawn(fill::one_huge_request).join();
    }),
];

const HOOK: &str = "a hook that allocates";

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(common::ROLE) {
        if name == HOOK {
            oomguard::on_exhausted(|| drop(std::hint::black_box(vec![1u8; 1000])));
            fill::one_huge_request();
        }
        let Some((_, role)) = ROLES.iter().find(|(role, _)| *role == name) else {
            return ExitCode::from(common::BROKEN_ROLE as u8);
        };
        role();
        return ExitCode::SUCCESS;
    }
    let mut trials = Vec::new();
    for (role, _) in ROLES {
        for on_refusal in ["deferred", "immediate"] {
            for (backtrace, profile) in [("0", "off"), ("1", "off"), ("0", "1"), ("1", "1")] {
                let name = format!(
                    "nothing is allocated between refusal and exit: {role}, {on_refusal}, {backtrace}, profile {profile}"
                );
                trials.push(Trial::test(name, move || {
                    nothing_is_allocated(role, on_refusal, backtrace, profile)
                }));
            }
        }
    }
    trials.push(Trial::test("what a hook allocates is counted", || {
        let after = run(HOOK, "deferred", "0", "off")?.0;
        if after > 0 { Ok(()) } else { Err("nothing was counted: this test proves nothing".into()) }
    }));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn nothing_is_allocated(role: &str, on_refusal: &str, backtrace: &str, profile: &str) -> Result<(), Failed> {
    let (after_refusal, at_start) = run(role, on_refusal, backtrace, profile)?;
    if (after_refusal, at_start) != (0, 0) {
        return Err(format!("{after_refusal} calls after the refusal, {at_start} at start-up").into());
    }
    Ok(())
}

/// Calls of the allocator after the last refusal, and by the guard's constructor.
fn run(role: &str, on_refusal: &str, backtrace: &str, profile: &str) -> Result<(u64, u64), Failed> {
    let file = tempfile::tempfile()?;
    file.set_len(4096)?;
    let mut start = Start::role(role)
        .env("OOMGUARD_LIMIT", "96Mi")
        .env("OOMGUARD_ON_REFUSAL", on_refusal)
        .env("RUST_BACKTRACE", backtrace)
        .env("OOMGUARD_PROFILE", profile);
    let fd = file.as_raw_fd();
    let give = move || {
        // SAFETY: dup2 takes no pointer; the number is free in the child.
        match unsafe { libc::dup2(fd, PAGE_FD) } {
            PAGE_FD => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one system call, and does not allocate.
    unsafe { start.command.pre_exec(give) };
    let remains = start.run()?;
    if remains.end() != End::Exit(198) {
        return Err(format!("{remains:#?}").into());
    }
    // SAFETY: a page of this process's own, which stays mapped; all-zero is a valid value of it.
    let page = unsafe { map_page(fd).as_ref() }.ok_or("the page cannot be mapped")?;
    let [limit_before, limit_after] =
        [&page.limit_before, &page.limit_after].map(|limit| limit.load(Relaxed));
    if (limit_before, limit_after) != (libc::RLIM_INFINITY, 96 << 20) {
        return Err(format!("the guard did not start between {limit_before} and {limit_after}").into());
    }
    let [calls, refusal] = [&page.calls, &page.calls_at_refusal].map(|calls| calls.load(Relaxed));
    if refusal == 0 {
        return Err("no refusal was seen".into());
    }
    Ok((calls - refusal, page.calls_after.load(Relaxed) - page.calls_before.load(Relaxed)))
}
