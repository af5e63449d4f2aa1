"""Which runtime runs a model where nobody says, and why not the others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from corral.app.choice import Choices
from corral.domain.ports import Availability
from corral.errors import RuntimeUnavailable
from support.clocks import HandClock


class Runtime:
    def __init__(self, kind: str, preference: int, said: Availability, formats: str = "gguf") -> None:
        self.kind = kind
        self.preference = preference
        self.formats = frozenset(formats.split())
        self.said = said
        self.asked = 0

    async def probe(self) -> Availability:
        self.asked += 1
        return self.said


class Runtimes(dict):  # type: ignore[type-arg]
    """As the plugins are: a mapping that may fail to give one."""

    def __init__(self, *runtimes: Runtime, broken: str = "") -> None:
        super().__init__({runtime.kind: runtime for runtime in runtimes})
        self.broken = broken

    def __iter__(self) -> Iterator[str]:
        yield from super().__iter__()
        if self.broken:
            yield self.broken

    def __missing__(self, kind: str) -> Runtime:
        raise RuntimeUnavailable(f"{kind} needs the module heavy.", "pip install heavy")


GOOD = Availability(usable=True, devices=("cpu",))
POOR = Availability(usable=True, preferred=False)
GONE = Availability(usable=False, reason="it is not installed.", hint="corral runtimes install it")


def choices(*runtimes: Runtime, broken: str = "") -> Choices:
    return Choices(Runtimes(*runtimes, broken=broken), HandClock())  # type: ignore[arg-type]


async def test_the_best_liked_that_can_be_used_is_chosen_with_its_reason() -> None:
    best, other = Runtime("best", 50, GOOD), Runtime("other", 10, GOOD)
    chooser = choices(other, best)
    await chooser.survey("gguf")
    found = chooser.choose("gguf")
    assert (found.runtime, found.reason) == ("best", "it runs gguf files on cpu")
    assert (best.asked, other.asked) == (1, 0)


async def test_one_that_cannot_be_used_is_passed_over_and_says_why() -> None:
    chooser = choices(Runtime("best", 50, GONE), Runtime("other", 10, GOOD))
    await chooser.survey("gguf")
    found = chooser.choose("gguf")
    assert found.runtime == "other"
    assert found.rejected == (("best", "it is not installed."),)
    assert "not best" in found.reason


async def test_one_that_is_not_at_its_best_comes_after_the_others() -> None:
    chooser = choices(Runtime("best", 50, POOR), Runtime("other", 10, GOOD))
    await chooser.survey("gguf")
    assert chooser.choose("gguf").runtime == "other"
    alone = choices(Runtime("best", 50, POOR), Runtime("other", 10, GONE))
    await alone.survey("gguf")
    assert alone.choose("gguf").runtime == "best"


def test_without_a_word_of_theirs_the_best_liked_counts_as_usable() -> None:
    assert choices(Runtime("a", 10, GONE), Runtime("b", 20, GONE)).choose("gguf").runtime == "b"


async def test_one_that_is_chosen_by_nobody_but_the_user_is_no_candidate() -> None:
    chooser = choices(Runtime("a", 0, GOOD), Runtime("b", 10, GOOD, "safetensors"), broken="c")
    with pytest.raises(RuntimeUnavailable, match=r"No runtime here runs gguf files.*'m'.*c: c needs the module heavy"):
        chooser.require("m", "gguf")
    assert chooser.choose("gguf").runtime is None


async def test_where_none_can_be_used_all_say_why_and_what_to_type() -> None:
    chooser = choices(Runtime("a", 20, GONE), Runtime("b", 10, GONE))
    await chooser.survey("gguf")
    with pytest.raises(RuntimeUnavailable, match=r"a: it is not installed\.; b: it is not installed\.") as caught:
        chooser.require("m", "gguf")
    assert caught.value.hint == "corral runtimes install it"


async def test_a_word_counts_for_a_while_and_then_is_asked_again() -> None:
    runtime, clock = Runtime("a", 20, GONE), HandClock()
    chooser = Choices(Runtimes(runtime), clock)  # type: ignore[arg-type]
    await chooser.survey("gguf")
    await chooser.survey("gguf")
    assert runtime.asked == 1
    runtime.said = GOOD
    clock.time += 31
    await chooser.survey("gguf")
    assert chooser.choose("gguf").runtime == "a"
