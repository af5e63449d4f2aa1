"""What a model answered, held against what was asked of it: text, JSON of a schema, or files of code. Pure.

Small models talk around what they were asked for; so JSON and code are looked for in their words. What is wrong is said
in sentences that the model can be shown.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, Final

import jsonschema_rs
import orjson

from corral.domain.workspace import check_path
from corral.errors import InvalidName
from corral.workspace.code import bare
from corral.workspace.code.extraction import Found, choose, extract
from corral.workspace.code.languages import KINDS, Problem, check
from corral.workspace.pipelines.plan import Output, OutputKind
from corral.workspace.pipelines.schemas import PATTERNS

LONGEST_JSON: Final = 1 << 20
"""Characters of an answer whose JSON is looked at."""
_DEEPEST: Final = 40
_TOLD: Final = 5
_MANY: Final = 20_000
"""Parts of a schema times parts of a value: beyond it one mistake is told, not all."""
_BEGINS: Final = ("{", "[")
_UNSUITED: Final = re.compile(r"[^\w.\-/]+")


@dataclass(frozen=True, slots=True)
class File:
    """A file of the answer. `line` of it is where it begins, `complete` whether its end was seen."""

    name: str
    kind: str
    content: str
    line: int = 1
    complete: bool = True
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Met:
    """What an answer comes to: `value` of JSON, `files` of code; `problems` are sentences, none where all is well.

    `complete` says whether there is something of everything that was asked for, with mistakes perhaps.
    """

    value: Any = None
    files: tuple[File, ...] = ()
    problems: tuple[str, ...] = ()
    complete: bool = True


def meet(output: Output, text: str, *, names: Sequence[str | None] = (), step: str = "") -> Met:
    """What `text` comes to by the contract. Blocks for some 0.3 s a megabyte; never raises for any text.

    `names` are what the files of the contract's languages shall be called, in their order; `step` names the others
    that nobody named.
    """
    if not text.strip():
        return Met(problems=("The answer is empty.",), complete=False)
    match output.kind:
        case OutputKind.JSON:
            return _meet_json(output, text)
        case OutputKind.CODE:
            return _meet_code(output, text, names, step)
        case _:
            return Met()


def body_of(output: Output) -> dict[str, Any]:
    """What the request for an answer says of its form: engines that can hold a model to a schema then do."""
    if output.kind is not OutputKind.JSON or not isinstance(output.schema, Mapping):
        return {}
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(output.schema)}}
    }


# JSON


def _meet_json(output: Output, text: str) -> Met:
    if len(text) > LONGEST_JSON:
        return Met(problems=(f"The answer is longer than {LONGEST_JSON:,} characters.",), complete=False)
    why = "There is no JSON in the answer."
    best: Met | None = None
    for candidate in _candidates(text):
        try:
            value = _read(candidate)
        except ValueError as error:
            if candidate[:1] not in _BEGINS:
                continue
            why = f"The JSON of the answer cannot be read: {error}."
            continue
        met = Met(value, problems=_breaches(output.schema, value))
        if not met.problems:
            return met
        best = best or replace(met, value=None, complete=False)
    return best or Met(problems=(why,), complete=False)


def _candidates(text: str) -> list[str]:
    """The parts of an answer that may be meant, the likeliest first."""
    found = extract(text, wanted=("json",))
    likely = choose(found, "json")
    parts = [text.strip(), *([likely.content] if likely else []), *(one.content for one in reversed(found))]
    loose = bare.find(text, "json")
    return list(dict.fromkeys([*parts, *([loose[1]] if loose else [])]))


def _read(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, or one that cannot be kept; says why.
    """
    try:
        value = json.loads(
            text, strict=False, parse_constant=_refuse, parse_float=_finite
        )  # models break lines in texts
        depth = _depth(value)
        orjson.dumps(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg}, at line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except TypeError as error:
        raise ValueError("a number is too large, or a text is broken") from error
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply")
    if ("\0" in text or "\\u0000" in text) and _has_null(value):
        raise ValueError("a text has a character that cannot be kept")
    return value


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _finite(word: str) -> float:
    number = float(word)
    if not math.isfinite(number):
        raise ValueError(f"{word[:30]} is too large a number")
    return number


def _depth(value: Any) -> int:
    """How deep it is nested; stops a little beyond what is allowed."""
    level, depth = [value], 0
    while level and depth <= _DEEPEST + 1:
        depth += 1
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return depth


def _has_null(value: Any) -> bool:
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            if "\0" in one:
                return True
        elif isinstance(one, dict):
            left += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            left += one
    return False


def _breaches(schema: Mapping[str, Any] | bool | None, value: Any) -> tuple[str, ...]:
    """Where a value is not what its schema says, in sentences."""
    if schema is None or schema is True:
        return ()
    validator = _validator(json.dumps(schema))
    if validator.is_valid(value):
        return ()
    if _parts(schema) * _parts(value) > _MANY:
        try:
            validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            return (_told(error),)
    return tuple(dict.fromkeys(_told(error) for error in list(validator.iter_errors(value))[:_TOLD]))


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    return jsonschema_rs.validator_for(json.loads(schema), offline=True, pattern_options=PATTERNS)


def _parts(value: Any) -> int:
    count, left = 0, [value]
    while left and count <= _MANY:
        count += 1
        one = left.pop()
        left += one.values() if isinstance(one, Mapping) else one if isinstance(one, list) else []
    return count


def _told(error: jsonschema_rs.ValidationError) -> str:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
    message = error.message if len(error.message) <= 200 else f"{error.message[:100]} … {error.message[-100:]}"
    place = where.removeprefix(".")[:100]
    return f"In the JSON, at {f'`{place}`' if place else 'its top'}: {message}."


# Code


def _meet_code(output: Output, text: str, names: Sequence[str | None], step: str) -> Met:
    found = extract(text, wanted=output.languages)
    missing = [language for language in output.languages if not any(one.kind == language for one in found)]
    problems = [
        f"There is no {language} in the answer; put it into a block that begins with ```{language}."
        for language in missing
    ]
    if missing and not found:
        others = sorted({one.kind for one in extract(text)} - {"text"})
        problems += [f"What there is, is {' and '.join(others)}."] if others else []
    files = _named(output, found, names, step)
    for file in files:
        if not file.complete:
            problems.append(f"`{file.name}` has no end: the answer stops in the middle of it.")
        problems += [f"`{file.name}`, line {one.line}: {one.message}." for one in file.problems[:_TOLD]]
    return Met(None, files, tuple(problems), not missing)


def _named(output: Output, found: list[Found], names: Sequence[str | None], step: str) -> tuple[File, ...]:
    """The files with the names that they shall have: those of the contract for the likeliest of each language."""
    given: dict[int, str] = {}
    for language, name in zip(output.languages, names, strict=False):
        likely = choose(found, language)
        if name and likely is not None:
            given[next(at for at, one in enumerate(found) if one is likely)] = _suited(name, language, step)
    taken: set[str] = set()
    files: list[File] = []
    for at, one in enumerate(found):
        name = given.get(at) or (one.name if one.named else _suited(step or one.name, one.kind, one.name))
        name = _free(name, taken | set(given.values()) if at not in given else taken)
        taken.add(name)
        files.append(File(name, one.kind, one.content, one.line, one.complete, check(one.kind, one.content)))
    return tuple(files)


def _suited(name: str, kind: str, otherwise: str) -> str:
    """A name as a file can have it, with a suffix of its language."""
    plain = "/".join(part.strip(".- ") for part in _UNSUITED.sub("-", name).split("/") if part.strip(".- "))[:120]
    path = PurePosixPath(plain or _UNSUITED.sub("-", otherwise).strip("-/.") or kind)
    if path.suffix.lower() not in KINDS[kind].suffixes:
        path = path.with_name(path.name + KINDS[kind].suffixes[0])
    try:
        return check_path(str(path))
    except InvalidName:
        return KINDS[kind].default


def _free(name: str, taken: set[str]) -> str:
    """The name, with a number where it is taken."""
    path, number = PurePosixPath(name), 1
    while name in taken:
        number += 1
        name = str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
    return name
