//! What the variables of the environment say, for those who run a command and those who only look.

use oomguard::__private::forms::{self, BadForm};
use oomguard::contract::variable;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;

/// What a variable says; `Err` names it, its value and what is wrong with it.
pub type Asked<T> = Result<Option<T>, String>;

pub fn asked<T>(
    environment: impl Fn(&str) -> Option<OsString>,
    name: &str,
    read: fn(&str) -> Result<T, String>,
) -> Asked<T> {
    let Some(value) = environment(name) else { return Ok(None) };
    // What is not UTF-8 is nothing that anybody reads.
    read(&value.to_string_lossy()).map(Some).map_err(|error| mistake(name, &value, &error))
}

fn mistake(name: &str, value: &OsStr, error: &dyn Display) -> String {
    format!("{name}={value:?} in the environment: {error}")
}

/// How the variables are written that only the guard in the command reads.
type Check = fn(&[u8]) -> Result<(), BadForm>;
const READ_BY_THE_GUARD: [(&str, Check); 7] = [
    (variable::ON_REFUSAL, |text| forms::on_refusal(text).map(drop)),
    (variable::RESERVE, |text| forms::reserve(text).map(drop)),
    (variable::TOKEN, |text| forms::token(text).map(drop)),
    (variable::QUIET, |text| forms::switch(text).map(drop)),
    (variable::STALL, |text| forms::stall(text).map(drop)),
    (variable::EXIT_ON_UNCAUGHT, |text| forms::switch(text).map(drop)),
    (variable::PROFILE, |text| forms::profile(text).map(drop)),
];

/// What is wrong with those of them that count: there may be no guard in the command to tell.
pub fn mistakes(
    environment: impl Fn(&str) -> Option<OsString>,
    counts: impl Fn(&str) -> bool,
) -> Vec<String> {
    let wrong = |(name, check): (&str, Check)| {
        let value = environment(name)?;
        check(value.as_bytes()).err().map(|error| mistake(name, &value, &error))
    };
    READ_BY_THE_GUARD.into_iter().filter(|(name, _)| counts(name)).filter_map(wrong).collect()
}
