//! The report for people: what happened, who held the memory, what was refused, how it grew, and how sure that is.

use super::death::Death;
use super::plot::{self, Characters};
use super::stacks::{Held, Line, Stacks, name_of, of_program, without_recursion};
use crate::screen::{BOLD, DIM, Screen, YELLOW};
use oomguard::Measure;
use oomguard::supervisor::symbols::{Detail, Problem};
use oomguard::supervisor::{Profile, size};
use std::path::Path;

/// How it is to be shown.
pub struct Style {
    pub top: usize,
    pub full_stacks: bool,
    pub is_coloured: bool,
    pub characters: Characters,
}

impl Style {
    /// What is shown of a stack.
    fn shown(&self) -> fn(Vec<Line>) -> Vec<Line> {
        if self.full_stacks { |lines| lines } else { |lines| without_recursion(of_program(lines)) }
    }
}

const COLUMNS: usize = 100;
const INDENT: usize = 6;
/// How many functions of a stack are shown unless all are wanted.
const LINES: usize = 6;
/// Fewer samples than this are within a quarter of the truth one time in three.
const FEW_SAMPLES: u64 = 10;

pub fn of(death: &Death, stacks: &mut Stacks<'_>, style: &Style) -> String {
    let mut screen = Screen::new(style.is_coloured);
    what_happened(death, &mut screen);
    in_use(death, stacks.profile, &mut screen);
    held(stacks, style, &mut screen);
    last_refusal(stacks, style, &mut screen);
    timeline(stacks.profile, style, &mut screen);
    certainty(stacks, &mut screen);
    screen.text
}

/// Also for a death of which there is no more.
pub fn what_happened(death: &Death, screen: &mut Screen) {
    screen.heading(&death.headline());
    let Some(limit) = death.limit() else { return };
    // The report's word for it: people get theirs.
    let measure = death.text("measure").and_then(|word| word.parse::<Measure>().ok());
    let measure = measure.map(|measure| format!("of {}", measure.as_str()));
    let source = match death.text("limit_source").as_deref() {
        Some("environment") => Some("from OOMGUARD_LIMIT or --limit"),
        Some("source") => Some("from the source code"),
        Some("cgroup") => Some("from the container"),
        Some("rlimit") => Some("an rlimit that was there"),
        Some("budget") => Some("from the budget that it shared"),
        Some("changed") => Some("moved while it ran"),
        _ => None,
    };
    let whence: Vec<&str> = measure.as_deref().into_iter().chain(source).collect();
    screen.row("limit", &size(limit), &whence.join(", "));
}

fn in_use(death: &Death, profile: &Profile, screen: &mut Screen) {
    let of_limit = match death.limit() {
        Some(limit) if limit > 0 => format!("{} of the limit, ", percent(profile.live_bytes, limit)),
        _ => String::new(),
    };
    let peak = format!("{of_limit}at most {}", size(profile.peak_bytes));
    screen.row("live", &size(profile.live_bytes), &peak);
    if let Some(resident) = death.number("resident") {
        screen.row("resident", &size(resident), "");
    }
    let live: u64 = profile.sites.iter().fold(0, |sum, site| sum.saturating_add(site.live_samples));
    let every = format!("one in {} allocated; {} in all", size(profile.sampling_distance), profile.samples);
    screen.row("live samples", &live.to_string(), &every);
}

fn held(stacks: &mut Stacks<'_>, style: &Style, screen: &mut Screen) {
    let all = stacks.held(style.shown());
    let sampled = stacks.profile.sampled_bytes();
    screen.line("");
    if all.is_empty() {
        screen.heading("Who held it: nothing that was live had been sampled");
        return;
    }
    screen.heading(&format!("Who held it: {} of {}", shown(&all, style.top), plural(all.len(), "place")));
    for held in all.iter().take(style.top) {
        let samples = plural(usize::try_from(held.live_samples).unwrap_or(usize::MAX), "sample");
        let samples = if held.live_samples < FEW_SAMPLES {
            screen.painted(YELLOW, &format!("{samples} only"))
        } else {
            samples
        };
        let share = screen.painted(BOLD, &format!("{:>7}", percent(held.live_bytes, sampled)));
        let bytes = size(held.live_bytes);
        screen.line(&format!("{share}  {bytes:>10}  {samples}"));
        stack(&held.lines, style, screen);
    }
    let rest: u64 = all.iter().skip(style.top).fold(0, |sum, held| sum.saturating_add(held.live_bytes));
    if rest > 0 {
        let share = format!("{:>7}", percent(rest, sampled));
        let places = plural(all.len().saturating_sub(style.top), "other place");
        screen.line(&format!("{share}  {:>10}  in {places}", size(rest)));
    }
}

fn shown(all: &[Held], top: usize) -> String {
    if all.len() <= top { "all".into() } else { format!("the {top} largest") }
}

fn stack(lines: &[Line], style: &Style, screen: &mut Screen) {
    let kept = if style.full_stacks { Kept::all(lines) } else { Kept::of(lines) };
    functions(kept.innermost, screen);
    left_out(kept.of_library, "more of the standard library", screen);
    functions(kept.rest, screen);
    left_out(kept.further_out, "further out", screen);
    if lines.is_empty() {
        screen.line(&format!("{:INDENT$}(stacks for which there was no room)", ""));
    }
}

/// Which functions of a stack are shown.
struct Kept<'a> {
    innermost: &'a [Line],
    /// So many that are left out here.
    of_library: usize,
    rest: &'a [Line],
    further_out: usize,
}

impl Kept<'_> {
    fn all(lines: &[Line]) -> Kept<'_> {
        Kept { innermost: lines, of_library: 0, rest: &[], further_out: 0 }
    }

    /// `LINES` functions, and always the first that is not the standard library's: it tells whose memory it is.
    fn of(lines: &[Line]) -> Kept<'_> {
        let own = lines.iter().position(|line| !line.is_of_library());
        let own = own.filter(|own| *own >= LINES);
        let (inner, outer) = lines.split_at(own.unwrap_or(0));
        let innermost = inner.get(..LINES / 2).unwrap_or(&[]);
        let room = LINES - innermost.len();
        let (rest, further_out) = outer.split_at(room.min(outer.len()));
        let of_library = inner.len() - innermost.len();
        Kept { innermost, of_library, rest, further_out: further_out.len() }
    }
}

fn functions(lines: &[Line], screen: &mut Screen) {
    for line in lines {
        let (name, location) = fitted(line);
        let location = screen.painted(DIM, &location);
        screen.line(&format!("{:INDENT$}{name}  {location}", ""));
    }
}

fn left_out(count: usize, which: &str, screen: &mut Screen) {
    if count > 0 {
        let more = screen.painted(DIM, &format!("{:INDENT$}… {count} {which}", ""));
        screen.line(&more);
    }
}

/// The function and where it is, so that both fit on a line.
fn fitted(line: &Line) -> (String, String) {
    const ROOM: usize = COLUMNS - INDENT - 2;
    let mark = if line.is_inlined { " (inlined)" } else { "" };
    let location = match (&line.file, line.line) {
        (Some(file), Some(number)) => format!("{}:{number}", short(file)),
        (Some(file), None) => short(file),
        (None, _) => String::new(),
    };
    let location = ending(&location, ROOM / 2);
    let room = ROOM - location.chars().count() - mark.len();
    (beginning(&line.name, room) + mark, location)
}

/// A source file without what is the same on every machine: the registry's directory, the compiler's.
fn short(file: &str) -> String {
    let after = |mark: &str| file.split_once(mark).map(|(_, rest)| rest);
    let of_registry = after("/registry/src/").and_then(|rest| rest.split_once('/')).map(|(_, rest)| rest);
    let of_compiler = after("/rustc/").and_then(|rest| rest.split_once('/')).map(|(_, rest)| rest);
    let of_std = file.strip_prefix("/rust/deps/");
    of_registry.or(of_compiler).or(of_std).unwrap_or_else(|| without_this_directory(file)).to_owned()
}

/// As from where the user stands.
fn without_this_directory(file: &str) -> &str {
    let here = std::env::current_dir().ok();
    let beneath = here.as_deref().and_then(|here| Path::new(file).strip_prefix(here).ok());
    beneath.and_then(Path::to_str).unwrap_or(file)
}

fn beginning(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

fn ending(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    ['…'].into_iter().chain(text.chars().skip(count + 1 - most)).collect()
}

fn last_refusal(stacks: &mut Stacks<'_>, style: &Style, screen: &mut Screen) {
    let Some((bytes, frames)) = stacks.profile.last_refusal.clone() else { return };
    screen.line("");
    screen.heading(&format!("Refused last: {}", size(bytes)));
    let lines = stacks.lines(&frames);
    let lines = style.shown()(lines);
    stack(&lines, style, screen);
}

fn timeline(profile: &Profile, style: &Style, screen: &mut Screen) {
    let points: Vec<_> = profile.timeline.iter().map(|moment| (moment.at, moment.live_bytes)).collect();
    let rows = plot::rows(&points, style.characters);
    if rows.is_empty() {
        return;
    }
    screen.line("");
    screen.heading("Bytes live over time");
    for row in rows {
        screen.line(&row);
    }
}

fn certainty(stacks: &mut Stacks<'_>, screen: &mut Screen) {
    let profile = stacks.profile;
    screen.line("");
    screen.heading("How sure that is");
    let method = profile.method;
    let pointers = match method.frames_by_pointer {
        0 => String::new(),
        steps => format!(", {steps} by frame pointers, which may miss callers"),
    };
    let row = format!("{} frames by unwind tables{pointers}", method.frames_by_table);
    text_row("stacks", &row, screen);
    if method.stacks_cut > 0 {
        warn(&format!("{} were deeper than the 48 frames that are kept", method.stacks_cut), screen);
    }
    names(stacks, screen);
    let live: u64 = profile.sites.iter().fold(0, |sum, site| sum.saturating_add(site.live_samples));
    if live < FEW_SAMPLES {
        warn(
            &format!(
                "only {}: the shares are rough; OOMGUARD_PROFILE=64Ki samples more often",
                plural(usize::try_from(live).unwrap_or(usize::MAX), "live sample")
            ),
            screen,
        );
    }
    let lost = profile.lost;
    let losses = [
        (lost.live_samples, "samples found no room among the live ones"),
        (lost.without_site, "samples found no room for their stack"),
        (lost.without_frames, "stacks found no room for their frames"),
        (lost.nested, "allocations in the profiler's own work were not seen"),
        (lost.modules, "libraries found no room"),
    ];
    for (count, what) in losses.into_iter().filter(|(count, _)| *count > 0) {
        warn(&format!("{count} {what}"), screen);
    }
}

/// The files that the shown stacks go through, and what is known of their functions.
fn names(stacks: &mut Stacks<'_>, screen: &mut Screen) {
    let profile = stacks.profile;
    let mut used: Vec<usize> = Vec::new();
    let frames = stacks.live_sites().flat_map(|site| site.frames.iter());
    for address in frames.copied().collect::<Vec<_>>() {
        if let Some(index) = stacks.place(address).module
            && !used.contains(&index)
        {
            used.push(index);
        }
    }
    for module in used.iter().filter_map(|index| profile.modules.get(*index)) {
        let names = stacks.names_of(module);
        let detail = match names.detail {
            Detail::Lines => "functions and lines",
            Detail::Symbols => "functions",
            Detail::Exported => "exported functions",
            _ => "no names",
        };
        let mut text = format!("{}: {detail}", name_of(module));
        let gaps = names.problem.clone().filter(|problem| *problem != Problem::NotAsked);
        if let Some(problem) = &gaps {
            text += &format!(" ({problem})");
        }
        let is_unverified = !names.is_verified && names.detail > Detail::Nothing;
        if is_unverified {
            text += ", if the file is still the same: it has no build-id";
        }
        text_row("names", &text, screen);
    }
}

fn text_row(name: &str, text: &str, screen: &mut Screen) {
    screen.line(&beginning(&format!("  {name:<14} {text}"), COLUMNS));
}

fn warn(text: &str, screen: &mut Screen) {
    let mark = screen.painted(YELLOW, "!");
    screen.line(&format!("  {mark} {text}"));
}

fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "0 %".into(),
        whole => format!("{:.1} %", part as f64 * 100.0 / whole as f64),
    }
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(names: &[&str]) -> Vec<Line> {
        let line = |name: &&str| Line {
            name: (*name).into(),
            file: None,
            line: None,
            is_inlined: false,
            is_named: true,
        };
        names.iter().map(line).collect()
    }

    /// How many are shown, left out, shown and left out again, and which is the first behind what is left out.
    fn kept(lines: &[Line]) -> ((usize, usize, usize, usize), Option<&str>) {
        let Kept { innermost, of_library, rest, further_out } = Kept::of(lines);
        assert_eq!(innermost.len() + of_library + rest.len() + further_out, lines.len());
        let first = rest.first().map(|line| line.name.as_str());
        ((innermost.len(), of_library, rest.len(), further_out), first)
    }

    #[test]
    fn the_first_function_outside_of_the_standard_library_is_always_shown() {
        let of_std = |count: usize| vec!["std::io::read"; count];
        let own = vec!["app::load", "app::run", "std::x", "app::main", "app::a", "app::b", "app::c"];
        let stack = |count: usize| lines(&[of_std(count), own.clone()].concat());
        assert_eq!(kept(&stack(0)), ((0, 0, LINES, 1), Some("app::load")));
        assert_eq!(kept(&stack(LINES - 1)), ((0, 0, LINES, LINES), Some("std::io::read")));
        assert_eq!(kept(&stack(LINES)), ((3, 3, 3, 4), Some("app::load")));
        assert_eq!(kept(&stack(40)), ((3, 37, 3, 4), Some("app::load")));
        assert_eq!(kept(&lines(&[of_std(9), vec!["app::main"]].concat())), ((3, 6, 1, 0), Some("app::main")));
        assert_eq!(kept(&lines(&of_std(9))), ((0, 0, LINES, 3), Some("std::io::read")));
        assert_eq!(kept(&[]), ((0, 0, 0, 0), None));
    }
}
