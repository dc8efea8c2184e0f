#!/usr/bin/env python3
"""Runs worker.py for every INPUT under `oomguard run`, and again with twice the memory where that proved too little.

The limits of all workers that run at the same time never exceed BUDGET_MIB: in a container, give it what the container
has less what this parent needs. A worker that runs out of memory ends alone; the parent and the other workers go on.
Needs `oomguard` in PATH and nothing but the standard library. Exits with 0 if every input was summarised.
"""

import argparse
import concurrent.futures
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import uuid

OUT_OF_MEMORY = 198
WORKER = pathlib.Path(__file__).with_name("worker.py")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("budget_mib", type=int)
    parser.add_argument("first_mib", type=int, help="the limit that every worker starts with")
    parser.add_argument("inputs", nargs="+", metavar="INPUT")
    arguments = parser.parse_args()
    budget = Budget(arguments.budget_mib)
    first_mib = min(arguments.first_mib, arguments.budget_mib)
    with concurrent.futures.ThreadPoolExecutor(max_workers=len(arguments.inputs)) as pool:
        returncodes = pool.map(lambda path: summarise(path, first_mib, budget), arguments.inputs)
        return 0 if all(returncode == 0 for returncode in returncodes) else 1


def summarise(path, limit_mib, budget):
    """The return code of the last attempt; its output is printed if it is 0."""
    while True:
        with budget.share(limit_mib):
            returncode, output, report = attempt(path, limit_mib)
        if returncode == 0:
            print(f"{path}:\n{output}", end="", flush=True)
            return returncode
        if report is None or limit_mib >= budget.total_mib:
            say(f"{path}: giving up with {limit_mib} MiB: return code {returncode}")
            return returncode
        larger_mib = min(limit_mib * 2, budget.total_mib)
        say(f"{path}: {limit_mib} MiB were not enough, trying {larger_mib} MiB")
        limit_mib = larger_mib


def attempt(path, limit_mib):
    """The return code, the output, and the report if the worker ran out of memory."""
    token = uuid.uuid4().hex
    with tempfile.NamedTemporaryFile() as report_file:
        launcher = ["oomguard", "run", "--limit", f"{limit_mib}Mi", "--report", report_file.name, "--"]
        worker = subprocess.run(
            [*launcher, sys.executable, WORKER, path],
            env=os.environ | {"OOMGUARD_TOKEN": token},
            stdout=subprocess.PIPE,
            text=True,
        )
        report = None
        if worker.returncode == OUT_OF_MEMORY:
            # Any program may exit with 198; only what we started knows the token.
            reports = [json.loads(line) for line in report_file]
            report = next((report for report in reports if report["token"] == token), None)
        return worker.returncode, worker.stdout, report


class Budget:
    """The memory that the limits of all running workers share."""

    def __init__(self, total_mib):
        self.total_mib = total_mib
        self.free_mib = total_mib
        self.changed = threading.Condition()

    @contextlib.contextmanager
    def share(self, mib):
        with self.changed:
            self.changed.wait_for(lambda: self.free_mib >= mib)
            self.free_mib -= mib
        try:
            yield
        finally:
            with self.changed:
                self.free_mib += mib
                self.changed.notify_all()


def say(text):
    print(f"workers.py: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
