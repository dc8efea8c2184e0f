//! Stacks as people read them: each address looked up once, inlined functions unfolded, and what only serves the
//! program's own functions marked.

use super::role::{Role, is_of_library};
use crate::screen::printable;
use oomguard::supervisor::symbols::{Function, Names, Place, Symbolizer};
use oomguard::supervisor::{Module, Profile, Site};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

/// The places of one profile.
pub struct Stacks<'a> {
    pub profile: &'a Profile,
    symbolizer: Symbolizer,
    places: HashMap<u64, Rc<Place>>,
}

/// One function in a stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    pub name: String,
    /// Where its code is, in the source.
    pub file: Option<String>,
    pub line: Option<u32>,
    pub is_inlined: bool,
    /// Whether a name was found; else `name` says where the code lies.
    pub is_named: bool,
}

/// Where live memory was allocated: sites whose stacks are shown as one.
pub struct Held {
    pub lines: Vec<Line>,
    pub live_bytes: u64,
    pub live_samples: u64,
}

impl Line {
    /// Whether it is the standard library's.
    pub fn is_of_library(&self) -> bool {
        self.is_named && is_of_library(&self.name, self.file.as_deref())
    }
}

impl<'a> Stacks<'a> {
    pub fn new(profile: &'a Profile, symbolizer: Symbolizer) -> Stacks<'a> {
        Stacks { profile, symbolizer, places: HashMap::new() }
    }

    pub fn place(&mut self, address: u64) -> Rc<Place> {
        let known = self.places.entry(address);
        Rc::clone(known.or_insert_with(|| Rc::new(self.symbolizer.resolve(self.profile, address))))
    }

    pub fn names_of(&mut self, module: &Module) -> &Names {
        self.symbolizer.names_of(module)
    }

    /// A whole stack, innermost first.
    pub fn lines(&mut self, frames: &[u64]) -> Vec<Line> {
        let mut lines = Vec::new();
        for address in frames {
            let place = self.place(*address);
            if place.functions.is_empty() {
                lines.push(Line {
                    name: self.unnamed(&place),
                    file: None,
                    line: None,
                    is_inlined: false,
                    is_named: false,
                });
            }
            lines.extend(place.functions.iter().map(|function| self.line(&place, function)));
        }
        lines
    }

    fn line(&self, place: &Place, function: &Function) -> Line {
        Line {
            name: function.name.clone().unwrap_or_else(|| self.unnamed(place)),
            file: function.file.clone(),
            line: function.line,
            is_inlined: function.is_inlined,
            is_named: function.name.is_some(),
        }
    }

    /// Where code without a name lies: the file, and the address as the file counts.
    pub fn unnamed(&self, place: &Place) -> String {
        let module = place.module.and_then(|index| self.profile.modules.get(index));
        match (module, place.offset) {
            (Some(module), Some(offset)) => format!("{}+{offset:#x}", name_of(module)),
            _ => format!("{:#x}", place.address),
        }
    }

    /// What is live, most first; sites whose stacks are the same after `shown` are one.
    pub fn held(&mut self, shown: fn(Vec<Line>) -> Vec<Line>) -> Vec<Held> {
        let mut at: HashMap<Vec<Line>, usize> = HashMap::new();
        let mut held: Vec<Held> = Vec::new();
        for site in self.live_sites() {
            let lines = shown(self.lines(&site.frames));
            let index = *at.entry(lines).or_insert_with_key(|lines| {
                held.push(Held { lines: lines.clone(), live_bytes: 0, live_samples: 0 });
                held.len() - 1
            });
            if let Some(held) = held.get_mut(index) {
                held.live_bytes = held.live_bytes.saturating_add(site.live_bytes);
                held.live_samples = held.live_samples.saturating_add(site.live_samples);
            }
        }
        held.sort_by_key(|held| std::cmp::Reverse(held.live_bytes));
        held
    }

    /// The sites of which something is live.
    pub fn live_sites(&self) -> impl Iterator<Item = &'a Site> + use<'a> {
        self.profile.sites.iter().filter(|site| site.live_bytes > 0)
    }
}

/// The file's name, for people.
pub fn name_of(module: &Module) -> String {
    match &module.path {
        Some(path) => {
            let name = path.file_name().unwrap_or(path.as_os_str());
            printable(&name.to_string_lossy())
        }
        None => format!("[{:#x}]", module.start),
    }
}

/// Without the repetitions of a function that calls itself from one place: how deep it was matters less than who held
/// the memory.
pub fn without_recursion(mut lines: Vec<Line>) -> Vec<Line> {
    lines.dedup();
    lines
}

/// The part of a stack that is the program's.
pub fn of_program(mut lines: Vec<Line>) -> Vec<Line> {
    let range = range_of_program(&lines);
    lines.truncate(range.end);
    lines.drain(..range.start.min(range.end));
    lines
}

/// Which part that is: without the allocator at its inner end, and what runs before `main` at its outer one. All of it
/// where nothing would be left.
pub fn range_of_program(lines: &[Line]) -> Range<usize> {
    let role = |line: &Line| {
        if line.is_named { Role::of(&line.name, line.file.as_deref()) } else { Role::of_unnamed(&line.name) }
    };
    let first = lines.iter().position(|line| !role(line).precedes_program());
    let last = lines.iter().rposition(|line| !role(line).follows_program());
    match (first, last) {
        (Some(first), Some(last)) if first <= last => first..last + 1,
        // What is before `main` wanted memory itself.
        (Some(first), _) => first..lines.len(),
        (None, _) => 0..lines.len(),
    }
}
