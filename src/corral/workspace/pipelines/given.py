"""Which inputs a run must be given: one rule, for who reads a pipeline and for who only asks for what it lacks.

Pure and light: a command line imports it, which has no time for the reader.
"""

from __future__ import annotations


def is_needed(required: bool | None, default: object) -> bool:
    """Whether a run must give an input that is declared so; None is what is not said."""
    return default is None if required is None else required
