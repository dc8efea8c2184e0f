"""How a command ended."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, List, Mapping, Optional

from ._errors import EXIT_CANNOT_GUARD, Report, headline


@dataclass(frozen=True)
class Outcome:
    """How a command ended, as the launcher saw it.

    `kind` is "success", "out_of_memory", "oom_killed" (by the kernel), "exited", "signaled" or "cannot_start".
    """

    kind: str
    exit_code: Optional[int]
    signal: Optional[int] = None
    report: Optional[Report] = None
    limit: Optional[int] = None
    measure: Optional[str] = None
    pid: Optional[int] = None
    error: Optional[str] = None
    resident_peak: Optional[int] = None
    ran_for_ms: Optional[int] = None
    refusals: Optional[int] = None
    descendants: List[Any] = field(default_factory=list)
    #: All that the launcher said (`oomguard run --json`).
    told: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_out_of_memory(self) -> bool:
        """Whether the command reached its own limit."""
        return self.kind == "out_of_memory"

    def __str__(self) -> str:
        if self.report is not None:
            return headline(self.report)
        if self.kind == "signaled":
            return f"signal {self.signal}"
        return self.error or (f"exit code {self.exit_code}" if self.kind == "exited" else self.kind.replace("_", " "))


def read_outcome(line: bytes, returncode: int) -> Outcome:
    """Returns the outcome that the launcher told; where it was killed before it could, what its own end says."""
    try:
        told = json.loads(line)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        if returncode < 0:
            return Outcome("signaled", 128 - returncode, signal=-returncode)
        kind = "success" if returncode == 0 else "cannot_start" if returncode == EXIT_CANNOT_GUARD else "exited"
        return Outcome(kind, returncode)
    return Outcome(
        kind=str(told.get("outcome")),
        exit_code=told.get("exit_code"),
        signal=told.get("signal"),
        report=told.get("report"),
        limit=told.get("limit"),
        measure=told.get("measure"),
        pid=told.get("pid"),
        error=told.get("error"),
        resident_peak=told.get("resident_peak"),
        ran_for_ms=told.get("ran_for_ms"),
        refusals=told.get("refusals"),
        descendants=told.get("descendants") or [],
        told=told,
    )
