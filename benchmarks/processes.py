"""What a process and all that it started hold and use, by /proc (Linux)."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Of some processes together; memory that several of them share counts once (PSS)."""

    own_bytes: int = 0
    """Their data, and what they share with each other."""
    library_bytes: int = 0
    """Mapped from files: a program elsewhere that maps the same ones makes it less."""
    cpu_seconds: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.own_bytes + other.own_bytes,
            self.library_bytes + other.library_bytes,
            self.cpu_seconds + other.cpu_seconds,
        )


def usage_of(pid: int) -> Usage:
    """Of one process; nothing where it is gone."""
    with suppress(OSError):
        lines = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]]
        held = {name: int(value) * 1024 for name, value, *_ in lines}
        used = sum(map(int, _stat(pid)[11:13])) / TICKS
        return Usage(held["Pss_Anon:"] + held["Pss_Shmem:"], held["Pss_File:"], used)
    return Usage()


def machine_cpu_seconds() -> float:
    """Of all that runs on the machine, since it was started."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _wait, interrupts, soft, *_ = map(int, file.readline().split()[1:])
    return (user + nice + system + interrupts + soft) / TICKS


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and that those did: readers hang on a fork server."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int(_stat(int(folder.name))[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def _stat(pid: int) -> list[str]:
    """The fields after the name, which may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
