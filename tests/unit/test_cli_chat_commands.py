"""The lines that begin with a slash, and texts of several lines."""

from __future__ import annotations

import pytest

from corral.cli.chat.commands import COMMANDS, Order, completions, overview, parse, unfinished, unquoted
from corral.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Hello", "Hello"),
        (" /not a command", "/not a command"),
        ("/help", Order("help")),
        ("/HELP", Order("help")),
        ("/bye", Order("exit")),
        ("/system  Be brief. ", Order("system", "Be brief.")),
        ("/system", Order("system")),
        ('/system """one\ntwo"""', Order("system", "one\ntwo")),
        ("/set temperature 0.2", Order("set", "temperature 0.2")),
        ("/set", Order("set")),
        ("/model a/b:c", Order("model", "a/b:c")),
        ('"""\none\n\ntwo\n"""', "one\n\ntwo"),
    ],
)
def test_what_was_typed(text: str, meant: object) -> None:
    assert parse(text) == meant


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("/hepl", "Did you mean /help"),
        ("/etc/passwd what is it?", "A space in front"),
        ("/model", "/model NAME"),
        ("/save ", "/save FILE"),
    ],
)
def test_what_cannot_be_meant(text: str, match: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(text)
    assert match in str(caught.value)


@pytest.mark.parametrize(
    ("text", "goes_on"),
    [
        ("hello", False),
        ('"""', True),
        ('"""one\ntwo', True),
        ('"""one"""', False),
        ('"""one\n"""', False),
        ('/system """one', True),
        ('what does """ mean?', False),
    ],
)
def test_an_open_text_goes_on(text: str, goes_on: bool) -> None:
    assert unfinished(text) is goes_on


def test_unquoted_leaves_other_texts_alone() -> None:
    assert unquoted('  say "hi"  ') == 'say "hi"'
    assert unquoted('"""open') == "open"


def test_every_command_is_in_the_overview() -> None:
    names = [usage.split()[0].rstrip(",") for usage, _ in overview()]

    assert names == [f"/{command.name}" for command in COMMANDS]
    assert ("/exit, /bye", "Leave (Ctrl-D does, too)") in overview()


def test_completions() -> None:
    models = ["parrot", "smollm2"]

    assert [text for text, _ in completions("/s", models)] == ["/system", "/set", "/show", "/stats", "/save"]
    assert completions("/model p", models) == [("parrot", "")]
    assert [text for text, _ in completions("/set t", models)] == ["temperature", "top_p"]
    assert completions("/save x", models) == []
    assert completions("hello /s", models) == []
    assert completions("/s\n", models) == []
