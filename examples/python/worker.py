#!/usr/bin/env python3
"""Summarises a CSV of requests, all of it held in memory: an ordinary program that knows nothing of oomguard."""

import csv
import sys


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: worker.py INPUT")
    with open(sys.argv[1], newline="") as file:
        rows = list(csv.DictReader(file))
    millis_of = {}
    for row in rows:
        millis_of.setdefault(row["service"], []).append(int(row["millis"]))
    for service, millis in sorted(millis_of.items()):
        print(service, len(millis), sum(millis))


if __name__ == "__main__":
    main()
