"""Limits are read here as the launcher reads them."""

from __future__ import annotations

import json
import random
import subprocess
from typing import Any

import oomguard
from oomguard import _limit
from oomguard._limit import container_limit, machine_memory, resolve
from oomguard._run import next_limit

WELL_KNOWN = {
    "536870912": 536870912,
    536870912: 536870912,
    "512M": 512_000_000,
    "512MB": 512_000_000,
    "512Mi": 512 << 20,
    "512MiB": 512 << 20,
    "1.5GiB": 3 << 29,
    "1.0000001Ki": 1024,
    "7k": 7000,
    "7K": 7000,
    "2Ti": 2 << 40,
    "off": None,
}


def test_limits_come_to_bytes() -> None:
    for text, count in WELL_KNOWN.items():
        assert resolve(text)[0] == count  # type: ignore[arg-type]


def test_what_is_read_here_is_read_by_the_launcher() -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    for _ in range(60):
        number = chance.choice(["1", "0", "300", "12.5", "1.", ".5", "007", "+3", "99999999999999999999", "18446744073709551615"])
        text = number + chance.choice(["", "K", "k", "Ki", "M", "m", "Mi", "MiB", "MB", "Gi", "T", "TiB", "%", " M", "iB", "B"])
        try:
            resolve(text)
            is_read = True
        except ValueError:
            is_read = False
        launcher = subprocess.run(
            [oomguard.launcher(), "run", f"--limit={text}", "--no-such-option"], stderr=subprocess.PIPE, text=True
        )
        assert (not launcher.stderr.startswith("oomguard: --limit ")) == is_read, (seed, text, launcher.stderr)


def test_the_container_is_the_one_that_the_launcher_sees() -> None:
    doctor = subprocess.run([oomguard.launcher(), "doctor", "--json"], stdout=subprocess.PIPE)
    told = json.loads(doctor.stdout)
    assert told["container"]["limit"] == container_limit()
    assert told["run"]["limit"] == resolve("auto")[0]
    if container_limit() is None:
        assert resolve("50%")[0] == told["machine"]["memory"] // 2


def test_retries_leave_some_of_the_container_to_whoever_waits(monkeypatch: Any) -> None:
    for limit, most in ((1000, 900), (None, machine_memory())):
        monkeypatch.setattr(_limit, "container_limit", lambda limit=limit: limit)
        assert next_limit(500, 1e12, None) == most
        assert next_limit(most, 2.0, None) is None
