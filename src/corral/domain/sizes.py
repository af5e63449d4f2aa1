"""Sizes, for people."""

from __future__ import annotations


def human(size: int) -> str:
    """`size` bytes as people write it, in powers of a thousand: `98.4 MB`."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
