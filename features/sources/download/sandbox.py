"""Sandbox of a download process: it can connect only where the policy allows, whatever library it uses."""

import os
import socket
import sys
from typing import Any

from features.sources.download.policy import DownloadPolicy, ForbiddenUrlError

_PROGRAM_EVENTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty")
_SEND_EVENTS = ("socket.connect", "socket.sendto", "socket.sendmsg")


def guard_process(policy: DownloadPolicy) -> None:
    """Limit this process permanently to connections that `policy` allows, and to starting no programs.

    A look-up fails if any IP address of the host is forbidden. Each connection is checked again by the IP address that
    it goes to, so that nothing can change in between. Both raise ForbiddenUrlError; starting a program raises
    PermissionError. The limits hold for Python's own sockets, not for a library with its own network code in C.
    """
    resolve = socket.getaddrinfo

    def resolve_checked(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        found = resolve(host, port, *args, **kwargs)
        for *_, address in found:
            policy.check_ip(str(address[0]), int(address[1]), host=str(host))
        return found

    def audit(event: str, values: tuple[Any, ...]) -> None:
        if event in _SEND_EVENTS:
            _check_peer(policy, values[0], values[1])
        elif event in _PROGRAM_EVENTS:
            raise PermissionError(f"this process may not start programs ({event})")

    socket.getaddrinfo = resolve_checked
    sys.addaudithook(audit)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]  # a proxy would connect in place of this process


def _check_peer(policy: DownloadPolicy, sock: Any, peer: Any) -> None:
    if peer is None:  # already connected
        return
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(peer, tuple):
        raise ForbiddenUrlError("only internet addresses are allowed")
    policy.check_ip(str(peer[0]), int(peer[1]))
