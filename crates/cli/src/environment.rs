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
    let read = value.to_str().ok_or_else(|| "not UTF-8".to_owned()).and_then(read);
    read.map(Some).map_err(|error| format!("{name}={value:?} in the environment: {error}"))
}
