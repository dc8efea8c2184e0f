#!/usr/bin/env python3
"""How many of 24 tasks of 10 to 120 MiB get through in a pool of four with 200 MiB? `mixed.py LAUNCHER SEED…`: in a budget, with two
patiences, and with a quarter for each; at once, and with one retry."""

import multiprocessing
import random
import subprocess
import sys
import time

WAYS = {
    "budget": ["--budget", "200Mi"],
    "patience 5s": ["--budget", "200Mi", "--patience", "5s"],
    "split": ["-m", "50Mi"],
}


def work(task):
    mib, seconds = task
    try:
        blocks = []
        for _ in range(mib):
            blocks.append(b"x" * (1 << 20))
            time.sleep(seconds / mib)
        return True
    except MemoryError:
        return False


def through(seed):
    random.seed(seed)
    tasks = [(random.randint(10, 120), random.uniform(0.1, 0.4)) for _ in range(24)]
    with multiprocessing.Pool(4) as pool:
        done = pool.map(work, tasks, chunksize=1)
        again = [task for task, is_done in zip(tasks, done) if not is_done]
        more = pool.map(work, again, chunksize=1) if again else []
    print(sum(done), sum(done) + sum(more))


if __name__ == "__main__":
    if sys.argv[1] == "below":
        through(int(sys.argv[2]))
    else:
        for seed in sys.argv[2:]:
            for name, options in WAYS.items():
                run = [sys.argv[1], "run", *options, "--", sys.executable, __file__, "below", seed]
                done = subprocess.run(run, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
                print(f"seed {seed}, {name}: {done.strip()}")
