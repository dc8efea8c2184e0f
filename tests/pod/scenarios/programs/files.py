"""Fills a file in memory beyond what its container has, which nobody has mapped: `files.py write|fallocate`. A child does, another
one takes memory beside it, and a third writes more than both to where nothing is kept. Prints what the first two ended with."""

import os
import sys
import time

MIB = 1 << 20


def fill():
    fd = os.open("/dev/shm/filled", os.O_CREAT | os.O_RDWR)
    for number in range(200):
        if sys.argv[1] == "write":
            os.write(fd, b"1" * MIB)
        else:
            os.posix_fallocate(fd, number * MIB, MIB)
        time.sleep(0.02)


def chat():
    nowhere = os.open("/dev/null", os.O_WRONLY)
    while True:
        os.write(nowhere, b"1" * MIB)
        time.sleep(0.005)


def take():
    held = []
    for _ in range(20):
        held.append(b"1" * MIB)
        time.sleep(0.02)
    time.sleep(10)


children = {}
for work in [chat, fill, take]:
    child = os.fork()
    if child == 0:
        try:
            work()
        except (OSError, MemoryError) as error:
            print(work.__name__, error, flush=True)
            os._exit(3)
        os._exit(0)
    children[child] = work.__name__
chatter, *others = children
for _ in others:
    child, status = os.wait()
    print(children[child], os.waitstatus_to_exitcode(status), flush=True)
os.kill(chatter, 9)
