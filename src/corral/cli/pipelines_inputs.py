"""What a run is given, out of words on a command line and out of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.cli.workspace_files import text_of
from corral.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SUFFIXES = (".yaml", ".yml")
"""How files of pipelines end."""
_WRITTEN = {
    "integer": "Write it as 3.",
    "number": "Write it as 0.5.",
    "boolean": "Write true or false.",
    "list": """Write it as '["a", "b"]'.""",
    "object": """Write it as '{"a": 1}'.""",
}


def pairs(given: Sequence[str], option: str) -> dict[str, str]:
    """Names and their values out of `name=value`; the last of a name counts.

    Raises:
        InvalidRequest: one has no name, or no value.
    """
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InvalidRequest(f"{option} {text[:60]!r} is no NAME=VALUE.", f"Write it as {option} topic=bees")
        found[name.strip()] = value
    return found


def value_of(text: str, kind: str | None = None) -> Any:
    """The value that `text` is, for an input of type `kind`; without one, JSON where it is that, or else text.

    `@FILE` is what is in that file, `@-` what is on standard input; `@@` begins a text with one @.

    Raises:
        InvalidRequest: it cannot be of that type.
    """
    if text.startswith("@@"):
        text = text[1:]
    elif text.startswith("@"):
        text = text_of(text[1:])
    if kind == "string":
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        if kind is None:
            return text
        raise InvalidRequest(f"{text[:60]!r} is no {kind}.", _WRITTEN.get(kind, "Write it as JSON.")) from error


def inputs(given: Sequence[str], files: Sequence[str], kinds: Mapping[str, str]) -> dict[str, Any]:
    """The inputs of a run: those of the files, and over them those of the command line. `kinds` are their types.

    Raises:
        InvalidRequest: one is not what its type says, or a file does not hold names and values.
    """
    found: dict[str, Any] = {}
    for file in files:
        found |= _mapping(file)
    for name, text in pairs(given, "--input").items():
        try:
            found[name] = value_of(text, kinds.get(name))
        except InvalidRequest as error:
            raise InvalidRequest(f"Input {name}: {error.message}", error.hint, param=f"inputs.{name}") from error
    return found


def kinds_of(source: str) -> dict[str, str]:
    """The types of a pipeline's inputs, as it declares them; none where it cannot be read, which is said elsewhere."""
    declared = _document(source).get("inputs")
    if not isinstance(declared, dict):
        return {}
    return {
        str(name): str(about.get("type", "string")) if isinstance(about, dict) else str(about or "string")
        for name, about in declared.items()
    }


def check_given(source: str, found: Mapping[str, Any]) -> None:
    """Refuse inputs of which some are missing that the pipeline needs, all of them at once.

    Raises:
        InvalidRequest: what to type.
    """
    declared = _document(source).get("inputs")
    if not isinstance(declared, dict):
        return
    kinds = kinds_of(source)
    missing = [str(name) for name, about in declared.items() if str(name) not in found and _lacks(about)]
    if missing:
        each = ", ".join(f"{name} ({kinds[name]})" for name in missing)
        hint = "Give it" if len(missing) == 1 else "Give them"
        hint = f"{hint}: {' '.join(f'--input {name}=…' for name in missing)}"
        raise InvalidRequest(f"What the pipeline is given lacks: {each}.", hint, param=f"inputs.{missing[0]}")


def _lacks(about: Any) -> bool:
    """Whether a run without the input lacks it. Of what is no declaration the reader says so."""
    from corral.workspace.pipelines.given import is_needed

    said = about if isinstance(about, dict) else {}
    required = said.get("required")
    return is_needed(required if isinstance(required, bool) else None, said.get("default"))


def description_of(source: str) -> str:
    """What a pipeline says of itself."""
    said = _document(source).get("description")
    return said if isinstance(said, str) else ""


def models(given: Sequence[str]) -> dict[str, str]:
    """Who is asked in place of whom: `step=model`, or a `model` alone for all steps.

    Raises:
        InvalidRequest: a name is empty.
    """
    found = {}
    for text in given:
        step, equals, model = text.partition("=")
        name, chosen = (step, model) if equals else ("*", text)
        if not name.strip() or not chosen.strip():
            raise InvalidRequest(f"--model {text[:60]!r} is neither MODEL nor STEP=MODEL.")
        found[name.strip()] = chosen.strip()
    return found


def is_file(what: str) -> bool:
    """Whether `what` means a pipeline's file, and not one that is saved."""
    return what == "-" or what.endswith(SUFFIXES) or "/" in what or Path(what).is_file()


def _document(source: str) -> dict[Any, Any]:
    """What a pipeline's YAML holds; nothing where it cannot be read."""
    import yaml

    try:
        found = yaml.safe_load(source)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _mapping(file: str) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(text_of(file))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = file if mark is None else f"{file}:{mark.line + 1}:{mark.column + 1}"
        why = getattr(error, "problem", None) or "it cannot be read"
        raise InvalidRequest(f"{where} is neither JSON nor YAML: {why}.") from error
    if not isinstance(found, dict):
        raise InvalidRequest(f"{file} does not hold names and values.", 'Write it as {"topic": "bees"}.')
    return {str(name): value for name, value in found.items()}
