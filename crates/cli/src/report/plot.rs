//! A time line in a few rows of characters. Pure.

use oomguard::supervisor::size;
use std::time::Duration;

/// How many rows a plot has, and how many columns with its axis.
const ROWS: usize = 8;
const AXIS_COLUMNS: usize = 14;
const COLUMNS: usize = 82;

/// Of what characters a plot is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Characters {
    /// Eighths of a character: the block elements of Unicode.
    Blocks,
    Ascii,
}

/// When, and how many bytes were live.
pub type Point = (Duration, u64);

/// The rows from top to bottom, without line ends. None where there is no line to draw.
pub fn rows(timeline: &[Point], characters: Characters) -> Vec<String> {
    let (Some((from, _)), Some((to, _))) = (timeline.first(), timeline.last()) else { return Vec::new() };
    let span = to.saturating_sub(*from);
    let most = timeline.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
    if timeline.len() < 2 || span.is_zero() || most == 0 {
        return Vec::new();
    }
    let heights = heights(timeline, *from, span);
    // A character is so many steps high.
    let steps = match characters {
        Characters::Blocks => 8,
        Characters::Ascii => 1,
    };
    // In floating point, as a hostile profile's bytes may be as many as a number holds.
    let scaled = |bytes: u64| (bytes as f64 / most as f64 * (ROWS * steps) as f64).round() as usize;
    let mut rows = Vec::new();
    for row in (0..ROWS).rev() {
        let label = match row {
            row if row == ROWS - 1 => size(most),
            row if row == ROWS / 2 - 1 => size(most / 2),
            _ => String::new(),
        };
        let bars: String = heights
            .iter()
            .map(|bytes| {
                let filled = scaled(*bytes).saturating_sub(row * steps).min(steps);
                character(filled, characters)
            })
            .collect();
        let (tick, line) = match (label.is_empty(), characters) {
            (false, Characters::Blocks) => ('┤', label),
            (true, Characters::Blocks) => ('│', label),
            (_, Characters::Ascii) => ('|', label),
        };
        rows.push(format!("{line:>width$} {tick}{}", bars.trim_end(), width = AXIS_COLUMNS - 2));
    }
    let (corner, dash) = if characters == Characters::Blocks { ('└', '─') } else { ('+', '-') };
    let dashes: String = std::iter::repeat_n(dash, COLUMNS).collect();
    rows.push(format!("{:>width$} {corner}{dashes}", "0 B", width = AXIS_COLUMNS - 2));
    let (from, to) = (seconds(*from), seconds(*to));
    let width = COLUMNS.saturating_sub(from.len());
    rows.push(format!("{:AXIS_COLUMNS$}{from}{to:>width$}", ""));
    rows
}

fn character(eighths: usize, characters: Characters) -> char {
    const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    match characters {
        Characters::Blocks => BLOCKS.get(eighths).copied().unwrap_or('█'),
        Characters::Ascii if eighths > 0 => '#',
        Characters::Ascii => ' ',
    }
}

/// The most that was live in each column's time; where nothing was noted, what was live before.
fn heights(timeline: &[Point], from: Duration, span: Duration) -> Vec<u64> {
    let mut heights: Vec<Option<u64>> = vec![None; COLUMNS];
    for (at, bytes) in timeline {
        let share = at.saturating_sub(from).as_secs_f64() / span.as_secs_f64();
        let column = ((share * COLUMNS as f64) as usize).min(COLUMNS - 1);
        if let Some(height) = heights.get_mut(column) {
            *height = Some(height.unwrap_or(0).max(*bytes));
        }
    }
    let mut before = 0;
    heights
        .into_iter()
        .map(|height| {
            before = height.unwrap_or(before);
            before
        })
        .collect()
}

fn seconds(at: Duration) -> String {
    match at.as_secs_f64() {
        long if long >= 100.0 => format!("{long:.0} s"),
        middling if middling >= 1.0 => format!("{middling:.1} s"),
        short => format!("{short:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(points: &[(u64, u64)]) -> Vec<Point> {
        points.iter().map(|(ms, bytes)| (Duration::from_millis(*ms), *bytes)).collect()
    }

    #[test]
    fn a_line_rises_from_left_to_right_within_100_columns() {
        let points: Vec<_> = (0..=100).map(|n| (n * 10, n << 20)).collect();
        for (characters, full) in [(Characters::Blocks, '█'), (Characters::Ascii, '#')] {
            let rows = rows(&at(&points), characters);
            assert_eq!(rows.len(), ROWS + 2);
            assert!(rows.iter().all(|row| row.chars().count() <= 100), "{rows:#?}");
            let filled = |row: &String| row.chars().filter(|c| *c == full).count();
            let counts: Vec<usize> = rows.iter().take(ROWS).map(filled).collect();
            assert!(counts.is_sorted() && counts.first() < counts.last(), "{rows:#?}");
            assert!(rows.first().is_some_and(|row| row.contains("100 MiB")), "{rows:#?}");
            assert!(rows.last().is_some_and(|row| row.contains("0.00 s") && row.ends_with("1.0 s")));
        }
    }

    #[test]
    fn what_has_no_line_has_no_plot_and_what_is_hostile_does_no_harm() {
        for points in [&[][..], &[(1, 1)], &[(1, 0), (2, 0)], &[(5, 7), (5, 7)]] {
            assert!(rows(&at(points), Characters::Ascii).is_empty(), "{points:?}");
        }
        let rows = rows(&at(&[(0, u64::MAX), (u64::MAX, u64::MAX)]), Characters::Blocks);
        assert_eq!(rows.len(), ROWS + 2);
    }

    #[test]
    fn what_was_live_stays_until_something_else_is_noted() {
        let points = at(&[(0, 100), (900, 0), (1000, 0)]);
        let heights = heights(&points, Duration::ZERO, Duration::from_secs(1));
        assert_eq!(heights.iter().filter(|height| **height == 100).count(), COLUMNS * 9 / 10);
    }
}
