"""`run` and `Popen`: as in subprocess, under a memory limit.

The launcher is put before the command. How the command ended comes by a file in memory that only the launcher writes to
(`--json=fd:N`), and never from stderr, which is the command's.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import time
from typing import Any, Dict, Iterable, List, Literal, Optional, Sequence, Tuple, Union, overload

from ._errors import CannotGuard, OutOfMemory
from ._launcher import command_line, take_options
from ._limit import Limit, machine_memory, resolve, text_of
from ._outcome import Outcome, read_outcome

Command = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]", Sequence[Any]]

# The launcher's exit codes for a command that cannot be executed, and one that is not there.
_ERRORS = {126: errno.EACCES, 127: errno.ENOENT}

# The arguments of subprocess.Popen that may be given by place, in their order.
_BY_PLACE = (
    "bufsize executable stdin stdout stderr preexec_fn close_fds shell cwd env universal_newlines startupinfo "
    "creationflags restore_signals start_new_session pass_fds"
).split()


class Popen(subprocess.Popen[Any]):
    """As subprocess.Popen, for a command with a memory limit.

    Takes what subprocess.Popen takes, and by name:
        limit: The most that each process of the command may use: bytes, "512Mi", "80%", "auto" (the default) or "off".
        budget: What the command and all that it starts may use together.
        measure, patience, exit_code, on_refusal, verdict, stall, report, postmortem, any_descendant, die_with_parent, hard,
        hints, no_infer, no_inherit, no_preload, exit_on_uncaught, quiet: As the options of `oomguard run`.

    `pid` is the launcher's, which passes every signal on; `outcome.pid` is the command's. `returncode` is the command's:
    198 where memory ran out, negative where a signal ended it.
    """

    _code: Optional[int] = None
    _told: Optional[int] = None
    _outcome: Optional[Outcome] = None

    def __init__(
        self,
        args: Command,
        *by_place: Any,
        limit: Optional[Limit] = None,
        budget: Optional[Limit] = None,
        **named: Any,
    ) -> None:
        if len(by_place) > len(_BY_PLACE):
            raise TypeError(f"Popen takes {1 + len(_BY_PLACE)} arguments by place, and was given {1 + len(by_place)}")
        for name, value in zip(_BY_PLACE, by_place):
            if name in named:
                raise TypeError(f"Popen was given {name} by place and by name")
            named[name] = value
        options = take_options(named)
        command = _command(args, named.pop("shell", False), named.pop("executable", None))
        self._program = command[0]
        _check_that_it_can_run(self._program, named.get("cwd"), named.get("env"))
        told = file_in_memory()
        try:
            # The launcher writes through it; the command has it, too, and no use for it.
            if named.get("close_fds", True) or named.get("pass_fds"):
                named["pass_fds"] = (*(named.get("pass_fds") or ()), told)
            else:
                os.set_inheritable(told, True)
            words = command_line(command, limit=limit, budget=budget, options=options, json_to=told)
            super().__init__(words, **named)
            self._told = told
        except BaseException:
            os.close(told)
            raise
        self.args = args

    # subprocess stores the launcher's code here, in whichever way it learns of it; from then on it is the command's.
    @property
    def returncode(self) -> Any:
        """How the command ended, as subprocess says it, or None."""
        return self._code

    @returncode.setter
    def returncode(self, code: Any) -> None:
        if code is not None and self._outcome is None:
            self._outcome = self._read_outcome(code)
            if self._outcome.signal is not None:
                code = -self._outcome.signal
        self._code = code

    @property
    def outcome(self) -> Optional[Outcome]:
        """How the command ended and why, once `poll` or `wait` has seen its end; None before."""
        return self._outcome

    def _read_outcome(self, code: int) -> Outcome:
        told, self._told = self._told, None
        if told is None:
            return read_outcome(b"", code)
        try:
            parts: List[bytes] = []
            while True:
                part = os.pread(told, 1 << 16, sum(map(len, parts)))
                if not part:
                    break
                parts.append(part)
            return read_outcome(b"".join(parts), code)
        finally:
            os.close(told)

    def __del__(self, *rest: Any, **named: Any) -> None:
        super().__del__(*rest, **named)
        told, self._told = self._told, None
        if told is not None:
            os.close(told)


# As subprocess.run has it: text where that is asked for, and bytes where nothing is said.
@overload
def run(
    *popenargs: Any,
    text: Literal[True],
    input: Optional[str] = ...,
    capture_output: bool = ...,
    timeout: Optional[float] = ...,
    check: bool = ...,
    limit: Optional[Limit] = ...,
    budget: Optional[Limit] = ...,
    retries: int = ...,
    grow: float = ...,
    max_limit: Optional[Limit] = ...,
    **kwargs: Any,
) -> "subprocess.CompletedProcess[str]": ...


@overload
def run(
    *popenargs: Any,
    encoding: str,
    input: Optional[str] = ...,
    capture_output: bool = ...,
    timeout: Optional[float] = ...,
    check: bool = ...,
    limit: Optional[Limit] = ...,
    budget: Optional[Limit] = ...,
    retries: int = ...,
    grow: float = ...,
    max_limit: Optional[Limit] = ...,
    **kwargs: Any,
) -> "subprocess.CompletedProcess[str]": ...


@overload
def run(
    *popenargs: Any,
    universal_newlines: Literal[True],
    input: Optional[str] = ...,
    capture_output: bool = ...,
    timeout: Optional[float] = ...,
    check: bool = ...,
    limit: Optional[Limit] = ...,
    budget: Optional[Limit] = ...,
    retries: int = ...,
    grow: float = ...,
    max_limit: Optional[Limit] = ...,
    **kwargs: Any,
) -> "subprocess.CompletedProcess[str]": ...


@overload
def run(
    *popenargs: Any,
    text: Optional[Literal[False]] = ...,
    encoding: None = ...,
    errors: None = ...,
    universal_newlines: Optional[Literal[False]] = ...,
    input: Optional[Union[bytes, bytearray, memoryview]] = ...,
    capture_output: bool = ...,
    timeout: Optional[float] = ...,
    check: bool = ...,
    limit: Optional[Limit] = ...,
    budget: Optional[Limit] = ...,
    retries: int = ...,
    grow: float = ...,
    max_limit: Optional[Limit] = ...,
    **kwargs: Any,
) -> "subprocess.CompletedProcess[bytes]": ...


@overload
def run(
    *popenargs: Any,
    input: Any = ...,
    capture_output: bool = ...,
    timeout: Optional[float] = ...,
    check: bool = ...,
    limit: Optional[Limit] = ...,
    budget: Optional[Limit] = ...,
    retries: int = ...,
    grow: float = ...,
    max_limit: Optional[Limit] = ...,
    **kwargs: Any,
) -> "subprocess.CompletedProcess[Any]": ...


def run(
    *popenargs: Any,
    input: Any = None,
    capture_output: bool = False,
    timeout: Optional[float] = None,
    check: bool = False,
    limit: Optional[Limit] = None,
    budget: Optional[Limit] = None,
    retries: int = 0,
    grow: float = 2.0,
    max_limit: Optional[Limit] = None,
    **kwargs: Any,
) -> "subprocess.CompletedProcess[Any]":
    """As subprocess.run, for a command with a memory limit.

    Args:
        limit: The most that each process of the command may use: bytes, "512Mi", "80%", "auto" (the default) or "off".
        budget: What the command and all that it starts may use together.
        retries: How often the command is started again when it ran out of memory.
        grow: What the limit is multiplied by for each retry; above 1.
        max_limit: The largest limit to retry with. Default: 90 % of the container's limit, or the machine's memory.
        timeout: Of all tries together.

    Every other argument is that of `Popen`. A retry finds `input` as the first try did, and a file that was given as
    stdin where it stood; what is captured is that of the last try.

    Raises:
        OutOfMemory: The last try ran out of memory, whatever `check` says.
        CannotGuard: The launcher could not do its job.
        subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError: As subprocess.run.
    """
    if input is not None and kwargs.get("stdin") is not None:
        raise ValueError("stdin and input arguments may not both be used.")
    if capture_output and (kwargs.get("stdout") is not None or kwargs.get("stderr") is not None):
        raise ValueError("stdout and stderr arguments may not be used with capture_output.")
    check_retry(retries, grow, max_limit)
    if capture_output:
        kwargs["stdout"] = kwargs["stderr"] = subprocess.PIPE
    if input is not None:
        kwargs["stdin"] = subprocess.PIPE
    until = None if timeout is None else time.monotonic() + timeout
    stdin = _Stdin(kwargs.get("stdin"))
    tries, this_limit = 0, limit
    while True:
        tries += 1
        left = None if until is None else max(until - time.monotonic(), 0.0)
        process, stdout, stderr = _run_once(popenargs, input, left, timeout, this_limit, budget, kwargs)
        outcome = process.outcome
        assert outcome is not None
        if outcome.kind == "cannot_start":
            if process.returncode in _ERRORS:
                # Of another user, or for another interpreter: what could not be seen before.
                number = _ERRORS[process.returncode]
                raise OSError(number, os.strerror(number), os.fsdecode(process._program))
            raise CannotGuard(outcome.error or "the launcher could not do its job; see stderr")
        if not outcome.is_out_of_memory:
            break
        larger = next_limit(outcome.limit, grow, max_limit) if tries <= retries else None
        if larger is None:
            raise OutOfMemory(
                outcome.report,
                outcome.limit,
                tries,
                process.returncode,
                cmd=process.args,
                output=stdout,
                stderr=stderr,
            )
        this_limit = larger
        stdin.rewind()
    if check and process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args, output=stdout, stderr=stderr)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def _run_once(
    popenargs: Tuple[Any, ...],
    input: Any,
    left: Optional[float],
    timeout: Optional[float],
    limit: Optional[Limit],
    budget: Optional[Limit],
    kwargs: Dict[str, Any],
) -> Tuple[Popen, Any, Any]:
    # As subprocess.run does it.
    with Popen(*popenargs, limit=limit, budget=budget, **kwargs) as process:
        try:
            stdout, stderr = process.communicate(input, timeout=left)
        except subprocess.TimeoutExpired as expired:
            process.kill()
            process.wait()
            if timeout is not None:
                expired.timeout = timeout
            raise
        except BaseException:
            process.kill()
            raise
        process.wait()
    return process, stdout, stderr


def check_retry(retries: int, grow: float, max_limit: Optional[Limit]) -> None:
    """Raises ValueError where there can be no such retries."""
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise ValueError(f"retries is {retries!r}; accepted: 0, 1, 2 …")
    if not grow > 1:
        raise ValueError(f"grow is {grow!r}; accepted: a number above 1")
    if max_limit is not None:
        text_of(max_limit, "max_limit")


def next_limit(limit: Optional[int], grow: float, max_limit: Optional[Limit]) -> Optional[int]:
    """Returns the limit of the next try, or None where more cannot be had."""
    if limit is None:
        return None
    most = resolve("auto" if max_limit is None else max_limit)[0]
    if most is None:
        most = machine_memory()
    larger = min(int(limit * grow), most)
    return larger if larger > limit else None


class _Stdin:
    """A file that each try is to find where the first one did."""

    def __init__(self, stdin: Any) -> None:
        self._fd: Optional[int] = None
        try:
            fd = stdin if isinstance(stdin, int) else stdin.fileno() if stdin is not None else 0
            if fd >= 0 and stat.S_ISREG(os.fstat(fd).st_mode):
                self._at = os.lseek(fd, 0, os.SEEK_CUR)
                self._fd = fd
        except (OSError, AttributeError, ValueError):
            pass

    def rewind(self) -> None:
        if self._fd is not None:
            os.lseek(self._fd, self._at, os.SEEK_SET)


def _command(args: Command, shell: bool, executable: Any) -> List[Any]:
    if isinstance(args, (str, bytes, os.PathLike)):
        if shell and isinstance(args, os.PathLike):
            raise TypeError("path-like args is not allowed when shell is true")
        words: List[Any] = [os.fspath(args)]
    else:
        words = list(args)
    if shell:
        words = ["/bin/sh", "-c", *words]
    if not words:
        raise IndexError("list index out of range")
    if executable is not None:
        # The launcher gives a program its path as its own name.
        words[0] = executable
    return words


def _check_that_it_can_run(program: Any, cwd: Any, env: Any) -> None:
    """Raises what subprocess raises where there is no such program, or none that may be executed."""
    name = os.fsdecode(program)
    if "\0" in name or (cwd is not None and not os.path.isdir(cwd)):
        # Told by subprocess itself, which says what is wrong, or names the directory.
        return
    directory, base = os.path.split(name)
    places: Iterable[str] = [directory] if directory else os.get_exec_path(env)
    reason = errno.ENOENT
    for place in places:
        path = os.path.join(os.fsdecode(cwd) if cwd is not None else "", os.fsdecode(place), base)
        if base and os.path.exists(path):
            if os.access(path, os.X_OK) and not os.path.isdir(path):
                return
            reason = errno.EACCES
    raise OSError(reason, os.strerror(reason), name)


def file_in_memory() -> int:
    """Returns the descriptor of a file that is nobody's but ours and goes with its last descriptor."""
    try:
        return _beyond_standard(os.memfd_create("oomguard-json", os.MFD_CLOEXEC))
    except (AttributeError, OSError):
        pass
    import tempfile

    descriptor, path = tempfile.mkstemp(prefix="oomguard-")
    os.unlink(path)
    return _beyond_standard(descriptor)


def _beyond_standard(fd: int) -> int:
    """Returns a descriptor in place of this one that is none of stdin, stdout and stderr: they may be closed here."""
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


__all__ = ["Popen", "run", "check_retry", "next_limit"]
