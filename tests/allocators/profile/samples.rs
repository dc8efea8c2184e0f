//! What is sampled, and what is counted.

use crate::truth::{Names, program_offsets};
use crate::{add, role, worker};
use libtest_mimic::Trial;
use oomguard::supervisor::{Ended, Outcome, Profile, Profiling};
use std::process::Stdio;

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "a_death_tells_which_code_held_the_memory", a_death_tells);
    add(trials, "without_a_parent_the_profile_lies_beside_the_report", beside_the_report);
    add(trials, "a_profile_that_nobody_wanted_is_none", nobody_wanted_it);
    add(trials, "blocks_that_other_threads_release_are_released", other_threads_release);
    add(trials, "what_short_threads_allocate_is_counted", short_threads_count);
    add(trials, "a_forked_child_leaves_its_parents_profile_alone", forks_are_apart);
    add(trials, "the_last_refusal_has_its_stack", the_last_refusal_has_its_stack);
    add(trials, "a_wrong_distance_is_refused", a_wrong_distance_is_refused);
    add(trials, "a_running_worker_can_be_looked_at", a_running_worker_can_be_looked_at);
}

/// The part of what is live whose stacks pass a function of this program.
pub fn share_through(profile: &Profile, function: &str) -> f64 {
    let mut names = Names::default();
    let program = std::env::current_exe().unwrap();
    let through = profile.sites.iter().filter(|site| {
        let stack = names.of_stack(program_offsets(profile, site, &program));
        stack.iter().any(|name| name.rsplit("::").next() == Some(function))
    });
    through.map(|site| profile.share(site)).sum()
}

fn end(arguments: &[&str], every: u64) -> Ended {
    worker(arguments, "512MiB").profile_every(every).run_to_end().unwrap()
}

fn profile_of(ended: &Ended) -> &Profile {
    assert!(ended.outcome.is_success(), "{ended}");
    ended.last_look.as_ref().and_then(|look| look.profile()).expect("a profile")
}

fn a_death_tells() {
    let ended = worker(&["hoard"], "512MiB").profile().run_to_end().unwrap();
    let Outcome::OutOfMemory(report) = &ended.outcome else { panic!("{ended}") };
    assert_eq!(report.profiling(), Some(Profiling::On));
    let profile = report.profile().expect("a profile");
    check_hoard(profile);
    assert_eq!(profile.pid, ended.pid);
    assert!(
        report.to_json().contains(&format!("\"heap_live\":{}", profile.live_bytes)),
        "{}",
        report.to_json()
    );
}

fn check_hoard(profile: &Profile) {
    assert!(profile.live_bytes > 400 << 20, "{profile:?}");
    assert!(profile.peak_bytes >= profile.live_bytes);
    let off = profile.sampled_bytes() as f64 / profile.live_bytes as f64 - 1.0;
    assert!(off.abs() < 0.2, "sampled {} of {}", profile.sampled_bytes(), profile.live_bytes);
    let three = share_through(profile, "three_parts");
    let one = share_through(profile, "one_part");
    // 1000 samples: the spread is 1.4 points.
    assert!((three - 0.75).abs() < 0.07 && (one - 0.25).abs() < 0.07, "{three} and {one}: {profile:#?}");
    assert_eq!(profile.lost, Default::default());
    assert!(profile.method.frames_by_table > profile.samples, "{:?}", profile.method);
    assert_eq!(profile.method.frames_by_pointer, 0, "{:?}", profile.method);
    let program = std::env::current_exe().unwrap();
    let module =
        profile.modules.iter().find(|module| module.path.as_ref() == Some(&program)).expect("the program");
    assert!(!module.build_id.is_empty());
    let (bytes, frames) = profile.last_refusal.as_ref().expect("a refusal");
    assert!(*bytes == 32 << 10 && frames.len() > 3, "{bytes} {frames:x?}");
    let moments = &profile.timeline;
    assert!(moments.len() > 3 && moments.is_sorted_by_key(|moment| moment.at), "{moments:?}");
    assert!(moments.last().unwrap().live_bytes > 400 << 20, "{moments:?}");
}

fn beside_the_report() {
    let directory = tempfile::TempDir::new().unwrap();
    let report = directory.path().join("report");
    for run in 1..=2 {
        let status = role(&["hoard"])
            .env("OOMGUARD_LIMIT", "512MiB")
            .env("OOMGUARD_PROFILE", "on")
            .env("OOMGUARD_REPORT", &report)
            .env("OOMGUARD_QUIET", "1")
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(198));
        let profiles = Profile::read_file(directory.path().join("report.profile")).unwrap();
        assert_eq!(profiles.len(), run);
        profiles.iter().for_each(check_hoard);
    }
}

fn nobody_wanted_it() {
    let ended = worker(&["hoard"], "64MiB").run_to_end().unwrap();
    let Outcome::OutOfMemory(report) = &ended.outcome else { panic!("{ended}") };
    assert!(report.profile().is_none());
    assert_eq!(report.profiling(), Some(Profiling::Off));
    assert!(report.to_json().contains("\"heap_live\":null"));
}

fn other_threads_release() {
    let ended = end(&["hand-over"], 64 << 10);
    let profile = profile_of(&ended);
    let (live, sampled) = (profile.live_bytes as f64, profile.sampled_bytes() as f64);
    let expected = f64::from(16 << 20);
    assert!((live / expected - 1.0).abs() < 0.05, "{live} live");
    assert!((sampled / expected - 1.0).abs() < 0.25, "{sampled} sampled");
    assert!(share_through(profile, "hold") > 0.9, "{profile:#?}");
}

fn short_threads_count() {
    let ended = end(&["short-threads"], 64 << 10);
    let live = profile_of(&ended).live_bytes;
    let expected = 1024 * (16 << 10);
    assert!(live.abs_diff(expected) < expected / 20, "{live} live");
}

fn forks_are_apart() {
    let ended = end(&["fork"], 64 << 10);
    let profile = profile_of(&ended);
    let expected = 16384 * 4096;
    assert!(profile.live_bytes.abs_diff(expected) < expected / 20, "{} live", profile.live_bytes);
    assert!(profile.sampled_bytes().abs_diff(expected) < expected / 4, "{} sampled", profile.sampled_bytes());
    assert!(share_through(profile, "hold") < 0.01);
}

fn the_last_refusal_has_its_stack() {
    let ended = end(&["refuse"], 64 << 10);
    let (bytes, frames) = profile_of(&ended).last_refusal.as_ref().expect("a refusal");
    assert_eq!(*bytes, 1 << 50);
    assert!(frames.len() > 5, "{frames:x?}");
}

fn a_wrong_distance_is_refused() {
    for wrong in ["0", "yes", "12Q", ""] {
        let output = role(&["refuse"]).env("OOMGUARD_PROFILE", wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{wrong}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains(&format!("OOMGUARD_PROFILE=\"{wrong}\"")) && said.contains("accepted: on, off"),
            "{said}"
        );
    }
}

fn a_running_worker_can_be_looked_at() {
    let mut command = role(&["hoard-and-wait"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = oomguard::supervisor::Worker::new(command).profile_every(64 << 10).spawn().unwrap();
    let mut line = String::new();
    let stdout = running.stdout.as_mut().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
    assert_eq!(line, "ready\n");
    let profile = running.profile().expect("a profile");
    assert!(profile.live_bytes.abs_diff(64 << 20) < 4 << 20, "{}", profile.live_bytes);
    running.kill().unwrap();
    let ended = running.wait_to_end().unwrap();
    assert!(ended.last_look.unwrap().profile().is_some(), "after SIGKILL, too");
}
