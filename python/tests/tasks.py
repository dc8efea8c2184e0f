"""What the workers of the tests do."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any, List, NoReturn

import oomguard

MIB = 1 << 20


def square(number: int) -> int:
    return number * number


def pid() -> int:
    return os.getpid()


def eat(mib: int) -> int:
    rows = [bytearray(MIB) for _ in range(mib)]
    return len(rows)


def eat_at_once(mib: int) -> int:
    return len(bytearray(mib * MIB))


def eat_or_square(number: int, bad: bool) -> int:
    return eat_at_once(100_000) if bad else number * number


def eat_and_cope(mib: int) -> str:
    try:
        eat_at_once(mib)
    except MemoryError:
        return "coped"
    return "had enough"


def eat_and_wrap(mib: int) -> NoReturn:
    try:
        eat(mib)
    except MemoryError as error:
        raise ValueError("of no use") from error
    raise AssertionError("had enough")


def eat_unchecked() -> None:
    """C code that does not check what malloc gave."""
    import ctypes

    c = ctypes.CDLL(None)
    c.malloc.restype = ctypes.c_void_p
    c.malloc.argtypes = [ctypes.c_size_t]
    c.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    c.memset(c.malloc(1 << 40), 1, 4096)


def eat_in_a_thread(mib: int) -> str:
    thread = threading.Thread(target=eat, args=(mib,), name="eater")
    thread.start()
    thread.join()
    return "goes on"


def raise_by_itself(*words: str) -> None:
    raise MemoryError(*words)


def raise_with_one_by_itself() -> None:
    raise ValueError(3) from MemoryError("never raised")


def cope_and_raise_by_itself(*words: str) -> None:
    eat_and_cope(100_000)
    raise MemoryError(*words)


def multiply_too_much(is_first_refused: bool) -> str:
    """No object can be so large, and so no memory is asked for."""
    if is_first_refused:
        eat_at_once(100_000)
    return "a" * sys.maxsize


def multiply_too_much_beside_a_thread() -> str:
    """With what else tells of nothing: another thread, and a system call that has failed."""
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    os.path.exists("/nowhere")
    return "a" * sys.maxsize


def eat_and_clean_up() -> None:
    """What is done after a refusal hides it from those who look at errno."""
    try:
        [bytearray(MIB) for _ in range(1000)] * 2
    finally:
        os.path.exists("/nowhere")


def raise_what_a_thread_got() -> None:
    """A thread that has ended was refused memory, and this one was not."""
    failed: List[BaseException] = []

    def eats() -> None:
        try:
            eat_at_once(100_000)
        except MemoryError as error:
            failed.append(error)

    thread = threading.Thread(target=eats)
    thread.start()
    thread.join()
    raise failed[0]


def eat_and_raise_anew() -> None:
    try:
        eat_at_once(100_000)
    except MemoryError:
        raise MemoryError("what it says instead") from None


def cope_and_fail_in_c() -> None:
    """C code's MemoryError, with words, about something else."""
    import ctypes

    eat_and_cope(100_000)
    eat(50)
    ctypes.pythonapi.PyErr_SetString(ctypes.py_object(MemoryError), b"the table is full")


def fail(number: int) -> NoReturn:
    raise KeyError(number)


class Unpicklable(Exception):
    def __init__(self, lock: Any) -> None:
        super().__init__(lock)


class NeedsTwo(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)


def fail_unpicklably() -> NoReturn:
    raise Unpicklable(threading.Lock())


def fail_one_way() -> NoReturn:
    raise NeedsTwo(1, 2)


class Sealed(Exception):
    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise TypeError("sealed")


def fail_sealed() -> NoReturn:
    raise Sealed(7)


class HasNoWords(Unpicklable):
    def __str__(self) -> str:
        raise ValueError("no words")


def fail_without_words() -> NoReturn:
    raise HasNoWords(threading.Lock())


class ExitsAtLoading(Exception):
    def __reduce__(self) -> Any:
        return sys.exit, (3,)


def fail_with_an_exit_at_loading() -> NoReturn:
    raise ExitsAtLoading()


class ExitsWhenAsked(Exception):
    def __str__(self) -> str:
        sys.exit(3)

    def __reduce__(self) -> Any:
        sys.exit(3)


def fail_with_an_exit_when_asked() -> NoReturn:
    raise ExitsWhenAsked()


def fail_with_an_exit_when_asked_at_loading() -> Any:
    return RaisesAtLoading()


class RaisesAtLoading:
    def __reduce__(self) -> Any:
        return fail_with_an_exit_when_asked, ()


def interrupt() -> NoReturn:
    raise KeyboardInterrupt("in the task")


def give_unpicklable() -> Any:
    return threading.Lock()


class UnpicklesBadly:
    def __reduce__(self) -> Any:
        return fail, (3,)


def give_what_unpickles_badly() -> Any:
    return UnpicklesBadly()


def leave(code: int) -> NoReturn:
    os._exit(code)


def leave_politely(code: int) -> NoReturn:
    sys.exit(code)


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_until(path: str) -> str:
    while not os.path.exists(path):
        time.sleep(0.01)
    return path


def announce_and_sleep(path: str) -> None:
    with open(f"{path}.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{path}.new", path)
    time.sleep(600)


STATE: List[Any] = []


def remember(value: Any) -> None:
    STATE.append(value)


def remembered() -> List[Any]:
    return STATE


def remember_much(mib: int) -> int:
    STATE.append([bytearray(MIB) for _ in range(mib)])
    return len(STATE[-1])


def put(value: Any) -> None:
    STATE[0].put(value)


def status_of_worker() -> oomguard.Status:
    return oomguard.status()


def who_am_i() -> Any:
    parent = multiprocessing.parent_process()
    return multiprocessing.current_process().name, parent and parent.pid, sys.stdin.read()


def large(mib: int, body: bytes) -> bytes:
    assert len(body) == mib * MIB
    return body[::-1]


def run_child() -> int:
    import subprocess

    return subprocess.run([sys.executable, "-c", "pass"], stderr=subprocess.PIPE).returncode


def armed_square(number: int) -> int:
    oomguard.arm("300Mi")
    return number * number


def armed_eat(mib: int) -> int:
    oomguard.arm("300Mi")
    return eat(mib)


def descriptors_of_a_command() -> str:
    """What a command has open that inherits all that can be inherited."""
    listed = "import os\nfor fd in os.listdir('/proc/self/fd'):\n try: print(os.readlink('/proc/self/fd/' + fd))\n except OSError: pass"
    return subprocess.run([sys.executable, "-c", listed], close_fds=False, stdout=subprocess.PIPE, text=True, check=True).stdout
