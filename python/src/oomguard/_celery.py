"""Celery, where `arm` is called in a process of its pool.

A task that fails by a MemoryError is told to Celery's main process as it is, and that raises it again, in its own loop, and
hangs: it takes it for its own. So it is told as what it is: `OutOfMemory`, with the report. Within the task it stays a
MemoryError (`autoretry_for=(MemoryError,)`), and the process goes on with the next task. One that the task has raised by
itself is told as a `TaskMemoryError`, with its words: nothing was refused.
"""

from __future__ import annotations

import sys
import threading
from typing import Any, Callable

from ._errors import OutOfMemory


class TaskMemoryError(Exception):
    """A MemoryError that a task has raised for reasons of its own."""


def adapt(compose_report: Callable[[], Any], comes_from_memory: Callable[[Any], bool]) -> None:
    """Makes Celery's tracer, if it is there, say so."""
    trace: Any = sys.modules.get("celery.app.trace")
    if trace is None or getattr(trace, "_oomguard", False):
        return
    exception_as_it_was = getattr(trace, "get_pickleable_exception", None)
    type_as_it_was = getattr(trace, "get_pickleable_etype", None)
    if exception_as_it_was is None or type_as_it_was is None:
        return

    # The tracer asks for the exception, and then for its type; there may be several, each in a thread.
    last = threading.local()

    def get_pickleable_exception(exception: Any) -> Any:
        if not isinstance(exception, MemoryError):
            return exception_as_it_was(exception)
        if comes_from_memory(exception):
            report = compose_report()
            told: Exception = OutOfMemory(report, report["limit"], 1, report["exit_code"])
        else:
            told = TaskMemoryError(*map(str, exception.args))
        told.__traceback__ = exception.__traceback__
        last.type = type(told)
        return told

    def get_pickleable_etype(kind: Any, *rest: Any, **named: Any) -> Any:
        return getattr(last, "type", OutOfMemory) if issubclass(kind, MemoryError) else type_as_it_was(kind, *rest, **named)

    trace.get_pickleable_exception = get_pickleable_exception
    trace.get_pickleable_etype = get_pickleable_etype
    trace._oomguard = True
