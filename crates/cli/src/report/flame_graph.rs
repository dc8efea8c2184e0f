//! A flame graph whose widths are live bytes, outermost functions at the bottom.

use super::death::Death;
use super::{folded, stacks::Stacks};
use inferno::flamegraph::{self, Options, Palette, color::BasicPalette};
use oomguard::supervisor::size;

/// `None` where nothing that is live was sampled: then there is nothing to draw.
pub fn of(death: &Death, stacks: &mut Stacks<'_>) -> Result<Option<Vec<u8>>, String> {
    let lines = folded::lines(stacks);
    if lines.is_empty() {
        return Ok(None);
    }
    let mut options = Options::default();
    let who = death.pid().map_or_else(|| death.program(), |pid| format!("{} (pid {pid})", death.program()));
    options.title = format!("{} live in {who}, by who allocated it", size(stacks.profile.live_bytes));
    options.count_name = "bytes".into();
    options.colors = Palette::Basic(BasicPalette::Mem);
    // The same picture for the same profile.
    options.hash = true;
    options.image_width = Some(1200);
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg).map_err(|error| {
        format!("cannot draw a flame graph: {error}; --folded gives the stacks to other tools")
    })?;
    Ok(Some(svg))
}
