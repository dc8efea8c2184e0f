"""The same in Python: adversary.py WAY [CODE]. `r-` got over its MemoryError, `e-` dies of it."""

import os
import sys


def eat(held):
    while True:
        held.append(bytearray(64 << 10))


def refused(held):
    try:
        eat(held)
    except MemoryError:
        pass


def work():
    return sum(i % 256 + len(bytearray(64 << 10)) for i in range(2000))


def main(way, code):
    held = []
    if way == "r-exit":
        refused(held)
        held.clear()
        sys.exit(code)
    if way == "r-raise":
        refused(held)
        held.clear()
        raise ValueError("not a number: x")
    if way == "r-full-raise":
        refused(held)
        del held[-8:]
        raise ValueError("not a number: x")
    if way == "r-work-raise":
        refused(held)
        held.clear()
        print(work())
        raise ValueError("not a number: x")
    if way == "r-work-exit":
        refused(held)
        held.clear()
        print(work())
        sys.exit(code)
    if way == "r-printed-exit":
        refused(held)
        held.clear()
        print("job 1: MemoryError, left out", flush=True)
        print(work())
        sys.exit(code)
    if way == "e-wrapped":
        try:
            eat(held)
        except MemoryError as error:
            held.clear()
            raise RuntimeError("job 1 failed") from error
    if way == "e-wrapped-hidden":
        try:
            eat(held)
        except MemoryError:
            held.clear()
            raise RuntimeError("job 1 failed") from None
    if way == "e-logged":
        import logging

        try:
            eat(held)
        except MemoryError:
            held.clear()
            logging.exception("job 1 failed")
            sys.exit(code)
    sys.exit(77)


print("pid", os.getpid(), flush=True)
main(sys.argv[1], int(sys.argv[2]))
