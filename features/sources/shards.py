"""Shards: which clips of a source one machine of several takes."""

import hashlib
import re
from dataclasses import dataclass

from features.errors import SettingsError


@dataclass(frozen=True)
class Shard:
    """Share `index` of `count`, counted from one. The same on every machine: it depends on a clip's path alone."""

    index: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def is_single(self) -> bool:
        """Whether there is only this one."""
        return self.count == 1

    def contains(self, path: str) -> bool:
        """Whether the clip of this path is one of its own."""
        number = int(hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest(), 16)
        return number % self.count == self.index - 1


SINGLE_SHARD = Shard()


def parse_shard(text: str) -> Shard:
    """`I/N` with 1 <= I <= N. Raises SettingsError."""
    match = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", text.strip(), re.ASCII)
    if not match or int(match[1]) > int(match[2]):
        raise SettingsError(f"--shard takes I/N with 1 <= I <= N, such as 2/4; got '{text}'")
    return Shard(int(match[1]), int(match[2]))
