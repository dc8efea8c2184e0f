//! The thread that starts workers which must not outlive this process.
//!
//! PR_SET_PDEATHSIG (prctl(2)) fires when the *thread* that forked a process ends, not when its process does. A worker
//! started from a thread pool, or from a runtime's blocking threads, would be killed when that thread is retired. So
//! such workers are started by one thread that lives as long as the process.

use parking_lot::Mutex;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};

type Task = Box<dyn FnOnce() + Send>;

static STARTER: Mutex<Option<Sender<Task>>> = Mutex::new(None);

/// Runs `task` on the starter thread; what it made.
pub(super) fn run_there<T: Send + 'static>(task: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (result_to, result) = channel();
    let task: Task = Box::new(move || {
        // Fails only if the caller is gone, who then has no use for it.
        let _ = result_to.send(task());
    });
    sender()?.send(task).map_err(|_| gone())?;
    result.recv().map_err(|_| gone())
}

fn sender() -> io::Result<Sender<Task>> {
    let mut starter = STARTER.lock();
    if let Some(sender) = &*starter {
        return Ok(sender.clone());
    }
    let (sender, tasks): (Sender<Task>, Receiver<Task>) = channel();
    std::thread::Builder::new().name("oomguard-starter".into()).spawn(move || {
        for task in tasks {
            task();
        }
    })?;
    *starter = Some(sender.clone());
    Ok(sender)
}

fn gone() -> io::Error {
    io::Error::other("the thread that starts workers is gone")
}
