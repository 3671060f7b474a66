"""What no test may do: reach the network. An audit hook sees every socket that Python opens, ours and libraries'."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Any
from urllib.parse import urlsplit

LOOPBACK_NAMES = {"localhost", "", None, socket.gethostname()}  # several processes of a test meet there
NETWORK_EVENTS = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.getaddrinfo": 0,
                  "socket.gethostbyname": 0, "urllib.Request": 0}  # event -> where it names the other side  # fmt: skip


class NetworkUsed(RuntimeError):
    """Something wants to leave this machine."""


def is_local(address: Any) -> bool:
    """Unix sockets, and names and numbers of the loopback."""
    host = address[0] if isinstance(address, tuple) else address
    if isinstance(host, bytes):
        host = os.fsdecode(host)
    if host in LOOPBACK_NAMES or (isinstance(address, str | bytes) and os.fsdecode(address)[:1] in ("/", "\0")):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook: raises inside whoever opens the connection."""
    if event in NETWORK_EVENTS:
        address = arguments[NETWORK_EVENTS[event]]
        host = urlsplit(address).hostname if event == "urllib.Request" else address  # None is of file: URLs
        if not is_local(host):
            raise NetworkUsed(f"{event} to {address!r}: tests use no network")
