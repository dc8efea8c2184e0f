"""Puts the launcher into the wheel, and says for which systems the wheel is.

OOMGUARD_LAUNCHER names a launcher that is built already; without it, cargo builds one from the checkout that this
directory lies in. A launcher that asks for no dynamic linker runs with any C library.
"""

import os
import platform
import struct
import subprocess
from pathlib import Path
from typing import Any, Dict

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PT_INTERP = 3
MACHINES = {62: "x86_64", 183: "aarch64"}


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: Dict[str, Any]) -> None:
        if version == "editable":
            # A source tree takes the launcher that is in PATH.
            return
        launcher = Path(os.environ.get("OOMGUARD_LAUNCHER") or self.build())
        build_data["force_include"][str(launcher)] = "oomguard/bin/oomguard"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(launcher)}"

    def build(self) -> Path:
        checkout = Path(self.root).parent
        subprocess.run(["cargo", "build", "--profile", "launcher", "-p", "oomguard-cli"], cwd=checkout, check=True)
        return Path(os.environ.get("CARGO_TARGET_DIR") or checkout / "target") / "launcher" / "oomguard"


def platform_tag(launcher: Path) -> str:
    with open(launcher, "rb") as file:
        head = file.read(64)
        if head[:6] != b"\x7fELF\x02\x01":
            raise RuntimeError(f"{launcher} is no 64-bit program for Linux")
        machine = MACHINES.get(struct.unpack_from("<H", head, 18)[0], platform.machine())
        (at,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        file.seek(at)
        table = file.read(size * count)
    kinds = {struct.unpack_from("<I", table, index * size)[0] for index in range(count)}
    if PT_INTERP in kinds:
        return f"linux_{machine}"
    return f"manylinux2014_{machine}.manylinux_2_17_{machine}.musllinux_1_1_{machine}"
