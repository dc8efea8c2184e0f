"""The launcher that this package carries, and how it is told what to do."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from typing import Any, Dict, List, NoReturn, Optional, Sequence

from ._errors import CannotGuard
from ._limit import text_of

_CARRIED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bin", "oomguard")


def launcher() -> str:
    """Returns the path of the launcher: the one in this package, else the first `oomguard` in PATH that is a program."""
    if os.access(_CARRIED, os.X_OK):
        return _CARRIED
    # In a source tree: a build of it. The console script of this package would only come back here.
    scripts = os.path.dirname(sys.executable)
    for directory in os.get_exec_path():
        found = shutil.which("oomguard", path=directory)
        if found and os.path.realpath(directory) != os.path.realpath(scripts):
            return found
    raise FileNotFoundError(f"the launcher is not in this package ({_CARRIED}), nor in PATH: install a wheel of oomguard")


# What `oomguard run` can be told beside the limit and the retries, by our name of it.
_WORDS = ("measure", "patience", "exit_code", "on_refusal", "verdict", "stall", "report", "postmortem")
_FLAGS = (
    "any_descendant",
    "die_with_parent",
    "hard",
    "no_infer",
    "no_inherit",
    "no_preload",
    "hints",
    "exit_on_uncaught",
    "quiet",
)
OPTIONS = frozenset(_WORDS + _FLAGS)


def take_options(named: Dict[str, Any]) -> Dict[str, Any]:
    """Takes the launcher's options out of keyword arguments, of which the rest is for somebody else."""
    return {name: named.pop(name) for name in list(named) if name in OPTIONS}


@functools.lru_cache(maxsize=None)
def _help(path: str) -> str:
    return subprocess.run([path, "run", "--help"], stdout=subprocess.PIPE, check=True).stdout.decode()


def require_options(*names: str) -> None:
    """Raises CannotGuard where the launcher is one that does not know these options."""
    for name in names:
        option = "--" + name.replace("_", "-")
        if re.search(rf"{option}\b(?!-)", _help(launcher())) is None:
            raise CannotGuard(f"{launcher()} does not know {option}: a newer one is needed")


@functools.lru_cache(maxsize=None)
def library_for(python: str) -> str:
    """Returns what LD_PRELOAD has to be for this Python to have the library in it; empty where it cannot have it."""
    tells = "import os; print(os.environ.get('LD_PRELOAD', ''), end='')"
    # It lasts no longer than the answer: no limit is needed, and nothing is to be said about that.
    command = [launcher(), "run", "--limit=off", "--quiet", "--", python, "-S", "-E", "-c", tells]
    told = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False).stdout
    # A file that the launcher could keep in its own memory only is gone with it.
    return "" if told.startswith(b"/proc/") else os.fsdecode(told)


def command_line(
    command: Sequence[Any],
    *,
    limit: Optional[Any] = None,
    budget: Optional[Any] = None,
    options: Optional[Dict[str, Any]] = None,
    json_to: Optional[int] = None,
    report_to: Optional[int] = None,
) -> List[Any]:
    """Returns the command that runs `command` under the launcher."""
    words: List[Any] = [launcher(), "run"]
    if limit is not None:
        words.append(f"--limit={text_of(limit)}")
    if budget is not None:
        require_options("budget")
        words.append(f"--budget={text_of(budget, 'budget')}")
    for name, value in (options or {}).items():
        option = "--" + name.replace("_", "-")
        if name in _FLAGS:
            if value:
                words.append(option)
        elif value is not None:
            words.append(f"{option}={os.fspath(value) if name in ('report', 'postmortem') else value}")
    if json_to is not None:
        words.append(f"--json=fd:{json_to}")
    if report_to is not None:
        words.append(f"--report=fd:{report_to}")
    return [*words, "--", *command]


def execute(arguments: Optional[Sequence[str]] = None) -> NoReturn:
    """Becomes the launcher: `python -m oomguard`, and the console script."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os.execv(launcher(), ["oomguard", *words])
