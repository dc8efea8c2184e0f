//! A forked child starts clean: what its parent was refused, or was busy with at that moment, is not the child's.

mod common;

use common::child::{End, Remains, Start};
use common::report;
use libtest_mimic::{Arguments, Trial};
use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::process::exit;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

oomguard::guard!();

/// What the roles print when all is as it should be.
const RIGHT: &str = "right\n";

fn main() {
    if let Ok(role) = std::env::var(common::ROLE) {
        return play(&role);
    }
    let tests: [(&str, fn()); 10] = [
        ("reclaims while a thread of its parent reclaims", || goes_on("reclaim")),
        ("reclaims while a thread of its parent trims", || goes_on("trim")),
        ("trims although its parent tried it in vain", || goes_on("trim again")),
        ("has been refused nothing", || goes_on("count")),
        ("hears of pressure, by what it asked for itself", || goes_on("pressure")),
        ("does not answer for a thread that its parent was refused", || goes_on("thread")),
        ("of vfork that ends inside a callback does not keep its parent out", || goes_on("vfork")),
        ("that a callback forks does not run it again", || goes_on("callback forks")),
        ("dies of its own refusal while its parent is dying", dies_beside_its_parent),
        ("dies of its own refusal in its parent's last words", dies_in_last_words),
    ];
    let trials = tests.into_iter().map(|(name, test)| {
        Trial::test(format!("a child {name}"), move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

fn run(role: &str) -> Remains {
    // Data: nothing but what is allocated here counts.
    Start::role(role).env("OOMGUARD_LIMIT", "96Mi").env("OOMGUARD_MEASURE", "data").run().expect("a child")
}

fn goes_on(role: &str) {
    let remains = run(role);
    assert_eq!((remains.end(), remains.stdout.as_str()), (End::Exit(0), RIGHT), "{remains:#?}");
    assert!(remains.report.is_none(), "{remains:#?}");
}

fn dies_beside_its_parent() {
    two_deaths(&run("beside"));
}

fn dies_in_last_words() {
    two_deaths(&run("last words"));
}

/// Parent and child have both died of a refusal, and said so.
fn two_deaths(remains: &Remains) {
    assert_eq!(remains.end(), End::Exit(198), "{remains:#?}");
    let child = remains.stdout.strip_prefix("child ").and_then(|text| text.trim().split_once(' '));
    let Some((pid, "198")) = child else { panic!("{remains:#?}") };
    let content = remains.report.as_deref().unwrap_or_default();
    let pids: Vec<String> = content
        .split_inclusive('\n')
        .map(|line| {
            report::read(line).unwrap_or_else(|error| panic!("{error}: {remains:#?}"))["pid"].to_string()
        })
        .collect();
    assert_eq!(pids, [remains.pid.to_string(), pid.to_owned()], "{remains:#?}");
    assert_eq!(remains.stderr.matches("oomguard: out of memory: ").count(), 2, "{remains:#?}");
}

fn play(role: &str) {
    match role {
        "reclaim" => reclaim(),
        "trim" => trim(),
        "trim again" => trim_again(),
        "count" => count(),
        "pressure" => pressure(),
        "thread" => refused_thread(),
        "vfork" => vfork(),
        "callback forks" => callback_forks(),
        "beside" => beside(),
        "last words" => last_words(),
        _ => exit(common::BROKEN_ROLE),
    }
}

/// Where the thread that is busy meanwhile stands.
static IS_BUSY: AtomicBool = AtomicBool::new(false);
static MAY_GO_ON: AtomicBool = AtomicBool::new(false);
/// The process in which a thread is to be busy; zero for none.
static BUSY_IN: AtomicU32 = AtomicU32::new(0);

fn wait_for(condition: impl Fn() -> bool) {
    while !condition() {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Is busy until it may go on, if this is the process that is to be.
fn be_busy() {
    if BUSY_IN.load(SeqCst) == std::process::id() {
        IS_BUSY.store(true, SeqCst);
        wait_for(|| MAY_GO_ON.load(SeqCst));
    }
}

/// Starts a thread that is refused, and comes back when it is busy with that.
fn have_a_thread_busy() {
    BUSY_IN.store(std::process::id(), SeqCst);
    thread::spawn(|| is_to_be_had(1 << 40));
    wait_for(|| IS_BUSY.load(SeqCst));
}

fn is_to_be_had(bytes: usize) -> bool {
    black_box(Vec::<u8>::new()).try_reserve_exact(black_box(bytes)).is_ok()
}

/// How the child ended in which `body` was run; 255 if it was a signal.
fn in_child(body: impl FnOnce() -> bool) -> (i32, i32) {
    // SAFETY: the C library keeps its allocator usable after fork, and the child needs no lock of another thread's.
    ended(unsafe { libc::fork() }, body)
}

fn ended(child: i32, body: impl FnOnce() -> bool) -> (i32, i32) {
    if child == 0 {
        let code = if body() { 0 } else { 1 };
        // SAFETY: ends the child; what it shares with its parent, buffers, stays the parent's.
        unsafe { libc::_exit(code) }
    }
    let mut status = 0;
    // SAFETY: `status` is writable during the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    (child, if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 255 })
}

fn tell(is_right: bool) {
    if is_right {
        print!("{RIGHT}");
    }
}

static CACHE: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Memory that a callback gives back, and that is needed.
fn cache_most() {
    *CACHE.lock().unwrap() = vec![1; 60 << 20];
    oomguard::on_reclaim(|| {
        be_busy();
        *CACHE.lock().unwrap() = Vec::new();
    });
}

fn reclaim() {
    cache_most();
    have_a_thread_busy();
    let (_, code) = in_child(|| is_to_be_had(50 << 20));
    MAY_GO_ON.store(true, SeqCst);
    tell(code == 0);
}

/// How often the guard had the heap trimmed, and how long that takes.
static TRIMS: AtomicU32 = AtomicU32::new(0);
static TRIM_MS: AtomicU32 = AtomicU32::new(0);

/// In place of the C library's.
#[unsafe(no_mangle)]
extern "C" fn malloc_trim(_: usize) -> c_int {
    TRIMS.fetch_add(1, SeqCst);
    be_busy();
    thread::sleep(Duration::from_millis(TRIM_MS.load(SeqCst).into()));
    1
}

fn trims(body: impl FnOnce()) -> u32 {
    let before = TRIMS.load(SeqCst);
    body();
    TRIMS.load(SeqCst) - before
}

/// To be refused, and to be trimmed for: less than the limit.
fn ask_for_more_than_is_left() {
    let held = black_box(vec![1u8; 60 << 20]);
    assert!(!is_to_be_had(80 << 20));
    drop(held);
}

fn trim() {
    BUSY_IN.store(std::process::id(), SeqCst);
    thread::spawn(ask_for_more_than_is_left);
    wait_for(|| IS_BUSY.load(SeqCst));
    let (_, code) = in_child(|| {
        *CACHE.lock().unwrap() = Vec::new();
        trims(|| assert!(!is_to_be_had(80 << 20))) == 1
    });
    MAY_GO_ON.store(true, SeqCst);
    tell(code == 0);
}

fn trim_again() {
    // Then not again for sixteen times as long.
    TRIM_MS.store(2000, SeqCst);
    assert_eq!(trims(ask_for_more_than_is_left), 1);
    TRIM_MS.store(0, SeqCst);
    let (_, code) = in_child(|| trims(ask_for_more_than_is_left) == 1);
    let in_parent = trims(ask_for_more_than_is_left);
    tell(code == 0 && in_parent == 0);
}

fn count() {
    let refusals = || oomguard::status().refusals;
    for _ in 0..3 {
        assert!(!is_to_be_had(1 << 40));
    }
    let counts_anew = || refusals() == 0 && !is_to_be_had(1 << 40) && refusals() == 1;
    let (_, forked) = in_child(counts_anew);
    // As a sandbox does it: past the C library.
    // SAFETY: no flag but the signal: a copy of this process, as fork makes it.
    let raw = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    let (_, cloned) = ended(raw as i32, counts_anew);
    tell((refusals(), forked, cloned) == (3, 0, 0));
}

fn pressure() {
    static IN_PARENT: AtomicU32 = AtomicU32::new(0);
    static IN_CHILD: AtomicU32 = AtomicU32::new(0);
    fn count_in(counter: &'static AtomicU32) {
        // So little that it is always exceeded.
        let told = move || {
            counter.fetch_add(1, SeqCst);
        };
        oomguard::on_pressure(1e-6, told).unwrap();
    }
    count_in(&IN_PARENT);
    wait_for(|| IN_PARENT.load(SeqCst) == 1);
    // A descriptor of both: the child's thread must leave it alone. Not told yet, and never.
    let both = oomguard::PressureFd::new(1.0).unwrap();
    let (_, code) = in_child(|| {
        count_in(&IN_CHILD);
        wait_for(|| IN_CHILD.load(SeqCst) == 1);
        // A crossing of what the parent has asked about, and of one of the child's own.
        oomguard::on_pressure(0.5, || {
            IN_CHILD.fetch_add(1, SeqCst);
        })
        .unwrap();
        let held = black_box(vec![1u8; 60 << 20]);
        wait_for(|| IN_CHILD.load(SeqCst) == 2);
        drop(held);
        IN_PARENT.load(SeqCst) == 1
    });
    tell(code == 0 && both.take().unwrap() == 0);
}

fn refused_thread() {
    // More than the limit: this is always refused.
    let refused = thread::Builder::new().stack_size(1 << 30).spawn(|| ());
    assert!(refused.is_err());
    std::panic::set_hook(Box::new(|_| ()));
    // SAFETY: there is no other thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        panic!("for a reason of its own");
    }
    let (_, code) = ended(child, || unreachable!());
    tell(code == 101);
}

fn vfork() {
    static PARENT: AtomicU32 = AtomicU32::new(0);
    extern "C" fn child(_: *mut c_void) -> c_int {
        is_to_be_had(1 << 40);
        common::BROKEN_ROLE
    }
    PARENT.store(std::process::id(), SeqCst);
    oomguard::on_reclaim(|| {
        if std::process::id() != PARENT.load(SeqCst) {
            // SAFETY: ends the child, inside the callback.
            unsafe { libc::_exit(0) }
        }
        *CACHE.lock().unwrap() = Vec::new();
    });
    *CACHE.lock().unwrap() = vec![1; 60 << 20];
    let mut stack = vec![0u128; 16 << 10];
    let top = stack.as_mut_ptr_range().end;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: a stack of 256 KiB for a child that ends before its parent, which waits, goes on.
    let pid = unsafe { libc::clone(child, top.cast(), flags, std::ptr::null_mut()) };
    let (_, code) = ended(pid, || unreachable!());
    tell(code == 0 && is_to_be_had(50 << 20));
}

fn callback_forks() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    static CODE: AtomicU32 = AtomicU32::new(255);
    oomguard::on_reclaim(|| {
        if CALLS.fetch_add(1, SeqCst) > 0 {
            exit(common::BROKEN_ROLE);
        }
        let (_, code) = in_child(|| !is_to_be_had(1 << 40));
        CODE.store(code.unsigned_abs(), SeqCst);
    });
    assert!(!is_to_be_had(1 << 40));
    tell(CODE.load(SeqCst) == 0);
}

/// The child of a process that is dying is refused what can never be had, and does not cope.
fn die_in_child() {
    let (pid, code) = in_child(|| {
        black_box(Vec::<u8>::with_capacity(black_box(1 << 40)));
        false
    });
    let text = format!("child {pid} {code}\n");
    // SAFETY: readable for its whole length.
    unsafe { libc::write(libc::STDOUT_FILENO, text.as_ptr().cast(), text.len()) };
}

fn beside() {
    // The other thread has what it needs before the end begins.
    let forks = thread::spawn(|| {
        wait_for(|| IS_BUSY.load(SeqCst));
        die_in_child();
        MAY_GO_ON.store(true, SeqCst);
    });
    BUSY_IN.store(std::process::id(), SeqCst);
    oomguard::on_exhausted(be_busy);
    black_box(Vec::<u8>::with_capacity(black_box(1 << 40)));
    drop(forks);
}

fn last_words() {
    static PARENT: AtomicU32 = AtomicU32::new(0);
    PARENT.store(std::process::id(), SeqCst);
    oomguard::on_exhausted(|| {
        if std::process::id() == PARENT.load(SeqCst) {
            die_in_child();
        }
    });
    black_box(Vec::<u8>::with_capacity(black_box(1 << 40)));
}
