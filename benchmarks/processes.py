"""Memory and CPU time of a process and its descendants, read from /proc (Linux)."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Memory and CPU time of some processes together. Shared memory counts once (PSS)."""

    own_bytes: int = 0
    """Private data and shared memory."""
    library_bytes: int = 0
    """Mapped files. The number is smaller if other programs map the same files."""
    cpu_seconds: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.own_bytes + other.own_bytes,
            self.library_bytes + other.library_bytes,
            self.cpu_seconds + other.cpu_seconds,
        )


def measure_usage(pid: int) -> Usage:
    """Return the usage of one process, or zeros if it has ended."""
    with suppress(OSError):
        lines = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]]
        held = {name: int(value) * 1024 for name, value, *_ in lines}
        used = sum(map(int, _stat(pid)[11:13])) / TICKS
        return Usage(held["Pss_Anon:"] + held["Pss_Shmem:"], held["Pss_File:"], used)
    return Usage()


def machine_cpu_seconds() -> float:
    """Return the CPU seconds of all programs since the machine was started."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _wait, interrupts, soft, *_ = map(int, file.readline().split()[1:])
    return (user + nice + system + interrupts + soft) / TICKS


def find_descendants(pid: int) -> list[int]:
    """Return the children of a process and theirs in turn, because readers are children of a fork server."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int(_stat(int(folder.name))[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def _stat(pid: int) -> list[str]:
    """Return the fields after the name of the process. The name may hold any character."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
