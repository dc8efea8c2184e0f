//! Stacks as flame graph tools read them: a line per stack, the outermost function first, and its live bytes.

use super::stacks::{Stacks, of_program};

pub fn lines(stacks: &mut Stacks<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for held in stacks.held(of_program) {
        // What separates the functions cannot be in one.
        let mut names: Vec<String> =
            held.lines.iter().rev().map(|line| line.name.replace(';', ":")).collect();
        // A function that calls itself is one: steps of different depths would tear apart what belongs together.
        names.dedup();
        let stack = if names.is_empty() { "(no room for the stack)".into() } else { names.join(";") };
        lines.push(format!("{stack} {}", held.live_bytes));
    }
    lines
}
