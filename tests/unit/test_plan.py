"""Whom to ask and whom not: nobody is lost, shares are right, and each has its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.config import ModelSettings
from corral.config.traffic import RouteSettings
from corral.domain.models import Capability
from corral.domain.money import FREE, UNKNOWN, Price, Tier
from corral.errors import ConfigError, CorralError
from corral.routing.layout import direct, lay
from corral.routing.plan import HELD, LAST, Facts, Known, Patience, Plan, Route, plan, refusal

_GOLDEN = 0.6180339887498949
VISION = frozenset({Capability.VISION})
POLICIES = ["ordered", "weighted", "cheapest", "fastest", "least_busy"]


def price(dollars: int) -> Price:
    """A price of so many dollars for a million tokens either way."""
    return Price((Tier(dollars * 10**9, dollars * 10**9),))


def route(*models: str, policy: str = "ordered", **more: object) -> Route:
    settings = RouteSettings(models=models, policy=policy, **more)  # type: ignore[arg-type]
    return lay({"r": settings}, {})["r"]


def planned(
    where: Route, known: Mapping[str, Known] | None = None, facts: Facts | None = None, pick: float = 0
) -> Plan:
    there = known or {}
    return plan(facts or Facts(), where, lambda model: there.get(model) or Known(), pick)


def order(found: Plan) -> list[str]:
    return [candidate.model for candidate in found.candidates]


def test_in_order_where_nothing_stands_against_anybody() -> None:
    where = route("a", "b", "c")
    found = planned(where)
    assert found is where.whole, "such a plan is made once"
    assert [(each.model, each.reason) for each in found.candidates] == [
        ("a", "first in order"),
        ("b", "next in order"),
        ("c", "next in order"),
    ]


@pytest.mark.parametrize(
    ("known", "code", "reason"),
    [
        (Known(missing=("model_not_found", "Model 'a' does not exist.")), "model_not_found", "does not exist"),
        (Known(capabilities=frozenset({Capability.CHAT})), "not_supported", "it cannot do: vision"),
        (Known(alone=12.4, why="it answered 500"), "circuit_open", "left alone for another 12 s: it answered 500"),
        (Known(unstable=9.0), "engine_unstable", "the next may start in 9 s"),
        (Known(in_flight=2), "upstream_busy", "it has 2 requests, and 2 at a time is the most"),
        (Known(context=1000), "context_length_exceeded", "about 900 tokens of prompt and 200 of answer are more than"),
    ],
)
def test_what_stands_against_a_candidate(known: Known, code: str, reason: str) -> None:
    facts = Facts(needs=VISION, prompt=900, answer=200)
    found = planned(route("a", "b", limits={"a": 2}), {"a": known}, facts)
    assert order(found) == ["b"]
    assert [(each.model, each.code) for each in found.dropped] == [("a", code)]
    assert reason in found.dropped[0].reason


def test_what_is_unknown_keeps_nobody_from_asking() -> None:
    assert order(planned(route("a", "b"), {}, Facts(needs=VISION, prompt=10**9))) == ["a", "b"]


def test_a_key_for_the_route_is_one_for_its_candidates_and_a_key_for_some_leaves_those() -> None:
    assert order(planned(route("a", "b"), facts=Facts(may=lambda name: name == "r"))) == ["a", "b"]
    found = planned(route("a", "b"), facts=Facts(may=lambda name: name == "b"))
    assert order(found) == ["b"]
    assert found.dropped[0].code == "forbidden"
    assert refusal(planned(route("a"), facts=Facts(may=lambda _: False))).http_status == 403


def test_nobody_is_refused_by_an_estimate() -> None:
    """The candidate that holds most is asked all the same: it counts the prompt itself."""
    known = {"a": Known(context=1000), "b": Known(context=4000), "c": Known(missing=("model_not_found", "no"))}
    found = planned(route("a", "b", "c"), known, Facts(prompt=5000))
    assert order(found) == ["b"]
    assert [each.model for each in found.dropped] == ["a", "c"]
    assert order(planned(route("a", "b", overflow=False), known, Facts(prompt=5000))) == ["a", "b"]


def test_who_may_be_well_again_is_asked_when_nobody_else_is_left() -> None:
    """Its request shows how it stands; as long as others are there, none is risked."""
    known = {"a": Known(alone=9.0), "b": Known(alone=0.001, due=True, why="it answered 500")}
    found = planned(route("a", "b"), known)
    assert [(each.model, each.reason) for each in found.candidates] == [("b", LAST)]
    assert [each.model for each in found.dropped] == ["a"]
    other = planned(route("b", "c"), known)
    assert order(other) == ["c"]
    assert other.dropped[0].reason == "it is left alone until somebody has looked: it answered 500"


def test_a_strict_request_takes_no_fallback() -> None:
    where = lay({}, {"a": ModelSettings(fallback=("b",))})["a"]
    assert order(planned(where)) == ["a", "b"]
    found = planned(where, facts=Facts(strict=True))
    assert order(found) == ["a"]
    assert found.dropped[0].code == "degraded"
    named = route("a", "b")
    assert order(planned(named, facts=Facts(strict=True))) == ["a", "b"], "the candidates of a route are what was asked"


def test_the_cheapest_for_this_request_first_and_the_unknown_last() -> None:
    known = {
        "a": Known(price=UNKNOWN),
        "b": Known(price=price(3)),
        "c": Known(price=FREE),
        "d": Known(price=price(1)),
        "e": Known(),
    }
    found = planned(route("a", "b", "c", "d", "e", policy="cheapest"), known, Facts(prompt=1000, answer=1000))
    assert order(found) == ["c", "d", "b", "a", "e"]
    assert found.candidates[0].reason == "it costs nothing"
    assert found.candidates[1].reason == "it costs up to $0.002"
    assert found.candidates[3].reason == "its price is not known"


def test_the_cheapest_depends_on_what_is_asked() -> None:
    known = {
        "reads": Known(price=Price((Tier(10**9, 10**10),))),
        "writes": Known(price=Price((Tier(10**10, 10**9),))),
    }
    where = route("reads", "writes", policy="cheapest")
    assert order(planned(where, known, Facts(prompt=5000, answer=10)))[0] == "reads"
    assert order(planned(where, known, Facts(prompt=10, answer=5000)))[0] == "writes"


def test_the_fastest_first_and_who_is_not_known_before_it_so_that_it_becomes_known() -> None:
    known = {"a": Known(speed=0.9), "b": Known(), "c": Known(speed=0.25)}
    found = planned(route("a", "b", "c", policy="fastest"), known)
    assert order(found) == ["b", "c", "a"]
    assert found.candidates[1].reason == "its first byte came after 0.25 s of late"


def test_the_least_busy_first_and_by_order_where_equal() -> None:
    known = {"a": Known(in_flight=3), "b": Known(in_flight=1), "c": Known(in_flight=1)}
    found = planned(route("a", "b", "c", policy="least_busy"), known)
    assert order(found) == ["b", "c", "a"]
    assert found.candidates[0].reason == "it has 1 requests under way"


@pytest.mark.parametrize("policy", ["weighted", "cheapest", "fastest", "least_busy"])
def test_a_conversation_stays_where_it_was(policy: str) -> None:
    known = {"a": Known(price=price(1), speed=0.1), "b": Known(price=price(2), speed=0.2, in_flight=1)}
    where = route("a", "b", policy=policy)
    found = planned(where, known, Facts(place="b"))
    assert order(found) == ["b", "a"]
    assert found.candidates[0].reason == HELD
    assert found.sticky
    away = planned(where, {**known, "b": Known(alone=5.0)}, Facts(place="b"))
    assert order(away) == ["a"]
    assert order(planned(route("a", "b", policy=policy, sticky=False), known, Facts(place="b")))[0] == "a"


def test_an_order_is_kept_also_for_conversations() -> None:
    where = route("a", "b")
    assert not where.sticky
    assert order(planned(where, facts=Facts(place="b"))) == ["a", "b"]


def shares(where: Route, times: int, known: Mapping[str, Known] | None = None) -> Counter[str]:
    return Counter(order(planned(where, known, pick=number * _GOLDEN % 1.0))[0] for number in range(1, times + 1))


@given(st.lists(st.integers(1, 20), min_size=2, max_size=6))
def test_shares_converge(weights: list[int]) -> None:
    names = [f"m{number}" for number in range(len(weights))]
    where = route(*names, policy="weighted", weights=dict(zip(names, map(float, weights), strict=True)))
    found = shares(where, 1000)
    for name, weight in zip(names, weights, strict=True):
        assert abs(found[name] - 1000 * weight / sum(weights)) < 12


def test_shares_are_right_over_short_times_too() -> None:
    """Nobody waits long for its turn: the number drawn with falls into no rhythm."""
    where = route("a", "b", policy="weighted", weights={"a": 4.0, "b": 1.0})
    picks = [order(planned(where, pick=number * _GOLDEN % 1.0))[0] for number in range(1, 101)]
    gaps = [len(run) for run in "".join(picks).split("b")]
    assert max(gaps) <= 8


def test_who_cannot_be_asked_leaves_its_share_to_the_others_as_theirs_divide_it() -> None:
    where = route("a", "b", "c", policy="weighted", weights={"a": 6.0, "b": 3.0, "c": 1.0})
    found = shares(where, 1000, {"a": Known(alone=1.0)})
    assert found["a"] == 0
    assert abs(found["b"] - 750) < 12


def test_the_second_is_drawn_as_well() -> None:
    where = route("a", "b", "c", policy="weighted")
    second = Counter(order(planned(where, pick=number * _GOLDEN % 1.0))[1] for number in range(900))
    assert all(abs(count - 300) < 60 for count in second.values())


def test_no_share_is_a_place_at_the_end() -> None:
    where = route("a", "b", "c", policy="weighted", weights={"a": 0.0})
    for number in range(20):
        found = planned(where, pick=number * _GOLDEN % 1.0)
        assert order(found)[2] == "a"
        assert "no share" in found.candidates[2].reason


_KNOWN = st.builds(
    Known,
    missing=st.none() | st.just(("model_not_found", "no")),
    capabilities=st.none() | st.just(frozenset({Capability.CHAT})) | st.just(VISION),
    context=st.none() | st.integers(1, 10_000),
    price=st.none() | st.sampled_from([FREE, UNKNOWN, price(1), price(9)]),
    in_flight=st.integers(0, 4),
    speed=st.none() | st.floats(0, 100),
    alone=st.sampled_from([0.0, 0.0, 30.0]),
    unstable=st.sampled_from([0.0, 0.0, 30.0]),
)
_FACTS = st.builds(
    Facts,
    needs=st.sampled_from([frozenset[Capability](), VISION]),
    prompt=st.none() | st.integers(0, 20_000),
    answer=st.none() | st.integers(0, 20_000),
    strict=st.booleans(),
    place=st.none() | st.sampled_from("abcdx"),
    may=st.none() | st.sampled_from([lambda _: True, lambda _: False, lambda name: name in "ab"]),
)


@given(
    st.lists(_KNOWN, min_size=4, max_size=4),
    _FACTS,
    st.sampled_from(POLICIES),
    st.booleans(),
    st.floats(0, 1, exclude_max=True),
    st.lists(st.floats(0, 10), min_size=3, max_size=3),
)
def test_nobody_is_lost(
    states: list[Known], facts: Facts, policy: str, overflow: bool, pick: float, weights: list[float]
) -> None:
    known = dict(zip("abcd", states, strict=True))
    said = dict(zip("abc", weights, strict=True))
    where = route(*"abcd", policy=policy, overflow=overflow, weights=said, limits={"a": 1, "d": 3})
    found = planned(where, known, facts, pick)
    assert sorted([*order(found), *(each.model for each in found.dropped)]) == list("abcd")
    assert all(each.reason for each in (*found.candidates, *found.dropped))
    assert found == planned(where, known, facts, pick), "equal facts, equal plan"
    if not found.candidates:
        error = refusal(found)
        assert isinstance(error, CorralError)
        assert all(each.reason in error.message for each in found.dropped)


def test_when_nobody_is_left_the_error_is_the_one_that_is_soonest_mended() -> None:
    known = {"a": Known(alone=20.0, why="it answered 500"), "b": Known(missing=("model_not_found", "no such model"))}
    error = refusal(planned(route("a", "b"), known))
    assert (error.code, error.http_status, error.retry_after) == ("circuit_open", 503, 20.0)
    assert error.message == (
        "No candidate of 'r' can answer this: a: it is left alone for another 20 s: it answered 500; b: no such model."
    )
    busy = planned(route("a", limits={"a": 1}), {"a": Known(in_flight=1)})
    assert refusal(busy).code == "upstream_busy"
    assert refusal(planned(route("a"), {"a": Known(missing=("config_error", "bad"))})).code == "model_not_found"


# From the configuration


def legs(found: Mapping[str, Route], name: str) -> list[tuple[str, float, int | None]]:
    return [(leg.model, round(leg.weight, 6), leg.limit) for leg in found[name].legs]


def test_names_within_names() -> None:
    routes = {
        "all": RouteSettings(models=("own", "cloud", "last"), weights={"cloud": 2.0}, limits={"cloud": 3}),
        "cloud": RouteSettings(models=("g", "h"), weights={"g": 3.0}, limits={"g": 9}, policy="weighted"),
    }
    found = lay(routes, {}, canonical=lambda name: {"last": "smollm2"}.get(name, name))
    assert legs(found, "all") == [("own", 1.0, None), ("g", 1.5, 3), ("h", 0.5, 3), ("smollm2", 1.0, None)]
    assert found["all"].policy == "ordered"
    assert found["cloud"].policy == "weighted"


def test_a_model_stands_where_it_stands_first() -> None:
    routes = {"x": RouteSettings(models=("a", "y", "b")), "y": RouteSettings(models=("b", "a"))}
    assert legs(lay(routes, {}), "x") == [("a", 1.5, None), ("b", 1.5, None)]


def test_a_route_may_be_called_like_a_model_of_its() -> None:
    routes = {"m": RouteSettings(models=("m", "cloud"))}
    assert legs(lay(routes, {"m": ModelSettings(fallback=("other",))}), "m") == [("m", 1.0, None), ("cloud", 1.0, None)]


@pytest.mark.parametrize(
    ("routes", "said"),
    [
        ({"x": ("y",), "y": ("x",)}, "The route 'x' leads back to itself: x → y → x."),
        ({"w": ("x",), "x": ("y",), "y": ("z",), "z": ("x",)}, "x → y → z → x"),
        ({"x": ()}, "routes.x has no models"),
    ],
)
def test_routes_that_lead_nowhere(routes: dict[str, tuple[str, ...]], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        lay({name: RouteSettings(models=models) for name, models in routes.items()}, {})


@pytest.mark.parametrize(
    ("route", "said"),
    [
        (RouteSettings(models=("gemini",), weights={"gemni": 1.0}), "Did you mean 'gemini'?"),
        (RouteSettings(models=("a",), limits={"zzzz": 1}), "It has a."),
        (RouteSettings(models=("a",), policy="weighted", weights={"a": 0.0}), "gives nobody a share"),
    ],
)
def test_shares_and_limits_of_nobody(route: RouteSettings, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        lay({"x": route}, {})
    assert said in str(caught.value)


def test_many_routes_that_name_each_other_twice_take_no_time() -> None:
    routes = {f"r{n}": RouteSettings(models=(f"r{n + 1}", f"r{n + 1}", f"m{n}")) for n in range(60)}
    assert len(lay(routes, {})["r0"].legs) == 61


def test_fallbacks_are_a_route() -> None:
    routes = {"cloud": RouteSettings(models=("g", "h"), policy="weighted")}
    found = lay(routes, {"a": ModelSettings(fallback=("cloud", "b")), "b": ModelSettings(fallback=("a",))}, 4)
    assert [(leg.model, leg.fallback) for leg in found["a"].legs] == [
        ("a", False),
        ("g", True),
        ("h", True),
        ("b", True),
    ]
    assert [leg.model for leg in found["b"].legs] == ["b", "a"], "each other's fallback is no circle"
    assert (found["a"].policy, found["a"].whole.retries) == ("ordered", 4)
    assert [each.fallback for each in found["a"].whole.candidates] == [False, True, True, True]


def test_settings_of_a_route_are_in_its_plan() -> None:
    entry = RouteSettings(models=("a", "b"), retries=0, hedge=2.0, overflow=False, total_timeout=9.0)
    whole = lay({"r": entry, "s": RouteSettings(models=("a",))}, {}, 3)
    assert whole["r"].whole == replace(
        whole["r"].whole, retries=0, hedge=2.0, overflow=False, patience=Patience(total=9.0), sticky=False
    )
    assert (whole["s"].whole.retries, whole["s"].whole.patience) == (3, None)
    assert direct("m", 2).candidates[0].model == "m"
