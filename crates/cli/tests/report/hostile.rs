//! Files that lie. Whatever they hold: an answer or an error, in time, of bounded size, and no panic.

use super::death::{DEBUG, Death, RELEASE, report};
use fastrand::Rng;
use std::fs;
use std::path::Path;

/// Far more than any honest report.
const MOST_OUTPUT: usize = 32 << 20;

fn bears(file: &Path, options: &[&str], what: &str) {
    let output = report(file, options);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 125)), "{what}: {:?} {stderr}", output.status);
    assert!(!stderr.contains("panicked"), "{what}: {stderr}");
    assert!(output.stdout.len() < MOST_OUTPUT && stderr.len() < 4096, "{what}");
}

const ALL: [&[&str]; 5] = [&[], &["--full"], &["--json"], &["--flamegraph", "-"], &["--pprof", "-"]];

#[test]
fn random_bytes_are_borne() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("random.profile");
    let mut random = Rng::with_seed(7);
    for round in 0..12 {
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(900_000).collect();
        if round % 2 == 0 {
            // A profile by its first words.
            bytes[..16].copy_from_slice(b"oomgprof\x01\0\0\0\0\0\0\0");
        }
        fs::write(&file, bytes).unwrap();
        bears(&file, ALL[round % ALL.len()], &format!("round {round}"));
    }
}

#[test]
fn a_profile_with_words_changed_at_random_is_borne() {
    let death = Death::of(&DEBUG);
    let honest = fs::read(death.profile()).unwrap();
    // Where anything is: the rest is zero, and stays so for the most part.
    let used: Vec<usize> =
        (16..honest.len() / 8).filter(|word| honest[word * 8..word * 8 + 8] != [0; 8]).collect();
    let mut random = Rng::with_seed(8);
    for round in 0..40 {
        let mut forged = honest.clone();
        let share = [1, 10, 100, 500][round % 4];
        for word in &used {
            if random.usize(..1000) < share {
                let value = match random.u8(..4) {
                    0 => random.u64(..),
                    1 => random.u64(..300),
                    2 => u64::MAX - random.u64(..16),
                    _ => {
                        u64::from_ne_bytes(honest[word * 8..word * 8 + 8].try_into().unwrap())
                            ^ 1 << random.u8(..64)
                    }
                };
                forged[word * 8..word * 8 + 8].copy_from_slice(&value.to_ne_bytes());
            }
        }
        fs::write(death.profile(), forged).unwrap();
        bears(&death.report_file(), ALL[round % ALL.len()], &format!("round {round}"));
    }
}

#[test]
fn a_program_whose_file_was_damaged_is_borne() {
    let death = Death::of(&RELEASE);
    let honest = fs::read(death.program()).unwrap();
    let build_id = death.json(&[])["modules"][0]["build_id"].as_str().unwrap().to_owned();
    let build_id: Vec<u8> = (0..build_id.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&build_id[at..at + 2], 16).unwrap())
        .collect();
    // The build-id stays, or nothing else would be looked at.
    let note = honest.windows(build_id.len()).position(|window| window == build_id).unwrap();
    let kept = note - 16..note + build_id.len();
    let sections = honest.len() - 64 * 48..honest.len();
    let mut random = Rng::with_seed(9);
    for round in 0..40 {
        let mut forged = honest.clone();
        let damage = [20, 1000, 100_000][round % 3];
        for _ in 0..damage {
            // Often where the file says what it holds.
            let at = match random.u8(..8) {
                0 => random.usize(64..1024),
                1 => random.usize(sections.clone()),
                _ => random.usize(1024..honest.len()),
            };
            if !kept.contains(&at) {
                forged[at] = random.u8(..);
            }
        }
        if round % 5 == 0 {
            forged.truncate(random.usize(100..honest.len()));
        }
        fs::write(death.program(), forged).unwrap();
        bears(&death.report_file(), ALL[round % ALL.len()], &format!("round {round}"));
    }
}
