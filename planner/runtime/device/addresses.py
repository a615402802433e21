"""Network addresses as users write them: `host:port`, with an IPv6 address in brackets."""

from __future__ import annotations

import ipaddress
import socket
from typing import NamedTuple

from .errors import DeviceError

DEFAULT_PORT = 7447
"""Port that a worker listens on unless told otherwise."""


class Endpoint(NamedTuple):
    """Address of a socket, resolved."""

    family: socket.AddressFamily
    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Return whether what is sent there never leaves this machine."""
        address = ipaddress.ip_address(self.host.partition("%")[0])
        # A socket of IPv6 that takes IPv4 too shows it so: ::ffff:127.0.0.1.
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.family == socket.AF_INET6 else f"{self.host}:{self.port}"


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of `host:port`.

    Raises:
        DeviceError: If it is not of this form, or the port is none.
    """
    host, colon, port = text.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if is_bracketed else host
    is_port = port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65_535
    if not colon or not host or not is_port or (":" in host and not is_bracketed):
        raise DeviceError(f"address must be HOST:PORT, such as 192.168.0.11:{DEFAULT_PORT}, got {text[:200]!r}.")
    return host, int(port)


def resolve(text: str) -> Endpoint:
    """Return the endpoint of `host:port`; a host name is looked up.

    Raises:
        DeviceError: If the address is malformed or its host is not known.
    """
    host, port = split_address(text)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # A label of a name that is too long for DNS is a UnicodeError.
    except (OSError, UnicodeError) as error:
        raise DeviceError(f"address {text[:200]!r}: the host cannot be found ({error}).") from None
    family, _, _, _, address = found[0]
    return Endpoint(socket.AddressFamily(family), str(address[0]), port)
