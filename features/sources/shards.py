"""Shards: the share of the clips of a source that one of several machines extracts."""

import hashlib
import re
from dataclasses import dataclass

from features.errors import SettingsError


@dataclass(frozen=True)
class Shard:
    """Share `index` of `count`, counted from one.

    It depends only on the path of a clip, so that it is the same on every machine.
    """

    index: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def is_single(self) -> bool:
        """Whether there is only one shard."""
        return self.count == 1

    def contains(self, path: str) -> bool:
        """Return whether the clip with this path belongs to the shard."""
        number = int(hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest(), 16)
        return number % self.count == self.index - 1


SINGLE_SHARD = Shard()


def parse_shard(text: str) -> Shard:
    """Return the shard of `I/N` with 1 <= I <= N. Raises SettingsError."""
    match = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", text.strip(), re.ASCII)
    if not match or int(match[1]) > int(match[2]):
        raise SettingsError(f"--shard expects I/N with 1 <= I <= N, such as 2/4; got '{text}'")
    return Shard(int(match[1]), int(match[2]))
