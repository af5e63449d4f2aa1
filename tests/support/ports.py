"""Ports for servers that must be told theirs before they start."""

from __future__ import annotations

import random
import socket

_RANGE = range(12_000, 32_000)
"""Below those that the kernel gives to connections, of which one might have it by the time that the server starts."""


def free_port() -> int:
    """A port of this machine's loopback that nobody has."""
    while True:
        port = random.choice(_RANGE)
        with socket.socket() as found:
            try:
                found.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
