"""How limits are written, and what they come to here: the same grammar as the launcher's and the environment's."""

from __future__ import annotations

import os
import re
from typing import Optional, Tuple, Union

Limit = Union[int, str]

_UNITS = {
    "": 1,
    "K": 1000,
    "k": 1000,
    "M": 1000**2,
    "G": 1000**3,
    "T": 1000**4,
    "Ki": 1024,
    "ki": 1024,
    "Mi": 1024**2,
    "Gi": 1024**3,
    "Ti": 1024**4,
}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kKMGT]i?)B?", re.ASCII)
_BYTES = re.compile(r"[0-9]+", re.ASCII)
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)%", re.ASCII)
_AUTO_PERCENT = 90
_MOST = (1 << 64) - 1

ACCEPTED = (
    'accepted: bytes (536870912), "512M" (powers of 1000), "512Mi" (powers of 1024), "80%" (of the container\'s limit), '
    '"auto" (90 % of it), "off"'
)


def text_of(limit: Limit, what: str = "limit") -> str:
    """Returns the limit as the launcher reads it; raises ValueError or TypeError where it is none."""
    if isinstance(limit, bool) or not isinstance(limit, (int, str)):
        raise TypeError(f"{what} is {limit!r}; {ACCEPTED}")
    text = str(limit)
    if not _is_limit(text):
        raise ValueError(f"{what} is {limit!r}; {ACCEPTED}")
    return text


def _is_limit(text: str) -> bool:
    if text in ("auto", "off"):
        return True
    if _BYTES.fullmatch(text):
        return 0 < int(text) <= _MOST
    size = _SIZE.fullmatch(text)
    if size:
        over, under = _fraction(size.group(1))
        return under <= over * _UNITS[size.group(2)] <= under * _MOST
    percent = _PERCENT.fullmatch(text)
    if percent is None:
        return False
    over, under = _fraction(percent.group(1))
    return 0 < over <= under * 100


def _fraction(number: str) -> Tuple[int, int]:
    """Returns a decimal number as it is: what is over the line, and what is under it."""
    whole, _, part = number.partition(".")
    return int(whole + part), 10 ** len(part)


def resolve(limit: Limit, what: str = "limit") -> Tuple[Optional[int], bool]:
    """Returns the limit in bytes, or None where there is none, and whether the container says so."""
    text = text_of(limit, what)
    if text == "off":
        return None, False
    if text == "auto":
        container = container_limit()
        return (None if container is None else container * _AUTO_PERCENT // 100), True
    if _BYTES.fullmatch(text):
        return int(text), False
    size = _SIZE.fullmatch(text)
    if size:
        over, under = _fraction(size.group(1))
        return over * _UNITS[size.group(2)] // under, False
    over, under = _fraction(text[:-1])
    container = container_limit()
    whole = machine_memory() if container is None else container
    return whole * over // (under * 100), container is not None


def machine_memory() -> int:
    """Returns the machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def container_limit() -> Optional[int]:
    """Returns the smallest memory limit of the process's cgroups, up to the root: version 2, version 1 and hybrid."""
    found = []
    for mount, root, kind in _cgroup_mounts():
        path = _cgroup_path(kind)
        if path is None:
            continue
        # In a container the mount shows a part of the tree, whose root is where the path begins.
        if root != "/" and (path == root or path.startswith(root + "/")):
            path = path[len(root) :] or "/"
        names = ("memory.max", "memory.high") if kind == "" else ("memory.limit_in_bytes",)
        parts = [part for part in path.split("/") if part and part != ".."]
        for depth in range(len(parts) + 1):
            directory = os.path.join(mount, *parts[:depth])
            found += [value for value in (_value(os.path.join(directory, name)) for name in names) if value]
    # Version 1 says "no limit" by a number of pages that no machine has.
    found = [value for value in found if value < 1 << 60]
    return min(found) if found else None


def _value(path: str) -> Optional[int]:
    try:
        with open(path, "rb") as file:
            text = file.read(64).strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _cgroup_mounts() -> "list[tuple[str, str, str]]":
    """Returns where each hierarchy that may limit memory is mounted, what of it is shown there, and its controller."""
    mounts = []
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                before, _, after = line.partition(" - ")
                fields, kind = before.split(" "), after.split(" ")
                if len(fields) < 5 or len(kind) < 3:
                    continue
                root, mount = (_unescape(field) for field in fields[3:5])
                if kind[0] == "cgroup2":
                    mounts.append((mount, root, ""))
                elif kind[0] == "cgroup" and "memory" in kind[2].rstrip("\n").split(","):
                    mounts.append((mount, root, "memory"))
    except OSError:
        pass
    return mounts


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code.group(1), 8)), field)


def _cgroup_path(controller: str) -> Optional[str]:
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                _, controllers, path = line.rstrip("\n").split(":", 2)
                if controller in controllers.split(",") if controller else controllers == "":
                    return path
    except (OSError, ValueError):
        pass
    return None


def size(count: int) -> str:
    """Returns a size for people, as the reports write it: `512 MiB`."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= 10 * unit or (count >= unit and count % unit == 0):
            whole = count / unit
            return f"{whole:.0f} {name}" if count % unit == 0 else f"{whole:.1f} {name}"
    return f"{count} bytes"
