//! What is wrong with a command line, on one line: the option, its value, and what would be accepted.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::error::Error as _;

/// `None`: it is no error, or the whole help is what helps.
pub fn line(error: &clap::Error) -> Option<String> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let option = text(ContextKind::InvalidArg).and_then(|name| name.split(' ').next());
    let value = text(ContextKind::InvalidValue);
    let is_given_twice = text(ContextKind::PriorArg) == text(ContextKind::InvalidArg);
    Some(match (error.kind(), option, value) {
        (
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
            ..,
        ) => return None,
        (ErrorKind::ValueValidation, Some(option), Some(value)) => {
            format!("{option} {value:?}: {}", error.source()?)
        }
        (ErrorKind::InvalidValue, Some(option), None | Some("")) => {
            format!("{option} needs a value{}; see --help", accepted(error))
        }
        (ErrorKind::InvalidValue, Some(option), Some(value)) => {
            format!("{option} {value:?}: not one of its values{}", accepted(error))
        }
        (ErrorKind::ArgumentConflict, Some(option), _) if is_given_twice => {
            format!("{option} is given more than once; see --help")
        }
        _ => in_claps_words(error),
    })
}

fn accepted(error: &clap::Error) -> String {
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) if !values.is_empty() => {
            format!("; accepted: {}", values.join(", "))
        }
        _ => String::new(),
    }
}

/// Without how to use it, which takes more lines.
fn in_claps_words(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines =
        lines.take_while(|line| !line.starts_with("Usage: ") && !line.starts_with("For more information"));
    let mut words = String::new();
    for line in lines {
        let line = line.trim_start_matches("error: ");
        let between = match line.strip_prefix("tip: ") {
            _ if words.is_empty() => "",
            Some(_) => "; ",
            None => " ",
        };
        words += between;
        words += line;
    }
    words + "; see --help"
}
