//! What happens while the pod runs: changes of its cgroup files, and the time-out.

use crate::container::cgroup_file;
use crate::node::write;
use crate::order::Order;
use std::fs::read_to_string;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What came of it.
#[derive(Default)]
pub struct Timetable {
    timed_out: AtomicBool,
    failures: Mutex<Vec<String>>,
}

/// One thread for each entry: lowering memory.max holds its writer until the kernel has
/// reclaimed or killed enough, and no other entry should be late for that.
pub fn start(order: &Order) -> Arc<Timetable> {
    let table = Arc::new(Timetable::default());
    let begin = Instant::now();
    for change in order.changes.iter().filter(|change| !change.at.is_zero()) {
        let (file, value) = (cgroup_file(&change.file), change.value.clone());
        let once_it_fits = change.once_it_fits;
        at(begin + change.at, &table, move |_| {
            if once_it_fits {
                wait_until_it_fits(&value)?;
            }
            write(file, &value)
        });
    }
    at(begin + order.timeout, &table, |table| {
        // Relaxed: `timed_out` is asked after the pod's end, which the next line brings about.
        table.timed_out.store(true, Ordering::Relaxed);
        write(cgroup_file("cgroup.kill"), "1")
    });
    table
}

/// Whoever resizes a container in place does not begin before it uses less than it is to have.
fn wait_until_it_fits(value: &str) -> Result<(), String> {
    let limit: u64 = value.parse().map_err(|_| format!("'{value}' is no number of bytes"))?;
    loop {
        let used = read_to_string(cgroup_file("memory.current")).map_err(|error| error.to_string())?;
        if used.trim().parse().is_ok_and(|used: u64| used < limit) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn at(
    when: Instant,
    table: &Arc<Timetable>,
    act: impl FnOnce(&Timetable) -> Result<(), String> + Send + 'static,
) {
    let table = Arc::clone(table);
    thread::spawn(move || {
        thread::sleep(when.saturating_duration_since(Instant::now()).max(Duration::ZERO));
        if let Err(failure) = act(&table) {
            table.failures.lock().expect("no holder panics").push(failure);
        }
    });
}

impl Timetable {
    pub fn timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Relaxed)
    }

    /// A change that the kernel refused makes the run worthless.
    pub fn check(&self) -> Result<(), String> {
        let failures = self.failures.lock().expect("no holder panics");
        failures.first().map_or(Ok(()), |first| Err(first.clone()))
    }
}
