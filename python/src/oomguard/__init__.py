"""Run out of memory on your own terms: a command, a task or this process reaches its own limit, says so, and ends with 198,
before the kernel kills the whole container.

    import oomguard
    done = oomguard.run(["./report.sh"], limit="512Mi", retries=2, grow=2.0)
    with oomguard.ProcessPoolExecutor(max_workers=4, limit="400Mi") as pool: ...
    oomguard.arm("512Mi")
"""

from ._arm import Status, arm, set_limit, status, task
from ._executor import BrokenProcessPool, ProcessPoolExecutor
from ._launcher import launcher
from ._outcome import EXIT_CANNOT_GUARD, EXIT_OUT_OF_MEMORY, CannotGuard, OutOfMemory, Outcome
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
