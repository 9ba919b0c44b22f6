"""A process that can connect to nothing but what the address rules allow, whatever library tries."""

import os
import socket
import sys
from typing import Any

from features.sources.download.policy import DownloadPolicy, ForbiddenUrlError

_PROGRAM_EVENTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty")
_SEND_EVENTS = ("socket.connect", "socket.sendto", "socket.sendmsg")


def guard_process(policy: DownloadPolicy) -> None:
    """From now on, and for good, this process connects only where `rules` allow it, and starts no programs.

    Look-ups are refused where any address of a host is; each connection is judged once more by the very address that
    it goes to, so nothing can change in between. Both raise AddressRefused, programs raise PermissionError. Python's
    own sockets are bound by this; a library that brings its own network code in C is not.
    """
    look_up = socket.getaddrinfo

    def checked(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        found = look_up(host, port, *args, **kwargs)
        for *_, address in found:
            policy.check_ip(str(address[0]), int(address[1]), host=str(host))
        return found

    def audit(event: str, values: tuple[Any, ...]) -> None:
        if event in _SEND_EVENTS:
            _check_peer(policy, values[0], values[1])
        elif event in _PROGRAM_EVENTS:
            raise PermissionError(f"this process starts no programs ({event})")

    socket.getaddrinfo = checked
    sys.addaudithook(audit)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]  # a proxy would connect in our place


def _check_peer(policy: DownloadPolicy, sock: Any, peer: Any) -> None:
    if peer is None:  # already connected
        return
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(peer, tuple):
        raise ForbiddenUrlError("only internet addresses are opened")
    policy.check_ip(str(peer[0]), int(peer[1]))
