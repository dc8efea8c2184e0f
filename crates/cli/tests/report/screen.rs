//! What people see.

use super::death::{DEBUG, Death, OOMGUARD, RELEASE, clean, finish, make_pipe};
use std::fs;
use std::process::Command;

/// The places in the order of their shares, each as its lines.
fn places(text: &str) -> Vec<Vec<&str>> {
    let (_, after) = text.split_once("Who held it").unwrap();
    let (all, _) = after.split_once("\n\n").unwrap();
    let mut places: Vec<Vec<&str>> = Vec::new();
    for line in all.lines().skip(1) {
        if line.starts_with("      ") && !line.trim_start().starts_with(|c: char| c.is_ascii_digit()) {
            places.last_mut().unwrap().push(line.trim());
        } else {
            places.push(vec![line.trim()]);
        }
    }
    places
}

#[test]
fn it_names_the_functions_that_held_the_memory_in_debug_and_in_release() {
    for program in [&*DEBUG, &*RELEASE] {
        let death = Death::of(program);
        let text = death.text(&[]);
        let places = places(&text);
        // By hand: the words' positions first, then the lines, by their sizes.
        let largest = &places[0];
        assert!(largest[1].contains("add_words"), "{program:?}: {text}");
        assert!(largest[1].contains("examples/postmortem.rs:60"), "{program:?}: {text}");
        assert!(places.iter().any(|place| place[1].contains("postmortem.rs:49")), "{program:?}: {text}");
        // From the function that wanted memory to `main`, with neither the allocator nor what is before `main`.
        assert!(largest.last().unwrap().contains("postmortem::main"), "{program:?}: {text}");
        // What is before `main` may have been met, too, and then has nothing else to show.
        let of_program = || places.iter().filter(|place| place.last().unwrap().contains("postmortem::main"));
        for machinery in ["__rust_", "sampler.rs", "raw_vec", "lang_start", "hashbrown"] {
            let is_shown = of_program().flatten().any(|line| line.contains(machinery));
            assert!(!is_shown, "{machinery} in {program:?}: {text}");
        }
        let whole = death.text(&["--full"]);
        assert!(whole.contains("lang_start") && whole.contains("sampler.rs"), "{whole}");
    }
}

#[test]
fn the_programs_own_function_is_shown_however_deep_it_is_in_the_standard_library() {
    let directory = tempfile::tempdir().unwrap();
    fs::copy(&*DEBUG, directory.path().join("indexer")).unwrap();
    fs::create_dir(directory.path().join("texts")).unwrap();
    // The size of what comes through a pipe is not known before: std goes through more functions than are shown.
    let pipe = directory.path().join("texts/text");
    make_pipe(&pipe);
    // Not waited for: it may be stuck where the program fails.
    std::thread::spawn(move || fs::write(pipe, "a b c d e f\n".repeat(500_000)));
    let mut death = Death { directory, pid: 0 };
    death.pid = death.die();
    let text = death.text(&[]);
    let place = places(&text).into_iter().find(|place| place.iter().any(|line| line.contains("read_to_end")));
    let place = place.unwrap_or_else(|| panic!("{text}"));
    let own = place.iter().position(|line| line.contains("postmortem::Index::add_directory"));
    assert!(own.is_some_and(|own| place[own + 1].contains("postmortem::main")), "{text}");
    assert!(!death.text(&["--full"]).contains("of the standard library"));
}

#[test]
fn it_says_what_happened_how_it_grew_and_how_sure_that_is() {
    let death = Death::of(&DEBUG);
    let text = death.text(&[]);
    let first = text.lines().next().unwrap();
    assert!(first.starts_with("Out of memory: indexer (pid ") && first.contains("in thread main"), "{text}");
    for part in [
        "40 MiB",
        "  of address-space, from OOMGUARD_LIMIT",
        "Refused last: ",
        "Bytes live over time",
        "names",
        "stacks",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.contains("indexer: functions and lines\n"), "{text}");
    // Seconds at both ends, wherever a busy machine has put the first moment.
    let seconds = |line: &str| {
        let ends: Vec<&str> = line.trim().split(" s").collect();
        ends.len() == 3 && ends.iter().take(2).all(|end| end.trim().parse::<f64>().is_ok())
    };
    assert!(text.lines().any(seconds), "{text}");
    let refused = text.split_once("Refused last").unwrap().1;
    assert!(refused.lines().nth(1).unwrap().contains("Index::add_"), "{text}");
    assert!(!text.contains('!'), "nothing to warn of: {text}");
}

#[test]
fn it_fits_100_columns_and_is_plain_where_it_is_no_terminal() {
    let death = Death::of(&DEBUG);
    for options in [&[][..], &["--full"], &["--no-symbols"]] {
        let text = death.text(options);
        let widest = text.lines().max_by_key(|line| line.chars().count()).unwrap();
        assert!(widest.chars().count() <= 100, "{widest}");
        assert!(!text.contains('\x1b'), "{text}");
    }
}

#[test]
fn a_terminal_gets_colours_and_blocks() {
    let death = Death::of(&DEBUG);
    let line = format!("{OOMGUARD} report {}", death.report_file().display());
    for (locale, bar) in [("C.UTF-8", '█'), ("C", '#')] {
        // script(1) has a terminal for it.
        let mut command = clean(Command::new("script"));
        command.args(["-qec", &line, "/dev/null"]).env("LC_ALL", locale).env_remove("NO_COLOR");
        let output = finish(command);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("\x1b[1m") && text.contains(bar), "{locale}: {text}");
    }
}

#[test]
fn top_bounds_the_places_and_the_rest_is_summed() {
    let death = Death::of(&DEBUG);
    let text = death.text(&["--top", "1"]);
    let places = places(&text);
    assert_eq!(places.len(), 2, "{text}");
    assert!(places[1][0].contains("other place"), "{text}");
    let share = |place: &Vec<&str>| place[0].split(' ').next().unwrap().parse::<f64>().unwrap();
    assert!((share(&places[0]) + share(&places[1]) - 100.0).abs() < 0.2, "{text}");
}

#[test]
fn few_samples_are_said_to_be_few() {
    let death = Death::of(&DEBUG);
    let mut command = clean(Command::new(death.program()));
    command.arg(death.path("texts"));
    command.envs([("OOMGUARD_LIMIT", "40Mi"), ("OOMGUARD_QUIET", "1"), ("OOMGUARD_PROFILE", "16Mi")]);
    command.env("OOMGUARD_REPORT", death.report_file());
    finish(command);
    let text = death.text(&[]);
    assert!(text.contains("OOMGUARD_PROFILE=64Ki samples more often"), "{text}");
}
