"""What is raised where memory ran out, and where nobody could guard it."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

from ._limit import size

#: The exit code that means out of memory, unless OOMGUARD_EXIT_CODE says otherwise.
EXIT_OUT_OF_MEMORY = 198
#: The exit code of a guard or launcher that could not do its job.
EXIT_CANNOT_GUARD = 125

Report = Dict[str, Any]


class OutOfMemory(Exception):
    """A command or a task reached its own memory limit and could not go on.

    Attributes:
        report: The report, a dict with the keys of OOMGUARD_REPORT, or None where there is none.
        limit: The limit of the last try in bytes, or None where it is not known.
        tries: How many tries there were.
        returncode: The exit code of the process that ended.
        cmd: The command, where it was one.
        stdout, output, stderr: What was captured of it, as in subprocess.CalledProcessError.
    """

    def __init__(
        self,
        report: Optional[Report] = None,
        limit: Optional[int] = None,
        tries: int = 1,
        returncode: int = EXIT_OUT_OF_MEMORY,
        *,
        cmd: Any = None,
        output: Any = None,
        stderr: Any = None,
    ) -> None:
        super().__init__(report, limit, tries, returncode)
        self.report = report
        self.limit = limit
        self.tries = tries
        self.returncode = returncode
        self.cmd = cmd
        self.output = output
        self.stderr = stderr

    @property
    def stdout(self) -> Any:
        """The same as `output`."""
        return self.output

    def __str__(self) -> str:
        line = headline(self.report) if self.report else "out of memory"
        if self.limit is not None and not (self.report and self.report.get("limit")):
            line += f"; limit {size(self.limit)}"
        return line if self.tries == 1 else f"{line}; {self.tries} tries"

    def __reduce__(self) -> Any:
        given = (self.report, self.limit, self.tries, self.returncode)
        return _out_of_memory, (type(self), given, {"cmd": self.cmd, "output": self.output, "stderr": self.stderr})


# What is kept of it elsewhere, such as in Celery's results, names the package.
OutOfMemory.__module__ = "oomguard"


def _out_of_memory(kind: Any, given: Any, named: Dict[str, Any]) -> OutOfMemory:
    made: OutOfMemory = kind(*given, **named)
    return made


class CannotGuard(RuntimeError):
    """The launcher could not do its job: nothing ran, or the limit was too small to start with."""


def headline(report: Mapping[str, Any]) -> str:
    """Returns what a report says, in one line without its prefix."""
    line = f"out of memory: {report.get('program')} (pid {report.get('pid')})"
    if report.get("token"):
        line += f" at {report['token']}"
    if report.get("thread"):
        line += f" in thread {report['thread']}"
    cause = report.get("cause")
    line += {
        "thread": " could not start a thread",
        "stack": " could not grow its stack",
        "resident": " went over its limit, with memory that it had mapped before",
        "asked_to_leave": " was asked to leave, before the container overflowed",
    }.get(str(cause), " could not go on")
    if report.get("requested") is not None:
        line += f" without {report['requested']} bytes more"
    if report.get("limit") is not None:
        line += f"; limit {size(report['limit'])} of {str(report.get('measure')).replace('_', '-')}"
    return line
