//! What the variables of the environment say, for those who run a command and those who only look.

use std::ffi::OsString;

/// What a variable says; `Err` names it, its value and what is wrong with it.
pub type Asked<T> = Result<Option<T>, String>;

pub fn asked<T>(
    environment: impl Fn(&str) -> Option<OsString>,
    name: &str,
    read: fn(&str) -> Result<T, String>,
) -> Asked<T> {
    let Some(value) = environment(name) else { return Ok(None) };
    // What is not UTF-8 is nothing that anybody reads.
    read(&value.to_string_lossy())
        .map(Some)
        .map_err(|error| format!("{name}={value:?} in the environment: {error}"))
}
