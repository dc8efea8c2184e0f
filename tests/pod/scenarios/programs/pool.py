"""The same job as `job.c`, done by a pool of forked processes: `pool.py SHAPE KIB SEED WIDTH END`."""

import multiprocessing
import os
import struct
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

WORD = (1 << 64) - 1
SHAPE, KIB, SEED, WIDTH, END = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]


def number(page):
    z = (SEED + (page + 1) * 0x9E3779B97F4A7C15) & WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def part(first, pages):
    block = bytearray(pages * 4096)
    for page in range(pages):
        struct.pack_into("<Q", block, page * 4096, number(first + page))
    time.sleep(0.05 + number(3) % 200 / 1000)
    return sum(struct.unpack_from("<Q", block, page * 4096)[0] for page in range(pages)) & WORD


def main():
    pages, tasks = KIB // 4, 2 * WIDTH
    bounds = [pages * index // tasks for index in range(tasks + 1)]
    with ProcessPoolExecutor(WIDTH, multiprocessing.get_context("fork")) as pool:
        parts = [pool.submit(part, begin, end - begin) for begin, end in zip(bounds, bounds[1:])]
        return sum(answer.result() for answer in parts) & WORD


def thread_ended(how):
    # The pool's own: nobody would ever come back to who waits for its answers.
    os.write(1, b"refused\n")
    os._exit(3)


threading.excepthook = thread_ended
try:
    answer = main()
except (MemoryError, BrokenProcessPool) as error:
    # What a worker was refused, and passed on or died of, was not refused here.
    if END != "copes" and isinstance(error, MemoryError) and error.__cause__ is None:
        raise
    print("refused")
    sys.exit(3)
except RuntimeError:
    # The pool was refused its own thread: to leave in the usual way would be to wait for ever for workers that nobody ends.
    thread_ended(None)
print(f"sum {answer:x}")
