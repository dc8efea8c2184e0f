"""What an executor, its nursery and its workers say to each other.

    executor ── control: a socket of messages ──▶ nursery ── fork ──▶ worker
        └────────────── a stream for each worker: frames ────────────────┘

The nursery is a process that has imported what the tasks need and does nothing but fork workers, which takes about a
millisecond, and tell how they ended.
"""

from __future__ import annotations

import os
import pickle
import struct
import traceback
from multiprocessing.reduction import ForkingPickler
from typing import Any, Optional


class Message:
    """What executor and nursery say to each other: what, which worker, its process, its wait status."""

    READY, START, STARTED, ENDED, CANNOT_FORK, QUIT, CANNOT_PREPARE = range(7)
    LAYOUT = struct.Struct("<BQqq")
    #: The longest one: CANNOT_PREPARE has a text behind it.
    MAX_BYTES = 16384


class Frame:
    """What executor and worker say to each other: what, which task, a limit or zero, the bytes that follow."""

    TASK, STOP, INITIALIZED, RESULT, ERROR, OUT_OF_MEMORY, LIMIT_TOO_LOW, LEAVES = range(8)
    LAYOUT = struct.Struct("<BQQQ")


_TEXT = struct.Struct("<I")


def dumps(value: Any) -> Any:
    """Returns a value as bytes, with what multiprocessing can send beside what pickle can."""
    return ForkingPickler.dumps(value, pickle.HIGHEST_PROTOCOL)


def dump_error(exception: BaseException, with_traceback: bool = True) -> bytes:
    """Returns an exception, and the text of its traceback, as bytes."""
    said = b""
    if with_traceback:
        text = "".join(traceback.format_exception(type(exception), exception, exception.__traceback__))
        said = f'\n"""\n{text}"""'.encode("utf-8", "replace")
    try:
        body = bytes(dumps(exception))
    except MemoryError:
        raise
    except BaseException as unpicklable:
        why = f"which cannot be pickled ({words_of(unpicklable)}): {words_of(exception)}"
        body = bytes(dumps(pickle.PicklingError(f"the task raised {type(exception).__qualname__}, {why}")))
    return _TEXT.pack(len(said)) + said + body


def words_of(exception: BaseException) -> str:
    """Returns what an exception says, whatever its class does when it is asked."""
    try:
        return str(exception)
    except BaseException:
        return "no words of its own"


def load_error(body: Any) -> BaseException:
    """Returns the exception that a worker sent, with its traceback there as its cause."""
    # Workers have no use for it.
    from concurrent.futures.process import _RemoteTraceback

    (length,) = _TEXT.unpack_from(body)
    text = bytes(body[_TEXT.size : _TEXT.size + length]).decode("utf-8", "replace")
    try:
        loaded = pickle.loads(body[_TEXT.size + length :])
        if not isinstance(loaded, BaseException):
            raise TypeError(f"not an exception: {loaded!r}")
        exception = loaded
    except BaseException as error:
        exception = RuntimeError(f"the task raised an exception that cannot be unpickled here: {words_of(error)}")
    # Typed as one of a traceback; it is one of a text.
    remote: Any = _RemoteTraceback
    # Also where its class lets nobody set attributes.
    BaseException.__setattr__(exception, "__cause__", remote(text))
    return exception


def receive_exactly(stream: int, length: int) -> Optional[memoryview]:
    """Returns so many bytes, or None where the stream ends before them. Waits."""
    whole = memoryview(bytearray(length))
    done = 0
    try:
        while done < length:
            got = os.readv(stream, [whole[done:]])
            if got == 0:
                return None
            done += got
    except ConnectionResetError:
        # It went without having read all.
        return None
    return whole


def send_frame(stream: int, what: int, task: int, body: Any = b"") -> None:
    """Sends a frame. Waits."""
    view = memoryview(body).cast("B")
    header = Frame.LAYOUT.pack(what, task, 0, len(view))
    if len(view) < 1 << 16:
        _write(stream, memoryview(header + bytes(view)))
    else:
        _write(stream, memoryview(header))
        _write(stream, view)


def _write(stream: int, view: memoryview) -> None:
    while view:
        view = view[os.write(stream, view) :]
