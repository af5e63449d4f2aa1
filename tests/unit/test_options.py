"""Options from mappings: typed, closed, and refused in words that help."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from corral.domain.options import describe, parse_options
from corral.errors import InvalidRequest, UnknownOption


@dataclass(frozen=True, slots=True)
class Sample:
    name: str
    count: int = 1
    ratio: float | None = None
    on: bool = False
    level: Literal["low", "high", 3] = "low"
    words: tuple[str, ...] = ()
    scales: Mapping[str, float] = field(default_factory=dict)
    tokens: tuple[str, ...] | int | None = None
    where: Path | None = None
    free: Any = None


def test_values_arrive_as_yaml_gives_them():
    made = parse_options(
        Sample,
        {
            "name": "a",
            "count": 2,
            "ratio": 1,
            "on": True,
            "level": 3,
            "words": ["x", "y"],
            "scales": {"l": 2},
            "tokens": ["t"],
            "where": "a/b",
            "free": {"any": 1},
        },
        "sample",
    )
    assert made == Sample("a", 2, 1.0, True, 3, ("x", "y"), {"l": 2.0}, ("t",), Path("a/b"), {"any": 1})
    assert isinstance(made.ratio, float)


def test_defaults_hold_and_null_is_a_value():
    assert parse_options(Sample, {"name": "a", "ratio": None, "tokens": 5}, "sample") == Sample("a", tokens=5)


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(UnknownOption) as caught:
        parse_options(Sample, {"name": "a", "cuont": 1}, "sample")
    assert caught.value.param == "cuont"
    assert "'count'" in caught.value.hint
    assert "sample" in caught.value.message


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("count", "2", "a whole number"),
        ("count", True, "a whole number"),
        ("count", 1.5, "a whole number"),
        ("ratio", "x", "a number or null"),
        ("ratio", False, "a number or null"),
        ("on", 1, "true or false"),
        ("level", "mid", "one of low, high, 3"),
        ("level", True, "one of low, high, 3"),
        ("words", "x", "a list, each item a text"),
        ("words", [1], "a list, each item a text"),
        ("scales", ["l"], "a mapping of names, each to a number"),
        ("scales", {"l": "much"}, "a mapping of names, each to a number"),
        ("where", 3, "a path or null"),
        ("where", "", "a path or null"),
        ("name", None, "a text"),
    ],
)
def test_a_wrong_type_is_refused_with_what_was_wanted(key, value, wanted):
    with pytest.raises(InvalidRequest, match=wanted) as caught:
        parse_options(Sample, {"name": "a", key: value}, "sample")
    assert caught.value.param == key


def test_a_missing_option_is_named():
    with pytest.raises(InvalidRequest, match="'name' for sample is missing") as caught:
        parse_options(Sample, {}, "sample")
    assert caught.value.param == "name"


def test_what_the_dataclass_refuses_is_passed_on():
    @dataclass(frozen=True)
    class Strict:
        size: int = 1

        def __post_init__(self) -> None:
            if self.size < 1:
                raise InvalidRequest("too small", param="size")

    with pytest.raises(InvalidRequest, match="too small"):
        parse_options(Strict, {"size": 0}, "strict")


def test_only_a_dataclass_holds_options():
    with pytest.raises(TypeError, match="dict is not a dataclass"):
        parse_options(dict, {}, "nothing")


def test_a_type_without_words_is_a_value():
    assert describe(Any) == "a value"
