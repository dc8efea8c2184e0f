"""Fills a file in memory beyond what its container has, which nobody has mapped: `files.py write|fallocate`. A child does, another
one takes memory beside it, and a third writes more than both to where nothing is kept. Prints what the first two ended with.

`files.py many`: four children write to files without a name, 40 MiB each, and stay until all have or have ended. Prints how many left
with 198."""

import os
import select
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


def write_one_of_four():
    fd = os.memfd_create("filled")
    for _ in range(40):
        os.write(fd, b"1" * MIB)
        time.sleep(0.02)
    os.write(done, b"1")
    time.sleep(60)


if sys.argv[1] == "many":
    is_done, done = os.pipe()
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            write_one_of_four()
            os._exit(0)
        children.append(child)
    os.close(done)
    codes = []
    stayed = 0
    while stayed + len(codes) < 4:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            codes.append(os.waitstatus_to_exitcode(status))
        elif select.select([is_done], [], [], 0.01)[0]:
            stayed += len(os.read(is_done, 4))
    print(codes.count(198), "of", len(codes), flush=True)
    for child in children:
        try:
            os.kill(child, 9)
        except ProcessLookupError:
            pass
    os._exit(0)

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
