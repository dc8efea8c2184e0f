//! The roles of the configuration tests, and how they are started.
#![allow(dead_code)] // Each test binary uses a part.

use crate::common::child::{Remains, Start};
use crate::common::{self, BROKEN_ROLE};
use std::hint::black_box;
use std::mem;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

pub fn play(role: &str) -> ExitCode {
    match role {
        "speak" => println!("spoken"),
        "tell" => tell(),
        "tell rlimits" => tell_rlimits(),
        "ask for too much" => ask(1 << 60),
        "cope" => {
            let mut block = Vec::<u8>::new();
            assert!(block.try_reserve(black_box(1 << 60)).is_err());
            println!("coped");
        }
        "eat" => loop {
            ask(64 << 10);
        },
        "speak last" => {
            oomguard::on_exhausted(|| {
                black_box(vec![7u8; black_box(2 << 20)]);
                // SAFETY: the text is readable for its whole length.
                unsafe { libc::write(1, c"last words".as_ptr().cast(), 10) };
            });
            loop {
                ask(64 << 10);
            }
        }
        "be stopped, speak last" => {
            continue_later();
            oomguard::on_exhausted(|| {
                // SAFETY: takes no pointer.
                unsafe { libc::raise(libc::SIGSTOP) };
                work_for(Duration::from_millis(50));
                // SAFETY: the text is readable for its whole length.
                unsafe { libc::write(1, c"last words".as_ptr().cast(), 10) };
            });
            ask(1 << 60);
        }
        "reuse stdout" => {
            let file = std::fs::File::create("report").expect("a directory of its own");
            // SAFETY: dup2 takes no pointer; std copes with another file behind stdout.
            unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&file), 1) };
            ask(1 << 60);
        }
        "tell a lower limit" => {
            move_limit(measured(), 48 << 20);
            tell();
        }
        "tell no limit" => {
            move_limit(measured(), libc::RLIM_INFINITY);
            tell();
        }
        "lower, eat" => {
            move_limit(measured(), 48 << 20);
            play("eat");
        }
        "raise, eat" => {
            move_limit(measured(), 160 << 20);
            play("eat");
        }
        "raise, speak last" => {
            move_limit(measured(), 160 << 20);
            play("speak last");
        }
        "lower the other, eat" => {
            move_limit(
                if measured() == libc::RLIMIT_AS { libc::RLIMIT_DATA } else { libc::RLIMIT_AS },
                64 << 20,
            );
            play("eat");
        }
        "lower for good, eat" => {
            set_limits(measured(), libc::rlimit { rlim_cur: 48 << 20, rlim_max: 48 << 20 });
            play("eat");
        }
        "be lowered, eat" => {
            be_lowered(48 << 20);
            play("eat");
        }
        "lose directory" => {
            std::fs::remove_dir_all("reports").expect("there is one");
            ask(1 << 60);
        }
        "lose privileges" => {
            // SAFETY: takes no pointer.
            assert_eq!(unsafe { libc::setuid(65534) }, 0);
            ask(1 << 60);
        }
        "lose root" => {
            // SAFETY: a C string.
            assert_eq!(unsafe { libc::chroot(c"/proc".as_ptr()) }, 0);
            ask(1 << 60);
        }
        "lose descriptors" => {
            set_limits(libc::RLIMIT_NOFILE, libc::rlimit { rlim_cur: 0, rlim_max: 0 });
            ask(1 << 60);
        }
        "lose descriptors, speak last" => {
            set_limits(libc::RLIMIT_NOFILE, libc::rlimit { rlim_cur: 0, rlim_max: 0 });
            play("speak last");
        }
        "be interrupted" => {
            tell_each_signal();
            ask(1 << 60);
        }
        _ => return ExitCode::from(BROKEN_ROLE as u8),
    }
    ExitCode::SUCCESS
}

fn set_limits(resource: Resource, limit: libc::rlimit) {
    // SAFETY: `limit` is readable during the call.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

/// Each signal is told on stdout; before them, that this is done.
fn tell_each_signal() {
    extern "C" fn on_signal(_: i32) {
        // SAFETY: one byte, which is there for ever.
        unsafe { libc::write(1, b".".as_ptr().cast(), 1) };
    }
    // SAFETY: the handler makes one system call.
    unsafe { libc::signal(libc::SIGUSR1, on_signal as extern "C" fn(i32) as libc::sighandler_t) };
    on_signal(0);
}

fn ask(bytes: usize) {
    mem::forget(black_box(Vec::<u8>::with_capacity(black_box(bytes))));
}

type Resource = libc::__rlimit_resource_t;

/// What the guard's limit counts.
fn measured() -> Resource {
    match oomguard::status().measure {
        oomguard::Measure::AddressSpace => libc::RLIMIT_AS,
        _ => libc::RLIMIT_DATA,
    }
}

/// As a program does that sets its own limit.
fn move_limit(resource: Resource, soft: u64) {
    move_limit_of(0, resource, soft);
}

fn move_limit_of(pid: libc::pid_t, resource: Resource, soft: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable during the call.
    assert_eq!(unsafe { libc::prlimit(pid, resource, std::ptr::null(), &raw mut limit) }, 0);
    limit.rlim_cur = soft;
    // SAFETY: `limit` is readable during the call.
    assert_eq!(unsafe { libc::prlimit(pid, resource, &raw const limit, std::ptr::null_mut()) }, 0);
}

/// Another process moves it.
fn be_lowered(soft: u64) {
    let measured = measured();
    // SAFETY: there is no other thread.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: takes nothing and cannot fail.
            move_limit_of(unsafe { libc::getppid() }, measured, soft);
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) };
        }
        other => {
            let mut status = 0;
            // SAFETY: `status` is writable during the call.
            assert_eq!(unsafe { libc::waitpid(other, &raw mut status, 0) }, other);
            assert_eq!(status, 0);
        }
    }
}

/// Has this process continued when it has been stopped for longer than last words may last.
fn continue_later() {
    // SAFETY: there is no other thread.
    if unsafe { libc::fork() } == 0 {
        // SAFETY: takes nothing and cannot fail.
        let parent = unsafe { libc::getppid() };
        let stat = format!("/proc/{parent}/stat");
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") T ")) {
            sleep(Duration::from_millis(1));
        }
        sleep(Duration::from_millis(2200));
        // SAFETY: takes no pointer.
        unsafe { libc::kill(parent, libc::SIGCONT) };
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
}

/// For so much time of a processor.
fn work_for(time: Duration) {
    let used = || {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `now` is writable during the call.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    };
    let until = used() + time;
    while used() < until {}
}

fn tell() {
    let status = oomguard::status();
    let limit = status.limit.map_or("-".into(), |limit| limit.to_string());
    println!("{limit} {} {}", status.source.map_or("-", |source| source.as_str()), status.measure.as_str());
    let headroom = status.limit.zip(status.in_use).map(|(limit, used)| limit - used);
    assert_eq!(status.headroom(), headroom);
    assert_eq!(status.refusals, 0);
}

fn tell_rlimits() {
    for (name, resource) in [("address-space", libc::RLIMIT_AS), ("data", libc::RLIMIT_DATA)] {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is writable during the call.
        unsafe { libc::getrlimit(resource, &raw mut limit) };
        println!("{name} {} {}", limit.rlim_cur, limit.rlim_max);
    }
}

/// What the role `tell` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub limit: Option<u64>,
    pub source: String,
    pub measure: String,
}

pub fn told(remains: &Remains) -> Told {
    let words: Vec<&str> = remains.stdout.split_whitespace().collect();
    let [limit, source, measure] = words[..] else { panic!("told nothing: {remains:#?}") };
    Told { limit: limit.parse().ok(), source: source.into(), measure: measure.into() }
}

pub fn limit_of(remains: &Remains) -> Option<u64> {
    told(remains).limit
}

pub fn start(role: &str) -> Start {
    Start::role(role)
}

pub fn run(start: Start) -> Remains {
    start.run().unwrap_or_else(|error| panic!("{error}"))
}

/// Has the child start under an rlimit.
pub fn rlimit(mut start: Start, resource: libc::__rlimit_resource_t, soft: u64, hard: u64) -> Start {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    let set = move || {
        // SAFETY: `limit` is readable during the call.
        match unsafe { libc::setrlimit(resource, &raw const limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one system call, and does not allocate.
    unsafe { start.command.pre_exec(set) };
    start
}

/// The role that this process is to play, if any.
pub fn role() -> Option<String> {
    std::env::var(common::ROLE).ok()
}
