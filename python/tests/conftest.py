"""What the tests share. Everything is tried with the package as it is installed, from processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

# However slow the machine is.
DEADLINE_S = 120


class Ended:
    """How a script ended, and what it said."""

    def __init__(self, code: int, stdout: str, stderr: str, reports: List[Dict[str, Any]]) -> None:
        self.code, self.stdout, self.stderr, self.reports = code, stdout, stderr, reports

    def __repr__(self) -> str:
        return f"exit code {self.code}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}\n--- reports {self.reports}"


@pytest.fixture
def script(tmp_path: Path) -> Any:
    """Runs a Python program, with OOMGUARD_REPORT set to a file."""

    def run_script(source: str, *words: str, env: Optional[Dict[str, str]] = None, before: Any = ()) -> Ended:
        path = tmp_path / "program.py"
        path.write_text(source)
        report = tmp_path / "report.json"
        report.unlink(missing_ok=True)
        done = subprocess.run(
            [*before, sys.executable, str(path), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE_S,
            cwd=tmp_path,
            env={**os.environ, "OOMGUARD_REPORT": str(report), **(env or {})},
        )
        lines = report.read_text().splitlines() if report.exists() else []
        return Ended(done.returncode, done.stdout, done.stderr, [json.loads(line) for line in lines])

    return run_script


KEYS = (
    "oomguard event cause pid tid program thread requested align limit limit_source measure address_space data resident "
    "resident_peak heap_live heap_peak refusals exit_code uptime_ms token evidence own_exit_code own_signal budget "
    "budget_used waited_ms"
).split()
