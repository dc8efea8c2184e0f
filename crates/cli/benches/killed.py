#!/usr/bin/env python3
"""Is the ledger's sum right after participants of a budget were killed at random moments? `killed.py LAUNCHER COUNT`: eight at a time
take and give back blocks (programs/churn.c); all stand still while one is killed and the ledger is read. It prints how often the sum was
another one than that of the rows for good (`wrong`), or above the budget, how often it took a moment until what the dead one had was
taken back (`late`), and how long at most."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time


def ledger(launcher):
    text = subprocess.run([launcher, "top", "--json"], capture_output=True, text=True, check=True).stdout
    is_here = lambda budget: any(row["pid"] == os.getpid() for row in budget["processes"])
    [budget] = filter(is_here, json.loads(text)["budgets"])
    return budget["leased"], sum(row["lease"] for row in budget["processes"]), budget["budget"]


def kill_them(launcher, program, count):
    random.seed(7)
    crowd = [subprocess.Popen([program, str(number)]) for number in range(8)]
    wrong = above = late = 0
    longest = 0.0
    for number in range(count):
        time.sleep(random.random() * 0.004)
        for one in crowd:
            one.send_signal(signal.SIGSTOP)
        one = crowd.pop(random.randrange(len(crowd)))
        one.kill()
        one.wait()
        began = time.monotonic()
        leased, held, budget = ledger(launcher)
        above += leased > budget
        late += leased != held
        while leased != held and time.monotonic() < began + 10:
            leased, held, budget = ledger(launcher)
            longest = max(longest, time.monotonic() - began)
        wrong += leased != held
        for other in crowd:
            other.send_signal(signal.SIGCONT)
        crowd.append(subprocess.Popen([program, str(number + 8)]))
    for one in crowd:
        one.kill()
        one.wait()
    print(json.dumps({"killed": count, "wrong": wrong, "above": above, "late": late, "longest_s": round(longest, 2)}))


if __name__ == "__main__":
    launcher = sys.argv[1]
    if sys.argv[2] == "below":
        kill_them(launcher, sys.argv[3], int(sys.argv[4]))
    else:
        source = pathlib.Path(__file__).parent / "programs" / "churn.c"
        with tempfile.TemporaryDirectory() as place:
            program = os.path.join(place, "churn")
            subprocess.run(["cc", "-O1", source, "-o", program], check=True)
            run = [launcher, "run", "--budget", "100Mi", "--patience", "200ms", "--", sys.executable, __file__]
            sys.exit(subprocess.run([*run, launcher, "below", program, sys.argv[2]]).returncode)
