"""This process, from now on: `arm`, `set_limit`, `task`, `status`.

Under the launcher the library is in the process already, sees each refusal, and judges; what is said here is passed on to
it. In any other process the library would come too late: names that are bound already stay bound. There the limit is an
rlimit, and the interpreter itself knows what it dies of: an exception that nobody catches reaches `sys.excepthook`,
`threading.excepthook`, `sys.unraisablehook` (of a bare thread) or the last handler of a `multiprocessing` process.
"""

from __future__ import annotations

import errno
import json
import opcode
import os
import resource
import sys
import threading
import time
import types
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional, Tuple

from . import _celery
from ._errors import EXIT_OUT_OF_MEMORY, Report
from ._limit import Limit, resolve, size, text_of

try:
    import ctypes
except ImportError:  # An interpreter without it: the library cannot be asked, and the hooks do.
    ctypes = None  # type: ignore[assignment]

can_ask_library = ctypes is not None

_MEASURES = ("address-space", "data", "resident")
_SOURCES = (None, "environment", "source", "cgroup", "rlimit", "budget", "changed")
_UNKNOWN = (1 << 64) - 1
_REPORT_MAX_BYTES = 2048
_TOKEN_MAX_BYTES = 64
_NO_LIMIT = resource.RLIM_INFINITY


class Status(NamedTuple):
    """How near this process is to its limit. What is not known, or does not exist, is None."""

    #: Whether a guard holds this process: `arm` was called, or the launcher started it.
    armed: bool
    #: In bytes.
    limit: Optional[int]
    #: "environment", "source" (this program), "cgroup", "rlimit", "budget" or "changed".
    source: Optional[str]
    #: What the limit counts: "address-space", "data" or "resident".
    measure: str
    #: In bytes, of what the limit counts.
    in_use: Optional[int]
    #: Bytes left until the limit.
    headroom: Optional[int]
    #: Requests refused so far and passed on to the program; only the library counts them.
    refusals: Optional[int]
    #: What `task` said last.
    task: Optional[str]
    #: Bytes that this process and all that share a budget with it may have together.
    budget: Optional[int] = None
    #: Bytes that it may have of them for now.
    lease: Optional[int] = None
    #: How long one of its threads has been waiting until others leave room, in milliseconds. None: none waits.
    waiting_ms: Optional[int] = None


class _State:
    """What holds in this process. A forked child has it, too."""

    armed = False
    limit: Optional[int] = None
    source: Optional[str] = None
    measure = "data"
    exit_code = EXIT_OUT_OF_MEMORY
    exit_on_uncaught = False
    task: Optional[str] = None
    # Where the report goes; None: to where OOMGUARD_REPORT says.
    report_to: Optional[str] = None
    hooked = False
    # What was in use when counting began, by the report's names: a copy of a process may use so much more.
    base: Dict[str, int] = {}
    # The soft rlimit that was there before any of ours.
    soft_before: Optional[int] = None
    started = time.monotonic()


_state = _State()


def arm(
    limit: Optional[Limit] = None,
    *,
    measure: Optional[str] = None,
    exit_on_uncaught: bool = False,
) -> None:
    """Gives this process a memory limit, and has it end with 198 and a report if it dies of it.

    For initializers (`initializer=oomguard.arm, initargs=("512Mi",)`), gunicorn's `post_fork`, Celery's
    `worker_process_init`. Call it again for another limit. A child that is forked has the same limit.

    Args:
        limit: Bytes, "512Mi", "80%", "auto" (the default) or "off". OOMGUARD_LIMIT has the last word.
        measure: "data" (the default: private writable memory), "resident" (as data, but what is mapped and untouched when
            this is called is not counted) or "address-space". OOMGUARD_MEASURE has the last word. Under the launcher it
            stays as the launcher was told.
        exit_on_uncaught: Have the process end, too, where a framework catches the MemoryError and logs its traceback.

    Raises:
        ValueError: Not a limit, not a measure, or not an exit code (OOMGUARD_EXIT_CODE).
        MemoryError: The limit is below what is in use already.
        OSError: The limit cannot be set.
    """
    wanted = os.environ.get("OOMGUARD_LIMIT")
    given = text_of("auto" if limit is None else limit)
    if measure is not None and measure not in _MEASURES:
        raise ValueError(f"measure is {measure!r}; accepted: {', '.join(_MEASURES)}")
    _celery.adapt(compose_report, is_out_of_memory)
    library = _library()
    if library is not None:
        _call(library.oomguard_arm, given)
        if status().limit is None and wanted != "off":
            # The launcher was told of no limit, and found none: then what is said here holds.
            _call(library.oomguard_set_limit, given)
        _state.armed = True
        return
    chosen = os.environ.get("OOMGUARD_MEASURE") or measure or "data"
    if chosen not in _MEASURES:
        raise ValueError(f"OOMGUARD_MEASURE is {chosen!r}; accepted: {', '.join(_MEASURES)}")
    text = given if wanted is None else text_of(wanted, "OOMGUARD_LIMIT")
    _state.measure = chosen
    _state.exit_code = _exit_code()
    target = os.environ.get("OOMGUARD_REPORT")
    if target and _state.report_to is None:
        # The program may change its directory.
        _state.report_to = target if target.startswith("fd:") else os.path.abspath(target)
    _state.exit_on_uncaught = exit_on_uncaught or os.environ.get("OOMGUARD_EXIT_ON_UNCAUGHT") == "1"
    _set(text, "environment" if wanted is not None else "source")
    _state.armed = True
    _install_hooks()


def set_limit(limit: Limit) -> None:
    """Sets this process's limit, whatever the environment says: for a worker whose next job may have more or less.

    Raises:
        RuntimeError: `arm` was not called, nor did the launcher start this process.
        ValueError, MemoryError, OSError: As `arm`.
    """
    text = text_of(limit)
    library = _library()
    if library is not None:
        _call(library.oomguard_set_limit, text)
        return
    if not _state.armed:
        raise RuntimeError("no guard holds this process; call oomguard.arm(limit) first, or start it by oomguard run")
    _set(text, "source")


def task(name: Optional[str]) -> None:
    """Says what this process is at: the report has it as its `token`. None: nothing in particular."""
    kept = None if name is None else _cut(str(name).replace("\0", ""), _TOKEN_MAX_BYTES)
    _state.task = kept
    library = _library()
    if library is not None:
        library.oomguard_task(None if kept is None else kept.encode("utf-8", "replace"))


def status() -> Status:
    """Returns the limit of this process and how near it is."""
    library = _library()
    if library is not None:
        told = _CStatus()
        if library.oomguard_status(ctypes.byref(told), ctypes.sizeof(told)) == 0:

            def known(name: str) -> Optional[int]:
                # An older library does not fill in all of it.
                is_told = told.size > getattr(_CStatus, name).offset
                value = int(getattr(told, name))
                return value if is_told and value != _UNKNOWN else None

            return Status(
                armed=bool(told.armed),
                limit=known("limit"),
                source=_SOURCES[told.source] if 0 <= told.source < len(_SOURCES) else None,
                measure=_MEASURES[told.measure - 1] if 1 <= told.measure <= 3 else "data",
                in_use=known("in_use"),
                headroom=known("headroom"),
                refusals=int(told.refusals),
                task=_state.task,
                budget=known("budget"),
                lease=known("lease"),
                waiting_ms=known("waiting_ms"),
            )
    in_use = _in_use(_memory())
    limit = _state.limit
    headroom = None if limit is None or in_use is None else max(limit - in_use, 0)
    return Status(_state.armed, limit, _state.source, _state.measure, in_use, headroom, None, _state.task)


def refusals() -> Optional[int]:
    """Returns how many requests were refused so far; None where nobody counts them."""
    library = _library()
    if library is None or library.oomguard_status(_told_here, ctypes.sizeof(_told)) != 0:
        return None
    return int(_told.refusals)


# ---- The library, where it is in this process --------------------------------------------------------------------------

if ctypes is not None:

    class _CStatus(ctypes.Structure):
        """struct oomguard_status."""

        _fields_ = (
            ("size", ctypes.c_size_t),
            ("limit", ctypes.c_uint64),
            ("in_use", ctypes.c_uint64),
            ("headroom", ctypes.c_uint64),
            ("refusals", ctypes.c_uint64),
            ("measure", ctypes.c_int),
            ("source", ctypes.c_int),
            ("armed", ctypes.c_int),
            ("reserved", ctypes.c_int),
            ("budget", ctypes.c_uint64),
            ("lease", ctypes.c_uint64),
            ("waiting_ms", ctypes.c_uint64),
        )

    # Made once: it is asked for each task.
    _told = _CStatus()
    _told_here = ctypes.byref(_told)


    try:
        # It lets nobody else run meanwhile.
        _errno_here: Any = ctypes.PyDLL(None).__errno_location
        _errno_here.restype = ctypes.POINTER(ctypes.c_int)
    except (OSError, AttributeError):
        _errno_here = None
else:
    _errno_here = None


_found: Any = None


def _library() -> Any:
    """Returns the library if it was loaded before this process began and holds it, else None."""
    global _found
    if _found is None:
        _found = _find_library() or False
    return _found or None


def _find_library() -> Any:
    if ctypes is None:
        return None
    try:
        library = ctypes.CDLL(None, use_errno=True)
        for name, result, arguments in (
            ("oomguard_arm", ctypes.c_int, [ctypes.c_char_p]),
            ("oomguard_set_limit", ctypes.c_int, [ctypes.c_char_p]),
            ("oomguard_task", None, [ctypes.c_char_p]),
            ("oomguard_status", ctypes.c_int, [ctypes.c_void_p, ctypes.c_size_t]),
        ):
            function = getattr(library, name)
            function.restype = result
            function.argtypes = arguments
    except (OSError, AttributeError):
        return None
    told = _CStatus()
    holds = library.oomguard_status(ctypes.byref(told), ctypes.sizeof(told)) == 0 and told.armed
    return library if holds else None


def is_guarded_by_library() -> bool:
    """Whether the library holds this process, so that it judges by itself."""
    return _library() is not None


def _call(function: Any, text: str) -> None:
    if function(text.encode()) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.ENOMEM:
        raise MemoryError(f"the limit {text!r} is below what is in use already")
    if number == errno.EINVAL:
        raise ValueError(f"not a limit: {text!r}")
    raise OSError(number, os.strerror(number))


def _why_so_much(in_use: int) -> str:
    if "t" not in sys.abiflags or in_use < 1 << 30:
        return ""
    return (
        "; free-threaded Python maps 1 GiB at its start: start it by oomguard run, "
        "or with MIMALLOC_ARENA_RESERVE=32MiB in its environment"
    )


# ---- The limit, where it is not ----------------------------------------------------------------------------------------


def _set(text: str, source: str) -> None:
    limit, by_container = resolve(text)
    kind = resource.RLIMIT_AS if _state.measure == "address-space" else resource.RLIMIT_DATA
    soft, hard = resource.getrlimit(kind)
    if _state.soft_before is None:
        # Under a launcher that could not preload its library, the soft limit is one of ours, which an inner one may exceed.
        _state.soft_before = _NO_LIMIT if "OOMGUARD_OUTER" in os.environ else soft
    before = _state.soft_before
    if limit is not None and by_container:
        source = "cgroup"
    wanted = _NO_LIMIT if limit is None else limit
    memory = _memory()
    in_use = _in_use(memory)
    if limit is not None and in_use is not None and in_use > limit:
        raise MemoryError(f"the limit {size(limit)} is below the {size(in_use)} that are in use already{_why_so_much(in_use)}")
    if limit is not None and _state.measure == "resident":
        # What is mapped and untouched is not counted: the rlimit stands above it by as much as is free.
        data, resident = memory.get("data"), memory.get("resident")
        wanted = limit if data is None or resident is None else limit + max(data - resident, 0)
    if limit is not None:
        wanted += _state.base.get(_counted(), 0)
    for existing in (before, hard):
        if existing != _NO_LIMIT and (wanted == _NO_LIMIT or existing < wanted):
            wanted, limit, source = existing, existing, "rlimit"
    resource.setrlimit(kind, (wanted, hard))
    _state.limit = limit
    _state.source = source if limit is not None else None


def report_to(target: Optional[str]) -> None:
    """Where this process reports, which those that it executes are not told."""
    _state.report_to = target


def count_from_here() -> None:
    """What is in use now does not count: this process is a copy of one that had it, and shares it."""
    _state.base = _memory()


def _counted() -> str:
    return _state.measure.replace("-", "_")


def _in_use(memory: Dict[str, int]) -> Optional[int]:
    name = _counted()
    return max(memory[name] - _state.base.get(name, 0), 0) if name in memory else None


def _exit_code() -> int:
    text = os.environ.get("OOMGUARD_EXIT_CODE")
    if text is None:
        return EXIT_OUT_OF_MEMORY
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 255):
        raise ValueError(f"OOMGUARD_EXIT_CODE is {text!r}; accepted: a number from 1 to 255")
    return int(text)


def _memory() -> Dict[str, int]:
    """Returns what is in use, in bytes, by the report's names; what is not known is not there."""
    names = {b"VmSize": "address_space", b"VmData": "data", b"RssAnon": "resident", b"VmHWM": "resident_peak"}
    found: Dict[str, int] = {}
    try:
        with open("/proc/self/status", "rb") as file:
            for line in file:
                name, _, rest = line.partition(b":")
                if name in names:
                    found[names[name]] = int(rest.split()[0]) * 1024
                elif name == b"VmSwap" and "resident" in found:
                    found["resident"] += int(rest.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return found


# ---- What the interpreter knows ----------------------------------------------------------------------------------------


def comes_from_memory(exception: Optional[BaseException]) -> bool:
    """Whether this process was refused memory, and the exception came about because of it: it, or one that it was raised
    from or while handling, is a MemoryError of the interpreter's or of C code. One that a `raise` of the program's has
    brought into being, or that was never raised, is the program's own; one that a pool has sent here from a worker is not ours."""
    for one in chain(exception):
        # The one that was caught was raised, also where there was no memory for its traceback.
        is_raised = one is exception or one.__traceback__ is not None
        if isinstance(one, MemoryError) and is_raised and not _is_from_another_process(one) and _instruction_of(one) != _RAISE:
            return True
    return False


def _instruction_of(exception: BaseException) -> Optional[int]:
    """Returns what was being executed where the exception came into being; None where nobody knows."""
    entry = _where_it_began(exception)
    if entry is None or entry.tb_lasti < 0:
        return None
    try:
        return entry.tb_frame.f_code.co_code[entry.tb_lasti]
    except (IndexError, MemoryError):
        # Cython's frames have no code; and where nothing is left, this is no time to ask.
        return None


def _where_it_began(exception: BaseException) -> Optional[types.TracebackType]:
    entry = exception.__traceback__
    while entry is not None and entry.tb_next is not None:
        entry = entry.tb_next
    return entry


try:
    raise KeyError
except KeyError as _raised:
    _RAISE = _instruction_of(_raised)


# A number that no failure leaves in errno.
_UNTOUCHED = 4095

# Operators of the interpreter's, which make no system call after the one that was refused.
_OPERATORS = {
    number
    for name, number in opcode.opmap.items()
    if name.startswith(("BINARY_", "INPLACE_")) and name not in ("BINARY_SUBSCR", "BINARY_SLICE")
}
_HANDLERS = {number for name, number in opcode.opmap.items() if name in ("SETUP_FINALLY", "SETUP_WITH", "SETUP_ASYNC_WITH")}
# They catch what ends a task, a thread or a process, and do nothing before they ask us.
_CATCHERS = ("threading", "multiprocessing.process", "celery.app.trace", "oomguard._worker")


def mark_errno() -> None:
    """Has the errno of this thread tell whether anything fails from now on, where nobody counts refusals."""
    if _errno_here is not None and _library() is None:
        _errno_here().contents.value = _UNTOUCHED


def is_without_refusal(exception: Optional[BaseException], caller: Optional[types.FrameType] = None) -> bool:
    """Whether a MemoryError is about something else than memory, as a size that no object can have: errno, which each thread
    has of its own, tells of no refusal. False where that is not known.

    Args:
        exception: As it is caught, before anything else is done.
        caller: Who caught it, and has called `mark_errno` before.
    """
    if _errno_here is None:
        return False
    errno_now = _errno_here().contents.value
    if errno_now == errno.ENOMEM:
        return False
    try:
        has_failed = caller is None or errno_now != _UNTOUCHED or _has_threads_of_c_code()
        return all(
            _is_operators(one) or (not has_failed and _is_below(caller, one))
            for one in chain(exception)
            if isinstance(one, MemoryError)
        )
    except (OSError, MemoryError):
        return False


def is_out_of_memory(exception: Optional[BaseException]) -> bool:
    """Whether this is what a refusal has come to; asked by who has just caught it."""
    return comes_from_memory(exception) and not is_without_refusal(exception)


def _has_threads_of_c_code() -> bool:
    """Whether there are threads that may have been refused what they do for others."""
    return len(os.listdir("/proc/self/task")) > len(sys._current_frames())


def _is_operators(exception: MemoryError) -> bool:
    """Whether it is the interpreter's own about an operator, and nothing was done since: no handler, no `finally`."""
    if type(exception) is not MemoryError or exception.args or _instruction_of(exception) not in _OPERATORS:
        return False
    entry = exception.__traceback__
    while entry is not None:
        if entry.tb_frame.f_globals.get("__name__") not in _CATCHERS and _has_handlers(entry.tb_frame.f_code):
            return False
        entry = entry.tb_next
    return True


def _has_handlers(code: types.CodeType) -> bool:
    table: Optional[bytes] = getattr(code, "co_exceptiontable", None)
    return any(number in _HANDLERS for number in code.co_code[::2]) if table is None else bool(table)


def _is_below(caller: Optional[types.FrameType], exception: BaseException) -> bool:
    """Whether it came into being in what this frame has called: in no thread that has ended since."""
    entry = _where_it_began(exception)
    frame = None if entry is None else entry.tb_frame
    while frame is not None and frame is not caller:
        frame = frame.f_back
    return frame is not None


def _is_from_another_process(exception: BaseException) -> bool:
    cause = exception.__cause__
    return cause is not None and type(cause).__name__.endswith("RemoteTraceback")


def chain(exception: Optional[BaseException]) -> Iterator[BaseException]:
    """Yields the exception and those that it came from."""
    # Chains may be circles, and groups fan out.
    waiting, seen = [exception], 0
    while waiting and seen < 64:
        one = waiting.pop()
        if one is None:
            continue
        seen += 1
        yield one
        waiting += [one.__context__, one.__cause__]
        members = getattr(one, "exceptions", None)
        if isinstance(members, tuple):
            waiting += [member for member in members[:32] if isinstance(member, BaseException)]


def _install_hooks() -> None:
    # A hook that was put in place of ours meanwhile is kept, and called by ours.
    if not getattr(sys.excepthook, "_oomguard", False):
        sys.excepthook = _marked(_before(sys.excepthook, lambda given: given[1], lambda given: _is_main()))
    if not getattr(threading.excepthook, "_oomguard", False):
        of_thread = _before(threading.excepthook, lambda given: given[0].exc_value, lambda given: True)
        threading.excepthook = _marked(of_thread)
    if not getattr(sys.unraisablehook, "_oomguard", False):
        # What is ignored in destructors and exit handlers ends nothing; a bare thread that dies does.
        is_thread = lambda given: "in thread" in (given[0].err_msg or "")  # noqa: E731
        sys.unraisablehook = _marked(_before(sys.unraisablehook, lambda given: given[0].exc_value, is_thread))
    if not _state.hooked:
        _state.hooked = True
        _watch_last_handlers()


def _marked(hook: Callable[..., Any]) -> Callable[..., Any]:
    hook._oomguard = True  # type: ignore[attr-defined]
    return hook


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _before(
    hook: Callable[..., Any],
    exception_of: Callable[[Tuple[Any, ...]], Optional[BaseException]],
    is_end: Callable[[Tuple[Any, ...]], bool],
) -> Callable[..., Any]:
    """Returns a hook that calls the one before, and then ends the process if it died of memory."""

    def call(*given: Any) -> None:
        dies = _state.armed and is_end(given) and is_out_of_memory(exception_of(given))
        if dies:
            # There has to be memory to say so.
            _lend_reserve()
        try:
            hook(*given)
        finally:
            if dies:
                end()

    return call


def _watch_last_handlers() -> None:
    """Processes of multiprocessing, and of those who have copied it, print what they die of, and leave with 1."""
    import traceback

    printed = traceback.print_exc

    def print_exc(*given: Any, **named: Any) -> None:
        caller: Optional[types.FrameType] = sys._getframe(1)
        is_last = caller is not None and caller.f_code.co_name == "_bootstrap" and "exitcode" in caller.f_code.co_varnames
        dies = is_last and _state.armed and is_out_of_memory(sys.exc_info()[1])
        if dies:
            _lend_reserve()
        try:
            printed(*given, **named)
        finally:
            if dies:
                end()

    traceback.print_exc = print_exc

    made = traceback.TracebackException.__init__

    def __init__(self: Any, exc_type: Any, exc_value: Any, *rest: Any, **named: Any) -> None:
        made(self, exc_type, exc_value, *rest, **named)
        if _state.armed and _state.exit_on_uncaught and isinstance(exc_value, BaseException):
            if comes_from_memory(exc_value) and not _INSIDE.locked():
                _lend_reserve()
                with _INSIDE:
                    sys.stderr.write("".join(self.format()))
                end()

    traceback.TracebackException.__init__ = __init__  # type: ignore[method-assign]


_INSIDE = threading.Lock()
_ENDING = threading.Lock()


def _lend_reserve() -> None:
    """Gives this process what is left for its last words."""
    for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS):
        try:
            _, hard = resource.getrlimit(kind)
            resource.setrlimit(kind, (hard, hard))
        except (OSError, ValueError):
            pass


def end() -> None:
    """The report, the lines, and the end of the process. One thread gets to speak."""
    if not _ENDING.acquire(blocking=False):
        time.sleep(5)
        os._exit(_state.exit_code)
    try:
        _lend_reserve()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BaseException:
                pass
        report = compose_report()
        write_report(report)
        if os.environ.get("OOMGUARD_QUIET") != "1":
            _write_all(2, "".join(f"oomguard: {line}\n" for line in _lines(report)).encode("utf-8", "replace"))
    finally:
        os._exit(_state.exit_code)


def compose_report() -> Report:
    """Returns the report of this process as it stands, with all keys of the contract."""
    memory = _memory()
    main = _is_main()
    now = status()
    return {
        "oomguard": 1,
        "event": "out_of_memory",
        "cause": "heap",
        "pid": os.getpid(),
        "tid": threading.get_native_id(),
        "program": _cut(os.path.basename(sys.executable or "python"), 64),
        "thread": "main" if main else _cut(threading.current_thread().name, 64),
        "requested": None,
        "align": None,
        "limit": now.limit,
        "limit_source": now.source,
        "measure": now.measure.replace("-", "_"),
        "address_space": memory.get("address_space"),
        "data": memory.get("data"),
        "resident": memory.get("resident"),
        "resident_peak": memory.get("resident_peak"),
        "heap_live": None,
        "heap_peak": None,
        "refusals": now.refusals,
        "exit_code": _state.exit_code,
        "uptime_ms": int((time.monotonic() - _state.started) * 1000),
        "token": _state.task if _state.task is not None else os.environ.get("OOMGUARD_TOKEN"),
        "evidence": "exact",
        "own_exit_code": 1,
        "own_signal": None,
        "budget": None,
        "budget_used": None,
        "waited_ms": None,
    }


def write_report(report: Report) -> None:
    """Appends the report, one line by one write, to where it is wanted."""
    target = _state.report_to or os.environ.get("OOMGUARD_REPORT")
    if not target:
        return
    line = json.dumps(report, separators=(",", ":")).encode() + b"\n"
    if len(line) > _REPORT_MAX_BYTES:
        line = json.dumps({**report, "thread": None, "token": None}, separators=(",", ":")).encode() + b"\n"
    try:
        if target.startswith("fd:"):
            _write_all(int(target[3:]), line)
        else:
            fd = os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            _write_all(fd, line)
    except (OSError, ValueError):
        pass


def _write_all(fd: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError:
        pass


def _lines(report: Report) -> Iterator[str]:
    at = f" at {report['token']}" if report["token"] else ""
    yield (
        f"out of memory: {report['program']} (pid {report['pid']}){at} in thread {report['thread']} "
        f"({report['tid']}) could not go on"
    )
    limit = report["limit"]
    told = {"environment": "OOMGUARD_LIMIT", "source": "oomguard.arm", "cgroup": "the container"}
    if limit is None:
        yield "  limit: none of this process's own"
    else:
        source = told.get(report["limit_source"], "an rlimit that was there before")
        yield f"  limit: {size(limit)} ({limit} bytes) of {report['measure'].replace('_', '-')}, from {source}"
    known = [(name, report[name]) for name in ("address_space", "data", "resident")]
    uses = ", ".join(f"{name.replace('_', '-')} {'unknown' if use is None else size(use)}" for name, use in known)
    yield f"  in use: {uses}"
    yield "  try: a larger limit, or smaller pieces of work"
    yield f"  exit code {report['exit_code']}"


def _cut(text: str, most: int) -> str:
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")
