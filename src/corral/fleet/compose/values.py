"""Single values as compose writes them: ports, volumes, sizes, times; a ValueError says why one cannot be. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_PORT = re.compile("[0-9]{1,5}")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h)")
_MODE = re.compile("0[0-7]{1,5}|[1-9][0-9]{0,5}|0")
_MOST_BYTES = 2.0**53
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def short_port(text: str) -> tuple[str | None, int, int]:
    """`[HOST:]OUTSIDE:INSIDE[/tcp]` as address, port of the machine and port inside."""
    text, _, protocol = text.partition("/")
    if protocol not in ("", "tcp"):
        raise ValueError("a model's API is asked over TCP.")
    head, _, inside = text.rpartition(":")
    host, _, outside = head.rpartition(":")
    return _port(host.strip("[]") or None, outside, inside)


def long_port(item: Mapping[str, Any]) -> tuple[str | None, int, int]:
    """A port written as a mapping, as `short_port` gives it."""
    if item.get("protocol") not in (None, "tcp"):
        raise ValueError("a model's API is asked over TCP.")
    host = item.get("host_ip")
    return _port(str(host) if host else None, str(item.get("published", "")), str(item.get("target", "")))


def _port(host: str | None, outside: str, inside: str) -> tuple[str | None, int, int]:
    if "-" in outside or "-" in inside:
        raise ValueError("a range of ports; write each by itself.")
    if not outside:
        raise ValueError("compose would take any port that is free; give the machine's port too.")
    for number in (outside, inside):
        if not _PORT.fullmatch(number) or not 0 < int(number) < 65536:
            raise ValueError(f"{shown(number)!r} is no port from 1 to 65535.")
    return host, int(outside), int(inside)


def further_port(port: tuple[str | None, int, int], own: str) -> str:
    """A port as `ports` of an entry has it, whose other ports are on `own`."""
    host, outside, inside = port
    if host is None or host == own:
        return f"{outside}:{inside}"
    return f"[{host}]:{outside}:{inside}" if ":" in host else f"{host}:{outside}:{inside}"


def short_volume(item: Any) -> tuple[str, str, list[str]]:
    """`SOURCE:TARGET[:OPTION,…]`."""
    source, sign, rest = str(item).partition(":")
    if not sign:
        raise ValueError("it has no name, and its content would be lost with the container. Give it a name.")
    target, _, options = rest.partition(":")
    return source, target, [option for option in options.split(",") if option]


def tmpfs_options(of: Mapping[str, Any]) -> str:
    """What a folder in memory is mounted with."""
    options = [f"size={size(of['size'])}"] if "size" in of else []
    if "mode" in of:
        mode = str(of["mode"])
        if not _MODE.fullmatch(mode):
            raise ValueError(f"{shown(mode)!r} is no mode such as 01777.")
        options.append(f"mode={int(mode, 8 if mode.startswith('0') else 10):o}")
    return ",".join(options) or "rw"


def size(value: Any) -> int:
    """Compose's sizes: a number of bytes, or with a letter, which counts by 1024."""
    match = _SIZE.fullmatch(str(value).strip())
    if match is None or isinstance(value, bool):
        raise ValueError(f"{shown(value)} is no size.")
    found = float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " ")
    if found > _MOST_BYTES:
        raise ValueError(f"{shown(value)} is more than any machine has.")
    return int(found)


def same_size(value: Any, memory: Any) -> bool:
    """Whether a size is so many bytes."""
    try:
        return bool(size(value) == memory)
    except ValueError:
        return False


def seconds(value: Any) -> float:
    """A time such as `1m30s`."""
    parts = _TIME.findall(str(value))
    if not parts or "".join(number + unit for number, unit in parts) != str(value):
        raise ValueError(f"{value!r} is no time such as 1m30s.")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def shown(item: Any) -> str:
    """What was written, for a message."""
    text = str(item)
    return text if len(text) <= 100 else f"{text[:97]}…"
