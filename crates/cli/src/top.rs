//! `oomguard top`: who holds what of which budget here, and who waits. On a terminal it is drawn again each second, by the
//! few sequences that every terminal knows.

use crate::arguments::Top;
use crate::screen::json_line;
use oomguard::supervisor::{Dead, Share, Shares, budgets_here, size};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const EVERY: Duration = Duration::from_secs(1);
/// To the upper left, and what was there before is gone, line by line.
const HOME: &str = "\x1b[H";
const REST_OF_LINE: &str = "\x1b[K\n";
const REST_OF_SCREEN: &str = "\x1b[J";
const BAR_COLUMNS: u64 = 40;

/// Says it, or draws it until it is ended; the exit code.
pub fn top(options: &Top) -> u8 {
    if options.json {
        return write(&json_line(&json(&budgets_here())));
    }
    let mut stdout = io::stdout();
    if options.once || !stdout.is_terminal() {
        return write(&screen(&budgets_here()));
    }
    loop {
        let lines = screen(&budgets_here()).replace('\n', REST_OF_LINE);
        let drawn = stdout.write_all(format!("{HOME}{lines}{REST_OF_SCREEN}").as_bytes());
        if drawn.and_then(|()| stdout.flush()).is_err() {
            return 0;
        }
        std::thread::sleep(EVERY);
    }
}

/// Whoever closes the pipe has seen enough.
fn write(text: &str) -> u8 {
    let _ = io::stdout().lock().write_all(text.as_bytes());
    0
}

fn screen(budgets: &[Shares]) -> String {
    if budgets.is_empty() {
        return "no budget is shared here: oomguard run --budget auto -- COMMAND begins one\n".into();
    }
    budgets.iter().map(of_budget).collect::<Vec<_>>().join("\n")
}

fn of_budget(budget: &Shares) -> String {
    let mut text = String::new();
    let keeper = budget.keeper.map_or_else(String::new, |pid| format!(", kept by {pid}"));
    let _ = writeln!(
        text,
        "budget {}: {} leased by {}{keeper}; a request waits {}",
        size(budget.budget),
        size(budget.leased),
        processes(budget.processes.len()),
        seconds(budget.patience_ms)
    );
    if budget.permitted < budget.budget {
        let _ =
            writeln!(text, "of that, {} may be leased: there is no room for more", size(budget.permitted));
    }
    let whole = budget.container.unwrap_or(budget.budget).max(1);
    let _ = writeln!(
        text,
        "[{}] {} {}: # leased, + in use that no lease covers ({})",
        bar(budget.leased, budget.uncovered, whole),
        if budget.container.is_some() { "container" } else { "budget" },
        size(whole),
        size(budget.uncovered)
    );
    let _ = writeln!(
        text,
        "{:>8} {:>10} {:>10} {:>8} {:>8}  COMMAND",
        "PID", "RESIDENT", "LEASE", "WAITS", "REFUSED"
    );
    for share in &budget.processes {
        let waits = share.waiting_ms.map_or_else(|| "-".into(), seconds);
        let wants = match (share.waiting_ms, share.wanted) {
            (Some(_), Some(bytes)) => format!("  (wants {})", size(bytes)),
            _ if share.is_outside => "  (cannot ask)".into(),
            _ => String::new(),
        };
        let _ = writeln!(
            text,
            "{:>8} {:>10} {:>10} {waits:>8} {:>8}  {}{wants}",
            share.pid,
            size(share.resident),
            size(share.lease),
            share.refusals,
            cut(if share.command.is_empty() { &share.name } else { &share.command })
        );
    }
    for dead in &budget.deaths {
        let _ = writeln!(text, "died out of memory {}", of_death(dead));
    }
    text
}

fn of_death(dead: &Dead) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let wanted = dead.wanted.map_or_else(String::new, |bytes| format!(", asked for {}", size(bytes)));
    let ago = now.saturating_sub(dead.at);
    format!("{ago} s ago: {} ({}), held {}{wanted}", dead.name, dead.pid, size(dead.held))
}

fn processes(count: usize) -> String {
    if count == 1 { "1 process".into() } else { format!("{count} processes") }
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

/// As much as fits on a line of a terminal, as a rule.
fn cut(command: &str) -> String {
    const MOST: usize = 60;
    if command.chars().count() <= MOST {
        return command.to_owned();
    }
    command.chars().take(MOST - 1).chain(['…']).collect()
}

fn bar(leased: u64, uncovered: u64, whole: u64) -> String {
    let columns = |bytes: u64| (u128::from(bytes) * u128::from(BAR_COLUMNS) / u128::from(whole)) as u64;
    let first = columns(leased).min(BAR_COLUMNS);
    let second = columns(uncovered).min(BAR_COLUMNS - first);
    let part = |sign: &str, columns: u64| sign.repeat(usize::try_from(columns).unwrap_or(0));
    part("#", first) + &part("+", second) + &part(".", BAR_COLUMNS - first - second)
}

fn json(budgets: &[Shares]) -> Value {
    let of_share = |share: &Share| {
        json!({
            "pid": share.pid,
            "name": share.name,
            "command": share.command,
            "resident": share.resident,
            "lease": share.lease,
            "waiting_ms": share.waiting_ms,
            "wanted": share.wanted,
            "refusals": share.refusals,
            "outside": share.is_outside,
        })
    };
    let of_death = |dead: &Dead| json!({ "pid": dead.pid, "name": dead.name, "at": dead.at, "held": dead.held, "wanted": dead.wanted });
    let of_budget = |budget: &Shares| {
        json!({
            "budget": budget.budget,
            "permitted": budget.permitted,
            "leased": budget.leased,
            "container": budget.container,
            "uncovered": budget.uncovered,
            "patience_ms": budget.patience_ms,
            "keeper": budget.keeper,
            "processes": budget.processes.iter().map(of_share).collect::<Vec<_>>(),
            "deaths": budget.deaths.iter().map(of_death).collect::<Vec<_>>(),
        })
    };
    json!({ "budgets": budgets.iter().map(of_budget).collect::<Vec<_>>() })
}
