#!/usr/bin/env python3
"""What do tasks that run out of memory cost the others?

`oomguard.ProcessPoolExecutor`, where one task of twenty runs out of memory, against that of concurrent.futures, where none
does: the same tasks, the same number of workers, in turns. Every future is looked at: a lost one, or one with the wrong
outcome, ends this with 1.

    python/benches/executor.py [--tasks N] [--workers N] [--rounds N] [--ms MEAN]...

A task works for between none and twice MEAN milliseconds of processor time, holding up to 1 MiB; one that runs out of
memory does so at its end, by asking for more than there is. With --grows it fills its limit instead, which takes as long as
it takes: the difference is its own time, and not the executor's.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import multiprocessing
import os
import random
import resource
import statistics
import sys
import time
from typing import Any, Dict, List, Tuple

import oomguard

MIB = 1 << 20
LIMIT = "256Mi"
# More than the worst case takes on a slow machine; a future that is not done then is lost.
DEADLINE_S = 600

Task = Tuple[int, int, bool, bool]


def work(pieces: int, held: int, fails: bool, grows: bool) -> int:
    """`pieces` of some 20 µs each, with `held` bytes in use."""
    block = bytearray(held)
    # Every page of it: a use, not a reservation.
    block[::4096] = b"\1" * len(block[::4096])
    piece = bytes(16384)
    for _ in range(pieces):
        hashlib.blake2b(piece).digest()
    if fails:
        rows = [bytearray(MIB) for _ in range(1024)] if grows else [bytearray(1 << 42)]
        return len(rows)
    return len(block)


def tasks_of(count: int, mean_ms: float, grows: bool) -> List[Task]:
    pieces = mean_ms / 1000 / seconds_a_piece()
    draw = random.Random(198)
    return [
        (int(draw.uniform(0, 2 * pieces)), int(draw.uniform(0, MIB)), number % 20 == 7, grows)
        for number in range(count)
    ]


def seconds_a_piece() -> float:
    least = 1.0
    for _ in range(5):
        before = time.process_time()
        work(500, 0, False, False)
        least = min(least, (time.process_time() - before) / 500)
    return least


class Run:
    """How long a whole pool took, and the processor time of all its processes."""

    def __init__(self, wall_s: float, cpu_s: float) -> None:
        self.wall_s, self.cpu_s = wall_s, cpu_s


def measure(kind: str, workers: int, tasks: List[Task]) -> Run:
    before, began = cpu_s(), time.perf_counter()
    with pool_of(kind, workers) as pool:
        futures = [
            pool.submit(work, pieces, held, fails and kind == "fails", grows) for pieces, held, fails, grows in tasks
        ]
        for future, (_, held, fails, _) in zip(futures, tasks):
            error = future.exception(DEADLINE_S)
            if fails and kind == "fails":
                if not isinstance(error, oomguard.OutOfMemory) or error.report is None:
                    sys.exit(f"a task out of memory came to {error!r}")
            elif error is not None or future.result() != held:
                sys.exit(f"a task that works came to {error!r}")
    return Run(time.perf_counter() - began, cpu_s() - before)


def pool_of(kind: str, workers: int) -> Any:
    if kind == "bare":
        # What Python 3.9 to 3.13 do by themselves; forking is what starts fastest.
        return concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("fork"))
    return oomguard.ProcessPoolExecutor(workers, limit=LIMIT)


def cpu_s() -> float:
    """The processor time of this process and of all that it waited for, their children included."""
    uses = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ms", type=float, action="append", help="the mean length of a task; default: 2, 5 and 10")
    parser.add_argument("--grows", action="store_true", help="a task out of memory fills its limit")
    given = parser.parse_args()
    print(f"{given.tasks} tasks, {given.workers} workers, {os.cpu_count()} processors, Python {sys.version.split()[0]}")
    print("times against concurrent.futures with no task failing: wall clock (processor time)\n")
    print("| a task takes, on average | concurrent.futures | oomguard, none fails | oomguard, 5 % fail | a failure, processor time |")
    print("|---|---:|---:|---:|---:|")
    for mean_ms in given.ms or [2.0, 5.0, 10.0]:
        tasks = tasks_of(given.tasks, mean_ms, given.grows)
        kinds = ["bare", "none", "fails"]
        runs: Dict[str, List[Run]] = {kind: [] for kind in kinds}
        for number in range(given.rounds):
            for kind in kinds[number % 3 :] + kinds[: number % 3]:
                runs[kind].append(measure(kind, given.workers, tasks))
        failing = sum(fails for _, _, fails, _ in tasks)
        row = [f"{mean_ms:g} ms", f"{statistics.median(run.wall_s for run in runs['bare']):.2f} s"]
        for kind in ("none", "fails"):
            pairs = list(zip(runs[kind], runs["bare"]))
            wall = statistics.median(ours.wall_s / bare.wall_s for ours, bare in pairs)
            cpu = statistics.median(ours.cpu_s / bare.cpu_s for ours, bare in pairs)
            row.append(f"{wall:.2f} ({cpu:.2f})")
        more = statistics.median(ours.cpu_s - none.cpu_s for ours, none in zip(runs["fails"], runs["none"]))
        row.append(f"{more / failing * 1000:.2f} ms")
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
