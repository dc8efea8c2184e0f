//! `oomguard doctor`: what limits hold here, what the guard would do, and what will hurt.
//!
//! | file | what it holds |
//! |---|---|
//! | `examination` | everything that was found, and what the guard would do with it |
//! | `probes` | what was tried rather than read |
//! | `advice` | what will hurt, and what to change |
//! | `screen` | all of it for people |
//! | `json` | all of it for machines |

mod advice;
mod examination;
mod json;
mod probes;
mod screen;

use crate::arguments::Doctor;
use crate::screen::{is_coloured, json_line};
use examination::Examination;
use oomguard::contract::EXIT_CANNOT_GUARD;
use std::io::{self, Write};

/// Exit code 0 where `run` works here, 125 where it could not do its job.
pub fn doctor(options: &Doctor) -> u8 {
    let examination = Examination::of_here();
    let advice = advice::on(&examination);
    let text = if options.json {
        json_line(&json::of(&examination, &advice))
    } else {
        screen::of(&examination, &advice, is_coloured())
    };
    // Nobody may be listening any more: the exit code still tells.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    if advice.iter().any(|advice| advice.keeps_from_running) { EXIT_CANNOT_GUARD } else { 0 }
}
