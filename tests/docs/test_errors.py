"""The tree drawn at the top of errors.py is the tree of classes, and docs/http.md lists every code."""

from __future__ import annotations

import re
from collections.abc import Iterator

from corral import errors
from tests.docs import pages


def _tree(kind: type[errors.CorralError], depth: int = 0) -> Iterator[tuple[int, type[errors.CorralError]]]:
    yield depth, kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _tree(child, depth + 1)


def _drawn() -> Iterator[tuple[int, str, str, int]]:
    """The lines of the drawing: depth, class, code and status."""
    for line in (errors.__doc__ or "").splitlines():
        found = re.fullmatch(r"    ([│├└─ ]*)(\w+) +(\w+) +(\d{3})", line)
        if found is not None:
            yield len(found[1]) // 4, found[2], found[3], int(found[4])


def test_the_drawing_is_the_tree() -> None:
    classes = [(depth, kind.__name__, kind.code, kind.http_status) for depth, kind in _tree(errors.CorralError)][1:]

    assert sorted(_drawn()) == sorted(classes)
    assert {name for _, name, _, _ in _drawn()} == {name for _, name, _, _ in classes}


def test_children_are_drawn_below_their_parents() -> None:
    parents: dict[str, str] = {}
    path: list[str] = []
    for depth, name, _, _ in _drawn():
        path[depth - 1 :] = [name]
        parents[name] = path[depth - 2] if depth > 1 else "CorralError"

    assert parents == {kind.__name__: kind.__base__.__name__ for depth, kind in _tree(errors.CorralError) if depth}


def test_a_code_means_one_thing() -> None:
    codes = [kind.code for _, kind in _tree(errors.CorralError)]

    assert len(codes) == len(set(codes))


def test_every_code_is_documented_with_its_status() -> None:
    documented = {(pages.code(code), int(status)) for code, status, _ in pages.read("docs/http.md").table("Errors")}

    assert documented == {(kind.code, kind.http_status) for _, kind in _tree(errors.CorralError)}
