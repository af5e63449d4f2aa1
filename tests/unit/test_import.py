"""`import corral` is free: no I/O, no environment, no heavy module; its public names come when they are asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import corral

# What reading a module from disk looks like to an audit hook; anything else that happens is the module's own doing.
SCRIPT = """\
    import json, os, sys

    events, reads = [], []

    class Environment(dict):
        def _note(self, key):
            reads.append(str(key))
        def __getitem__(self, key):
            self._note(key)
            return super().__getitem__(key)
        def get(self, key, default=None):
            self._note(key)
            return super().get(key, default)
        def __contains__(self, key):
            self._note(key)
            return super().__contains__(key)
        def __iter__(self):
            self._note("*")
            return super().__iter__()
        def items(self):
            self._note("*")
            return super().items()

    WATCHED = ("open", "socket.", "subprocess.", "os.", "shutil.", "tempfile.", "ctypes.dlopen", "urllib.", "sqlite3.")
    IMPORT = (".py", ".pyc", ".so", ".dylib")

    def hook(event, arguments):
        if not event.startswith(WATCHED):
            return
        path = os.fspath(arguments[0]) if arguments and isinstance(arguments[0], (str, os.PathLike)) else ""
        if event == "open" and path.endswith(IMPORT):
            return
        if event == "os.listdir" and path in places:
            return
        events.append([event, repr(arguments)])

    class Places:
        def __contains__(self, path):
            return any(path == p or path.startswith(p + os.sep) for p in sys.path if p)

    places = Places()
    environment = Environment(os.environ)
    os.environ = environment
    before = set(sys.modules)
    sys.addaudithook(hook)
    import corral
    noted, asked = list(events), list(reads)
    print(json.dumps({"events": noted, "reads": asked, "modules": sorted(set(sys.modules) - before)}))
"""

HEAVY = {
    "aiohttp",
    "asyncio",
    "fastapi",
    "orjson",
    "prompt_toolkit",
    "psutil",
    "pydantic",
    "rich",
    "socket",
    "ssl",
    "starlette",
    "typer",
    "uvicorn",
    "uvloop",
    "xllamacpp",
    "yaml",
}


def _python(script: str) -> Any:
    """What `script` prints, in a fresh interpreter that only knows where Corral is."""
    source = str(Path(corral.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", f"import sys; sys.path.insert(0, {source!r})\n" + dedent(script)],
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def seen() -> dict[str, list[Any]]:
    return _python(SCRIPT)


def test_nothing_is_read_written_or_reached(seen: dict[str, list[Any]]) -> None:
    assert seen["events"] == []


def test_the_environment_is_not_read(seen: dict[str, list[Any]]) -> None:
    assert seen["reads"] == []


def test_one_module_is_imported(seen: dict[str, list[Any]]) -> None:
    assert [name for name in seen["modules"] if name.startswith("corral")] == ["corral"]
    assert set(seen["modules"]) <= {"corral", "__future__", "typing", "collections", "collections.abc"} | set(
        _python(
            """\
            import json, sys
            before = set(sys.modules)
            import __future__, typing
            print(json.dumps(sorted(set(sys.modules) - before)))
            """
        )
    )


def test_the_watch_sees_what_it_is_for() -> None:
    """The script above would notice a module that reads a file, reads the environment, or starts something."""
    bad = "open(os.devnull).close(); os.environ.get('HOME'); os.listdir('/')"
    seen = _python(SCRIPT.replace("import corral\n", f"{bad}\n"))

    assert [event for event, _ in seen["events"]] == ["open", "os.listdir"]
    assert seen["reads"] == ["HOME"]


def test_every_public_name_can_be_had() -> None:
    for name in corral.__all__:
        assert getattr(corral, name) is not None, name


def test_names_are_listed_before_they_are_loaded() -> None:
    seen = _python(
        """\
        import json, sys, corral
        print(json.dumps({"names": dir(corral), "loaded": [m for m in sys.modules if m.startswith("corral.")]}))
        """
    )

    assert seen["names"] == sorted(corral.__all__)
    assert seen["loaded"] == []


def test_a_name_is_imported_once_and_then_kept() -> None:
    seen = _python(
        """\
        import json, corral
        first = "GenerationConfig" in vars(corral)
        same = corral.GenerationConfig is corral.GenerationConfig
        print(json.dumps([first, same, "GenerationConfig" in vars(corral)]))
        """
    )

    assert seen == [False, True, True]


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    misspelt = "ModelManger"

    with pytest.raises(AttributeError, match="no attribute 'ModelManger'"):
        getattr(corral, misspelt)


@pytest.mark.parametrize(
    "module", ["corral.errors", "corral.domain.models", "corral.domain.generation", "corral.config"]
)
def test_the_foundations_are_light(module: str) -> None:
    """What everything else imports, the command line's start above all, brings no loop, server or engine along."""
    loaded = _python(f"import json, sys, {module}\nprint(json.dumps(sorted(sys.modules)))")

    assert HEAVY & set(loaded) == set()
