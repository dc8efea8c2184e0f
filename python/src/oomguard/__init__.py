"""Run out of memory on your own terms: a command, a task or this process reaches its own limit, says so, and ends with 198,
before the kernel kills the whole container.

    import oomguard
    done = oomguard.run(["./report.sh"], limit="512Mi", retries=2, grow=2.0)
    with oomguard.ProcessPoolExecutor(max_workers=4, limit="400Mi") as pool: ...
    oomguard.arm("512Mi")
"""

from typing import TYPE_CHECKING, Any, List

from ._arm import Status, arm, set_limit, status, task
from ._errors import EXIT_CANNOT_GUARD, EXIT_OUT_OF_MEMORY, CannotGuard, OutOfMemory

if TYPE_CHECKING:
    from ._executor import BrokenProcessPool, ProcessPoolExecutor
    from ._launcher import launcher
    from ._outcome import Outcome
    from ._run import Popen, run

__version__ = "0.1.0"

__all__ = [
    "EXIT_CANNOT_GUARD",
    "EXIT_OUT_OF_MEMORY",
    "BrokenProcessPool",
    "CannotGuard",
    "OutOfMemory",
    "Outcome",
    "Popen",
    "ProcessPoolExecutor",
    "Status",
    "arm",
    "launcher",
    "run",
    "set_limit",
    "status",
    "task",
]

# A worker that is armed, or forked, has no use for these and what they import: they come when they are asked for.
_WHERE = {
    "BrokenProcessPool": "_executor",
    "Outcome": "_outcome",
    "Popen": "_run",
    "ProcessPoolExecutor": "_executor",
    "launcher": "_launcher",
    "run": "_run",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(f".{_WHERE[name]}", __name__), name)
    return found


def __dir__() -> List[str]:
    return sorted({*globals(), *_WHERE})
