#!/usr/bin/env python3
"""Runs a guarded worker with a small memory limit and, whenever that proves too small, again with twice as much.

The worker's stdout becomes OUTPUT, all of it or nothing. Every failure but a lack of memory is passed on at once.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import uuid

OUT_OF_MEMORY = 198


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first_mib", type=int)
    parser.add_argument("ceiling_mib", type=int)
    parser.add_argument("output")
    parser.add_argument("worker", nargs=argparse.REMAINDER, help="the command and its arguments")
    arguments = parser.parse_args()
    if not arguments.worker:
        parser.error("no worker to run")
    partial = arguments.output + ".partial"
    try:
        returncode = run_with_enough(arguments.first_mib, arguments.ceiling_mib, partial, arguments.worker)
        if returncode == 0:
            os.replace(partial, arguments.output)
            with open(arguments.output) as answer:
                print(answer.read(), end="")
        return returncode if returncode >= 0 else 128 - returncode
    except OSError as error:
        sys.exit(f"parent.py: {error}")
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)


def run_with_enough(limit_mib, ceiling_mib, partial, worker):
    """The return code of the last attempt."""
    while True:
        returncode, report = attempt(worker, limit_mib, partial)
        if returncode == 0:
            return returncode
        if report is None or limit_mib >= ceiling_mib:
            say(f"giving up with a limit of {limit_mib} MiB: return code {returncode}")
            return returncode
        larger_mib = min(limit_mib * 2, ceiling_mib)
        say(f"{limit_mib} MiB were not enough, trying {larger_mib} MiB")
        limit_mib = larger_mib


def attempt(worker, limit_mib, partial):
    """The return code, and the report if the worker ran out of memory."""
    token = uuid.uuid4().hex
    with tempfile.NamedTemporaryFile() as report_file, open(partial, "wb") as stdout:
        environment = os.environ | {
            "OOMGUARD_LIMIT": f"{limit_mib}Mi",
            "OOMGUARD_REPORT": report_file.name,
            "OOMGUARD_TOKEN": token,
        }
        returncode = subprocess.run(worker, env=environment, stdout=stdout).returncode
        report = None
        if returncode == OUT_OF_MEMORY:
            # Any program may exit with 198; only this worker's guard knows the token.
            reports = [json.loads(line) for line in report_file]
            report = next((report for report in reports if report["token"] == token), None)
        return returncode, report


def say(text):
    print(f"parent.py: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
