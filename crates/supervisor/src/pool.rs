//! Workers that wait until their limit fits into the budget.
//!
//! There is no thread of the pool's own: who waits in `run` waits in the caller's thread, and a submitted worker gets a
//! thread when its turn has come. Whoever changes the accounts (`submit`, the end of a worker, a new size of the
//! container) also admits those who fit now.

use super::accounts::{Accounts, Ticket};
use super::budget::{Budget, TooLarge};
use super::outcome::{Ended, Outcome};
use super::retry::Retry;
use super::sharing::SharedBudget;
use super::size;
use super::worker::Worker;
use crate::Limit;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How often who waits looks whether the container has been resized.
const LOOK_UP_EVERY: Duration = Duration::from_secs(1);

/// Runs workers under one [`Budget`]: the sum of the limits of those that run never exceeds it.
///
/// A worker's limit is turned into bytes once, when the worker is handed over: a share (`50%`, `auto`) is of what the
/// container has then, and the worker runs with just that, however late it starts.
///
/// Workers start when their limit fits, in the order in which they came; one that is larger than what is left holds up
/// those behind it, so it gets its turn. A worker with a [`Retry`] that ran out of memory gives its share back and
/// asks for the larger one, before all that have not run yet, and for no more than the whole budget.
///
/// The budget follows the container's limit. When that shrinks, no worker is started until the rest fits again;
/// workers that run are left alone, and those that wait for more than there is now are refused.
///
/// A clone is another handle of the same pool. Dropping the last one does not end what was submitted.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    budget: Budget,
    /// What the workers share, where their shares are not fixed, or why there is no such thing.
    elastic: Option<Elastic>,
    state: Mutex<State>,
    changed: Condvar,
}

/// Each worker is told the error.
type Elastic = Result<SharedBudget, Arc<io::Error>>;

struct State {
    accounts: Accounts,
    /// What to start when its turn has come; who waits in `run` is not here.
    submitted: HashMap<Ticket, Submitted>,
}

struct Submitted {
    worker: Worker,
    asked: u64,
    result: Arc<JobResult>,
}

#[derive(Default)]
struct JobResult {
    answer: Mutex<Answer>,
    there: Condvar,
}

enum Answer {
    /// With the task that awaits it, if one does.
    Pending(Option<Waker>),
    There(Box<io::Result<Ended>>),
    /// Somebody has had it: it is handed over, not copied, as an error is.
    Taken,
}

/// A submitted worker, whose end can be waited for: in a thread, or as a future under any runtime, which then gives
/// the [`Ended`]. Dropping it changes nothing for the worker.
///
/// The result is given once. Who asks again, by polling a future that has given it or by waiting after that, gets an
/// error at once.
pub struct Job {
    result: Arc<JobResult>,
}

impl Pool {
    /// Makes a pool that shares this budget among its workers.
    pub fn new(budget: Budget) -> Pool {
        Pool::of(budget, None)
    }

    /// Makes a pool whose workers have no fixed shares: each takes of the budget what it needs, waits where others have it, and is
    /// refused once nothing moves, as [`Worker::share`] says. All start at once, unless there are to be
    /// [`at_most`](Pool::at_most) so many. A worker's limit, if it has one, is the most that one of its processes may have.
    ///
    /// In a process that shares a budget already, that is the one which is shared, whatever `budget` says. Where nothing can be
    /// shared, as `budget` has no size or no ledger can be made, each worker is refused with that error: [`SharedBudget::of`].
    ///
    /// ```no_run
    /// use oomguard::supervisor::{Budget, Pool, Worker};
    /// # fn main() -> std::io::Result<()> {
    /// let pool = Pool::elastic(Budget::container()?).at_most(4);
    /// let job = pool.submit(Worker::new(oomguard::supervisor::Command::new("./worker")))?;
    /// # job.wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn elastic(budget: Budget) -> Pool {
        let budget = Arc::new(budget);
        let elastic = match SharedBudget::inherited() {
            Some(outer) => Ok(outer),
            None => SharedBudget::of(budget, SharedBudget::PATIENCE).map_err(Arc::new),
        };
        let bytes = elastic.as_ref().map_or(0, SharedBudget::bytes);
        Pool::of(Budget::of(Limit::Bytes(bytes)), Some(elastic))
    }

    fn of(budget: Budget, elastic: Option<Elastic>) -> Pool {
        let accounts = Accounts::new(budget.bytes(), usize::MAX);
        let state = Mutex::new(State { accounts, submitted: HashMap::new() });
        Pool { shared: Arc::new(Shared { budget, elastic, state, changed: Condvar::new() }) }
    }

    /// Runs at most so many workers at once, however small they are; at least one.
    #[must_use]
    pub fn at_most(self, workers: usize) -> Pool {
        self.shared.state.lock().accounts.set_places(workers.max(1));
        self
    }

    /// Runs a worker to its end, with retries, in this thread: waits until its limit fits, then for its outcome.
    ///
    /// # Errors
    /// [`TooLarge`] (`InvalidInput`) if its limit is more than the whole budget; `InvalidInput` if it has none;
    /// those of [`Worker::run`].
    pub fn run(&self, worker: Worker) -> io::Result<Outcome> {
        Ok(self.run_to_end(worker)?.outcome)
    }

    /// As [`run`](Pool::run), and returns everything that was seen.
    ///
    /// # Errors
    /// As for [`run`](Pool::run).
    pub fn run_to_end(&self, worker: Worker) -> io::Result<Ended> {
        let mut state = self.shared.state.lock();
        let (ticket, asked) = self.shared.ask(&mut state, &worker)?;
        let share = Share { pool: Arc::clone(&self.shared), ticket, asked };
        Shared::dispatch(&self.shared, &mut state);
        drop(state);
        share.run(worker)
    }

    /// Queues a worker and returns at once. It runs in a thread of its own when its limit fits.
    ///
    /// # Errors
    /// [`TooLarge`] (`InvalidInput`) if its limit is more than the whole budget; `InvalidInput` if it has none. What
    /// goes wrong later is an error of [`Job::wait`].
    pub fn submit(&self, worker: Worker) -> io::Result<Job> {
        let result = Arc::new(JobResult::default());
        let mut state = self.shared.state.lock();
        let (ticket, asked) = self.shared.ask(&mut state, &worker)?;
        state.submitted.insert(ticket, Submitted { worker, asked, result: Arc::clone(&result) });
        Shared::dispatch(&self.shared, &mut state);
        Ok(Job { result })
    }

    /// Returns the sum of the limits of the workers that run, in bytes.
    pub fn in_use(&self) -> u64 {
        self.shared.state.lock().accounts.given_out()
    }

    /// Returns how many workers run.
    pub fn running(&self) -> usize {
        self.shared.state.lock().accounts.running()
    }

    /// Returns how many workers wait for their turn.
    pub fn waiting(&self) -> usize {
        self.shared.state.lock().accounts.waiting()
    }
}

impl Job {
    /// Waits for the worker's end.
    ///
    /// # Errors
    /// Those of [`Pool::run`]; `Other` if the result was taken already, by polling this as a future.
    pub fn wait(self) -> io::Result<Outcome> {
        Ok(self.wait_to_end()?.outcome)
    }

    /// As [`wait`](Job::wait), and returns everything that was seen.
    ///
    /// # Errors
    /// As for [`wait`](Job::wait).
    pub fn wait_to_end(self) -> io::Result<Ended> {
        let mut answer = self.result.answer.lock();
        loop {
            match answer.take() {
                Some(result) => return result,
                None => self.result.there.wait(&mut answer),
            }
        }
    }

    /// Returns whether the worker has ended, or could not be run.
    pub fn is_done(&self) -> bool {
        !matches!(*self.result.answer.lock(), Answer::Pending(_))
    }
}

impl Future for Job {
    type Output = io::Result<Ended>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut answer = self.result.answer.lock();
        match answer.take() {
            Some(result) => Poll::Ready(result),
            None => {
                *answer = Answer::Pending(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl Default for Answer {
    fn default() -> Answer {
        Answer::Pending(None)
    }
}

impl Answer {
    /// The result, or an error where somebody has it already; `None`: not there yet.
    fn take(&mut self) -> Option<io::Result<Ended>> {
        if matches!(self, Answer::Pending(_)) {
            return None;
        }
        Some(match std::mem::replace(self, Answer::Taken) {
            Answer::There(result) => *result,
            _ => {
                Err(io::Error::other("the result of this job was taken already: keep what the first one got"))
            }
        })
    }
}

impl JobResult {
    fn put(&self, result: io::Result<Ended>) {
        let mut answer = self.answer.lock();
        let before = std::mem::replace(&mut *answer, Answer::There(Box::new(result)));
        drop(answer);
        self.there.notify_all();
        if let Answer::Pending(Some(waker)) = before {
            waker.wake();
        }
    }
}

/// A place in the accounts, given back when dropped.
struct Share {
    pool: Arc<Shared>,
    ticket: Ticket,
    /// What is booked for it, in bytes.
    asked: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        state.accounts.end(self.ticket);
        Shared::dispatch(&self.pool, &mut state);
    }
}

impl Shared {
    /// Queues a worker up; its ticket, and the share that it asks for. Nobody asks a second time what its limit stands
    /// for: in a container that has grown, that would be more than what is booked.
    fn ask(&self, state: &mut State, worker: &Worker) -> io::Result<(Ticket, u64)> {
        if let Some(elastic) = &self.elastic {
            elastic.as_ref().map_err(|error| io::Error::new(error.kind(), Arc::clone(error)))?;
            let ticket = state.accounts.ask(0).ok_or(io::ErrorKind::InvalidInput)?;
            return Ok((ticket, 0));
        }
        let asked = worker.limit.and_then(|limit| self.budget.resolve(limit)).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "a worker in a pool needs a limit, or its share would not be known: Worker::limit",
            )
        })?;
        state.accounts.resize(self.budget.bytes());
        let budget = state.accounts.whole();
        let ticket = state.accounts.ask(asked).ok_or(TooLarge { asked, budget })?;
        Ok((ticket, asked))
    }

    /// Lets everybody start who fits, and refuses those who never will.
    fn dispatch(self: &Arc<Self>, state: &mut MutexGuard<'_, State>) {
        if state.accounts.waiting() == 0 {
            return;
        }
        state.accounts.resize(self.budget.bytes());
        while let Some((ticket, asked)) = state.accounts.refuse() {
            if let Some(submitted) = state.submitted.remove(&ticket) {
                let budget = state.accounts.whole();
                submitted.result.put(Err(TooLarge { asked, budget }.into()));
            }
        }
        while let Some(ticket) = state.accounts.admit() {
            if let Some(submitted) = state.submitted.remove(&ticket) {
                self.run_in_thread(state, ticket, submitted);
            }
        }
        self.changed.notify_all();
    }

    fn run_in_thread(self: &Arc<Self>, state: &mut State, ticket: Ticket, submitted: Submitted) {
        let pool = Arc::clone(self);
        let result = Arc::clone(&submitted.result);
        let body = move || {
            let share = Share { pool, ticket, asked: submitted.asked };
            let promise = Promise(submitted.result);
            promise.keep(share.run(submitted.worker));
        };
        if let Err(error) = std::thread::Builder::new().name("oomguard-worker".into()).spawn(body) {
            // The closure is gone, and its `Share` was never made.
            state.accounts.end(ticket);
            result.put(Err(error));
        }
    }

    /// Waits until it is this ticket's turn.
    fn wait_for_turn(self: &Arc<Self>, ticket: Ticket, asked: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        loop {
            if state.accounts.is_running(ticket) {
                return Ok(());
            }
            if !state.accounts.is_waiting(ticket) {
                return Err(TooLarge { asked, budget: state.accounts.whole() }.into());
            }
            if self.changed.wait_for(&mut state, LOOK_UP_EVERY).timed_out() {
                Shared::dispatch(self, &mut state);
            }
        }
    }
}

impl Share {
    fn run(mut self, mut worker: Worker) -> io::Result<Ended> {
        let ceiling = worker.retry.as_ref().map_or(0, Retry::ceiling_bytes);
        self.pool.wait_for_turn(self.ticket, self.asked)?;
        if let Some(Ok(elastic)) = &self.pool.elastic {
            return worker.share(elastic.clone()).run_to_end();
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let look_up = || Shared::dispatch(&self.pool, &mut self.pool.state.lock());
            let ended = worker.try_once(Some(Limit::Bytes(self.asked)), tries, Some(&look_up))?;
            let Some(next) = self.larger_share(&worker, &ended, ceiling) else { return Ok(ended) };
            if let Some(retry) = &mut worker.retry {
                retry.clean_up(&ended);
            }
            self.asked = next;
            let mut state = self.pool.state.lock();
            state.accounts.resize(self.pool.budget.bytes());
            let possible = state.accounts.ask_again(self.ticket, self.asked);
            Shared::dispatch(&self.pool, &mut state);
            drop(state);
            // The budget may have shrunk: then the last try was the last.
            if !possible || self.pool.wait_for_turn(self.ticket, self.asked).is_err() {
                return Ok(ended);
            }
        }
    }

    /// What the next try gets: no more than there is at all.
    fn larger_share(&self, worker: &Worker, ended: &Ended, ceiling: u64) -> Option<u64> {
        let whole = self.pool.budget.bytes();
        worker.next_limit(ended, ceiling.min(whole))
    }
}

/// An answer that comes even if the thread panics, in a hook of the user's.
struct Promise(Arc<JobResult>);

impl Promise {
    fn keep(self, result: io::Result<Ended>) {
        self.0.put(result);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.put(Err(io::Error::other("a hook of the worker panicked")));
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("Pool")
            .field("budget", &size(state.accounts.whole()))
            .field("in_use", &size(state.accounts.given_out()))
            .field("running", &state.accounts.running())
            .field("waiting", &state.accounts.waiting())
            .finish()
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("done", &self.is_done()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OnSupervisorDeath;
    use crate::conditions::wait_until;
    use std::fs;
    use std::process::{Command, Stdio};

    fn sleeper(limit: &str) -> Worker {
        let mut command = Command::new("/bin/sleep");
        command.arg("1000").stdout(Stdio::null()).stderr(Stdio::null());
        // Not waited for in the end, and not to be left behind.
        Worker::new(command).limit(limit.parse().unwrap()).on_supervisor_death(OnSupervisorDeath::Kill)
    }

    /// A container that can be resized: files as the kernel shows them.
    struct Container(tempfile::TempDir);

    impl Container {
        fn of_mib(mib: u64) -> Container {
            let container = Container(tempfile::tempdir().unwrap());
            fs::create_dir_all(container.0.path().join("sys/fs/cgroup/a")).unwrap();
            fs::create_dir_all(container.0.path().join("proc/self")).unwrap();
            fs::write(container.0.path().join("proc/self/cgroup"), "0::/a\n").unwrap();
            container.resize(mib);
            container
        }

        fn resize(&self, mib: u64) {
            let file = self.0.path().join("sys/fs/cgroup/a/memory.max");
            fs::write(file, format!("{}\n", mib << 20)).unwrap();
        }

        fn pool(&self) -> Pool {
            Pool::new(Budget::container_below(self.0.path().to_str().unwrap().into()).unwrap())
        }
    }

    /// A worker that says which soft limit on address space it has, in KiB.
    fn teller(limit: &str) -> Worker {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "ulimit -Sv"]).stdout(Stdio::piped());
        Worker::new(command).limit(limit.parse().unwrap())
    }

    fn told_mib(ended: &Ended) -> u64 {
        String::from_utf8_lossy(&ended.stdout).trim().parse::<u64>().unwrap() >> 10
    }

    #[test]
    fn a_worker_runs_with_the_share_that_it_was_given() {
        for (limit, share_mib) in [("50%", 100), ("auto", 180)] {
            let container = Container::of_mib(200);
            let pool = container.pool();
            let first = pool.submit(sleeper("199MiB")).unwrap();
            let waiting = pool.submit(teller(limit)).unwrap();
            assert_eq!((pool.running(), pool.waiting()), (1, 1));
            // From now on the same words stand for twice as much: with `auto`, for more than there is beside the first.
            container.resize(400);
            let ended = waiting.wait_to_end().unwrap();
            assert_eq!(
                (ended.limit, told_mib(&ended)),
                (Some(share_mib << 20), share_mib),
                "{limit}: {ended}"
            );
            drop(first);
        }
    }

    #[test]
    fn who_waits_follows_the_container_as_it_is_resized() {
        let container = Container::of_mib(100);
        let resize = |mib| container.resize(mib);
        let pool = container.pool();

        let first = pool.submit(sleeper("80MiB")).unwrap();
        let too_large_later = pool.submit(sleeper("90MiB")).unwrap();
        assert_eq!((pool.running(), pool.waiting()), (1, 1));
        // Nobody submits and nobody ends: the one that runs looks up for the ones that wait.
        resize(50);
        wait_until("who waits for more than there is now is refused", || too_large_later.is_done());
        let refused = too_large_later.wait().unwrap_err();
        let inner = refused.get_ref().and_then(|error| error.downcast_ref::<TooLarge>()).unwrap();
        assert_eq!(*inner, TooLarge { asked: 90 << 20, budget: 50 << 20 });

        let later = pool.submit(sleeper("40MiB")).unwrap();
        assert_eq!((pool.running(), pool.waiting()), (1, 1), "what runs is more than there is");
        assert!(pool.submit(sleeper("60MiB")).is_err());
        resize(120);
        wait_until("who waits starts when there is room", || pool.running() == 2);
        assert_eq!((pool.in_use(), pool.waiting()), (120 << 20, 0));
        drop((first, later));
    }

    /// Polls once, without a runtime.
    fn poll_once(job: &mut Job) -> Poll<io::Result<Ended>> {
        Pin::new(job).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_result_that_was_taken_already_is_an_error_and_no_wait_for_ever() {
        let pool = Pool::new(Budget::of(Limit::Bytes(400 << 20)));
        let mut job = pool.submit(teller("100MiB")).unwrap();
        wait_until("the worker has ended", || job.is_done());
        assert!(matches!(poll_once(&mut job), Poll::Ready(Ok(_))));
        assert!(job.is_done());
        let again = poll_once(&mut job);
        assert!(
            matches!(&again, Poll::Ready(Err(error)) if error.to_string().contains("taken")),
            "{again:?}"
        );
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(job.wait()));
        let waited = receiver.recv_timeout(Duration::from_secs(20)).expect("it waits for ever");
        assert!(waited.unwrap_err().to_string().contains("taken"));
    }
}
