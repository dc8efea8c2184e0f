//! PID 1 of the guest kernel. It prepares the node as a kubelet does, runs one pod in
//! a cgroup of its own, carries its output and the kernel's counters to the host, and
//! switches the machine off.
//!
//! It shares a directory with the host, mounted at `EXCHANGE`: `order` comes in;
//! `stdout`, `stderr`, `log` and, last, `result` go out.

mod container;
mod node;
mod order;
mod output;
mod sys;
mod timetable;
mod verdict;

use order::Order;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Below /dev, because that is the guest's own even where the root is the host's, read-only.
const EXCHANGE: &str = "/dev/pod";

fn main() {
    if let Err(error) = run() {
        eprintln!("pod-init: {error}");
    }
    sys::power_off()
}

fn run() -> Result<(), String> {
    node::mount_exchange()?;
    let mut result = in_exchange("result")?;
    if let Err(error) = run_pod(&mut result) {
        writeln!(result, "error={error}").map_err(|e| format!("cannot report '{error}': {e}"))?;
    }
    node::save_kernel_log(in_exchange("log")?);
    // The host takes a result without this line for a crash of the guest.
    writeln!(result, "end=1").map_err(|e| format!("cannot finish the result: {e}"))
}

fn run_pod(result: &mut File) -> Result<(), String> {
    let order = Order::read(&Path::new(EXCHANGE).join("order"))?;
    node::prepare(&order)?;
    container::make_cgroup(&order)?;
    let stdout = output::Carrier::new(in_exchange("stdout")?)?;
    let stderr = output::Carrier::new(in_exchange("stderr")?)?;
    let pod = container::start(&order, &stdout, &stderr, result)?;
    // Threads only from here on: until the pod is forked there must be none.
    let copies = [stdout.start(), stderr.start()];
    let timetable = timetable::start(&order);
    let ended = pod.wait()?;
    for copy in copies {
        copy.finish()?;
    }
    timetable.check()?;
    verdict::write(result, &ended, timetable.timed_out())
}

fn in_exchange(name: &str) -> Result<File, String> {
    let path = Path::new(EXCHANGE).join(name);
    File::create(&path).map_err(|e| format!("cannot create {}: {e}", path.display()))
}
