"""Ways of a Python program to meet the end of its memory: eat.py WAY [CODE]."""

import os
import sys
import threading


def eat():
    held = []
    while True:
        held.append(bytearray(64 << 10))


def work():
    table = {}
    for i in range(4000):
        table[str(i % 100)] = bytes([i % 256]) * (16 << 10)
    return sum(len(name) + block[0] for name, block in table.items())


class Node:
    def __init__(self, before):
        self.before = before
        self.name = "node"


def small():
    last = None
    while True:
        last = Node(last)


def text():
    line = "x"
    while True:
        line += line


def numpy_arrays():
    import numpy

    held = []
    while True:
        held.append(numpy.ones((256, 1024)))


def in_thread():
    # The exception ends the thread; the main thread finds out and leaves.
    failed = []

    def job():
        try:
            eat()
        except MemoryError:
            failed.append(True)
            raise

    threads = [threading.Thread(target=job) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.exit(1 if failed else 77)


def start_threads():
    # Each holds something of its own.
    started = threading.Event()

    def hold():
        held = bytearray(b"7") * (1 << 20)
        started.wait()
        return held

    while True:
        threading.Thread(target=hold, daemon=True).start()


def caught_and_left():
    try:
        eat()
    except MemoryError:
        sys.exit("eat: too little memory for this input: MemoryError")


def caught_and_left_silently():
    try:
        eat()
    except MemoryError:
        os._exit(1)


def pool():
    # A worker of a pool that hands its MemoryError to the parent, which dies of it.
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(1) as executor:
        executor.submit(eat).result()


def recover():
    try:
        eat()
    except MemoryError:
        pass
    print("recovered", work())


def recover_often():
    # A worker that meets too large a job now and then, and goes on with the next one.
    done = 0
    for _ in range(5):
        try:
            eat()
        except MemoryError:
            pass
        done += work()
    print("recovered", done)


def recover_huge():
    try:
        bytearray(1 << 50)
    except MemoryError:
        pass
    print("recovered", work())


WAYS = {
    "bytearray": eat,
    "small": small,
    "text": text,
    "numpy": numpy_arrays,
    "thread": in_thread,
    "threads": start_threads,
    "caught": caught_and_left,
    "caught-silent": caught_and_left_silently,
    "pool": pool,
    "recover": recover,
    "recover-often": recover_often,
    "recover-huge": recover_huge,
    "own": lambda: print("own", work()),
}

if __name__ == "__main__":
    print("pid", os.getpid(), flush=True)
    WAYS[sys.argv[1]]()
    sys.exit(int(sys.argv[2]))
