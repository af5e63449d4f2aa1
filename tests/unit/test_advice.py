"""What may be taken from a stranger who describes a model."""

import pytest

from corral.domain.options import parse_options
from corral.kit import advice
from corral.runtimes.llamacpp import LlamaCppOptions

GOOD = {
    "chat_template": "{{ messages }}",
    "system": "Be kind.",
    "opening": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    "stop": ["<end>"],
    "context": 4096,
    "max_tokens": -1,
    "temperature": 0.5,
    "top_k": 0,
    "mirostat": 2,
    "seed": 2**32 - 1,
}


def test_what_a_model_may_say_of_how_it_talks():
    good, ignored = advice.sifted(GOOD)
    assert (good, ignored) == (GOOD, {})
    parse_options(LlamaCppOptions, good, "here")


def test_every_option_is_one_of_a_runtime():
    assert set(advice.OPTIONS) <= set(LlamaCppOptions.__dataclass_fields__)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chat_template", "/dev/zero"),
        ("chat_template", "{" * (1 << 18) + "{"),
        ("chat_template", 5),
        ("system", ["x"]),
        ("system", "x" * ((1 << 18) + 1)),
        ("opening", []),
        ("opening", [{"role": "system", "content": "x"}]),
        ("opening", [{"role": ["user"], "content": "x"}]),
        ("opening", [{"role": "user", "content": 5}]),
        ("opening", [{"role": "user"}]),
        ("opening", ["x"]),
        ("opening", [{"role": "user", "content": "x"}] * 101),
        ("opening", [{"role": "user", "content": "x" * 200_000}] * 2),
        ("stop", "x"),
        ("stop", [""]),
        ("stop", ["x"] * 65),
        ("stop", ["x" * 1001]),
        ("context", 0),
        ("context", True),
        ("context", 1.5),
        ("context", 2**31),
        ("temperature", float("inf")),
        ("temperature", -1),
        ("temperature", "hot"),
        ("mirostat", 3),
        ("mmproj", "/etc/passwd"),
        ("lora", {"/x": 1.0}),
        ("slots", 1 << 20),
        ("prompt_cache_mib", 1 << 30),
        ("gpu_layers", 0),
        ("anything", {"deep": [1]}),
    ],
)
def test_what_it_may_not(name, value):
    good, ignored = advice.sifted({name: value})
    assert good == {}
    (reason,) = ignored.values()
    assert ("not for others" in reason) is (name not in advice.OPTIONS)
    assert len(reason) < 150


def test_no_end_of_reasons():
    assert len(advice.sifted({f"{'x' * 500}{number}": 1 for number in range(1000)})[1]) <= 50


def test_facts_are_short_and_plain():
    good = {
        "title": "Tiny",
        "parameters": 5,
        "sure": True,
        "scale": 0.5,
        "languages": ["en", "de"],
        "licence_text": "y" * 5000,
    }
    bad = {
        "long": "x" * 1001,
        "nested": {"a": 1},
        "lists": [["a"]],
        "many": ["a"] * 101,
        "item": ["x" * 101],
        "none": None,
        "endless": float("inf"),
        "x" * 101: 1,
    }
    assert advice.plain({**good, **bad}) == good
    assert len(advice.plain({str(number): 1 for number in range(1000)})) == 64


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"[" + b"1," * 200 + b"1]", "over 100 values"),
        (b"[" * 101, "over 100 values"),
        (b"[" * 17 + b"]" * 17, "nested over 16 deep"),
        (b'{"a":' * 17 + b"1" + b"}" * 17, "nested over 16 deep"),
        (b"{", "unexpected end"),
    ],
)
def test_json_that_is_too_much(data, why):
    with pytest.raises(ValueError, match=why):
        advice.bounded(data, 100)


def test_json_that_is_not():
    assert advice.bounded(b'[{"a": [1, 2]}]', 100) == [{"a": [1, 2]}]
    assert advice.bounded(b"[" * 16 + b"]" * 16, 100)
