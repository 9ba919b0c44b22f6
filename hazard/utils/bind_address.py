"""Addresses that our servers bind to: `PORT`, `HOST:PORT` or `[IPv6]:PORT`."""

import re
from typing import NamedTuple

LOOPBACK_HOST = "127.0.0.1"
_BIND_ADDRESS_PATTERN = re.compile(r"(?:(?P<host>[\w.-]+|\[[0-9A-Fa-f:.%\w-]+\]):)?(?P<port>[0-9]{1,5})", re.ASCII)


class BindAddress(NamedTuple):
    """A host, without brackets, and a port; port 0 means any free port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_bind_address(text: str) -> BindAddress:
    """Return the address that `text` gives; a port alone means this machine only.

    Raises ValueError if `text` is not an address.
    """
    match = _BIND_ADDRESS_PATTERN.fullmatch(text)
    if not match or int(match["port"]) > 65535:
        raise ValueError("expected PORT, HOST:PORT or [IPv6]:PORT, with a port from 0 to 65535")
    return BindAddress((match["host"] or LOOPBACK_HOST).strip("[]"), int(match["port"]))
