"""What a type checker knows of a user's program. `python/tests/run` has mypy read it; nothing runs it."""

from concurrent.futures import Future
from subprocess import CompletedProcess
from typing import Any, Dict, Iterator, Optional

from typing_extensions import assert_type

import oomguard


def work(item: str, times: int = 1) -> int:
    return len(item) * times


def pools() -> None:
    with oomguard.ProcessPoolExecutor(max_workers=4, limit="400Mi", budget="auto", retries=1) as pool:
        assert_type(pool.submit(work, "a", times=2), "Future[int]")
        assert_type(pool.map(work, ["a", "b"]), Iterator[int])
        pool.submit(work, 5)  # type: ignore[arg-type]
        pool.submit(work, "a", often=2)  # type: ignore[call-arg]


def commands() -> None:
    assert_type(oomguard.run(["./report.sh"], limit="512Mi", retries=2).returncode, int)
    assert_type(oomguard.run(["date"], limit="1Gi", text=True), "CompletedProcess[str]")
    assert_type(oomguard.run(["date"], input="x", encoding="utf-8"), "CompletedProcess[str]")
    assert_type(oomguard.run(["date"], universal_newlines=True), "CompletedProcess[str]")
    assert_type(oomguard.run(["date"], input=b"x", cwd="/", measure="data"), "CompletedProcess[bytes]")
    oomguard.run(["date"], text=True, input=b"x", limit=0.5)  # type: ignore[call-overload]
    outcome = oomguard.Popen(["./report.sh"], limit="512Mi").outcome
    assert_type(outcome, Optional[oomguard.Outcome])
    error = oomguard.OutOfMemory()
    assert_type(error.report, Optional[Dict[str, Any]])
    assert_type(error.limit, Optional[int])


def here() -> None:
    oomguard.arm("512Mi")
    oomguard.arm(0.5)  # type: ignore[arg-type]
    assert_type(oomguard.status().headroom, Optional[int])
