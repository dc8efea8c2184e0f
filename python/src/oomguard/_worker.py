"""The processes of an executor: the nursery, and the workers that it forks."""

from __future__ import annotations

import gc
import json
import os
import pickle
import select
import signal
import socket
import sys
import threading
import traceback
import warnings
from multiprocessing import process as mp_process
from multiprocessing import spawn
from multiprocessing import util as mp_util
from typing import Any, Callable, Dict, NoReturn, Optional, Tuple

from . import _arm
from ._limit import resolve
from ._protocol import Frame, Message, dump_error, dumps, receive_exactly, send_frame

# What multiprocessing does in its own children, by names that it does not promise; all of 3.9 to 3.14 have them.
process: Any = mp_process
util: Any = mp_util

# Without the names that `signal` gives to numbers: what a worker does first is what its memory is copied for.
_handle: Callable[[int, Any], Any] = getattr(signal.signal, "__wrapped__", signal.signal)

# Whether this worker says by itself what it died of.
_tells_itself = True

Initializer = Optional[Tuple[Callable[..., Any], Tuple[Any, ...]]]


def main(control_fd: int, length: int, tracker_fd: int) -> None:
    """A nursery that was executed: what it needs is its standard input."""
    control = socket.socket(fileno=control_fd)
    try:
        if tracker_fd >= 0:
            from multiprocessing import resource_tracker

            tracker: Any = resource_tracker._resource_tracker
            tracker._fd = tracker_fd
        with os.fdopen(os.dup(0), "rb") as given:
            body = given.read(length)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        preparation, rest = pickle.loads(body)
        process.current_process()._inheriting = True
        try:
            spawn.prepare(preparation)
            settings = pickle.loads(rest)
        finally:
            del process.current_process()._inheriting
    except BaseException:
        _tell_that_it_cannot(control)
        raise SystemExit(1)
    nurse(control, **settings)


def _tell_that_it_cannot(control: socket.socket) -> None:
    text = traceback.format_exc().encode("utf-8", "replace")
    control.send(Message.LAYOUT.pack(Message.CANNOT_PREPARE, 0, 0, 0) + text[: Message.MAX_BYTES - Message.LAYOUT.size])


def nurse(
    control: socket.socket,
    *,
    initializer: Initializer,
    limit: str,
    measure: Optional[str],
    parent: int,
    parent_name: str,
    silenced: bool,
    copies: bool,
    lowers: bool,
) -> NoReturn:
    """Forks workers, and tells how they ended, until it is told to quit or the executor is gone."""
    # The terminal means the executor's process, which decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    woken, wakes = os.pipe()
    for fd in (woken, wakes):
        os.set_blocking(fd, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    if silenced:
        # It was for this process and its workers; what the tasks start says what it has to say.
        os.environ.pop("OOMGUARD_QUIET", None)
    _arm.report_to(os.environ.pop("OOMGUARD_REPORT", None))
    # Done here, it is done for all workers.
    util._close_stdin()
    if _arm.is_guarded_by_library():
        _arm.refusals()
    # The library may have a bare thread here, which takes no lock of Python's.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded, use of fork", DeprecationWarning)
    # What is here stays, and is shared with the workers as long as nobody writes to it.
    gc.freeze()
    workers: Dict[int, int] = {}
    _send(control, Message.READY)
    quits = False
    poll = select.poll()
    poll.register(woken, select.POLLIN)
    poll.register(control, select.POLLIN)
    executor = _descriptor_of(parent)
    if executor >= 0:
        poll.register(executor, select.POLLIN)
    while not (quits and not workers):
        ready = {fd for fd, _ in poll.poll()}
        if woken in ready:
            try:
                os.read(woken, 4096)
            except BlockingIOError:
                pass
        _tell_the_dead(control, workers)
        if executor in ready:
            message = b""
        elif control.fileno() in ready:
            try:
                message, fds, _, _ = socket.recv_fds(control, Message.LAYOUT.size, 1)
            except ConnectionResetError:
                # It went without having read all.
                message = b""
        else:
            continue
        if not message:
            # The executor is gone, and nobody waits for what they do.
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
            os._exit(0)
        what, worker, _, _ = Message.LAYOUT.unpack(message)
        if what == Message.QUIT:
            quits = True
            poll.unregister(control)
        elif what == Message.START:
            pid = _fork(control, worker)
            if pid == 0:
                for ours in (woken, wakes, executor):
                    if ours >= 0:
                        os.close(ours)
                control.close()
                _begin_worker(worker, fds[0], initializer, limit, measure, parent, parent_name, copies, lowers)
            os.close(fds[0])
            if pid > 0:
                workers[pid] = worker
                _send(control, Message.STARTED, worker, pid)
    os._exit(0)


def _descriptor_of(pid: int) -> int:
    """Returns a descriptor that is readable when the process has ended; -1 where there are none. Its end of the socket is
    not enough: other processes that it has forked may hold that, too."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1


def _send(control: socket.socket, what: int, worker: int = 0, pid: int = 0, status: int = 0) -> None:
    try:
        control.send(Message.LAYOUT.pack(what, worker, pid, status))
    except OSError:
        # Gone: read as the end of the stream.
        pass


def _fork(control: socket.socket, worker: int) -> int:
    try:
        return os.fork()
    except OSError as error:
        _send(control, Message.CANNOT_FORK, worker, 0, error.errno or 0)
        return -1


def _tell_the_dead(control: socket.socket, workers: Dict[int, int]) -> None:
    while workers:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        worker = workers.pop(pid, None)
        if worker is not None:
            _send(control, Message.ENDED, worker, pid, status)


def _begin_worker(
    worker: int,
    fd: int,
    initializer: Initializer,
    limit: str,
    measure: Optional[str],
    parent: int,
    parent_name: str,
    copies: bool,
    lowers: bool,
) -> NoReturn:
    global _tells_itself
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        _handle(signal.SIGCHLD, signal.SIG_DFL)
        # It was received, and would be passed on to programs that the tasks start.
        os.set_inheritable(fd, False)
        me = process.current_process()
        me.name = f"OomguardWorker-{worker}"
        me._config.pop("daemon", None)
        process._parent_process = process._ParentProcess(parent_name, parent, fd)
        process._children = set()
        util._finalizer_registry.clear()
        util._run_after_forkers()
        guarded = _arm.is_guarded_by_library()
        # The library reports to whom it was told to when the program began.
        _tells_itself = copies or not guarded
        if copies:
            _arm.count_from_here()
        if copies and guarded:
            bytes_of_limit = resolve(limit)[0]
            if bytes_of_limit is not None:
                _arm.set_limit(bytes_of_limit + (_arm.status().in_use or 0))
        elif guarded and lowers:
            _arm.set_limit(limit)
        elif not guarded:
            # It cannot be preloaded here, or this was forked off a program without it.
            os.environ["OOMGUARD_LIMIT"] = limit
            _arm.arm(limit, measure=measure)
        code = _work(fd, initializer)
    except BaseException as exception:
        _leave_if_memory(exception, None, 0)
        traceback.print_exc()
    finally:
        try:
            threading._shutdown()  # type: ignore[attr-defined]
            util._flush_std_streams()
        finally:
            os._exit(code)
    raise AssertionError("unreachable")


def _work(stream: int, initializer: Initializer) -> int:
    if initializer is not None:
        function, arguments = initializer
        try:
            function(*arguments)
        except BaseException as exception:
            _leave_if_memory(exception, stream, 0)
            send_frame(stream, Frame.ERROR, 0, dump_error(exception))
            return 1
    send_frame(stream, Frame.INITIALIZED, 0)
    while True:
        _handle(signal.SIGINT, signal.SIG_IGN)
        header = _receive_task(stream)
        if header is None:
            break
        task, limit, length = header
        if limit and not _set_limit(limit):
            # More is in use than the next task may have: somebody else does it.
            if receive_exactly(stream, length) is not None:
                send_frame(stream, Frame.LIMIT_TOO_LOW, task)
            continue
        if not _do_one(stream, task, length):
            break
    util._exit_function()
    return 0


def _receive_task(stream: int) -> Optional[Tuple[int, int, int]]:
    header = receive_exactly(stream, Frame.LAYOUT.size)
    if header is None:
        return None
    what, task, limit, length = Frame.LAYOUT.unpack(header)
    return (task, limit, length) if what == Frame.TASK else None


def _set_limit(limit: int) -> bool:
    try:
        _arm.set_limit(limit)
    except MemoryError:
        return False
    return True


def _do_one(stream: int, task: int, length: int) -> bool:
    refused = _arm.refusals()
    try:
        _handle(signal.SIGINT, signal.default_int_handler)
        body = receive_exactly(stream, length)
        if body is None:
            return False
        function, arguments, named = pickle.loads(body)
        del body
        _arm.mark_errno()
        what, answer = Frame.RESULT, dumps(function(*arguments, **named))
        del function, arguments, named
    except BaseException as exception:
        _leave_if_memory(exception, stream, task, refused)
        try:
            what, answer = Frame.ERROR, dump_error(exception)
        except MemoryError as refusal:
            _leave_if_memory(refusal, stream, task, refused)
            raise
    _handle(signal.SIGINT, signal.SIG_IGN)
    try:
        send_frame(stream, what, task, answer)
    except (BrokenPipeError, ConnectionResetError):
        return False
    except MemoryError as refusal:
        # Nothing of it has been sent.
        _leave_if_memory(refusal, stream, task, refused)
        raise
    return True


def _leave_if_memory(
    exception: BaseException, stream: Optional[int], task: int, refused: Optional[int] = 0
) -> None:
    """Ends this process if it was refused memory and this is what came of it. Called where the exception is handled."""
    if not _arm.comes_from_memory(exception):
        return
    now = _arm.refusals()
    if now is not None and refused is not None and now <= refused:
        return
    if _arm.is_without_refusal(exception, sys._getframe(1)):
        return
    if _tells_itself:
        _arm._lend_reserve()
        report = _arm.compose_report()
        if stream is not None:
            send_frame(stream, Frame.OUT_OF_MEMORY, task, json.dumps(report).encode())
        _flush()
        os._exit(report["exit_code"])
    if stream is not None and all(one.args for one in _arm.chain(exception) if isinstance(one, MemoryError)):
        # The interpreter has no words for it: C code has raised it, and the library may find that it is about something else.
        # It looks at what was done since the refusal, too: little is done here.
        try:
            send_frame(stream, Frame.LEAVES, task, dump_error(exception, with_traceback=False))
        except MemoryError:
            pass
    _flush()
    # The library sees what is being handled here, and makes it a report and the reserved code.
    os._exit(1)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            pass
