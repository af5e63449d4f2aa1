"""What a user says of a model instead of its files: kept apart from the revisions, so that it survives updates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from corral.catalog.manifests import Facts, Recorded, encode
from corral.domain.models import Capability
from corral.errors import InvalidRequest, StoreError, UnknownOption
from corral.kit.disk import sync_folder, translate, translated, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from corral.domain.models import Installed

_KEYS: Final = ("capabilities", "runtime", "context_length")
_ABLE: Final = {f"supports_{item.value}": item for item in Capability} | {"supports_function_calling": Capability.TOOLS}
CAPABILITIES: Final = (*_ABLE, "allowed_roles")
"""What can be said of a model's capabilities."""
_LONGEST: Final = 100_000_000


def check(override: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked for, when it can be.

    `capabilities`: `supports_tools` and the like to true or false, `allowed_roles` to a list of names. `runtime`: a
    runtime's name. `context_length`: tokens.

    Raises:
        UnknownOption: a key that nothing here knows; names the nearest.
        InvalidRequest: a value of the wrong kind.
    """
    for key, value in override.items():
        if key not in _KEYS:
            raise UnknownOption.among(str(key), _KEYS, "an override")
        if key == "runtime" and not (isinstance(value, str) and value):
            raise InvalidRequest("An override's runtime is the name of one.", param="runtime")
        if key == "context_length" and (type(value) is not int or not 0 < value <= _LONGEST):
            raise InvalidRequest("An override's context_length is a number of tokens.", param="context_length")
    _check_able(override.get("capabilities", {}))
    return {key: dict(value) if key == "capabilities" else value for key, value in override.items()}


def _check_able(able: object) -> None:
    if not isinstance(able, Mapping):
        raise InvalidRequest("An override's capabilities are names with true or false.", param="capabilities")
    for key, value in able.items():
        if key == "allowed_roles":
            if not isinstance(value, list) or not all(isinstance(role, str) and role for role in value):
                raise InvalidRequest("allowed_roles is a list of names of roles.", param=key)
        elif key not in _ABLE:
            raise UnknownOption.among(str(key), CAPABILITIES, "an override's capabilities")
        elif not isinstance(value, bool):
            raise InvalidRequest(f"{key} is true or false.", param=key)


def apply(installed: Installed, override: Mapping[str, Any]) -> Installed:
    """The model as the user says it is."""
    able = dict(override.get("capabilities", {}))
    facts = {"allowed_roles": able.pop("allowed_roles")} if "allowed_roles" in able else {}
    if "context_length" in override:
        facts["context_length"] = override["context_length"]
    added = {_ABLE[key] for key, value in able.items() if value}
    taken = {_ABLE[key] for key, value in able.items() if not value}
    old = installed.revision.facts
    revision = Recorded.under(
        installed.revision.id,
        installed.revision,
        capabilities=frozenset((installed.revision.capabilities - taken) | added),
        facts=old.but(facts) if isinstance(old, Facts) else {**old, **facts},
    )
    return replace(installed, revision=revision)


class Overrides:
    """The overrides of the store under `root`. Writing is for the holder of its lock. Blocks."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "overrides"
        self._stamp = -1
        self._names: frozenset[str] = frozenset()

    def stamp(self) -> int:
        """The folder's time of change; 0 when there is none."""
        try:
            return self.folder.stat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return 0
        except OSError as error:
            raise translate(error, "reading", self.folder) from error

    def of(self, name: str) -> dict[str, Any]:
        """The model's override; empty when there is none.

        Raises:
            StoreError: it is damaged.
        """
        if not self.stamp():
            return {}
        path = self._path(name)
        try:
            found = orjson.loads(path.read_bytes())
            said, called = check(found["override"]), found["name"]
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError, InvalidRequest) as error:
            raise _damaged(path) from error
        except OSError as error:
            raise translate(error, "reading", path) from error
        if called != name:
            raise _damaged(path)
        return said

    def stems(self) -> list[str]:
        """The encoded names that there are overrides of."""
        with translated("reading", self.folder):
            return [path.stem for path in self.folder.glob("*.json")] if self.stamp() else []

    def write(self, name: str, override: Mapping[str, Any] | None) -> None:
        """Keep the override, or forget it."""
        path = self._path(name)
        with translated("writing", path):
            if override:
                write_whole(path, orjson.dumps({"name": name, "override": dict(override)}))
            elif path.exists():
                path.unlink()
                sync_folder(self.folder)

    def _path(self, name: str) -> Path:
        return self.folder / f"{encode(name)}.json"


def _damaged(path: Path) -> StoreError:
    return StoreError(f"The override {path} is damaged.", "Delete that file: the model is then what its files say.")
