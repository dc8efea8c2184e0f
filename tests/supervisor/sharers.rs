//! Workers that share a budget are killed at any moment, in the middle of asking for more or of waiting for it: what all have
//! together is never more than there is, and nothing of the dead stays behind.

use super::{add, limit, role};
use libtest_mimic::Trial;
use oomguard::supervisor::{Outcome, Running, SharedBudget, Worker};
use std::hint::black_box;
use std::process::Stdio;
use std::time::{Duration, Instant};

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "what_a_forked_child_shares_with_its_parent_is_charged_once", charged_once);
    add(trials, "sharers_are_killed_at_any_moment_and_the_ledger_holds", killed_at_any_moment);
}

/// Some numbers that a seed decides (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Takes memory and gives it back, over and over, until its stdin is closed. What it is refused it does without.
pub fn take_and_give_back(seed: u64) -> ! {
    let mut random = Random(seed);
    let mut held: Vec<Vec<u8>> = Vec::with_capacity(3);
    while !is_stdin_closed() {
        let mut block: Vec<u8> = Vec::new();
        let bytes = 1 + random.below(24 << 20) as usize;
        if held.len() < 3 && block.try_reserve_exact(bytes).is_ok() {
            block.resize(bytes.min(random.below(4 << 20) as usize), 1);
            held.push(black_box(block));
        } else {
            held.clear();
        }
    }
    std::process::exit(0)
}

/// Holds 60 MiB, and forks a child that needs 20 more. Both are to stand still when they are told to: SIGURG is handled, and has no
/// other effect.
pub fn fork_and_need() -> ! {
    fn heeds_stillness() -> bool {
        // SAFETY: an action is made of integers, and a null pointer where there is no handler.
        let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: nothing is set, and `now` is writable.
        let unknown = unsafe { libc::sigaction(libc::SIGURG, std::ptr::null(), &raw mut now) };
        // SAFETY: raise takes no pointer.
        let unsent = unsafe { libc::raise(libc::SIGURG) };
        unknown == 0 && unsent == 0 && now.sa_sigaction != libc::SIG_DFL
    }
    let held = black_box(vec![1u8; 60 << 20]);
    // SAFETY: there is one thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut more: Vec<u8> = Vec::new();
        let has_room = more.try_reserve_exact(20 << 20).is_ok();
        more.resize(more.capacity(), 1);
        black_box((held, more));
        std::process::exit(if !has_room {
            3
        } else if !heeds_stillness() {
            4
        } else {
            0
        })
    }
    let mut status = 0;
    // SAFETY: `status` is writable.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    std::process::exit(if !heeds_stillness() { 5 } else { libc::WEXITSTATUS(status) })
}

fn charged_once() {
    let budget = SharedBudget::new(limit("100MiB"), Duration::from_millis(20)).unwrap();
    let outcome = Worker::new(role(&["fork-and-need"])).share(budget).quiet().run().unwrap();
    assert!(
        outcome.is_success(),
        "3: refused, 4: the child does not heed, 5: nor does its parent: {outcome}"
    );
}

/// Without a thread that reads: its stack can be refused, too, where others have all that there is.
fn is_stdin_closed() -> bool {
    let mut stdin = libc::pollfd { fd: 0, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which the call may write to.
    unsafe { libc::poll(&mut stdin, 1, 0) == 1 }
}

/// `KILLS=N` kills so many, `KILLS_SEED=N` those of an earlier run.
fn killed_at_any_moment() {
    const SHARERS: u64 = 6;
    const PATIENCE: Duration = Duration::from_secs(60);
    let number = |name: &str| std::env::var(name).ok().map(|said| said.parse::<u64>().unwrap());
    let kills = number("KILLS").unwrap_or(200);
    let seed = number("KILLS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("KILLS_SEED={seed}");
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let budget = SharedBudget::new(limit("100MiB"), Duration::from_millis(20)).unwrap();
    let start = |random: &mut Random| -> Running {
        let mut command = role(&["take-and-give-back", &(1 + random.below(u64::MAX - 1)).to_string()]);
        command.stdin(Stdio::piped());
        Worker::new(command).share(budget.clone()).quiet().spawn().unwrap()
    };
    let within = |moment: &str| {
        let used = budget.used();
        assert!(used <= budget.bytes(), "{used} of {} leased {moment}", budget.bytes());
        used
    };
    let mut sharers: Vec<Running> = (0..SHARERS).map(|_| start(&mut random)).collect();
    let mut most = 0;
    for kill in 0..kills {
        std::thread::sleep(Duration::from_micros(random.below(3000)));
        let victim = random.below(SHARERS) as usize;
        let mut victim = std::mem::replace(&mut sharers[victim], start(&mut random));
        victim.kill().unwrap();
        most = most.max(within(&format!("right after kill {kill}")));
        let outcome = victim.wait().unwrap();
        assert!(matches!(outcome, Outcome::Signaled(9)), "kill {kill}: {outcome}");
        within(&format!("once {kill} is gone"));
    }
    assert!(most > 0, "they have never had anything");
    for mut sharer in sharers {
        let outcome = sharer.wait().unwrap();
        assert!(outcome.is_success(), "{outcome}");
    }
    let began = Instant::now();
    while budget.used() > 0 {
        assert!(began.elapsed() < PATIENCE, "{} bytes are still leased to the dead", budget.used());
        std::thread::sleep(Duration::from_millis(5));
    }
    let outcome = Worker::new(role(&["need", "90"])).share(budget.clone()).quiet().run().unwrap();
    assert!(outcome.is_success(), "what nobody has is not to be had: {outcome}");
}
