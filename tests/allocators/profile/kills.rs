//! SIGKILL at random moments, while eight threads allocate: every profile can be read, and none misleads.

use crate::{add, role};
use libtest_mimic::Trial;
use oomguard::supervisor::{Profile, Worker};
use std::hint::black_box;
use std::time::Duration;

/// 1000 where nobody says otherwise.
const KILLS: &str = "OOMGUARD_TEST_KILLS";

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "a_kill_at_any_moment_leaves_a_profile_that_does_not_mislead", kills);
}

/// What the threads hold together, about.
const HELD: u64 = 8 * 1024 * 1024;

pub fn churn(threads: usize) {
    let running: Vec<_> = (0..threads).map(|thread| std::thread::spawn(move || churn_here(thread))).collect();
    running.into_iter().for_each(|thread| thread.join().unwrap());
}

#[inline(never)]
pub fn churn_here(thread: usize) {
    let mut blocks: Vec<Vec<u8>> = (0..1024).map(|_| vec![1; black_box(1024)]).collect();
    let mut random = fastrand::Rng::with_seed(thread as u64);
    loop {
        let slot = random.usize(..blocks.len());
        blocks[slot] = vec![1; black_box(random.usize(1..2048))];
    }
}

fn kills() {
    let kills: u32 = std::env::var(KILLS).map_or(1000, |kills| kills.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(198);
    let (mut full, mut begun) = (0, 0);
    for kill in 0..kills {
        let mut running = Worker::new(role(&["churn", "8"])).profile_every(16 << 10).spawn().unwrap();
        // By chance, and not for a condition: that is what is tested.
        std::thread::sleep(Duration::from_micros(random.u64(..12_000)));
        running.kill().unwrap();
        let ended = running.wait_to_end().unwrap();
        // It may have been killed before it had begun.
        let Some(look) = ended.last_look else { continue };
        let Some(profile) = look.profile() else { continue };
        begun += 1;
        check(profile, kill);
        full += u32::from(profile.live_bytes > HELD / 2);
    }
    assert!(
        begun > kills / 3 && full > kills / 20,
        "of {kills} only {begun} had begun, and {full} were full"
    );
}

fn check(profile: &Profile, kill: u32) {
    let told = || format!("kill {kill}: {profile:#?}");
    // Each thread may have 64 KiB untold, and the start-up allocates a little.
    assert!(profile.live_bytes < HELD * 3 / 2, "{}", told());
    // A hundred and more samples: twice or half as much is out of the question once there is something.
    if profile.live_bytes > HELD / 2 {
        let (sampled, live) = (profile.sampled_bytes() as f64, profile.live_bytes as f64);
        assert!(sampled > live * 0.6 && sampled < live * 1.5, "{}", told());
    }
    assert_eq!(
        profile.lost.live_samples + profile.lost.without_site + profile.lost.without_frames,
        0,
        "{}",
        told()
    );
    let without_stack = profile.sites.iter().filter(|site| site.frames.is_empty()).count();
    // A thread may be killed between taking a site and writing its stack.
    assert!(without_stack <= 8, "{}", told());
    for site in &profile.sites {
        assert!(site.live_samples <= site.total_samples + 8, "{}", told());
        for frame in &site.frames {
            assert!(profile.module_of(*frame).is_some(), "{frame:#x} is in no file; {}", told());
        }
    }
}
