"""Models written into corral.yaml, with everything else in the file left as it stands."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from corral.config import load
from corral.errors import ConfigError, NoPermission

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.config import Settings


def add_models(
    settings: Settings,
    models: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Mapping[str, Any]] | None = None,
    more: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Write `models` and `groups` into the configuration file that is read, or into a new one in the home; the file.

    `more` are other sections, such as `{"routes": {NAME: {…}}, "routing": {"retries": 2}}`.

    Raises:
        ConfigError: one of these is written in a way that cannot be added to, or it could not be read afterwards.
        NoPermission: it cannot be written.
    """
    file = settings.file or settings.home / "corral.yaml"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        after = before
        for section, entries in {"models": models, "groups": groups or {}, **(more or {})}.items():
            after = added(after, entries, str(file), section) if entries else after
        _replace(file, after)
    except OSError as error:
        raise NoPermission(f"{file} cannot be written: {error.strerror}.", "Check its permissions.") from error
    return file


def added(text: str, entries: Mapping[str, Any], place: str, section: str = "models") -> str:
    """The configuration `text` with `entries` in its `section`; comments and order stay.

    Raises:
        ConfigError: the section is not a block of lines.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None and not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{place} holds no settings.", "Move it away, and import again.")
    if root is not None and root.flow_style:
        tree = yaml.safe_load(text)
        tree[section] = {**(tree.get(section) or {}), **entries}
        return json.dumps(tree, indent=2) + "\n"
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    node = _section(root, section)
    if node is None:
        return "".join([*lines, f"{section}:\n", *_rows(entries, 2)])
    key, value = node
    if isinstance(value, yaml.MappingNode) and not value.flow_style and value.value:
        first = value.value[0][0].start_mark
        lines[first.line : first.line] = _rows(entries, first.column)
        return "".join(lines)
    if isinstance(value, yaml.ScalarNode) and value.value == "":
        line = key.start_mark.line + 1
        lines[line:line] = _rows(entries, 2)
        return "".join(lines)
    raise ConfigError(
        f"`{section}` in {place}:{key.start_mark.line + 1} is written in one line, which is not changed.",
        f"Write it as lines below `{section}:`, and import again.",
    )


def _section(root: Any, name: str) -> tuple[Any, Any] | None:
    pairs = [] if root is None else root.value
    return next(((key, value) for key, value in pairs if key.value == name), None)


def _rows(entries: Mapping[str, Any], indent: int) -> list[str]:
    """Each entry on a line; JSON is YAML."""
    return [f"{' ' * indent}{json.dumps(name)}: {json.dumps(entry)}\n" for name, entry in entries.items()]


def _replace(file: Path, text: str) -> None:
    """Put `text` in the place of the file, once it has been read as a configuration."""
    target = file.resolve()
    descriptor, name = tempfile.mkstemp(prefix=".corral-", suffix=".yaml", dir=target.parent)
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        if target.exists():
            beside.chmod(target.stat().st_mode & 0o777)
        load({"HOME": str(target.parent)}, None, beside)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
