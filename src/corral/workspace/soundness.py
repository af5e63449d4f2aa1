"""What may be written down: texts that every database and every client can hold.

Databases differ in what they refuse: PostgreSQL has no text with U+0000, none encodes half of a surrogate pair. So
neither is taken from anybody; what models wrote is mended instead, since it cannot be asked for again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from corral.errors import InvalidRequest

LONGEST_NAME = 200
"""Characters of a name, a title or a tag, at most."""
LONGEST_TEXT = 4_000_000
"""Characters of a text in the database, at most; longer ones are files."""
MOST_TAGS = 50
_DEEPEST = 64
_INTEGERS = 1 << 63

_UNSOUND = re.compile("[\x00\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def sound(text: str) -> bool:
    """Whether every database and every client can hold the text."""
    return _UNSOUND.search(text) is None


def check_text(value: Any, field: str, *, longest: int = LONGEST_TEXT) -> str:
    """`value` itself, when it is a text that can be kept.

    Raises:
        InvalidRequest: it is none; names the field.
    """
    if not isinstance(value, str):
        raise InvalidRequest(f"{field} has to be a text, not {type(value).__name__}.", param=field)
    found = _UNSOUND.search(value)
    if found is not None:
        raise InvalidRequest(
            f"{field} has the character U+{ord(found[0]):04X}, which no text may have.",
            "Take it out; bytes that are no text belong in a file.",
            param=field,
        )
    if len(value) > longest:
        raise InvalidRequest(
            f"{field} has {len(value):,} characters, and at most {longest:,} may be.", "Shorten it.", param=field
        )
    return value


def check_line(value: Any, field: str, *, empty: bool = True) -> str:
    """`value` itself, when it is a text of one line that is no longer than a name.

    Raises:
        InvalidRequest: it is none; names the field.
    """
    check_text(value, field, longest=LONGEST_NAME)
    if _CONTROL.search(value) or (not empty and not value.strip()):
        raise InvalidRequest(f"{field} has to be one line of text.", "Use letters, digits and spaces.", param=field)
    return str(value)


def check_tags(tags: Any) -> tuple[str, ...]:
    """The tags, each once, without spaces around.

    Raises:
        InvalidRequest: one is empty, long or has control characters, or there are too many.
    """
    if isinstance(tags, str) or not isinstance(tags, Sequence):
        raise InvalidRequest("tags have to be a list of texts.", param="tags")
    found = tuple(dict.fromkeys(check_line(tag, "tags", empty=False).strip() for tag in tags))
    if len(found) > MOST_TAGS:
        raise InvalidRequest(f"{len(found)} tags are more than {MOST_TAGS}.", "Use fewer.", param="tags")
    return found


def check_whole(value: Any, field: str) -> int:
    """`value` itself, when it is a whole number of at most 64 bits.

    Raises:
        InvalidRequest: it is none; names the field.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not -_INTEGERS <= value < _INTEGERS:
        raise InvalidRequest(f"{field} has to be a whole number of at most 64 bits.", param=field)
    return value


def check_json(value: Any, field: str) -> Any:
    """A copy of `value` as JSON has it: dicts, lists, texts, finite numbers, booleans and null.

    Raises:
        InvalidRequest: it has something else in it, is nested too deeply, or has a text that cannot be kept.
    """
    return _sound(value, field, _DEEPEST)


def _sound(value: Any, field: str, deep: int) -> Any:
    if isinstance(value, str):
        return check_text(value, field)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return check_whole(value, field)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidRequest(f"{field} has a number that is not finite.", param=field)
        return value
    if deep == 0:
        raise InvalidRequest(f"{field} is nested more than {_DEEPEST} deep.", "Make it flatter.", param=field)
    if isinstance(value, Mapping):
        return {check_text(key, field): _sound(each, field, deep - 1) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_sound(each, field, deep - 1) for each in value]
    raise InvalidRequest(f"{field} has a {type(value).__name__} in it, which JSON has not.", param=field)


def mended(value: Any) -> Any:
    """A copy of what a model wrote in which U+FFFD stands for every character that cannot be kept."""
    if isinstance(value, str):
        return _UNSOUND.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {mended(key): mended(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [mended(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
