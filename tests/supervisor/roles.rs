//! What the worker does, by name.

use oomguard::Measure;
use oomguard::supervisor::{OnSupervisorDeath, Worker};
use std::hint::black_box;
use std::io::Write;
use std::time::Duration;

pub fn play(arguments: &[String]) -> ! {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        // Never enough.
        ["eat"] => eat(),
        // The same in a thread of that name.
        ["eat-as", name] => {
            let thread = std::thread::Builder::new().name((*name).to_owned()).spawn(|| eat());
            thread.expect("a thread").join().expect("it does not come back");
            std::process::exit(1)
        }
        // So many MiB, and the answer on stdout.
        ["need", mib] => {
            let blocks: Vec<Vec<u8>> =
                (0..number(mib)).map(|n| black_box(vec![(n % 251) as u8; 1 << 20])).collect();
            let sum: usize = blocks.iter().map(|block| usize::from(block[black_box(4097)])).sum();
            println!("{sum}");
            std::process::exit(0)
        }
        // A refusal that is handled, and another failure.
        ["cope"] => {
            assert!(black_box(Vec::<u8>::new()).try_reserve(1 << 40).is_err());
            std::process::exit(3)
        }
        // A refusal that comes back as an error, which nobody handles.
        ["unwrap"] => {
            let mut block = Vec::<u8>::new();
            black_box(&mut block).try_reserve(1 << 40).unwrap();
            std::process::exit(0)
        }
        ["exit", code] => std::process::exit(number(code) as i32),
        // Looks at itself, says so, and waits to be killed.
        ["look"] => {
            let block = black_box(vec![1u8; 20 << 20]);
            oomguard::status();
            say("ready");
            sleep(&block)
        }
        ["fork-and-need"] => super::sharers::fork_and_need(),
        ["take-and-give-back", seed] => super::sharers::take_and_give_back(seed.parse().unwrap()),
        // For each line that it is told: whether it could have so many MiB.
        ["try"] => {
            for line in std::io::stdin().lines() {
                let bytes = number(line.unwrap().trim()) << 20;
                let mut block = Vec::<u8>::new();
                say(match black_box(&mut block).try_reserve_exact(bytes) {
                    Ok(()) => "got",
                    Err(_) => "refused",
                });
            }
            std::process::exit(0)
        }
        ["sleep"] => sleep(&[]),
        ["descriptors"] => {
            let names = std::fs::read_dir("/proc/self/fd").unwrap();
            let mut open: Vec<u32> = names
                .filter_map(|entry| {
                    let entry = entry.unwrap();
                    // The directory itself is closed by now.
                    std::fs::read_link(entry.path()).ok()?;
                    entry.file_name().to_str()?.parse().ok()
                })
                .filter(|fd| *fd >= 100)
                .collect();
            open.sort_unstable();
            println!("{open:?}");
            std::process::exit(0)
        }
        // A parent with a small limit of its own, whose child needs more.
        ["small-parent", mib] => {
            let own = oomguard::status().limit.expect("this role is started with a limit");
            assert!(own < 100 << 20, "{own}");
            for measure in [Measure::AddressSpace, Measure::Data] {
                let mut command = super::unchecked_role(&["need", mib]);
                command.stdout(std::process::Stdio::null());
                let outcome = Worker::new(command).limit(super::limit("400MiB")).measure(measure).run();
                println!("{}", outcome.unwrap());
            }
            std::process::exit(0)
        }
        // Its forked child runs out of memory; it passes the code on, and is well itself.
        ["fork"] => {
            // SAFETY: there is one thread, and the child goes on as this program would.
            let child = unsafe { libc::fork() };
            if child == 0 {
                play(&["eat".to_owned()]);
            }
            let mut status = 0;
            // SAFETY: `status` is writable during the call.
            unsafe { libc::waitpid(child, &mut status, 0) };
            std::process::exit(libc::WEXITSTATUS(status))
        }
        // Leaves a child behind that has such a name.
        ["leave-behind", hex] => {
            let mut name: Vec<u8> = (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits"))
                .collect();
            name.push(0);
            // The child inherits it.
            // SAFETY: PR_SET_NAME reads a C string of at most 16 bytes.
            assert_eq!(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) }, 0);
            // SAFETY: there is one thread, and the child goes on as this program would.
            match unsafe { libc::fork() } {
                0 => sleep(&[]),
                child => std::process::exit(if child > 0 { 0 } else { 1 }),
            }
        }
        // A supervisor that starts a worker from a thread that ends, and then dies itself.
        ["supervise", what] => {
            let what = match *what {
                "kill" => OnSupervisorDeath::Kill,
                _ => OnSupervisorDeath::Live,
            };
            let thread = std::thread::spawn(move || {
                Worker::new(super::unchecked_role(&["sleep"])).on_supervisor_death(what).spawn().unwrap()
            });
            let running = thread.join().unwrap();
            // The thread that asked for it is gone; the worker must not be.
            std::thread::sleep(Duration::from_millis(50));
            assert!(!super::is_gone(running.id()), "the worker ended with a thread");
            say(&running.id().to_string());
            sleep(&[])
        }
        ["in-group", group] => {
            super::kernel::play(group);
            std::process::exit(0)
        }
        ["no-descriptor-left"] => {
            let (gate, gatekeeper) = std::io::pipe().unwrap();
            let mut command = super::shell("read line; exit 0");
            command.stdin(gate);
            let mut running = Worker::new(command).spawn().unwrap();
            // Three are taken; poll(2) wants no fewer than it is asked about.
            let none = libc::rlimit { rlim_cur: 3, rlim_max: 3 };
            // SAFETY: `none` is readable during the call.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &none) }, 0);
            assert!(running.wait_timeout(Duration::from_millis(10)).unwrap().is_none());
            drop(gatekeeper);
            let outcome = running.wait_timeout(Duration::from_secs(60)).unwrap();
            std::process::exit(if outcome.is_some_and(|outcome| outcome.is_success()) { 0 } else { 1 })
        }
        ["count-forks"] => {
            super::setup::count_forks();
            std::process::exit(0)
        }
        ["start-at-once"] => {
            super::starts::start_at_once();
            std::process::exit(0)
        }
        ["start-under-signals"] => {
            super::starts::start_under_signals();
            std::process::exit(0)
        }
        ["start-without-anything"] => {
            super::starts::start_without_anything();
            std::process::exit(0)
        }
        ["many", workers] => {
            super::many::run(number(workers));
            std::process::exit(0)
        }
        other => {
            eprintln!("no such role: {other:?}");
            std::process::exit(99)
        }
    }
}

fn eat() -> ! {
    let mut all: Vec<Vec<u8>> = Vec::new();
    loop {
        all.push(black_box(vec![1; 1 << 20]));
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

fn sleep(kept: &[u8]) -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(60));
        black_box(kept);
    }
}
