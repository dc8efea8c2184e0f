//! Programs in many languages under `oomguard run`: what runs out of memory ends with the reserved code and a report;
//! what recovers, and what never came near its limit, ends with its own code and none.
//!
//! `install` installs the runtimes where apt can; a language whose runtime is missing is skipped by name.
//!
//! | file | what it holds |
//! |---|---|
//! | `languages` | the matrix: languages, their ways to end, and limits |
//! | `runtime` | finding a runtime, building a program |
//! | `judge` | one run, and what it has to leave behind |
//! | `verdicts` | the same programs and adversarial ones, counted: the table of false verdicts |
//! | a folder per language | the program; every one takes a way and an exit code |

#[path = "../common/mod.rs"]
mod common;
mod judge;
mod languages;
mod runtime;

use judge::Cell;
use languages::{Language, MEASURES};
use libtest_mimic::{Arguments, Trial};

fn main() {
    let mut trials = Vec::new();
    for language in languages::ALL {
        if let Err(missing) = runtime::find(language) {
            common::skip::skipped(format!("{}: {missing}", language.name));
            continue;
        }
        add_to(&mut trials, language);
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn add_to(trials: &mut Vec<Trial>, language: &'static Language) {
    for cell in MEASURES.iter().flat_map(|measure| Cell::all(language, *measure)) {
        trials.push(Trial::test(cell.name(), move || Ok(cell.run()?)));
    }
}
