"""Policy of downloads: which URLs and IP addresses may be opened.

The rules hold for every URL, whether it comes from a user, a page or a redirect. Only http and https are allowed,
without a user name or password, on port 80, 443 or a port above 1023. All IP addresses of the host must be public. A
connection goes to one of the checked IP addresses and never to the name, because a second look-up of the name may lead
to another host.
"""

import ipaddress
import re
import socket
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import quote, urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
"""Allowed schemes, and the default port of each."""

MAX_URL_LENGTH = 4096

_RESERVED_NETWORKS = {
    ipaddress.ip_network(network): description
    for network, description in {
        "0.0.0.0/8": "an unspecified address",
        "10.0.0.0/8": "a private address",
        "100.64.0.0/10": "an address inside a provider's network",
        "127.0.0.0/8": "a loopback address",
        "168.63.129.16/32": "a cloud's metadata address",
        "169.254.0.0/16": "a link-local address",
        "172.16.0.0/12": "a private address",
        "192.0.0.0/24": "a reserved address",
        "192.0.2.0/24": "an address for documentation",
        "192.88.99.0/24": "a 6to4 relay's address",
        "192.168.0.0/16": "a private address",
        "198.18.0.0/15": "an address for benchmarks",
        "198.51.100.0/24": "an address for documentation",
        "203.0.113.0/24": "an address for documentation",
        "224.0.0.0/4": "a multicast address",
        "240.0.0.0/4": "a reserved address",
        "::/128": "an unspecified address",
        "::1/128": "a loopback address",
        "::ffff:0:0/96": "an IPv4 address mapped into IPv6",
        "64:ff9b::/96": "an IPv4 address behind NAT64",
        "64:ff9b:1::/48": "an IPv4 address behind NAT64",
        "2001::/32": "a Teredo tunnel's address",
        "2001::/23": "a reserved address",
        "2001:db8::/32": "an address for documentation",
        "2002::/16": "a 6to4 tunnel's address",
        "3fff::/20": "an address for documentation",
        "fc00::/7": "a private address",
        "fe80::/10": "a link-local address",
        "ff00::/8": "a multicast address",
    }.items()
}

_PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")  # all that was ever assigned; `is_global` excludes only special ranges

_HOST_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")

_NUMERIC_HOST = re.compile(r"(.*\.)?(\d+|0x[0-9a-f]*)")


class ForbiddenUrlError(OSError):
    """A URL or IP address that must not be opened.

    It is an OSError, so that network libraries treat it as a failed connection.
    """


@dataclass(frozen=True)
class UrlTarget:
    """A parsed URL. `ip_addresses` holds the checked addresses to connect to; it is empty before the check."""

    url: str  # ASCII, without the fragment
    scheme: str
    host: str
    port: int
    path: str  # with the query
    ip_addresses: tuple[str, ...] = ()


def resolve(host: str, port: int) -> list[str]:
    """Return the IP addresses of a host. Raises OSError."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@dataclass(frozen=True)
class DownloadPolicy:
    """What may be opened: public IP addresses, and those of `networks`, such as `192.168.1.0/24`."""

    networks: tuple[str, ...] = ()
    resolve: Callable[[str, int], Sequence[str]] = resolve

    def check_ip(self, address: str, port: int, *, host: str = "") -> None:
        """Check that a connection to this IP address, to which `host` leads, is allowed. Raises ForbiddenUrlError."""
        _check_port(port)
        if objection := self._find_objection(address):
            where = f"{host} leads to {address}" if host and host != address else address
            raise ForbiddenUrlError(
                f"{where}, {objection}; only public addresses are allowed (the setting download_networks allows others)"
            )

    def _find_objection(self, address: str) -> str:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return "which is not an IP address"
        if any(ip in ipaddress.ip_network(network) for network in self.networks):
            return ""
        return next(
            (description for network, description in _RESERVED_NETWORKS.items() if ip in network),
            _find_non_public_objection(ip),
        )


def parse_url(url: str) -> UrlTarget:
    """Return the parts of a URL after all checks that need no name look-up. Raises ForbiddenUrlError."""
    if len(url) > MAX_URL_LENGTH:
        raise ForbiddenUrlError(f"the URL has {len(url)} characters; at most {MAX_URL_LENGTH} are allowed")
    if any(c.isspace() or not c.isprintable() or c == "\\" for c in url):
        raise ForbiddenUrlError(
            "the URL contains a space, a backslash or a control character; percent-encode it (%20 for a space)"
        )
    try:
        parts = urlsplit(url)
        scheme, port = parts.scheme.lower(), parts.port
    except ValueError as error:
        raise ForbiddenUrlError(f"not a valid URL: {error}") from None
    if scheme not in DEFAULT_PORTS:
        raise ForbiddenUrlError(f"{scheme}:// is not allowed; use http:// or https://")
    if "@" in parts.netloc:
        raise ForbiddenUrlError(f"the URL of {parts.hostname} contains a user name or password; remove it")
    host, port = _normalize_host(parts.hostname or ""), DEFAULT_PORTS[scheme] if port is None else port
    _check_port(port)
    path = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=string.punctuation)
    bracketed = f"[{host}]" if ":" in host else host
    authority = bracketed if port == DEFAULT_PORTS[scheme] else f"{bracketed}:{port}"
    return UrlTarget(url=f"{scheme}://{authority}{path}", scheme=scheme, host=host, port=port, path=path)


def check_url(url: str, policy: DownloadPolicy) -> UrlTarget:
    """Return the parsed URL with the IP addresses of its host, which is looked up once; each address is checked.

    Raises ForbiddenUrlError, and OSError for an unknown host.
    """
    target = parse_url(url)
    found = [target.host] if _is_ip(target.host) else policy.resolve(target.host, target.port)
    addresses = tuple(dict.fromkeys(found))
    for address in addresses:
        policy.check_ip(address, target.port, host=target.host)
    if not addresses:
        raise ForbiddenUrlError(f"{target.host} has no IP address")
    return replace(target, ip_addresses=addresses)


def _normalize_host(host: str) -> str:
    """Return the host in ASCII and lower case. Raises ForbiddenUrlError.

    IP addresses are accepted only in their usual form, because some libraries read `2130706433` as 127.0.0.1.
    """
    if ":" in host:
        if not _is_ip(host) or "%" in host:
            raise ForbiddenUrlError(f"'{host}' is not an IPv6 address")
        return host
    try:
        name = host.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError:
        raise ForbiddenUrlError(f"'{host}' is not a host name") from None
    if not _HOST_NAME.fullmatch(name):
        raise ForbiddenUrlError(f"'{host}' is not a host name")
    if _NUMERIC_HOST.fullmatch(name) and not _is_ip(name):
        raise ForbiddenUrlError(f"'{host}' is an unusual way to write an IP address; write it as four decimal numbers")
    return name


def _check_port(port: int) -> None:
    """Check the port. Raises ForbiddenUrlError.

    Mail, shell and similar services listen below 1024; a request that they could take for their own is not sent there.
    """
    if port not in DEFAULT_PORTS.values() and port < 1024:
        raise ForbiddenUrlError(f"port {port} is not allowed; use 80, 443 or a port above 1023")


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _find_non_public_objection(ip: IPv4Address | IPv6Address) -> str:
    is_public = ip.is_global and (ip.version == 4 or ip in _PUBLIC_IPV6)
    return "" if is_public else "a reserved address"
