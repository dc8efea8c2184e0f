//! `oomguard report`: which code held the memory of a program that died.
//!
//! | file | what it holds |
//! |---|---|
//! | `death` | what is known of deaths: reports and profiles, read from files |
//! | `stacks` | the stacks of one profile, with names |
//! | `role` | which functions only serve the program's own |
//! | `screen` | all of it for people |
//! | `plot` | the time line |
//! | `json` | all of it for machines |
//! | `folded`, `flame_graph`, `pprof` | the stacks for other tools |
//! | `output` | files that are written whole |

pub mod death;
mod flame_graph;
mod folded;
mod json;
mod output;
mod plot;
mod pprof;
mod role;
mod screen;
mod stacks;

use crate::arguments::Report;
use crate::screen::{Screen, is_coloured, json_line, say};
use death::Death;
use oomguard::contract::EXIT_CANNOT_GUARD;
use oomguard::supervisor::symbols::Symbolizer;
use oomguard::supervisor::{Profile, size};
use plot::Characters;
use stacks::Stacks;
use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::path::Path;

/// Exit code 0, or 125 where there is nothing to report.
pub fn report(options: &Report) -> u8 {
    match report_or_say_why(options) {
        Ok(()) => 0,
        Err(line) => {
            say(&line);
            EXIT_CANNOT_GUARD
        }
    }
}

fn report_or_say_why(options: &Report) -> Result<(), String> {
    let deaths = death::read(&options.file)?;
    if options.list {
        return output::write(Path::new("-"), list(&deaths).as_bytes());
    }
    let death = chosen(&deaths, options)?;
    let Some(profile) = &death.profile else { return write_without_profile(death, options) };
    let mut stacks = Stacks::new(profile, symbolizer(options));
    write_all(death, &mut stacks, options)
}

/// What can be told is told; that is all only where nothing was wanted that comes from a profile alone.
fn write_without_profile(death: &Death, options: &Report) -> Result<(), String> {
    let why = no_profile(&options.file);
    let files = options.files();
    if !files.contains(&Path::new("-")) {
        let text = if options.json {
            json_line(&json::of(death, None))
        } else {
            let mut screen = Screen::new(is_coloured());
            screen::what_happened(death, &mut screen);
            screen.text
        };
        output::write(Path::new("-"), text.as_bytes())?;
    }
    if !files.is_empty() {
        return Err(why);
    }
    say(&why);
    Ok(())
}

fn write_all(death: &Death, stacks: &mut Stacks<'_>, options: &Report) -> Result<(), String> {
    let stdout = Path::new("-");
    if let Some(path) = &options.flamegraph {
        match flame_graph::of(death, stacks)? {
            Some(svg) => output::write(path, &svg)?,
            None => say(&format!("no flame graph in {path:?}: nothing live was sampled")),
        }
    }
    if let Some(path) = &options.pprof {
        output::write(path, &pprof::of(death, stacks))?;
    }
    if let Some(path) = &options.folded {
        let lines: String = folded::lines(stacks).into_iter().map(|line| line + "\n").collect();
        output::write(path, lines.as_bytes())?;
    }
    if options.json {
        return output::write(stdout, json_line(&json::of(death, Some(stacks))).as_bytes());
    }
    if options.files().contains(&stdout) {
        return Ok(());
    }
    let style = screen::Style {
        top: options.top,
        full_stacks: options.full,
        is_coloured: is_coloured(),
        characters: if io::stdout().is_terminal() && speaks_unicode() {
            Characters::Blocks
        } else {
            Characters::Ascii
        },
    };
    output::write(stdout, screen::of(death, stacks, &style).as_bytes())
}

fn symbolizer(options: &Report) -> Symbolizer {
    let mut symbolizer = Symbolizer::new();
    if let Some(root) = &options.root {
        symbolizer = symbolizer.root(root);
    }
    for directory in &options.debug_dir {
        symbolizer = symbolizer.debug_directory(directory);
    }
    if options.no_symbols { symbolizer.without_files() } else { symbolizer }
}

/// The one that was asked for, else the last one that can be told more about.
fn chosen<'a>(deaths: &'a [Death], options: &Report) -> Result<&'a Death, String> {
    let file = &options.file;
    match (options.number, options.pid) {
        (Some(number), _) => number.checked_sub(1).and_then(|index| deaths.get(index)).ok_or_else(|| {
            format!("no death {number} in {file:?}: it holds {}; see them with --list", deaths.len())
        }),
        (None, Some(pid)) => deaths.iter().rev().find(|death| death.pid() == Some(pid)).ok_or_else(|| {
            format!("no death of process {pid} in {file:?}; see those that it holds with --list")
        }),
        (None, None) => {
            let last = deaths.iter().rev().find(|death| death.profile.is_some()).or(deaths.last());
            last.ok_or_else(|| no_profile(file))
        }
    }
}

fn no_profile(file: &Path) -> String {
    format!(
        "{file:?} holds no profile: a program with oomguard::guard!(profile = on), or with profile = off and \
         OOMGUARD_PROFILE=on, writes one beside the file that OOMGUARD_REPORT names"
    )
}

fn list(deaths: &[Death]) -> String {
    let mut text = String::new();
    for (index, death) in deaths.iter().enumerate() {
        let profile = match &death.profile {
            Some(Profile { live_bytes, samples, .. }) => {
                format!("{} live, {samples} samples", size(*live_bytes))
            }
            None => "no profile".into(),
        };
        let _ = writeln!(text, "{:>4}  {} ({profile})", index + 1, death.headline());
    }
    text
}

/// locale(7): the first of the three that says anything.
fn speaks_unicode() -> bool {
    let said = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(|name| std::env::var(name).ok());
    let charset = said.into_iter().find(|value| !value.is_empty()).unwrap_or_default().to_ascii_uppercase();
    charset.contains("UTF-8") || charset.contains("UTF8")
}

/// `None` for none.
fn hexadecimal(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
