"""The keeper: the thread of the executor's process that does all that is done after `submit`.

It hands each idle worker one task, takes the answers, and learns of each death by the end of the worker's stream and of its
status from the nursery (see `_protocol`). Every task is at one place at any time: in `Pool.pending`, or at the one worker
that has it; so when a worker dies it is known whose task that was.
"""

from __future__ import annotations

import itertools
import json
import os
import pickle
import selectors
import signal
import socket
from collections import deque
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Deque, Dict, List, Optional, Tuple

from ._arm import is_guarded_by_library
from ._errors import EXIT_OUT_OF_MEMORY, OutOfMemory, Report
from ._limit import resolve
from ._nursery import Nursery
from ._pool import Item, KeeperThread, Pool
from ._protocol import Frame, Message, dumps, load_error, words_of
from ._run import next_limit

# So many workers in a row may end before they are ready, or not be forked at all.
_MOST_FALSE_STARTS = 5
# So many are started at a time: what they and the nursery say to each other meanwhile has room in their sockets.
_MOST_STARTING = 64
# How often it is looked whether a retry has room.
_LOOK_EVERY_S = 0.05


class _Worker:
    """A worker as the keeper sees it."""

    def __init__(self, number: int, stream: socket.socket) -> None:
        self.id = number
        self.stream = stream
        self.pid = 0
        self.item: Optional[Item] = None
        self.is_ready = False
        self.is_stopping = False
        self.tasks = 0
        # The limit that it was given for a task of its own; None: the pool's.
        self.limit: Optional[int] = None
        # Whether it has left unread what it was sent: its task was not begun.
        self.left_unread = False
        self.report: Optional[Report] = None
        # What its task raised, where it is for the library to say whether that is memory.
        self.error: Optional[BaseException] = None
        # What is being received: the header, then the body.
        self.header: Optional[Tuple[int, int, int, int]] = None
        self.buffer = bytearray(Frame.LAYOUT.size)
        self.received = 0
        # What could not be sent yet.
        self.unsent: Deque[memoryview] = deque()
        self.has_ended = False


def begin_to_keep(pool: Pool) -> None:
    """Starts the thread that keeps the workers of a pool at work. With the pool's lock held."""
    keeper = _Keeper(pool)
    thread = KeeperThread(target=keeper.run, name="oomguard-keeper")
    try:
        thread.start()
        pool.keeper, pool.thread = keeper, thread
    except BaseException:
        # Nobody would do what is submitted. A thread that runs all the same, as the wait for its start was
        # interrupted, finds that it is not wanted.
        pool.keeper = pool.thread = None
        pool.close()
        keeper.selector.close()
        keeper.nursery.close()
        keeper.nursery.wait(timeout=10)
        raise


class _Keeper:
    """The thread that keeps the workers at work."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.woken = pool.make_wakeable()
        try:
            self.nursery = Nursery(pool)
        except BaseException:
            pool.close()
            raise
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
        self.selector.register(self.woken, selectors.EVENT_READ, None)
        self.selector.register(self.nursery.control, selectors.EVENT_READ, None)
        try:
            while True:
                # It drops what was cancelled, and that may have been all that was left.
                self._hand_out()
                if self._is_done():
                    break
                for key, events in self.selector.select(_LOOK_EVERY_S if self.waits_for_room else None):
                    if key.data is not None:
                        self._serve(key.data, events)
                    elif key.fileobj is self.woken:
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
                self.woken.recv(64)
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
            self._tell(Message.QUIT, 0, None)
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
    def _begin(item: Item) -> bool:
        """Whether it is to be done: the first time that it is asked, it may have been cancelled."""
        if not item.is_running:
            item.is_running = item.future.set_running_or_notify_cancel()
        return item.is_running

    def _has_room(self, item: Item) -> bool:
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

    def _give(self, worker: _Worker, item: Item) -> None:
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
        self._send(worker, Frame.TASK, item.id, limit, body)

    def _send(self, worker: _Worker, what: int, task: int, limit: int, body: Any) -> None:
        header = Frame.LAYOUT.pack(what, task, limit, len(body))
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
            worker.left_unread = True
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.unsent else 0)
        if self.selector.get_key(worker.stream).events != events:
            self.selector.modify(worker.stream, events, worker)

    def _stop(self, worker: _Worker) -> None:
        if not worker.is_stopping:
            worker.is_stopping = True
            if worker in self.idle:
                self.idle.remove(worker)
            self._send(worker, Frame.STOP, 0, 0, b"")

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
                worker.left_unread = True
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
                worker.header = Frame.LAYOUT.unpack(worker.buffer)
                length = worker.header[3]
                try:
                    worker.buffer, worker.received = bytearray(length), 0
                except MemoryError as error:
                    self._give_up(worker, error)
                    return
                if length:
                    continue
            (what, task, _, _), body = worker.header, worker.buffer
            worker.header, worker.buffer, worker.received = None, bytearray(Frame.LAYOUT.size), 0
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
        if what == Frame.OUT_OF_MEMORY:
            # It ends now, and is done with then.
            worker.report = json.loads(bytes(body))
            return
        if what == Frame.LEAVES:
            worker.error = load_error(body)
            return
        if what == Frame.INITIALIZED:
            worker.is_ready = True
            self.false_starts = 0
            self._be_idle(worker)
            return
        if item is None:
            if what == Frame.ERROR and not worker.is_ready:
                error = load_error(body)
                self.why = f"the initializer raised {type(error).__name__}: {words_of(error)}\n{error.__cause__}"
            return
        if item.id != task:
            return
        worker.item = None
        if what == Frame.LIMIT_TOO_LOW:
            item.tries -= 1
            self._put_back(item)
            self._stop(worker)
            return
        # Before the result is told: whoever waits for it may look at what is left to do.
        self._be_idle(worker)
        if what == Frame.RESULT:
            try:
                result = pickle.loads(body)
            except BaseException as error:
                item.future.set_exception(error)
            else:
                item.future.set_result(result)
        elif what == Frame.ERROR:
            item.future.set_exception(load_error(body))

    def _be_idle(self, worker: _Worker) -> None:
        most = self.pool.max_tasks
        if most is not None and worker.tasks >= most:
            self._stop(worker)
        elif not worker.is_stopping:
            self.idle.append(worker)

    def _put_back(self, item: Item) -> None:
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
            self._tell(Message.START, worker.id, theirs.fileno())
        finally:
            theirs.close()

    def _tell(self, what: int, worker: int, fd: Optional[int]) -> None:
        message = Message.LAYOUT.pack(what, worker, 0, 0)
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
                message = self.nursery.control.recv(Message.MAX_BYTES)
            except BlockingIOError:
                return True
            except ConnectionResetError:
                # It ended without having read all; told before what it said last, and once.
                continue
            except OSError:
                message = b""
            if not message:
                return self.has_quit and not self.workers
            what, number, pid, status = Message.LAYOUT.unpack_from(message)
            worker = self.workers.get(number)
            if what == Message.READY:
                self.is_ready = True
            elif what == Message.CANNOT_PREPARE:
                text = message[Message.LAYOUT.size :].decode("utf-8", "replace")
                self.why = f"the workers cannot be started:\n{text}"
            elif worker is not None and what == Message.STARTED:
                worker.pid = pid
            elif worker is not None and what == Message.ENDED:
                worker.pid = pid
                self._bury(worker, status)
            elif worker is not None and what == Message.CANNOT_FORK:
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
            elif worker.left_unread and item.false_starts < _MOST_FALSE_STARTS:
                item.false_starts += 1
                item.tries -= 1
                self._put_back(item)
            else:
                item.future.set_exception(worker.error or BrokenProcessPool(f"the worker of this task has ended: {why}"))
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

    def _out_of_memory(self, item: Item, report: Optional[Report], status: Optional[int]) -> None:
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
