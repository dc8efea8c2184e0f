"""Ways of a Python program to end after it was refused memory: ends.py WAY CODE. `d-`: memory is why. `h-`: it is not."""

import logging
import os
import sys
import threading


def eat():
    held = []
    while True:
        held.append(bytearray(1 << 20))


def handled():
    try:
        eat()
    except MemoryError:
        pass


def full():
    """What fills the memory, after it was refused more."""
    held = []
    try:
        while True:
            held.append(bytearray(1 << 20))
    except MemoryError:
        return held


way, code = sys.argv[1], int(sys.argv[2])

# The last exception is, or came from, a MemoryError, whatever is said of it.
if way == "d-exit-at-once":
    try:
        eat()
    except Exception:
        sys.exit(code)
if way == "d-exit-word":
    try:
        eat()
    except Exception:
        sys.exit("too large for this machine")
if way == "d-exit-raised":
    try:
        eat()
    except Exception:
        raise SystemExit(code)
if way == "d-exit-subclass":

    class Leave(SystemExit):
        pass

    try:
        eat()
    except Exception:
        raise Leave(code)
if way == "d-exit-of-site":
    try:
        eat()
    except Exception:
        exit(code)
if way == "d-from-none":
    try:
        eat()
    except MemoryError:
        raise RuntimeError("job failed") from None
if way == "d-from-kept":
    try:
        eat()
    except MemoryError as error:
        kept = error
    raise ValueError("job failed") from kept
if way == "d-group":
    try:
        eat()
    except MemoryError as error:
        kept = error
    raise ExceptionGroup("jobs", [KeyError("x"), kept])
if way == "d-silent-hook":
    sys.excepthook = lambda *_: None
    try:
        eat()
    except MemoryError:
        raise RuntimeError("job failed") from None
if way == "d-tidied":
    import shutil
    import tempfile

    place = tempfile.mkdtemp()
    try:
        eat()
    except Exception:
        print("Error: could not process", file=sys.stderr)
        shutil.rmtree(place)
        sys.exit(code)
if way == "d-os-exit":
    try:
        eat()
    except BaseException:
        print("Error: could not process", file=sys.stderr)
        os._exit(code)
if way == "d-forked":
    pid = os.fork()
    if pid == 0:
        try:
            eat()
        except Exception:
            os._exit(code)
    sys.exit(os.waitpid(pid, 0)[1] >> 8)
if way == "d-future":
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        pool.submit(eat).result()
# The exception is gone by the time it leaves; its words are the last ones.
if way == "d-logged-by-main":

    def main():
        held = []
        try:
            while True:
                held.append(bytearray(1 << 20))
        except Exception:
            held.clear()
            logging.exception("job failed")
            return code

    sys.exit(main())

if way == "d-told-by-main":

    def tell():
        try:
            bytearray(1 << 30)
        except MemoryError:
            print("job 1: ran out of memory", file=sys.stderr)
            return code

    sys.exit(tell())
if way in ("h-told-then-childs", "d-told-then-child-tidied"):

    def tell_and_start(command):
        try:
            bytearray(1 << 30)
        except MemoryError:
            print("job 1: ran out of memory", file=sys.stderr)
        return os.system(command) >> 8

    # The child's code, which is passed on; or one of its own.
    sys.exit(tell_and_start(f"exit {code}" if way.startswith("h-") else "exit 0") or code)
# It was got over long before those words were said.
if way == "h-told-after-work":
    handled()
    sum(len(bytearray(64 << 10)) for _ in range(2000))
    print("FAILED test_limit: no MemoryError", file=sys.stderr)
    print("ERROR test_limit: MemoryError", file=sys.stderr)
    sys.exit(code)

# What it died of is in the middle of what a worker says, who then leaves when that is no longer handled.
if way == "d-worker":
    import traceback

    try:
        try:
            eat()
        except MemoryError as error:
            raise ValueError("job failed") from error
    except ValueError:
        traceback.print_exc()
    os._exit(code)

if way == "h-exit":
    try:
        eat()
    except MemoryError:
        pass
    sys.exit(code)
if way == "h-exit-later":
    handled()
    sys.exit(code)
if way == "h-full-exit":
    held = full()
    sys.exit(code)
if way == "h-words":
    handled()
    print("using jemalloc; no memory leaks found", file=sys.stderr)
    sys.exit(code)
if way == "h-logged-and-worked":
    handled()
    print("MemoryError: job 1 left out", file=sys.stderr)
    sum(len(bytearray(64 << 10)) for _ in range(2000))
    sys.exit(code)
if way == "h-logged-and-told":
    handled()
    print("job 1: MemoryError", file=sys.stderr)
    print("1 of 7 jobs have failed", file=sys.stderr)
    sys.exit(code)
if way == "h-thread":
    thread = threading.Thread(target=handled)
    thread.start()
    thread.join()
    sys.exit(code)
if way == "h-forked":
    handled()
    pid = os.fork()
    if pid == 0:
        os._exit(code)
    sys.exit(os.waitpid(pid, 0)[1] >> 8)
if way == "h-os-exit":
    handled()
    os._exit(code)
if way == "h-os-exit-of-other":
    handled()
    try:
        int("x")
    except ValueError:
        os._exit(code)
if way == "h-own-hook":

    def leave(*_):
        print("stopped", file=sys.stderr)
        os._exit(code)

    sys.excepthook = leave
    handled()
    raise KeyError("x")
# Python says what it ignores, and goes on.
if way == "h-ignored-by-callback":
    import weakref

    referred = type("Referred", (), {})()
    reference = weakref.ref(referred, lambda _: eat())
    del referred
    sys.exit(code)
if way == "h-ignored-chain":

    class Closed:
        def __del__(self):
            try:
                eat()
            except MemoryError:
                raise MemoryError

    Closed()
    sys.exit(code)
if way == "h-ignored-and-left":

    class Dropped:
        def __del__(self):
            eat()

    Dropped()
    os._exit(code)
if way == "h-ignored-at-end":
    import atexit

    atexit.register(eat)
    sys.exit(code)
if way == "h-ignored-in-teardown":

    class Last:
        def __del__(self, eat=eat):
            eat()

    kept = Last()
    sys.exit(code)
if way == "d-after-ignored":

    class Early:
        def __del__(self):
            eat()

    Early()
    eat()
# The program raises it for reasons of its own; or because it was refused memory.
if way == "h-raised-its-own":
    handled()
    raise MemoryError("the user's quota is used up")
if way == "h-raised-a-bare-one":
    handled()
    raise MemoryError
if way == "d-raised-its-own":

    class TooLarge(MemoryError):
        pass

    try:
        eat()
    except MemoryError:
        raise TooLarge("job 1") from None
if way == "d-raised-again":
    try:
        eat()
    except MemoryError as error:
        kept = error
    raise kept
# A service is told to end, a moment after it has logged what it got over.
if way == "h-logged-and-ended":
    import signal

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(code))
    try:
        eat()
    except MemoryError:
        logging.exception("request refused")
    if os.fork() == 0:
        import time

        time.sleep(0.3)
        os.kill(os.getppid(), signal.SIGTERM)
        os._exit(0)
    while True:
        signal.pause()
if way == "h-raised":
    try:
        eat()
    except MemoryError:
        print("MemoryError: job 1 skipped", file=sys.stderr)
    raise KeyError("x")
if way == "h-full-raised":
    held = full()
    raise KeyError("x")
if way == "h-raised-earlier":
    # Printed, and survived: not what it ends of.
    import code as interactive

    interactive.InteractiveInterpreter().runcode(compile("eat()", "-", "exec"))
    sys.exit(code)
# An extension is refused memory and says so in its own words, as PyTorch does; the interpreter's end takes its time then.
if way == "d-extension-slow-end":
    import atexit
    import ctypes
    import time

    def tidy_up():
        while time.process_time() < ended + 1.5:
            pass

    atexit.register(tidy_up)
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    while block := libc.malloc(1 << 20):
        ctypes.memset(ctypes.c_void_p(block), 1, 1 << 20)
    ended = time.process_time()
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: Error code 12 (Cannot allocate memory)")
# The memory of a graphics processor is not ours, though the words are.
if way == "h-of-a-device":

    class OutOfMemoryError(RuntimeError):
        pass

    held = full()
    raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 20.00 MiB memory in use.")
if way == "h-of-jax-device":
    held = full()
    raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4GiB with GPU_0_bfc on device 0.")
if way == "h-of-cupy":

    class OutOfMemoryError(MemoryError):
        __module__ = "cupy.cuda.memory"

    held = full()
    raise OutOfMemoryError("Out of memory allocating 8,589,934,592 bytes (allocated so far: 0 bytes).")
sys.exit(77)
