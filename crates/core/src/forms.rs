//! How the values of `OOMGUARD_*` variables are written that are neither limits nor measures, for whoever reads them: the guard,
//! and the launcher, which tells of a mistake before anything runs. Pure, and safe before `main`.

use crate::contract::{OnRefusal, Sufficient, TOKEN_MAX_BYTES};
use crate::duration::parse_duration;
use crate::limit::{SIZE_FORMS, parse_size};
use crate::text::whole_number;
use core::fmt;

/// A text that is none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadForm {
    pub reason: &'static str,
    /// What is accepted, in words.
    pub accepted: &'static str,
}

impl fmt::Display for BadForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; accepted: {}", self.reason, self.accepted)
    }
}

/// What becomes of a refusal that nothing could cure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WhenRefused {
    pub allocation: OnRefusal,
    /// A thread that cannot be started ends the process as well.
    pub threads_end: bool,
}

/// Whether live allocations are sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// No.
    Off,
    /// One sample for so many allocated bytes, in the mean; `None` is the default.
    On(Option<u64>),
}

/// `OOMGUARD_EXIT_CODE`.
pub fn exit_code(text: &[u8]) -> Result<u8, BadForm> {
    match whole_number(text).map(u8::try_from) {
        Some(Ok(code)) if code > 0 => Ok(code),
        _ => Err(BadForm { reason: "not an exit code", accepted: "a number from 1 to 255" }),
    }
}

/// `OOMGUARD_ON_REFUSAL`.
pub fn on_refusal(text: &[u8]) -> Result<WhenRefused, BadForm> {
    let (allocation, threads_end) = (OnRefusal::Immediate, text == b"immediate-threads");
    match text {
        b"deferred" => Ok(WhenRefused::default()),
        b"immediate" | b"immediate-threads" => Ok(WhenRefused { allocation, threads_end }),
        _ => Err(BadForm {
            reason: "not a way to handle a refusal",
            accepted: "deferred or immediate; or immediate-threads, for threads that cannot be started as well",
        }),
    }
}

/// `OOMGUARD_PATIENCE`, in milliseconds.
pub fn patience(text: &[u8]) -> Result<u64, BadForm> {
    let ms = if text == b"0" { Some(0) } else { parse_duration(text) };
    ms.ok_or(BadForm {
        reason: "not a span of time",
        accepted: "0, or a whole number with ms, s, min or h, such as 500ms, 5s or 2min",
    })
}

/// `OOMGUARD_STALL`, in milliseconds; `None` where a stall may last for ever.
pub fn stall(text: &[u8]) -> Result<Option<u64>, BadForm> {
    match (text, parse_duration(text)) {
        (b"off", _) => Ok(None),
        (_, Some(ms @ 1..)) => Ok(Some(ms)),
        _ => Err(BadForm {
            reason: "not a span of time",
            accepted: "off, or a whole number above zero with ms, s, min or h, such as 500ms, 10s or 2min",
        }),
    }
}

/// `OOMGUARD_RESERVE`, in bytes.
pub fn reserve(text: &[u8]) -> Result<u64, BadForm> {
    parse_size(text).map_err(|error| BadForm { reason: error.reason(), accepted: SIZE_FORMS })
}

/// `OOMGUARD_TOKEN`.
pub fn token(text: &[u8]) -> Result<&[u8], BadForm> {
    let bad = |reason| BadForm { reason, accepted: "UTF-8 text of up to 64 bytes" };
    if text.len() > TOKEN_MAX_BYTES {
        return Err(bad("too long"));
    }
    core::str::from_utf8(text).map(|_| text).map_err(|_| bad("not UTF-8"))
}

/// `OOMGUARD_QUIET`, `OOMGUARD_EXIT_ON_UNCAUGHT`.
pub fn switch(text: &[u8]) -> Result<bool, BadForm> {
    match text {
        b"1" => Ok(true),
        b"0" | b"" => Ok(false),
        _ => Err(BadForm { reason: "neither on nor off", accepted: "1, 0 or nothing" }),
    }
}

/// `OOMGUARD_VERDICT`.
pub fn verdict(text: &[u8]) -> Result<Sufficient, BadForm> {
    Sufficient::parse(text).ok_or(BadForm { reason: "not a kind of evidence", accepted: Sufficient::FORMS })
}

/// `OOMGUARD_PROFILE`.
pub fn profile(text: &[u8]) -> Result<Profile, BadForm> {
    match (text, parse_size(text)) {
        (b"on", _) => Ok(Profile::On(None)),
        (b"off", _) => Ok(Profile::Off),
        (_, Ok(bytes @ 1..)) => Ok(Profile::On(Some(bytes))),
        _ => Err(BadForm {
            reason: "neither on, off nor a sampling distance",
            accepted: "on, off, or a size above zero, such as 524288, 512K or 512Ki",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_a_number_from_1_to_255() {
        for (text, expected) in
            [("1", Some(1)), ("255", Some(255)), ("0", None), ("256", None), ("+7", None), ("", None)]
        {
            assert_eq!(exit_code(text.as_bytes()).ok(), expected, "{text}");
        }
    }

    #[test]
    fn no_wait_wants_no_unit() {
        for (text, expected) in
            [("0", Some(0)), ("0s", Some(0)), ("500ms", Some(500)), ("1", None), ("", None)]
        {
            assert_eq!(patience(text.as_bytes()).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_stall_has_an_end_or_is_off() {
        for (text, expected) in
            [("off", Some(None)), ("1s", Some(Some(1000))), ("0s", None), ("0", None), ("", None)]
        {
            assert_eq!(stall(text.as_bytes()).ok(), expected, "{text}");
        }
    }
}
