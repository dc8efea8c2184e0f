//! Text for people on one screen, and lines for them on stderr.

use std::io::{self, IsTerminal, Write};

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

    pub fn row(&mut self, name: &str, value: &str, origin: &str) {
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

/// Without control characters, which a terminal would obey.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// One line on stderr, as one write. Nobody may be listening any more.
pub fn say(line: &str) {
    let _ = io::stderr().lock().write_all(format!("oomguard: {line}\n").as_bytes());
}
