"""`ProcessPoolExecutor`: as in concurrent.futures, where a task that runs out of memory fails alone.

One thread of the executor's process, the keeper, does all that is done after `submit`: it hands each idle worker one task,
takes the answers, and learns of each death by the end of the worker's stream and of its status from the nursery (see
`_protocol`). Every task is at one place at any time: in `_Pool.pending`, or at the one worker that has it; so when a worker
dies it is known whose task that was.
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections import deque
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import context as mp_context_module
from multiprocessing import process, spawn, util
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, Optional, Tuple

from ._arm import can_ask_library, is_guarded_by_library
from ._launcher import command_line, library_for, require_options
from ._limit import Limit, resolve, text_of
from ._outcome import EXIT_OUT_OF_MEMORY, OutOfMemory, Report
from ._protocol import (
    CANNOT_FORK,
    CANNOT_PREPARE,
    ENDED,
    ERROR,
    FRAME,
    INITIALIZED,
    LIMIT_TOO_LOW,
    MESSAGE,
    MESSAGE_MAX_BYTES,
    OUT_OF_MEMORY,
    QUIT,
    READY,
    RESULT,
    START,
    STARTED,
    STOP,
    TASK,
    dumps,
    load_error,
    words_of,
)
from ._run import check_retry, next_limit

# What `oomguard run` can be told that makes sense for workers.
_OPTIONS = ("measure", "patience", "on_refusal", "stall")
# So many workers in a row may end before they are ready, or not be forked at all.
_MOST_FALSE_STARTS = 5
# So many are started at a time: what they and the nursery say to each other meanwhile has room in their sockets.
_MOST_STARTING = 64
# How often it is looked whether a retry has room.
_LOOK_EVERY_S = 0.05

# Where concurrent.futures says what went wrong in callbacks.
_logger = logging.getLogger("concurrent.futures")


class ProcessPoolExecutor(Executor):
    """As concurrent.futures.ProcessPoolExecutor, with a memory limit for each worker.

    A task that runs out of memory is tried again with a larger limit, up to `retries` times; then its future, and no other,
    raises `OutOfMemory` with the report. Its worker is replaced. A worker that ends in any other way (a signal, `os._exit`)
    fails the future of the task that it had, and no other, with `BrokenProcessPool`, and is replaced, too.

    Args:
        max_workers: How many tasks run at once. Default: the number of processors.
        mp_context: Whose start method "fork" makes the workers copies of this process as it is at the first `submit`, as
            they are anyway where `__main__` cannot be imported again (a notebook, `python -c`, a script without
            `if __name__ == "__main__"`). They then know memory errors of Python's own only. In all other cases workers
            begin anew, as with "spawn" and "forkserver", under the launcher, and die well of whatever C code does.
        initializer, initargs: Called in each worker when it begins. An exception of it breaks the pool.
        max_tasks_per_child: A worker is replaced after so many tasks.
        limit: The most that a worker may use: bytes, "512Mi", "80%", "auto" (the default) or "off".
        budget: What all workers may use together; needs workers that begin anew.
        retries: How often a task is tried again when it ran out of memory.
        grow: What the limit is multiplied by for each retry; above 1.
        max_limit: The largest limit to retry with. Default: the budget, the container's limit, or the machine's memory.

    By name, too: measure, patience, on_refusal, stall, as the options of `oomguard run`.
    """

    def __init__(
        self,
        max_workers: Optional[int] = None,
        mp_context: Optional[Any] = None,
        initializer: Optional[Callable[..., Any]] = None,
        initargs: Tuple[Any, ...] = (),
        *,
        max_tasks_per_child: Optional[int] = None,
        limit: Optional[Limit] = None,
        budget: Optional[Limit] = None,
        retries: int = 0,
        grow: float = 2.0,
        max_limit: Optional[Limit] = None,
        **options: Any,
    ) -> None:
        if max_workers is None:
            max_workers = _processors()
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
        check_retry(retries, grow, max_limit)
        told = {name: options.pop(name) for name in _OPTIONS if name in options}
        if options:
            raise TypeError(f"ProcessPoolExecutor takes no argument {next(iter(options))!r}")
        base = text_of(limit if limit is not None else budget if budget is not None else "auto")
        if budget is not None:
            text_of(budget, "budget")
            require_options("budget")
        copies = _makes_copies(mp_context)
        if copies and budget is not None:
            if mp_context is not None:
                raise ValueError('budget= needs workers that begin anew: mp_context "spawn" or "forkserver", or none')
            copies = False
        self._pool = _Pool(
            max_workers=max_workers,
            copies=copies,
            initializer=None if initializer is None else (initializer, tuple(initargs)),
            max_tasks=max_tasks_per_child,
            limit=base,
            budget=budget,
            retries=retries,
            grow=grow,
            max_limit=max_limit if max_limit is not None else budget,
            options=told,
        )
        # Whoever lets go of it without shutdown() has what was submitted done, and then the workers end.
        self._finalizer = weakref.finalize(self, _Pool.begin_shutdown, self._pool, False)
        self._finalizer.atexit = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Has `fn(*args, **kwargs)` done by a worker; returns its future."""
        return self._pool.submit((fn, args, kwargs))

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: Optional[float] = None,
        chunksize: int = 1,
        **named: Any,
    ) -> Iterator[Any]:
        """As concurrent.futures: `chunksize` items make one task, which runs out of memory as a whole."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout, **named)
        chunks = _chunks(zip(*iterables), chunksize)
        done = super().map(functools.partial(_do_chunk, fn), chunks, timeout=timeout, **named)
        return _one_by_one(done)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more tasks. What was submitted is done, or with `cancel_futures` cancelled unless it runs."""
        self._finalizer.detach()
        self._pool.begin_shutdown(cancel_futures)
        if wait:
            self._pool.join()


def _do_chunk(fn: Callable[..., Any], chunk: List[Tuple[Any, ...]]) -> List[Any]:
    return [fn(*arguments) for arguments in chunk]


def _chunks(all_arguments: Iterable[Tuple[Any, ...]], length: int) -> Iterator[List[Tuple[Any, ...]]]:
    rest = iter(all_arguments)
    while True:
        chunk = list(itertools.islice(rest, length))
        if not chunk:
            return
        yield chunk


def _one_by_one(lists: Iterator[List[Any]]) -> Iterator[Any]:
    for whole in lists:
        # What was given is not held any longer.
        whole.reverse()
        while whole:
            yield whole.pop()


def _processors() -> int:
    count = getattr(os, "process_cpu_count", os.cpu_count)()
    return count or 1


def _makes_copies(mp_context: Optional[Any]) -> bool:
    """Whether workers are forked off this process."""
    if mp_context is not None:
        return bool(mp_context.get_start_method() == "fork")
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if getattr(main, "__spec__", None) is not None:
        return False
    if path is None or not os.path.isfile(path):
        return True
    try:
        with open(path, "rb") as file:
            return b"__main__" not in file.read()
    except OSError:
        return True


class _KeeperThread(threading.Thread):
    """The thread that a keeper is run by."""


class _Future(Future):  # type: ignore[type-arg]
    """A future whose callbacks cannot end the keeper: whatever one raises there is logged, as its base does with an
    `Exception`, and the other callbacks and futures have their turn."""

    def add_done_callback(self, fn: Callable[["Future[Any]"], object]) -> None:
        super().add_done_callback(functools.partial(_call_back, fn))


def _call_back(callback: Callable[["Future[Any]"], object], future: "Future[Any]") -> None:
    try:
        callback(future)
    except Exception:
        raise
    except BaseException:
        if not isinstance(threading.current_thread(), _KeeperThread):
            # It is of a thread of the user's, who cancels the future or adds a callback to one that is done.
            raise
        _logger.exception("exception calling callback for %r", future)


class _Item:
    """A task, and how far it has come."""

    __slots__ = ("call", "future", "id", "is_running", "limit", "needs", "tries")

    def __init__(self, number: int, call: Any) -> None:
        self.id = number
        self.call = call
        self.future: "Future[Any]" = _Future()
        # From its first try on, whatever comes of that: it cannot be cancelled any more.
        self.is_running = False
        self.tries = 0
        # In bytes; None: what every worker has.
        self.limit: Optional[int] = None
        # What the try that was refused held, and asked for: in a budget, the next one starts when so much is free.
        self.needs = 0


class _Worker:
    """A worker as the keeper sees it."""

    def __init__(self, number: int, stream: socket.socket) -> None:
        self.id = number
        self.stream = stream
        self.pid = 0
        self.item: Optional[_Item] = None
        self.is_ready = False
        self.is_stopping = False
        self.tasks = 0
        # The limit that it was given for a task of its own; None: the pool's.
        self.limit: Optional[int] = None
        self.report: Optional[Report] = None
        # What is being received: the header, then the body.
        self.header: Optional[Tuple[int, int, int, int]] = None
        self.buffer = bytearray(FRAME.size)
        self.received = 0
        # What could not be sent yet.
        self.unsent: Deque[memoryview] = deque()
        self.has_ended = False


class _Pool:
    """What the executor and its keeper share."""

    def __init__(
        self,
        *,
        max_workers: int,
        copies: bool,
        initializer: Any,
        max_tasks: Optional[int],
        limit: str,
        budget: Optional[Limit],
        retries: int,
        grow: float,
        max_limit: Optional[Limit],
        options: Dict[str, Any],
    ) -> None:
        self.max_workers = max_workers
        self.copies = copies
        self.initializer = initializer
        self.max_tasks = max_tasks
        self.limit = limit
        self.budget = budget
        self.retries = retries
        self.grow = grow
        self.max_limit = max_limit
        self.options = options
        # Again and again by one thread: an executor that nobody has any more may be finalized in the midst of anything.
        self.lock = threading.RLock()
        self.pending: Deque[_Item] = deque()
        self.numbers = itertools.count()
        self.is_shut = False
        self.cancels = False
        self.broken: Optional[str] = None
        self.keeper: Optional[_Keeper] = None
        self.thread: Optional[threading.Thread] = None
        self.is_woken = False
        self.wakes, self.woken = socket.socketpair()
        self.wakes.setblocking(False)
        self.woken.setblocking(False)

    def most(self) -> Limit:
        """The largest limit that a worker may come to have."""
        if self.retries == 0:
            return self.limit
        return self.max_limit if self.max_limit is not None else "off"

    def submit(self, call: Any) -> "Future[Any]":
        with self.lock:
            if self.broken is not None:
                raise BrokenProcessPool(self.broken)
            if self.is_shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if _at_exit.has_begun:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            if self.thread is None:
                # Forked or executed by the thread that submits, before the keeper is there.
                keeper = _Keeper(self)
                thread = _KeeperThread(target=keeper.run, name="oomguard-keeper")
                try:
                    thread.start()
                    self.keeper, self.thread = keeper, thread
                except BaseException:
                    # Nobody would do what is submitted. A thread that runs all the same, as the wait for its start was
                    # interrupted, finds that it is not wanted.
                    self.keeper = self.thread = None
                    keeper.selector.close()
                    keeper.nursery.close()
                    keeper.nursery.wait(timeout=10)
                    raise
                _at_exit.add(self)
            item = _Item(next(self.numbers), call)
            self.pending.append(item)
            self.wake()
        return item.future

    def wake(self) -> None:
        """Has the keeper look. With the lock held."""
        if not self.is_woken:
            self.is_woken = True
            try:
                self.wakes.send(b"\0")
            except OSError:
                pass

    def begin_shutdown(self, cancel: bool) -> None:
        with self.lock:
            self.is_shut = True
            self.cancels = self.cancels or cancel
            self.wake()
            if self.thread is None:
                self.close()

    def close(self) -> None:
        """Nobody is woken any more. With the lock held."""
        self.wakes.close()
        self.woken.close()

    def join(self) -> None:
        if self.thread is not None:
            self.thread.join()


class _AtExit:
    """Has the interpreter wait for what was submitted before it ends, as concurrent.futures has it."""

    def __init__(self) -> None:
        self.has_begun = False
        self._pools: "weakref.WeakSet[_Pool]" = weakref.WeakSet()
        # Before the interpreter waits for its threads, of which the keepers are some.
        threading._register_atexit(self._run)  # type: ignore[attr-defined]

    def add(self, pool: _Pool) -> None:
        self._pools.add(pool)

    def _run(self) -> None:
        self.has_begun = True
        pools = list(self._pools)
        for pool in pools:
            pool.begin_shutdown(False)
        for pool in pools:
            pool.join()


_at_exit = _AtExit()


class _Nursery:
    """The process that forks the workers."""

    def __init__(self, pool: _Pool) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.reports, reports_to = os.pipe()
        os.set_blocking(self.reports, False)
        self.process: Optional["subprocess.Popen[bytes]"] = None
        self.pid = 0
        try:
            if pool.copies:
                self._fork(pool, theirs, reports_to)
            else:
                self._execute(pool, theirs, reports_to)
        except BaseException:
            self.control.close()
            os.close(self.reports)
            raise
        finally:
            theirs.close()
            os.close(reports_to)
        self.control.setblocking(False)

    def _settings(self, pool: _Pool) -> Dict[str, Any]:
        return {
            "initializer": pool.initializer,
            "limit": pool.limit,
            "measure": pool.options.get("measure"),
            "parent": os.getpid(),
            "parent_name": process.current_process().name,
            "copies": pool.copies,
            # It was started with more.
            "lowers": pool.budget is not None and pool.most() != pool.limit,
            "silenced": not pool.copies and "OOMGUARD_QUIET" not in os.environ,
        }

    def _fork(self, pool: _Pool, theirs: socket.socket, reports_to: int) -> None:
        sys.stdout and sys.stdout.flush()
        sys.stderr and sys.stderr.flush()
        settings = self._settings(pool)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                from ._worker import nurse

                self.control.close()
                os.close(self.reports)
                os.environ["OOMGUARD_REPORT"] = f"fd:{reports_to}"
                nurse(theirs, **settings)
            finally:
                os._exit(1)

    def _execute(self, pool: _Pool, theirs: socket.socket, reports_to: int) -> None:
        from multiprocessing import resource_tracker

        try:
            tracker = resource_tracker.getfd()
        except OSError:
            tracker = None
        tracker = -1 if tracker is None else tracker
        # Typed as one of multiprocessing's own.
        passing: Any = _Passing()
        mp_context_module.set_spawning_popen(passing)
        try:
            preparation = spawn.get_preparation_data(process.current_process().name)
            preparation.pop("name", None)
            # First what makes modules importable, then what may need them.
            body = bytes(dumps((preparation, bytes(dumps(self._settings(pool))))))
        finally:
            mp_context_module.set_spawning_popen(None)
        here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        code = (
            f"import sys; sys.path.insert(0, {here!r}); from oomguard._worker import main; "
            f"main({theirs.fileno()}, {len(body)}, {tracker})"
        )
        python = os.fsdecode(spawn.get_executable() or sys.executable)
        command = [python, *util._args_from_interpreter_flags(), "-c", code]  # type: ignore[attr-defined]
        env = None
        if pool.budget is None:
            # Without a launcher in between: its look knows one limit, and a retry has another.
            env = _guarded_environment(pool, python, reports_to)
        else:
            options = {"die_with_parent": True, "quiet": True, **pool.options}
            command = command_line(
                command, limit=pool.most(), budget=pool.budget, options=options, report_to=reports_to
            )
        given = _file_of(body)
        try:
            fds = [theirs.fileno(), reports_to, *passing.fds]
            self.process = subprocess.Popen(
                command, stdin=given, pass_fds=[*fds, tracker] if tracker >= 0 else fds, env=env
            )
        finally:
            os.close(given)

    def wait(self, timeout: Optional[float] = None) -> Optional[int]:
        """Returns the exit code of the nursery, or of the launcher that it runs under."""
        if self.process is not None:
            try:
                return self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                return self.process.wait()
        try:
            _, status = os.waitpid(self.pid, 0)
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        except ChildProcessError:
            return None

    def close(self) -> None:
        try:
            # Whoever else was forked off this process has it, too: the nursery is to see the end of it all the same.
            self.control.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The nursery has ended before.
            pass
        self.control.close()
        os.close(self.reports)


def _guarded_environment(pool: "_Pool", python: str, reports_to: int) -> Dict[str, str]:
    """Returns the environment of a nursery that the library guards, where it can be loaded into this Python."""
    env = dict(os.environ)
    # Without ctypes the workers cannot tell the library that a retry may have more.
    preload = library_for(python) if can_ask_library else ""
    if preload:
        env["LD_PRELOAD"] = preload
    # It is not the outer launcher's any more.
    env.pop("OOMGUARD_RECORD", None)
    env["OOMGUARD_LIMIT"] = pool.limit
    env["OOMGUARD_MEASURE"] = pool.options.get("measure") or env.get("OOMGUARD_MEASURE") or "resident"
    env["OOMGUARD_REPORT"] = f"fd:{reports_to}"
    env["OOMGUARD_QUIET"] = "1"
    for name in ("on_refusal", "stall"):
        if pool.options.get(name) is not None:
            env[f"OOMGUARD_{name.upper()}"] = str(pool.options[name])
    return env


def _file_of(body: bytes) -> int:
    from ._run import file_in_memory

    fd = file_in_memory()
    view = memoryview(body)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


class _Passing:
    """Stands for the process that is being started while what it gets is pickled: locks and pipes of multiprocessing
    are passed on by number."""

    class DupFd:
        def __init__(self, fd: int) -> None:
            self.fd = fd

        def detach(self) -> int:
            return self.fd

    def __init__(self) -> None:
        self.fds: List[int] = []

    def duplicate_for_child(self, fd: int) -> int:
        self.fds.append(fd)
        return fd


class _Keeper:
    """The thread that keeps the workers at work."""

    def __init__(self, pool: _Pool) -> None:
        self.pool = pool
        self.nursery = _Nursery(pool)
        self.selector = selectors.DefaultSelector()
        self.workers: Dict[int, _Worker] = {}
        self.idle: Deque[_Worker] = deque()
        self.numbers = itertools.count(1)
        self.reports: Dict[int, Report] = {}
        self.unread = b""
        self.false_starts = 0
        self.is_ready = False
        self.has_quit = False
        self.budget_bytes = None if pool.budget is None else resolve(pool.budget)[0]
        self.waits_for_room = False
        self.why: Optional[str] = None
        self.why_memory: Optional[Report] = None

    # ---- The loop ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        pool = self.pool
        with pool.lock:
            # Who starts this holds the lock until it is known to be wanted.
            if pool.keeper is not self:
                return
        self.selector.register(pool.woken, selectors.EVENT_READ, None)
        self.selector.register(self.nursery.control, selectors.EVENT_READ, None)
        try:
            while not self._is_done():
                self._hand_out()
                for key, events in self.selector.select(_LOOK_EVERY_S if self.waits_for_room else None):
                    if key.data is not None:
                        self._serve(key.data, events)
                    elif key.fileobj is pool.woken:
                        self._be_woken()
                    elif not self._hear_nursery():
                        self._break(self.why or "the process that starts the workers has ended")
                if self.why is not None:
                    self._break(self.why)
        except BaseException as error:
            self._break(f"the executor's own thread failed: {error!r}")
            raise
        finally:
            self._end()

    def _be_woken(self) -> None:
        with self.pool.lock:
            self.pool.is_woken = False
            try:
                self.pool.woken.recv(64)
            except BlockingIOError:
                pass
            cancelled = []
            if self.pool.is_shut and self.pool.cancels:
                for item in list(self.pool.pending):
                    if not item.is_running:
                        cancelled.append(item)
                        self.pool.pending.remove(item)
        for item in cancelled:
            item.future.cancel()
            item.future.set_running_or_notify_cancel()

    def _is_done(self) -> bool:
        """Whether nothing is left to do and nothing will come. Has the workers stop, and the nursery quit, when it is time."""
        with self.pool.lock:
            if self.pool.broken is not None:
                return True
            if not self.pool.is_shut or self.pool.pending:
                return False
        if any(worker.item is not None for worker in self.workers.values()):
            return False
        for worker in list(self.workers.values()):
            self._stop(worker)
        if not self.has_quit:
            self.has_quit = True
            self._tell(QUIT, 0, None)
        return not self.workers

    def _end(self) -> None:
        for worker in list(self.workers.values()):
            self._close(worker)
        self.nursery.close()
        self.selector.close()
        with self.pool.lock:
            self.pool.close()
        self.nursery.wait(timeout=10)

    # ---- Tasks ---------------------------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        pool = self.pool
        while True:
            with pool.lock:
                if not pool.pending:
                    return
                if not self.idle:
                    wanted = min(pool.max_workers, len(self._living()) + len(pool.pending))
                    starts = wanted - len(self._living())
                    item = None
                else:
                    if not self._has_room(pool.pending[0]):
                        return
                    item = pool.pending.popleft()
                    starts = 0
            if item is None:
                # Those that are being started take some of them; no more are started than there are tasks.
                starting = sum(not worker.is_ready for worker in self._living())
                for _ in range(min(starts, len(pool.pending) - starting, _MOST_STARTING - starting)):
                    self._start()
                return
            if self._begin(item):
                self._give(self.idle.popleft(), item)

    @staticmethod
    def _begin(item: _Item) -> bool:
        """Whether it is to be done: the first time that it is asked, it may have been cancelled."""
        if not item.is_running:
            item.is_running = item.future.set_running_or_notify_cancel()
        return item.is_running

    def _has_room(self, item: _Item) -> bool:
        """Whether the budget has what a retry needs. Nobody else is given a task before it, or it would wait for ever."""
        self.waits_for_room = False
        budget = self.budget_bytes
        if budget is None or item.tries == 0 or not any(worker.item for worker in self.workers.values()):
            return True
        used = sum(_resident(worker.pid) for worker in self.workers.values() if worker.item is not None)
        self.waits_for_room = used + item.needs > budget
        return not self.waits_for_room

    def _living(self) -> List[_Worker]:
        return [worker for worker in self.workers.values() if not worker.is_stopping]

    def _give(self, worker: _Worker, item: _Item) -> None:
        try:
            body = memoryview(dumps(item.call))
        except BaseException as error:
            self.idle.appendleft(worker)
            item.future.set_exception(error)
            return
        item.tries += 1
        worker.item = item
        worker.tasks += 1
        limit = 0
        if item.limit != worker.limit:
            base = resolve(self.pool.limit)[0] if item.limit is None else item.limit
            limit = base or 0
            worker.limit = item.limit
        self._send(worker, TASK, item.id, limit, body)

    def _send(self, worker: _Worker, what: int, task: int, limit: int, body: Any) -> None:
        header = FRAME.pack(what, task, limit, len(body))
        if len(body) <= 1 << 15:
            worker.unsent.append(memoryview(header + bytes(body)))
        else:
            worker.unsent.extend((memoryview(header), body.cast("B")))
        self._flush(worker)

    def _flush(self, worker: _Worker) -> None:
        if worker.stream.fileno() < 0:
            return
        try:
            while worker.unsent:
                sent = worker.stream.send(worker.unsent[0])
                if sent == len(worker.unsent[0]):
                    worker.unsent.popleft()
                else:
                    worker.unsent[0] = worker.unsent[0][sent:]
        except BlockingIOError:
            pass
        except OSError:
            # It is gone: read as the end of the stream.
            worker.unsent.clear()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.unsent else 0)
        if self.selector.get_key(worker.stream).events != events:
            self.selector.modify(worker.stream, events, worker)

    def _stop(self, worker: _Worker) -> None:
        if not worker.is_stopping:
            worker.is_stopping = True
            if worker in self.idle:
                self.idle.remove(worker)
            self._send(worker, STOP, 0, 0, b"")

    # ---- What workers say ----------------------------------------------------------------------------------------------

    def _serve(self, worker: _Worker, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush(worker)
        if not events & selectors.EVENT_READ:
            return
        while True:
            try:
                got = worker.stream.recv_into(memoryview(worker.buffer)[worker.received :])
            except BlockingIOError:
                return
            except ConnectionResetError:
                # As in `_hear_nursery`.
                continue
            except OSError:
                got = 0
            if got == 0:
                self._close(worker)
                return
            worker.received += got
            if worker.received < len(worker.buffer):
                continue
            if worker.header is None:
                worker.header = FRAME.unpack(worker.buffer)
                length = worker.header[3]
                try:
                    worker.buffer, worker.received = bytearray(length), 0
                except MemoryError as error:
                    self._give_up(worker, error)
                    return
                if length:
                    continue
            (what, task, _, _), body = worker.header, worker.buffer
            worker.header, worker.buffer, worker.received = None, bytearray(FRAME.size), 0
            self._hear(worker, what, task, body)
            # It says nothing more before it is given something.
            return

    def _give_up(self, worker: _Worker, error: MemoryError) -> None:
        """There is no memory here for what the worker says. It finds its stream closed, and ends."""
        item, worker.item = worker.item, None
        self._close(worker)
        if item is not None:
            item.future.set_exception(error)

    def _hear(self, worker: _Worker, what: int, task: int, body: bytearray) -> None:
        item = worker.item
        if what == OUT_OF_MEMORY:
            # It ends now, and is done with then.
            worker.report = json.loads(bytes(body))
            return
        if what == INITIALIZED:
            worker.is_ready = True
            self.false_starts = 0
            self._be_idle(worker)
            return
        if item is None:
            if what == ERROR and not worker.is_ready:
                error = load_error(body)
                self.why = f"the initializer raised {type(error).__name__}: {words_of(error)}\n{error.__cause__}"
            return
        if item.id != task:
            return
        worker.item = None
        if what == LIMIT_TOO_LOW:
            item.tries -= 1
            self._put_back(item)
            self._stop(worker)
            return
        # Before the result is told: whoever waits for it may look at what is left to do.
        self._be_idle(worker)
        if what == RESULT:
            try:
                result = pickle.loads(body)
            except BaseException as error:
                item.future.set_exception(error)
            else:
                item.future.set_result(result)
        elif what == ERROR:
            item.future.set_exception(load_error(body))

    def _be_idle(self, worker: _Worker) -> None:
        most = self.pool.max_tasks
        if most is not None and worker.tasks >= most:
            self._stop(worker)
        elif not worker.is_stopping:
            self.idle.append(worker)

    def _put_back(self, item: _Item) -> None:
        with self.pool.lock:
            self.pool.pending.appendleft(item)

    # ---- How workers begin and end -------------------------------------------------------------------------------------

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        worker = _Worker(next(self.numbers), ours)
        self.workers[worker.id] = worker
        self.selector.register(ours, selectors.EVENT_READ, worker)
        try:
            self._tell(START, worker.id, theirs.fileno())
        finally:
            theirs.close()

    def _tell(self, what: int, worker: int, fd: Optional[int]) -> None:
        message = MESSAGE.pack(what, worker, 0, 0)
        control = self.nursery.control
        control.setblocking(True)
        try:
            if fd is None:
                control.send(message)
            else:
                socket.send_fds(control, [message], [fd])
        except OSError:
            # It is gone: read as the end of the stream.
            pass
        finally:
            control.setblocking(False)

    def _hear_nursery(self) -> bool:
        """Takes what the nursery says; whether it is still there."""
        while True:
            try:
                message = self.nursery.control.recv(MESSAGE_MAX_BYTES)
            except BlockingIOError:
                return True
            except ConnectionResetError:
                # It ended without having read all; told before what it said last, and once.
                continue
            except OSError:
                message = b""
            if not message:
                return self.has_quit and not self.workers
            what, number, pid, status = MESSAGE.unpack_from(message)
            worker = self.workers.get(number)
            if what == READY:
                self.is_ready = True
            elif what == CANNOT_PREPARE:
                text = message[MESSAGE.size :].decode("utf-8", "replace")
                self.why = f"the workers cannot be started:\n{text}"
            elif worker is not None and what == STARTED:
                worker.pid = pid
            elif worker is not None and what == ENDED:
                worker.pid = pid
                self._bury(worker, status)
            elif worker is not None and what == CANNOT_FORK:
                self._bury(worker, None, f"no process could be had: {os.strerror(status)}")

    def _close(self, worker: _Worker) -> None:
        if worker.stream.fileno() >= 0:
            self.selector.unregister(worker.stream)
            worker.stream.close()
        worker.is_stopping = True
        if worker in self.idle:
            self.idle.remove(worker)

    def _bury(self, worker: _Worker, status: Optional[int], why: Optional[str] = None) -> None:
        """The worker has ended. Whatever it still said lies in its stream."""
        if worker.stream.fileno() >= 0:
            self._serve_to_the_end(worker)
        self._close(worker)
        del self.workers[worker.id]
        self._read_reports()
        report = worker.report or self.reports.pop(worker.pid, None)
        if why is None:
            assert status is not None
            why = _end_in_words(status)
        item, worker.item = worker.item, None
        if item is not None:
            if report is not None or (self.pool.copies and status == EXIT_OUT_OF_MEMORY << 8 and is_guarded_by_library()):
                self._out_of_memory(item, report, status)
            else:
                item.future.set_exception(BrokenProcessPool(f"the worker of this task has ended: {why}"))
        elif not worker.is_ready:
            self.false_starts += 1
            if self.false_starts >= _MOST_FALSE_STARTS or report is not None:
                self.why_memory = report
                self.why = f"a worker has ended before it could take a task: {_headline(report) or why}"

    def _serve_to_the_end(self, worker: _Worker) -> None:
        while worker.stream.fileno() >= 0:
            before = (worker.received, worker.header, worker.item, worker.is_ready, worker.report)
            self._serve(worker, selectors.EVENT_READ)
            if before == (worker.received, worker.header, worker.item, worker.is_ready, worker.report):
                return

    def _out_of_memory(self, item: _Item, report: Optional[Report], status: Optional[int]) -> None:
        limit = (report or {}).get("limit") or item.limit or resolve(self.pool.limit)[0]
        if item.tries <= self.pool.retries:
            had = item.limit or resolve(self.pool.limit)[0] or limit
            larger = next_limit(had, self.pool.grow, self.pool.max_limit)
            known = report or {}
            item.needs = (known.get("resident_peak") or 0) + (known.get("requested") or 0)
            if larger is None and (known.get("limit_source") == "budget" or known.get("cause") == "asked_to_leave"):
                # Others had it: with as much as before it can come about.
                larger = had
            if item.tries == self.pool.retries and larger is not None:
                # The last one is not to fail by what others have.
                item.needs = max(item.needs, larger)
            if larger is not None:
                item.limit = larger
                self._put_back(item)
                return
        code = EXIT_OUT_OF_MEMORY
        if status is not None and os.WIFEXITED(status):
            code = os.WEXITSTATUS(status)
        item.future.set_exception(OutOfMemory(report, limit, item.tries, code))

    def _read_reports(self) -> None:
        while True:
            try:
                part = os.read(self.nursery.reports, 1 << 16)
            except BlockingIOError:
                break
            if not part:
                break
            self.unread += part
        *lines, self.unread = self.unread.split(b"\n")
        for line in lines:
            try:
                report = json.loads(line)
                self.reports[report["pid"]] = report
            except (ValueError, TypeError, KeyError):
                pass

    def _break(self, why: str) -> None:
        """Nothing more can be done: every future that is open says so."""
        with self.pool.lock:
            if self.pool.broken is not None:
                return
            if self.nursery.process is not None and not self.is_ready:
                code = self.nursery.process.wait()
                self._read_reports()
                report = next(iter(self.reports.values()), None)
                why = f"{why} (exit code {code}{'; ' + _headline(report) if report else ''})"
                self.why_memory = self.why_memory or report
            self.pool.broken = why
            items = list(self.pool.pending)
            self.pool.pending.clear()
        items += [worker.item for worker in self.workers.values() if worker.item is not None]
        for worker in self.workers.values():
            worker.item = None
            if worker.pid and self.is_ready:
                try:
                    os.kill(worker.pid, signal.SIGTERM)
                except OSError:
                    pass
        for item in items:
            if not self._begin(item):
                continue
            error = BrokenProcessPool(why)
            if self.why_memory is not None:
                error.__cause__ = OutOfMemory(self.why_memory, self.why_memory.get("limit"))
            item.future.set_exception(error)


def _resident(pid: int) -> int:
    """Returns the bytes of a process that are its own."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"RssAnon:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 0


def _headline(report: Optional[Report]) -> str:
    return "" if report is None else str(OutOfMemory(report, report.get("limit")))


def _end_in_words(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"exit code {os.WEXITSTATUS(status)}"
    number = os.WTERMSIG(status)
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    hint = ", which may have been the kernel for want of memory" if number == signal.SIGKILL else ""
    return f"{name}{hint}"


__all__ = ["BrokenProcessPool", "ProcessPoolExecutor"]
