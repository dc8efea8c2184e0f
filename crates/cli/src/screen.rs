//! Text for people on one screen, and lines for them on stderr.

use crate::stderr::write_patiently;
use serde_json::Value;
use std::io::{self, IsTerminal};

pub use oomguard::supervisor::printable;

/// Text that grows from the top, with colours where they are wanted.
pub struct Screen {
    pub text: String,
    coloured: bool,
}

/// select graphic rendition: console_codes(4).
pub const BOLD: &str = "1";
pub const DIM: &str = "2";
pub const RED: &str = "31";
pub const GREEN: &str = "32";
pub const YELLOW: &str = "33";

impl Screen {
    pub fn new(coloured: bool) -> Screen {
        Screen { text: String::new(), coloured }
    }

    pub fn heading(&mut self, text: &str) {
        let painted = self.painted(BOLD, text);
        self.line(&painted);
    }

    /// What it is told may be the name of a file.
    pub fn row(&mut self, name: &str, value: &str, origin: &str) {
        let (value, origin) = (printable(value), printable(origin));
        self.line(&format!("  {name:<14} {value:<24} {origin}"));
    }

    pub fn line(&mut self, text: &str) {
        self.text += text.trim_end();
        self.text.push('\n');
    }

    pub fn painted(&self, colour: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// <https://no-color.org>
pub fn is_coloured() -> bool {
    let is_forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !is_forbidden
}

/// One line on stderr, as one write.
pub fn say(line: &str) {
    write_patiently(format!("oomguard: {}\n", printable(line)).as_bytes());
}

/// A line of JSON. What JSON allows in a text and a terminal obeys, DEL and U+0080 to U+009F, is escaped as well.
pub fn json_line(value: &Value) -> String {
    let mut line = String::new();
    for character in value.to_string().chars() {
        match character {
            // In texts only: the rest of it is ASCII.
            '\u{7f}'..='\u{9f}' => line += &format!("\\u{:04x}", u32::from(character)),
            _ => line.push(character),
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_that_a_terminal_obeys_is_in_a_line_of_json() {
        let every: String = (0..=u8::MAX).map(char::from).collect();
        let value = json!({ &every: [&every] });
        let line = json_line(&value);
        let obeyed = line.trim_end_matches('\n').chars().find(|character| character.is_control());
        assert_eq!(obeyed, None, "{line:?}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
    }

    #[test]
    fn names_in_rows_are_shown_and_not_obeyed() {
        let mut screen = Screen::new(false);
        screen.row("limit", "1", "/sys/fs/cgroup/a\u{9b}31m\x1b[2J/memory.max");
        assert!(!screen.text.trim_end().contains(char::is_control), "{:?}", screen.text);
    }
}
