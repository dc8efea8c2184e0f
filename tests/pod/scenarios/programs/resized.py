"""A tree whose container becomes smaller than what it may hold, and large again, while it runs: `resized.py LARGE SMALL` (in bytes). Two
children hold memory, so that the smaller container has just room for it, and its budget has not: the one that holds most has to leave."""

import subprocess
import sys
import time

MIB = 1 << 20
LARGE, SMALL = int(sys.argv[1]), int(sys.argv[2])


def number(file):
    with open("/sys/fs/cgroup/" + file) as opened:
        return int(opened.read())


def anonymous():
    with open("/sys/fs/cgroup/memory.stat") as stat:
        return int(dict(line.split() for line in stat)["anon"])


def hold(most):
    """So many blocks, or until so much of the container is in use."""
    blocks = []
    while len(blocks) < most and anonymous() < SMALL - 8 * MIB:
        blocks.append(b"1" * MIB)
    print(len(blocks), flush=True)
    sys.stdin.read()


def is_now(limit):
    began = time.monotonic()
    while number("memory.max") != limit:
        assert time.monotonic() - began < 200, "the container is not resized"
        time.sleep(0.01)


if len(sys.argv) > 3:
    hold(int(sys.argv[3]))
    sys.exit()
words = [sys.executable, *sys.argv]
children = []
for most in ["40", "1000"]:
    child = subprocess.Popen(words + [most], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    children.append(child)
    print("holds", child.stdout.readline())
assert number("memory.max") == LARGE, "the container was resized too early"
is_now(SMALL)
smaller, greater = children
print("left with", greater.wait(), "and", smaller.poll())
is_now(LARGE)
blocks = []
try:
    while len(blocks) < LARGE // MIB:
        blocks.append(b"1" * MIB)
except MemoryError:
    pass
print(len(blocks), "more")
assert len(blocks) > (SMALL >> 20) - 40, "it does not follow"
smaller.stdin.close()
print("the other", smaller.wait())
