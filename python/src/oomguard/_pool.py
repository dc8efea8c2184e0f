"""What an executor and its keeper share: the tasks that nobody has begun, and whether more will come."""

from __future__ import annotations

import functools
import itertools
import logging
import socket
import threading
from collections import deque
from concurrent.futures import Future
from typing import Any, Callable, Deque, Dict, Optional

from ._limit import Limit

# Where concurrent.futures says what went wrong in callbacks.
_logger = logging.getLogger("concurrent.futures")


class KeeperThread(threading.Thread):
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
        if not isinstance(threading.current_thread(), KeeperThread):
            # It is of a thread of the user's, who cancels the future or adds a callback to one that is done.
            raise
        _logger.exception("exception calling callback for %r", future)


class Item:
    """A task, and how far it has come."""

    __slots__ = ("call", "false_starts", "future", "id", "is_running", "limit", "needs", "tries")

    def __init__(self, number: int, call: Any) -> None:
        self.id = number
        self.call = call
        self.future: "Future[Any]" = _Future()
        # From its first try on, whatever comes of that: it cannot be cancelled any more.
        self.is_running = False
        self.tries = 0
        # How often a worker that was given it has ended before it read that.
        self.false_starts = 0
        # In bytes; None: what every worker has.
        self.limit: Optional[int] = None
        # What the try that was refused held, and asked for: in a budget, the next one starts when so much is free.
        self.needs = 0


class Pool:
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
        self.numbers = itertools.count()
        self.is_shut = False
        self.cancels = False
        self.broken: Optional[str] = None
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forgets what is done by a keeper. So does a forked child, which has none: it may have been forked while others
        held the lock."""
        # Again and again by one thread: an executor that nobody has any more may be finalized in the midst of anything.
        self.lock = threading.RLock()
        self.pending: Deque[Item] = deque()
        # Who keeps its workers at work, and the thread that does so: none before the first task.
        self.keeper: Optional[object] = None
        self.thread: Optional[threading.Thread] = None
        self.is_woken = False
        self.wakes: Optional[socket.socket] = None
        self.woken: Optional[socket.socket] = None

    def most(self) -> Limit:
        """The largest limit that a worker may come to have."""
        if self.retries == 0:
            return self.limit
        return self.max_limit if self.max_limit is not None else "off"

    def put(self, call: Any) -> "Future[Any]":
        """Takes one task more. With the lock held."""
        item = Item(next(self.numbers), call)
        self.pending.append(item)
        self.wake()
        return item.future

    def make_wakeable(self) -> socket.socket:
        """Returns what the keeper is woken by. With the lock held."""
        self.wakes, self.woken = socket.socketpair()
        self.wakes.setblocking(False)
        self.woken.setblocking(False)
        return self.woken

    def wake(self) -> None:
        """Has the keeper look. With the lock held."""
        if self.wakes is not None and not self.is_woken:
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

    def close(self) -> None:
        """Nobody is woken any more. With the lock held."""
        for one in (self.wakes, self.woken):
            if one is not None:
                one.close()
        self.wakes = self.woken = None
        self.is_woken = False

    def join(self) -> None:
        if self.thread is not None:
            self.thread.join()
