//! A second process beside one that stands in for its worker. It does what that one cannot do for itself:
//!
//! - It knows whether a signal was sent to the whole process group, where the worker has got it already: it is in that
//!   group, too, and nobody means it. The kernel goes through a group from its youngest process to its oldest, so a signal
//!   that has reached the launcher waits here already.
//! - It is not stopped where the launcher is: it lets the launcher go on when somebody else lets the worker go on, or ends
//!   it, and stops the worker when somebody stops the launcher by SIGSTOP, of which no process is told.
//! - It outlives the launcher: what that leaves behind when it is killed, it ends.
//!
//! It is forked from the launcher and executes nothing, so it follows the rules for signal handlers: it neither allocates
//! nor locks, and does not panic. All signals are blocked in it. Unsafe code is allowed here, for the fork.

use super::sys;
use crate::text::Text;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The launcher's end.
#[derive(Debug)]
pub(super) struct Witness {
    socket: Option<UnixStream>,
    pid: u32,
    serial: u8,
}

/// What is to become of a worker when the launcher dies.
#[derive(Clone, Copy)]
pub(super) struct Ward {
    pub(super) pid: u32,
    pub(super) dies_with_us: bool,
    /// A variable that all that it starts inherits, and nobody else has. Empty: there is none.
    pub(super) mark: Text<MARK_BYTES>,
}

const MARK_BYTES: usize = 80;

/// What the launcher says: a kind, a number by which the answer is known, a number and a text.
#[derive(Clone, Copy)]
struct Message {
    kind: u8,
    serial: u8,
    number: u32,
    text: Text<MARK_BYTES>,
}

/// One that dies with the launcher is about to be started.
const EXPECTED: u8 = 7;
/// There is a worker; one that dies with the launcher; none any more.
const WORKER: u8 = 1;
const WARD: u8 = 2;
const NO_WORKER: u8 = 3;
/// Was this signal for all of the group?
const ASK: u8 = 4;
/// The launcher stops, as its worker has; it goes on.
const STOPS: u8 = 5;
const GOES_ON: u8 = 6;

const MESSAGE_BYTES: usize = 2 + 4 + MARK_BYTES;

impl Message {
    fn new(kind: u8, number: u32) -> Message {
        Message { kind, serial: 0, number, text: Text::new() }
    }

    fn to_bytes(self) -> [u8; MESSAGE_BYTES] {
        let mut bytes = [0; MESSAGE_BYTES];
        let number = self.number.to_ne_bytes();
        let parts = [&[self.kind, self.serial][..], &number, self.text.as_bytes()];
        for (byte, value) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *byte = *value;
        }
        bytes
    }

    fn from_bytes(bytes: [u8; MESSAGE_BYTES]) -> Option<Message> {
        let (head, rest) = bytes.split_first_chunk::<2>()?;
        let (number, text) = rest.split_first_chunk()?;
        let text = text.split(|byte| *byte == 0).next()?;
        let [kind, serial] = *head;
        Some(Message { kind, serial, number: u32::from_ne_bytes(*number), text: Text::from_bytes(text) })
    }
}

impl Witness {
    /// Starts it. All signals are to be blocked. With `parent`, a descriptor of the launcher's parent, the launcher is
    /// killed when that has ended.
    pub(super) fn start(parent: Option<OwnedFd>) -> io::Result<Witness> {
        let (ours, its) = UnixStream::pair()?;
        let launcher = sys::process::pid();
        let [ours, its] = [ours, its].map(|end| UnixStream::from(sys::child::move_up(end.into(), 100)));
        ours.set_read_timeout(Some(ANSWER_WITHIN))?;
        let body = || Second::new(launcher, &its, parent.as_ref()).run();
        // SAFETY: `run` makes system calls and touches its own stack; and it has no way to panic.
        let pid = unsafe { sys::trace::start_unseen(body) }.map_err(io::Error::from_raw_os_error)?;
        Ok(Witness { socket: Some(ours), pid, serial: 0 })
    }

    pub(super) fn id(&self) -> u32 {
        self.pid
    }

    /// A worker is about to be started that is to die with the launcher. The kernel sees to the worker itself
    /// (PR_SET_PDEATHSIG); what it starts before it is watched is known by this.
    pub(super) fn expect(&mut self, mark: Text<MARK_BYTES>) {
        self.ask(Message { text: mark, ..Message::new(EXPECTED, 0) });
    }

    /// From now on there is this worker, or none.
    pub(super) fn watch(&mut self, ward: Option<Ward>) {
        let message = match ward {
            Some(Ward { pid, dies_with_us, mark }) => {
                Message { text: mark, ..Message::new(if dies_with_us { WARD } else { WORKER }, pid) }
            }
            None => Message::new(NO_WORKER, 0),
        };
        self.ask(message);
    }

    /// Whether a signal that has just arrived was sent to all of the process group. Each is asked after once.
    pub(super) fn was_for_all(&mut self, signal: i32) -> bool {
        self.ask(Message::new(ASK, signal.unsigned_abs())) == Some(1)
    }

    pub(super) fn stops(&mut self) {
        self.ask(Message::new(STOPS, 0));
    }

    pub(super) fn goes_on(&mut self) {
        self.ask(Message::new(GOES_ON, 0));
    }

    /// Says something, and waits for the answer. `None`: it is gone.
    fn ask(&mut self, message: Message) -> Option<u8> {
        const PATIENCE: u32 = 40;
        self.serial = self.serial.wrapping_add(1);
        let mut socket = self.socket.as_ref()?;
        // Blocked SIGPIPE: where it is gone, this is an error.
        let said = socket.write_all(&Message { serial: self.serial, ..message }.to_bytes());
        for _ in 0..PATIENCE {
            said.as_ref().ok()?;
            let mut answer = [0; 2];
            match socket.read_exact(&mut answer) {
                Ok(()) if answer[0] == self.serial => return Some(answer[1]),
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Stopped by SIGSTOP, as the whole group was.
                    let _ = sys::child::kill(self.pid, false, libc::SIGCONT);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        None
    }
}

/// An answer takes some ten microseconds.
const ANSWER_WITHIN: Duration = Duration::from_millis(50);

impl Drop for Witness {
    fn drop(&mut self) {
        self.watch(None);
        self.socket = None;
        // It may be stopped; and nobody who waits for children of ours is to find one that we have not started for him.
        let _ = sys::child::kill(self.pid, false, libc::SIGCONT);
        sys::trace::reap_unseen_at_its_end(self.pid);
    }
}

/// The second process.
struct Second<'a> {
    launcher: u32,
    socket: &'a UnixStream,
    parent: Option<&'a OwnedFd>,
    worker: Option<Worker>,
    /// By which all that a worker has started is known, if it is to die with the launcher.
    mark: Option<Text<MARK_BYTES>>,
    launcher_is: Launcher,
    ticks: u32,
}

struct Worker {
    ward: Ward,
    /// Its number is its own only as long as the launcher has not reaped it.
    pidfd: Option<OwnedFd>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Launcher {
    Running,
    /// It is about to stop, or has, as its worker was found stopped.
    StopsAsItsWorker,
    /// It was found stopped, and its worker was told to stop, which may take a while.
    WasStopped {
        worker_has: bool,
    },
}

/// How often the launcher is looked at, in case somebody has stopped it.
const LOOK_MS: i32 = 250;
/// And the worker, while the launcher is stopped: often at first.
const FIRST_LOOK_MS: i32 = 2;
const LAST_LOOK_MS: i32 = 100;

impl<'a> Second<'a> {
    fn new(launcher: u32, socket: &'a UnixStream, parent: Option<&'a OwnedFd>) -> Second<'a> {
        Second {
            launcher,
            socket,
            parent,
            worker: None,
            mark: None,
            launcher_is: Launcher::Running,
            ticks: 0,
        }
    }

    /// Its life: until the launcher's end.
    fn run(mut self) {
        let socket = self.socket.as_raw_fd();
        let parent = self.parent.map_or(socket, AsRawFd::as_raw_fd);
        sys::trace::step_back(c"oomguard-watch", [socket, parent]);
        loop {
            let patience_ms = match (self.launcher_is, &self.worker) {
                (_, None) => -1,
                (Launcher::Running, _) => LOOK_MS,
                _ => {
                    FIRST_LOOK_MS.saturating_mul(self.ticks.cast_signed()).clamp(FIRST_LOOK_MS, LAST_LOOK_MS)
                }
            };
            let Ok([said, parent_ended]) =
                sys::child::poll([Some(self.socket.as_fd()), self.parent.map(AsFd::as_fd)], patience_ms)
            else {
                break;
            };
            if parent_ended {
                self.parent = None;
                let _ = sys::child::kill(self.launcher, false, libc::SIGKILL);
            }
            if said && !self.answer() {
                break;
            }
            if !said && !parent_ended {
                self.look();
            }
        }
        self.end_what_is_left();
    }

    /// False: there is no launcher any more.
    fn answer(&mut self) -> bool {
        let mut bytes = [0; MESSAGE_BYTES];
        let mut socket = self.socket;
        if socket.read_exact(&mut bytes).is_err() {
            return false;
        }
        let Some(message) = Message::from_bytes(bytes) else { return false };
        let answer = match message.kind {
            EXPECTED => {
                self.mark = Some(message.text);
                0
            }
            WORKER | WARD => {
                let dies_with_us = message.kind == WARD;
                let ward = Ward { pid: message.number, dies_with_us, mark: message.text };
                self.mark = dies_with_us.then_some(ward.mark);
                self.worker = Some(Worker { ward, pidfd: sys::child::pidfd(ward.pid).ok() });
                0
            }
            NO_WORKER => {
                (self.worker, self.mark) = (None, None);
                0
            }
            ASK => u8::from(self.has_got(message.number.cast_signed())),
            STOPS => {
                self.ticks = 0;
                self.launcher_is = Launcher::StopsAsItsWorker;
                0
            }
            _ => {
                self.launcher_is = Launcher::Running;
                0
            }
        };
        socket.write_all(&[message.serial, answer]).is_ok()
    }

    /// Whether a signal waits here that was not for this process alone.
    fn has_got(&self, signal: i32) -> bool {
        while let Some(sender) = sys::signals::take_waiting(signal) {
            // To have this process go on, where it was stopped.
            if signal != libc::SIGCONT || sender != self.launcher {
                return true;
            }
        }
        false
    }

    fn look(&mut self) {
        let Some(worker) = &self.worker else { return };
        let launcher_stands = sys::proc::state_of(self.launcher) == Some(b'T');
        let worker_stands = || matches!(sys::proc::state_of(worker.ward.pid), Some(b'T' | b't'));
        match self.launcher_is {
            Launcher::Running if launcher_stands => {
                if !worker_stands() {
                    worker.send(libc::SIGSTOP);
                }
                self.ticks = 0;
                self.launcher_is = Launcher::WasStopped { worker_has: false };
                return;
            }
            Launcher::Running => return,
            Launcher::WasStopped { .. } if !launcher_stands => {
                self.launcher_is = Launcher::Running;
                return;
            }
            Launcher::WasStopped { worker_has: false } if worker_stands() => {
                self.launcher_is = Launcher::WasStopped { worker_has: true };
            }
            Launcher::WasStopped { worker_has: false } if !worker.is_dead() => {}
            _ if launcher_stands && (!worker_stands() || worker.is_dead()) => {
                let _ = sys::child::kill(self.launcher, false, libc::SIGCONT);
            }
            _ => {}
        }
        self.ticks = self.ticks.saturating_add(1);
    }

    /// The launcher was killed: its worker, and what that has started and that has not made a session of its own, as a
    /// daemon does.
    fn end_what_is_left(&self) {
        if let Some(worker) = self.worker.as_ref().filter(|worker| worker.ward.dies_with_us) {
            worker.send(libc::SIGKILL);
        }
        let Some(mark) = self.mark else { return };
        if mark.as_bytes().is_empty() || mark.is_cut() {
            return;
        }
        let session = sys::proc::session_of(0);
        // Those that are killed may just have started others; and one that executes a program at this moment has no
        // environment for a while.
        let mut quiet_rounds = 0;
        for _ in 0..MOST_ROUNDS {
            let mut found = false;
            sys::proc::for_each(|pid| {
                if sys::proc::session_of(pid) == session
                    && sys::proc::state_of(pid) != Some(b'Z')
                    && sys::proc::environment_has(pid, mark.as_bytes())
                {
                    found = true;
                    let _ = sys::child::kill(pid, false, libc::SIGKILL);
                }
            });
            quiet_rounds = if found { 0 } else { quiet_rounds + 1 };
            if quiet_rounds == QUIET_ROUNDS {
                return;
            }
            sys::clock::sleep_ms(2);
        }
    }
}

const MOST_ROUNDS: u32 = 500;
const QUIET_ROUNDS: u32 = 25;

impl Worker {
    fn send(&self, signal: i32) {
        // EPERM for one that runs as another user.
        if let Some(pidfd) = &self.pidfd {
            let _ = sys::child::send_signal(pidfd.as_fd(), signal);
        } else {
            let _ = sys::child::kill(self.ward.pid, false, signal);
        }
    }

    fn is_dead(&self) -> bool {
        matches!(sys::proc::state_of(self.ward.pid), None | Some(b'Z' | b'X'))
    }
}
