//! What `run` measures unless told otherwise, `resident`: what is mapped and never used does not count; what is used does, whoever asked for it and how.

use crate::add;
use crate::started::{Seen, launcher, seen, shell};
use libtest_mimic::Trial;
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

fn run(options: &[&str], role: &[&str]) -> Command {
    let mut command = launcher();
    command.args(["run", "-m", "100Mi"]).args(options).arg("--");
    command.arg(std::env::current_exe().unwrap()).arg("role").args(role);
    command
}

/// The report among the lines of a command with `--report fd:2`.
fn report(seen: &Seen) -> Value {
    let line = seen.stderr.lines().find(|line| line.starts_with('{'));
    serde_json::from_str(line.unwrap_or_else(|| panic!("no report: {}", seen.stderr))).unwrap()
}

fn map(bytes: usize, protection: i32, flags: i32, fd: i32) -> *mut u8 {
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, fd, 0) };
    assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    at.cast()
}

/// Shared memory: `anonymous`, of a `memfd`, of a `file` that shm_open(3) would make, or of one for which it is `allocated` first.
/// `None`: it was refused.
pub fn map_shared(kind: &str, bytes: usize) -> Option<*mut u8> {
    let mut flags = libc::MAP_SHARED;
    let fd = match kind {
        "anonymous" => {
            flags |= libc::MAP_ANONYMOUS;
            -1
        }
        "memfd" | "allocated" => {
            // SAFETY: a C string.
            unsafe { libc::memfd_create(c"held".as_ptr(), 0) }
        }
        "file" => {
            let name = format!("/dev/shm/oomguard-held-{}", std::process::id());
            let mut options = std::fs::File::options();
            let file = options.read(true).write(true).create_new(true).open(&name).unwrap();
            std::fs::remove_file(name).unwrap();
            std::os::fd::IntoRawFd::into_raw_fd(file)
        }
        _ => panic!("no such kind: {kind}"),
    };
    let length = i64::try_from(bytes).unwrap();
    if kind == "allocated" {
        // SAFETY: takes no pointer.
        let error = unsafe { libc::posix_fallocate(fd, 0, length) };
        assert!(error == 0 || error == libc::ENOMEM, "{error}");
        if error != 0 {
            return None;
        }
    } else if fd >= 0 {
        // SAFETY: takes no pointer.
        assert_eq!(unsafe { libc::ftruncate(fd, length) }, 0);
    }
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, BOTH, flags, fd, 0) };
    (at != libc::MAP_FAILED).then_some(at.cast())
}

pub fn touch(at: *mut u8, bytes: usize) {
    for offset in (0..bytes).step_by(4096) {
        let byte = at.wrapping_add(offset);
        // SAFETY: within the mapping, which is writable.
        unsafe { byte.write_volatile(1) };
    }
}

/// Waits for the end that has to come; nothing else happens.
fn wait_for_the_end() -> ! {
    std::thread::sleep(Duration::from_secs(20));
    std::process::exit(9)
}

const BOTH: i32 = libc::PROT_READ | libc::PROT_WRITE;
const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

/// Uses so many MiB that RLIMIT_DATA does not see, or maps them and uses little.
/// As programs do that show what they are at in the list of processes: setproctitle(3).
fn overwrite_environment() {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // proc_pid_stat(5): env_start and env_end.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    let [start, end]: [usize; 2] = [fields[47], fields[48]].map(|field| field.parse().unwrap());
    // SAFETY: the environment as the kernel made it, in memory that may be written to; nobody reads a variable any more.
    unsafe { std::ptr::with_exposed_provenance_mut::<u8>(start).write_bytes(0, end - start) };
}

pub fn hold(kind: &str, mib: usize) {
    let bytes = mib * MIB;
    match kind {
        "untouched" => {
            for _ in (0..mib).step_by(32) {
                map(32 * MIB, BOTH, PRIVATE, -1);
            }
            return println!("mapped");
        }
        "later-by-another-name" => {
            overwrite_environment();
            return hold("later", mib);
        }
        "later" => {
            let blocks: Vec<*mut u8> =
                (0..mib).step_by(32).map(|_| map(32 * MIB, BOTH, PRIVATE, -1)).collect();
            blocks.iter().for_each(|block| touch(*block, 32 * MIB));
        }
        "anonymous" | "memfd" | "file" | "allocated" => {
            touch(map_shared(kind, bytes).expect("granted"), bytes)
        }
        // As V8 does: all that there may be of code, and then a part of it.
        "code" | "code-filled" | "code-and-block" | "code-and-child" => {
            let at = map(512 * MIB, libc::PROT_NONE, PRIVATE | libc::MAP_NORESERVE, -1);
            // SAFETY: the mapping is this function's own.
            if unsafe { libc::mprotect(at.cast(), 512 * MIB, BOTH | libc::PROT_EXEC) } != 0 {
                return println!("refused");
            }
            touch(at, bytes);
            if kind == "code" {
                return println!("made");
            }
            if kind != "code-filled" {
                touch(map(64 * MIB, BOTH, PRIVATE, -1), 64 * MIB);
                println!("made");
            }
            if kind == "code-and-child" {
                let this = std::env::current_exe().expect("it is told");
                let child = Command::new(this).args(["role", "hold", "code-and-block", "20"]).status();
                return assert!(child.expect("it starts").success());
            }
            if kind == "code-and-block" {
                return;
            }
        }
        "blocked" | "awaited" => {
            let is_awaited = kind == "awaited";
            // SAFETY: all-zero is a valid set of signals.
            let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
            // SAFETY: the set is this function's own.
            unsafe { libc::sigfillset(&raw mut all) };
            // SAFETY: readable during the call.
            unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut()) };
            // As a program with a thread for all signals.
            if is_awaited {
                std::thread::spawn(move || {
                    let mut signal = 0;
                    // SAFETY: both live during the call.
                    unsafe { libc::sigwait(&raw const all, &raw mut signal) };
                    std::process::exit(1);
                });
            }
            touch(map(bytes, BOTH, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1), bytes);
        }
        "fixed" => {
            let at = map(bytes, libc::PROT_NONE, PRIVATE | libc::MAP_NORESERVE, -1);
            for offset in (0..bytes).step_by(MIB) {
                // SAFETY: within the reservation.
                let part = unsafe { at.add(offset) };
                let flags = PRIVATE | libc::MAP_FIXED;
                // SAFETY: a part of the reservation, which nobody uses.
                let mapped = unsafe { libc::mmap(part.cast(), MIB, BOTH, flags, -1, 0) };
                if mapped == libc::MAP_FAILED {
                    eprintln!("out of memory");
                    std::process::exit(3);
                }
                touch(part, MIB);
            }
        }
        "heap" => {
            let blocks: Vec<Vec<u8>> =
                (0..mib).map(|n| std::hint::black_box(vec![n as u8 | 1; MIB])).collect();
            return println!("{}", blocks.len());
        }
        _ => panic!("no such kind: {kind}"),
    }
    wait_for_the_end();
}

/// Four children that share 60 MiB with their parent, and have 30 MiB each of their own.
pub fn share() {
    let shared = std::hint::black_box(vec![1u8; 60 * MIB]);
    let children: Vec<i32> = (0..4)
        .map(|_| {
            // SAFETY: this process has one thread.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let mut own = Vec::new();
                for n in 0..30 {
                    own.push(std::hint::black_box(vec![n | 1u8; MIB]));
                    std::thread::sleep(Duration::from_millis(10));
                }
                std::process::exit(i32::from(shared[own.len()]) + 6);
            }
            child
        })
        .collect();
    for child in children {
        let mut status = 0;
        // SAFETY: `status` is writable during the call.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(libc::WEXITSTATUS(status), 7, "{status:x}");
    }
    println!("shared");
}

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "what_is_mapped_and_not_used_is_not_resident", || {
        let untouched = seen(&mut run(&[], &["hold", "untouched", "2048"]));
        assert_eq!(
            (untouched.code, untouched.stdout.as_str()),
            (Some(0), "mapped\n"),
            "{}",
            untouched.stderr
        );
        let mut data = launcher();
        data.args(["run", "--measure", "data", "-m", "100Mi", "--"]).arg(std::env::current_exe().unwrap());
        let data = seen(data.args(["role", "hold", "untouched", "2048"]));
        assert_ne!(data.code, Some(0), "{}", data.stdout);
    });
    add(trials, "what_is_used_is_refused_at_the_limit", || {
        let fits = seen(&mut run(&[], &["hold", "heap", "90"]));
        assert_eq!((fits.code, fits.stdout.as_str()), (Some(0), "90\n"), "{}", fits.stderr);
        let seen = seen(&mut run(&["--report", "fd:2"], &["hold", "heap", "1000"]));
        assert_eq!(seen.code, Some(198), "{}", seen.stderr);
        let report = report(&seen);
        assert_eq!((&report["measure"], &report["limit"]), (&"resident".into(), &(100 * MIB).into()));
        assert_eq!(report["requested"], MIB, "{report}");
        // Files are no part of it, and this program's are some MiB.
        let held = report["data"].as_u64().unwrap();
        assert!((98 * MIB as u64..=102 * MIB as u64).contains(&held), "{report}");
    });
    add(trials, "used_in_another_way_it_counts_as_well", || {
        for (kind, cause) in [
            ("later", "resident"),
            ("anonymous", "resident"),
            ("memfd", "resident"),
            ("file", "resident"),
            ("allocated", "resident"),
            ("fixed", "mapping"),
        ] {
            let started = Instant::now();
            let seen = seen(&mut run(&["--report", "fd:2"], &["hold", kind, "1024"]));
            assert_eq!(seen.code, Some(198), "{kind}: {}", seen.stderr);
            let report = report(&seen);
            assert_eq!(
                (&report["cause"], &report["measure"]),
                (&cause.into(), &"resident".into()),
                "{report}"
            );
            assert!(started.elapsed() < Duration::from_secs(60));
            assert_eq!(seen.stderr.matches("oomguard: out of memory: ").count(), 1, "{}", seen.stderr);
        }
    });
    add(trials, "room_for_code_counts_where_it_is_used", || {
        let little = seen(&mut run(&[], &["hold", "code", "20"]));
        assert_eq!((little.code, little.stdout.as_str()), (Some(0), "made\n"), "{}", little.stderr);
        let much = seen(&mut run(&["--report", "fd:2"], &["hold", "code-filled", "512"]));
        assert_eq!(much.code, Some(198), "{}{}", much.stdout, much.stderr);
        assert_eq!(report(&much)["cause"], "resident", "{}", much.stderr);
        let mut two = launcher();
        two.args(["run", "--budget", "640Mi", "--patience", "0", "--"]).arg(std::env::current_exe().unwrap());
        let two = seen(two.args(["role", "hold", "code-and-child", "20"]));
        assert_eq!((two.code, two.stdout.as_str()), (Some(0), "made\nmade\n"), "{}", two.stderr);
    });
    add(trials, "what_python_shares_with_others_counts_as_well", || {
        let python = |program: &str| {
            let mut command = launcher();
            seen(command.args(["run", "-m", "100Mi", "--report", "fd:2", "--", "python3", "-c", program]))
        };
        let is_there = "from multiprocessing import shared_memory";
        if !Command::new("python3")
            .args(["-c", is_there])
            .output()
            .is_ok_and(|output| output.status.success())
        {
            return crate::skip::skipped("no python3 with shared memory is here");
        }
        // Unlinked at once, so that nothing stays behind of who ends in the middle.
        let fill = "import time
from multiprocessing import shared_memory
block = shared_memory.SharedMemory(create=True, size=256 << 20)
block.unlink()
for at in range(0, block.size, 4096):
    block.buf[at] = 7
time.sleep(20)
";
        let seen = python(fill);
        assert_eq!(seen.code, Some(198), "{}", seen.stderr);
        assert_eq!(report(&seen)["cause"], "resident", "{}", seen.stderr);
    });
    add(trials, "who_does_not_hear_that_it_is_over_is_killed_and_spoken_for", || {
        for kind in ["blocked", "awaited"] {
            let seen = seen(&mut run(&["--report", "fd:2"], &["hold", kind, "512"]));
            assert_eq!(seen.code, Some(198), "{kind}: {}", seen.stderr);
            let report = report(&seen);
            assert_eq!(
                (&report["cause"], &report["evidence"]),
                (&"resident".into(), &"outside".into()),
                "{report}"
            );
            assert!(seen.stderr.contains("went over its limit"), "{}", seen.stderr);
        }
    });
    add(trials, "descendants_are_looked_at_too", || {
        let mut command = launcher();
        command.args(["run", "-m", "100Mi", "--", "/bin/sh", "-c"]);
        command.arg("\"$0\" role hold memfd 512; echo \"child: $?\"").arg(std::env::current_exe().unwrap());
        let seen = seen(&mut command);
        assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "child: 198\n"), "{}", seen.stderr);
    });
    add(trials, "a_limit_of_the_users_on_data_is_told_as_what_refused", || {
        let oomguard = env!("CARGO_BIN_EXE_oomguard");
        let role = format!("{} role hold heap 300", std::env::current_exe().unwrap().display());
        for ulimit in ["ulimit -d 153600", "ulimit -S -d 153600"] {
            let words = format!("{ulimit}; exec {oomguard} run -m 512M --report fd:2 -- {role}");
            let seen = seen(&mut shell(&words));
            assert_eq!(seen.code, Some(198), "{}", seen.stderr);
            let report = report(&seen);
            let told = [&report["limit_source"], &report["measure"], &report["limit"]];
            assert_eq!(told, [&"rlimit".into(), &"data".into(), &Value::from(150 * MIB)], "{report}");
        }
    });
    add(trials, "without_inheritance_what_the_command_executes_is_not_looked_at", || {
        let role = "role hold heap 300";
        for script in [format!("\"$0\" {role}; exit $?"), format!("exec \"$0\" {role}")] {
            let mut command = launcher();
            command.args(["run", "-m", "100Mi", "--no-inherit", "--", "/bin/sh", "-c", &script]);
            let seen = seen(command.arg(std::env::current_exe().unwrap()));
            assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "300\n"), "{script}: {}", seen.stderr);
        }
        // The command itself has one, whatever it does to its environment.
        let command = seen(&mut run(&["--no-inherit"], &["hold", "later-by-another-name", "300"]));
        assert_eq!(command.code, Some(198), "{}", command.stderr);
    });
    add(trials, "without_proc_the_limit_holds_as_one_on_data", || {
        let without_proc =
            |words: &str| format!("unshare -m /bin/sh -c 'mount -t tmpfs none /proc && exec {words}'");
        if seen(&mut shell(&without_proc("true"))).code != Some(0) {
            return crate::skip::skipped("unshare -m, and a mount there: not allowed here");
        }
        let oomguard = env!("CARGO_BIN_EXE_oomguard");
        let program = std::env::current_exe().unwrap();
        let words = format!("{oomguard} run -m 100Mi --json -- {} role hold heap 300", program.display());
        let full = seen(&mut shell(&without_proc(&words)));
        assert_eq!((full.code, full.stdout.as_str()), (Some(198), ""), "{}", full.stderr);
        assert!(full.stderr.contains("of data"), "{}", full.stderr);
        let told: Value = serde_json::from_str(full.stderr.lines().last().unwrap()).unwrap();
        assert_eq!(
            (&told["measure"], &told["report"]["measure"]),
            (&"data".into(), &"data".into()),
            "{told}"
        );
        let budget = seen(&mut shell(&without_proc(&format!("{oomguard} run --budget 100Mi -- true"))));
        assert_eq!(budget.code, Some(125), "{}", budget.stderr);
        assert!(budget.stderr.contains("--budget cannot be held here"), "{}", budget.stderr);
        // Where only the command has none, the launcher looks.
        let words = format!("{} role hold untouched 2048", program.display());
        let mut outside = launcher();
        outside.args(["run", "-m", "100Mi", "--", "/bin/sh", "-c", &without_proc(&words)]);
        let outside = seen(&mut outside);
        assert_eq!((outside.code, outside.stdout.as_str()), (Some(0), "mapped\n"), "{}", outside.stderr);
    });
    add(trials, "what_children_share_with_their_parent_is_counted_in_parts", || {
        let seen = seen(&mut run(&[], &["share"]));
        assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "shared\n"), "{}", seen.stderr);
    });
    add(trials, "what_cannot_be_entered_is_held_from_outside", || {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("hold");
        std::fs::write(directory.path().join("hold.c"), STATIC_PROGRAM).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-static", "-o", "hold", "hold.c"]).current_dir(directory.path());
        if !compiler.status().is_ok_and(|status| status.success()) {
            return crate::skip::skipped("no C compiler that makes static programs");
        }
        if let Err(error) = oomguard::supervisor::can_infer() {
            return crate::skip::skipped(error);
        }
        let run = |way: &str| {
            let mut command = launcher();
            command.args(["run", "-m", "100Mi", "--report", "fd:2", "--"]).arg(&program).arg(way);
            seen(&mut command)
        };
        for way in ["untouched", "fits"] {
            let seen = run(way);
            assert_eq!((seen.code, seen.stderr.as_str()), (Some(0), ""), "{way}");
        }
        // Refused, given back, and filled again: each time to the limit and no further.
        let copes = run("copes");
        assert_eq!((copes.code, copes.stderr.as_str()), (Some(0), ""));
        for mib in copes.stdout.lines().map(|line| line.parse::<u64>().unwrap()) {
            assert!((97..=101).contains(&mib), "{}", copes.stdout);
        }
        for (way, cause) in [("fill", "mapping"), ("shared", "resident")] {
            let seen = run(way);
            assert_eq!(seen.code, Some(198), "{way}: {}", seen.stderr);
            let report = report(&seen);
            assert_eq!(
                (&report["measure"], &report["cause"], &report["limit"]),
                (&Value::from("resident"), &Value::from(cause), &Value::from(100 * MIB)),
                "{way}: {report}"
            );
        }
    });
    add(trials, "who_is_refused_and_copes_is_let_be", || {
        let mut command = launcher();
        let program = "
held = []
for turn in range(5):
    try:
        while True:
            held.append(b'7' * 900_000)
    except MemoryError:
        print(turn, len(held) * 900_000 >> 20)
        del held[20:]
";
        let seen = seen(command.args(["run", "-m", "100Mi", "--", "python3", "-c", program]));
        assert_eq!((seen.code, seen.stderr.as_str()), (Some(0), ""));
        assert_eq!(seen.stdout.lines().count(), 5, "{}", seen.stdout);
    });
}

/// Maps, fills and copes, without a library that anything could be preloaded into.
const STATIC_PROGRAM: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
enum { MIB = 1 << 20 };
static char large[512 << 20];
static char *blocks[1000];
static int fill(void) {
    int n = 0;
    while (n < 1000 && (blocks[n] = malloc(MIB))) memset(blocks[n++], 7, MIB);
    return n;
}
static char *map(size_t bytes, int flags) {
    return mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
}
int main(int argc, char **argv) {
    char way = argc > 1 ? argv[1][1] : 0;
    large[0] = 1;
    if (way == 'n') /* untouched */
        for (int n = 0; n < 64; n++)
            if (map(32 * MIB, MAP_PRIVATE) == MAP_FAILED) return 9;
    if (way == 'i' && argv[1][2] == 't') /* fits */
        for (int n = 0; n < 90; n++) memset(malloc(MIB), 7, MIB);
    if (way == 'o') /* copes */
        for (int turn = 0; turn < 10; turn++) {
            int n = fill();
            printf("%d\n", n);
            while (n > 0) free(blocks[--n]);
        }
    if (way == 'i' && argv[1][2] == 'l') { /* fill */
        fill();
        fputs("out of memory\n", stderr);
        return 3;
    }
    if (way == 'h') { /* shared */
        memset(map(1024 * MIB, MAP_SHARED), 7, 1024 * MIB);
        pause();
    }
    return 0;
}
"#;
