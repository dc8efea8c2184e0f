"""The process that forks the workers of an executor."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from multiprocessing import context as mp_context_module
from multiprocessing import process, spawn, util
from typing import Any, Dict, List, Optional

from ._arm import can_ask_library
from ._launcher import command_line, library_for
from ._pool import Pool
from ._protocol import dumps


class Nursery:
    """The process that forks the workers."""

    def __init__(self, pool: Pool) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.reports, reports_to = os.pipe()
        os.set_blocking(self.reports, False)
        self.process: Optional["subprocess.Popen[bytes]"] = None
        self.pid = 0
        try:
            if pool.copies:
                self._fork(pool, theirs, reports_to)
            else:
                self._execute(pool, theirs, reports_to)
        except BaseException:
            self.control.close()
            os.close(self.reports)
            raise
        finally:
            theirs.close()
            os.close(reports_to)
        self.control.setblocking(False)

    def _settings(self, pool: Pool) -> Dict[str, Any]:
        return {
            "initializer": pool.initializer,
            "limit": pool.limit,
            "measure": pool.options.get("measure"),
            "parent": os.getpid(),
            "parent_name": process.current_process().name,
            "copies": pool.copies,
            # It was started with more.
            "lowers": pool.budget is not None and pool.most() != pool.limit,
            "silenced": not pool.copies and "OOMGUARD_QUIET" not in os.environ,
        }

    def _fork(self, pool: Pool, theirs: socket.socket, reports_to: int) -> None:
        sys.stdout and sys.stdout.flush()
        sys.stderr and sys.stderr.flush()
        settings = self._settings(pool)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                from ._worker import nurse

                self.control.close()
                os.close(self.reports)
                os.environ["OOMGUARD_REPORT"] = f"fd:{reports_to}"
                nurse(theirs, **settings)
            finally:
                os._exit(1)

    def _execute(self, pool: Pool, theirs: socket.socket, reports_to: int) -> None:
        from multiprocessing import resource_tracker

        try:
            tracker = resource_tracker.getfd()
        except OSError:
            tracker = None
        tracker = -1 if tracker is None else tracker
        # Typed as one of multiprocessing's own.
        passing: Any = _Passing()
        mp_context_module.set_spawning_popen(passing)
        try:
            preparation = spawn.get_preparation_data(process.current_process().name)
            preparation.pop("name", None)
            # First what makes modules importable, then what may need them.
            body = bytes(dumps((preparation, bytes(dumps(self._settings(pool))))))
        finally:
            mp_context_module.set_spawning_popen(None)
        here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        code = (
            f"import sys; sys.path.insert(0, {here!r}); from oomguard._worker import main; "
            f"main({theirs.fileno()}, {len(body)}, {tracker})"
        )
        python = os.fsdecode(spawn.get_executable() or sys.executable)
        command = [python, *util._args_from_interpreter_flags(), "-c", code]  # type: ignore[attr-defined]
        env = None
        if pool.budget is None:
            # Without a launcher in between: its look knows one limit, and a retry has another.
            env = _guarded_environment(pool, python, reports_to)
        else:
            options = {"die_with_parent": True, "quiet": True, **pool.options}
            command = command_line(
                command, limit=pool.most(), budget=pool.budget, options=options, report_to=reports_to
            )
        given = _file_of(body)
        try:
            fds = [theirs.fileno(), reports_to, *passing.fds]
            self.process = subprocess.Popen(
                command, stdin=given, pass_fds=[*fds, tracker] if tracker >= 0 else fds, env=env
            )
        finally:
            os.close(given)

    def wait(self, timeout: Optional[float] = None) -> Optional[int]:
        """Returns the exit code of the nursery, or of the launcher that it runs under."""
        if self.process is not None:
            try:
                return self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                return self.process.wait()
        try:
            _, status = os.waitpid(self.pid, 0)
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        except ChildProcessError:
            return None

    def close(self) -> None:
        try:
            # Whoever else was forked off this process has it, too: the nursery is to see the end of it all the same.
            self.control.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The nursery has ended before.
            pass
        self.control.close()
        os.close(self.reports)


def _guarded_environment(pool: Pool, python: str, reports_to: int) -> Dict[str, str]:
    """Returns the environment of a nursery that the library guards, where it can be loaded into this Python."""
    env = dict(os.environ)
    # Without ctypes the workers cannot tell the library that a retry may have more.
    preload = library_for(python) if can_ask_library else ""
    if preload:
        env["LD_PRELOAD"] = preload
    # It is not the outer launcher's any more.
    env.pop("OOMGUARD_RECORD", None)
    env["OOMGUARD_LIMIT"] = pool.limit
    env["OOMGUARD_MEASURE"] = pool.options.get("measure") or env.get("OOMGUARD_MEASURE") or "resident"
    env["OOMGUARD_REPORT"] = f"fd:{reports_to}"
    env["OOMGUARD_QUIET"] = "1"
    for name in ("on_refusal", "stall"):
        if pool.options.get(name) is not None:
            env[f"OOMGUARD_{name.upper()}"] = str(pool.options[name])
    return env


def _file_of(body: bytes) -> int:
    from ._run import file_in_memory

    fd = file_in_memory()
    view = memoryview(body)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


class _Passing:
    """Stands for the process that is being started while what it gets is pickled: locks and pipes of multiprocessing
    are passed on by number."""

    class DupFd:
        def __init__(self, fd: int) -> None:
            self.fd = fd

        def detach(self) -> int:
            return self.fd

    def __init__(self) -> None:
        self.fds: List[int] = []

    def duplicate_for_child(self, fd: int) -> int:
        self.fds.append(fd)
        return fd
