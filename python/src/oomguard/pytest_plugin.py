"""pytest --oomguard-limit 2Gi: the test that eats the memory is named, and fails; the others go on.

The process that runs tests is armed at its start. A test that is refused memory fails by its MemoryError, as ever. One that
does not survive it (C code that does not check) ends its process: with pytest-xdist that is a worker, which pytest-xdist
replaces, and the report names the test; without, the last line names it.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any, Iterator, Optional

import pytest

from . import _arm
from ._limit import size, text_of

_OPTION = "--oomguard-limit"


def pytest_addoption(parser: Any) -> None:
    group = parser.getgroup("oomguard", "memory limits")
    group.addoption(
        _OPTION,
        metavar="LIMIT",
        default=None,
        help="the most memory that a process of the tests may use: 2Gi, 512Mi, 80%%, auto; the test that takes more fails",
    )
    parser.addini("oomguard_limit", "as --oomguard-limit", default="")


def _limit(config: Any) -> Optional[str]:
    return config.getoption("oomguard_limit", None) or config.getini("oomguard_limit") or None


def pytest_configure(config: Any) -> None:
    limit = _limit(config)
    if limit is None:
        return
    try:
        text_of(limit, _OPTION)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    is_controller = not hasattr(config, "workerinput") and getattr(config.option, "dist", "no") != "no"
    if not is_controller:
        _arm.arm(limit)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: Any) -> Iterator[None]:
    if _limit(item.config) is None:
        yield
        return
    _arm.task(item.nodeid)
    try:
        yield
    finally:
        _arm.task(None)
        _let_go()


def _let_go() -> None:
    """What the test held is held by its traceback, too, which pytest keeps for debuggers: the next test needs it."""
    last = getattr(sys, "last_value", None)
    if isinstance(last, BaseException) and _arm.comes_from_memory(last):
        for one in _arm.chain(last):
            traceback.clear_frames(one.__traceback__)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Iterator[None]:
    outcome: Any = yield
    if _limit(item.config) is None or call.excinfo is None:
        return
    if _arm.comes_from_memory(call.excinfo.value):
        report = outcome.get_result()
        status = _arm.status()
        limit = "no limit" if status.limit is None else f"the limit is {size(status.limit)} of {status.measure}"
        report.sections.append(
            ("oomguard", f"out of memory: {item.nodeid} (pid {os.getpid()}) could not go on; {limit}")
        )


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: Any, sched: Any) -> None:
    """pytest-xdist: the worker that ran this test is gone."""
    del sched
    report.longrepr = f"{report.longrepr}\n{crashitem} may have run out of memory: see the lines of oomguard on stderr"
