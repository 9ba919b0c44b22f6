"""What a process and all that it started hold and use, by /proc (Linux)."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Of some processes together: memory that several share counts once (PSS)."""

    bytes: int = 0
    cpu_seconds: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.bytes + other.bytes, self.cpu_seconds + other.cpu_seconds)


def usage_of(pid: int) -> Usage:
    """Of one process; nothing where it is gone."""
    with suppress(OSError):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        held = next((int(line.split()[1]) * 1024 for line in rollup if line.startswith("Pss:")), 0)
        return Usage(held, sum(map(int, _stat(pid)[11:13])) / TICKS)
    return Usage()


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
