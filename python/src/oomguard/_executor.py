"""`ProcessPoolExecutor`: as in concurrent.futures, where a task that runs out of memory fails alone."""

from __future__ import annotations

import functools
import itertools
import os
import sys
import threading
import weakref
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, List, Optional, Tuple, TypeVar

from ._keeper import begin_to_keep
from ._launcher import require_options
from ._limit import Limit, text_of
from ._pool import Pool
from ._run import check_retry

if TYPE_CHECKING:
    # Type checkers have it; nobody else needs it.
    from typing_extensions import ParamSpec

    _Given = ParamSpec("_Given")
_Result = TypeVar("_Result")

# What `oomguard run` can be told that makes sense for workers.
_OPTIONS = ("measure", "patience", "on_refusal", "stall")


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
        max_limit: The largest limit to retry with. Default: the budget, 90 % of the container's limit, or the
            machine's memory.

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
        if budget is not None:
            text_of(budget, "budget")
            require_options("budget")
        base = text_of(limit if limit is not None else budget if budget is not None else "auto")
        copies = _makes_copies(mp_context)
        if copies and budget is not None:
            if mp_context is not None:
                raise ValueError('budget= needs workers that begin anew: mp_context "spawn" or "forkserver", or none')
            copies = False
        self._pool = Pool(
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
        _at_exit.add(self._pool)
        # Whoever lets go of it without shutdown() has what was submitted done, and then the workers end.
        self._finalizer = weakref.finalize(self, Pool.begin_shutdown, self._pool, False)
        self._finalizer.atexit = False

    def submit(
        self, fn: "Callable[_Given, _Result]", /, *args: "_Given.args", **kwargs: "_Given.kwargs"
    ) -> "Future[_Result]":
        """Has `fn(*args, **kwargs)` done by a worker; returns its future."""
        pool = self._pool
        with pool.lock:
            if pool.broken is not None:
                raise BrokenProcessPool(pool.broken)
            if pool.is_shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if _at_exit.has_begun:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            if pool.thread is None:
                # Workers are forked or executed by the thread that submits, before the keeper is there.
                begin_to_keep(pool)
            return pool.put((fn, args, kwargs))

    def map(
        self,
        fn: Callable[..., _Result],
        *iterables: Iterable[Any],
        timeout: Optional[float] = None,
        chunksize: int = 1,
        **named: Any,
    ) -> Iterator[_Result]:
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


class _AtExit:
    """Has the interpreter wait for what was submitted before it ends, as concurrent.futures has it."""

    def __init__(self) -> None:
        self.has_begun = False
        self._pools: "weakref.WeakSet[Pool]" = weakref.WeakSet()
        # Before the interpreter waits for its threads, of which the keepers are some.
        threading._register_atexit(self._run)  # type: ignore[attr-defined]
        os.register_at_fork(after_in_child=self._begin_anew)

    def _begin_anew(self) -> None:
        for pool in list(self._pools):
            pool.begin_anew()

    def add(self, pool: Pool) -> None:
        self._pools.add(pool)

    def _run(self) -> None:
        self.has_begun = True
        pools = list(self._pools)
        for pool in pools:
            pool.begin_shutdown(False)
        for pool in pools:
            pool.join()


_at_exit = _AtExit()


__all__ = ["BrokenProcessPool", "ProcessPoolExecutor"]
