"""What commands say: for a person, as JSON, and quietly; and the exit codes."""

from __future__ import annotations

import inspect
import io
import json
from math import inf
from pathlib import Path

import pytest

from corral import errors
from corral.cli.output import (
    EXITS,
    Mode,
    Output,
    clean,
    exit_code,
    line,
    painted_state,
    plain,
    size_text,
    time_text,
)
from corral.cli.table import Column
from corral.domain.states import State


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def output(mode: Mode = Mode.HUMAN, *, terminal: bool = False, **env: str) -> Output:
    kind = Terminal if terminal else io.StringIO
    return Output(mode, stdout=kind(), stderr=kind(), env=env)


def said(out: Output) -> str:
    assert isinstance(out.stdout, io.StringIO)
    return out.stdout.getvalue()


def complained(out: Output) -> str:
    assert isinstance(out.stderr, io.StringIO)
    return out.stderr.getvalue()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidName, 2),
        (errors.UnknownOption, 2),
        (errors.ConfigError, 2),
        (errors.UnsafeBind, 2),
        (errors.ModelNotFound, 3),
        (errors.UnknownPlugin, 3),
        (errors.ServerNotRunning, 4),
        (errors.ModelBusy, 5),
        (errors.ServerRunning, 5),
        (errors.AddressInUse, 5),
        (errors.DiskFull, 6),
        (errors.DigestMismatch, 6),
        (errors.EngineDied, 1),
        (errors.SourceError, 1),
        (errors.Unauthorized, 1),
    ],
)
def test_exit_codes(error: type[errors.CorralError], code: int) -> None:
    assert exit_code(error("m")) == code


def test_no_row_of_the_table_hides_a_later_one() -> None:
    kinds = [kind for kind, _ in EXITS]
    hidden = [(later, earlier) for i, later in enumerate(kinds) for earlier in kinds[:i] if issubclass(later, earlier)]

    assert hidden == []


def test_text_cannot_drive_the_terminal() -> None:
    text = "a\x1b[31mred\x07\x9b2J\x7f\r\nb\tc\x00"

    assert clean(text) == "a[31mred2J\nb\tc"
    assert line(" two\nlines\x1b ") == "two lines"
    assert clean("evil\u202egpj.exe\u2066") == "evilgpj.exe"


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (98_362_432, "98.4 MB"), (999_600_000, "1 GB"),
     (4.2e12, "4.2 TB"), (1.2e16, "12000 TB")],
)  # fmt: skip
def test_sizes(count: float | None, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (inf, "never"), (0, "0s"), (-5, "0s"), (0.0231, "23.1ms"), (1.0, "1s"), (9.94, "9.9s"), (10.4, "10s"),
     (60, "1m"), (252, "4m 12s"), (3600, "1h"), (7320, "2h 2m"), (90000, "1d 1h")],
)  # fmt: skip
def test_times(seconds: float | None, text: str) -> None:
    assert time_text(seconds) == text


def test_values_as_json_holds_them() -> None:
    value = {
        "path": Path("/a"),
        "set": frozenset({"b", "a"}),
        "time": inf,
        "many": (1, 2.5, None, True),
        3: State.READY,
    }

    assert plain(value) == {
        "path": "/a",
        "set": ["a", "b"],
        "time": "never",
        "many": [1, 2.5, None, True],
        "3": "ready",
    }


def test_a_result_for_a_person() -> None:
    out = output()
    out.result({"a": 1}, lambda: out.say("one"), ["quiet"])

    assert said(out) == "one\n"


def test_a_result_as_json_is_one_line_in_a_pipe_and_indented_on_a_terminal() -> None:
    pipe, terminal = output(Mode.JSON), output(Mode.JSON, terminal=True)
    for out in (pipe, terminal):
        out.result({"text": "é\x9b"}, lambda out=out: out.say("never"))

    assert said(pipe) == '{"text":"é\x9b"}\n'
    assert said(terminal) == '{\n  "text": "\\u00e9\\u009b"\n}\n'


def test_json_of_what_is_odd() -> None:
    out = output(Mode.JSON)
    out.emit({"half": "\ud800", "huge": 2**70})

    assert json.loads(said(out)) == {"half": "\ud800", "huge": 2**70}


def test_a_quiet_result() -> None:
    out = output(Mode.QUIET)
    out.result({"a": 1}, lambda: out.say("never"), ["one", "t\x1bwo\nlines"])
    out.note("never")
    out.warn("never")

    assert said(out) == "one\ntwo\nlines\n"
    assert complained(out) == ""


@pytest.mark.parametrize("mode", [Mode.HUMAN, Mode.QUIET])
def test_an_error_is_two_lines(mode: Mode) -> None:
    out = output(mode)
    out.fail(errors.ModelNotFound("No \x1bmodel.", "Type this."))

    assert complained(out) == "error: No model.\nhint: Type this.\n"
    assert said(out) == ""


def test_an_error_without_a_hint_is_one_line() -> None:
    out = output()
    out.fail(errors.EngineDied("It died."))

    assert complained(out) == "error: It died.\n"


def test_an_error_as_json() -> None:
    out = output(Mode.JSON)
    out.fail(errors.ModelNotFound("No model.", "Type this."))

    assert json.loads(complained(out)) == {
        "error": {"code": "model_not_found", "message": "No model.", "hint": "Type this."}
    }


def test_warnings_go_to_standard_error() -> None:
    out = output()
    out.warn("odd")

    assert (said(out), complained(out)) == ("", "warning: odd\n")


@pytest.mark.parametrize(
    ("terminal", "env", "coloured"),
    [(True, {}, True), (False, {}, False), (True, {"NO_COLOR": "1"}, False), (True, {"TERM": "dumb"}, False)],
)
def test_colour_on_a_willing_terminal_only(terminal: bool, env: dict[str, str], coloured: bool) -> None:
    out = output(terminal=terminal, **env)
    out.say("text", "green")
    out.table([Column("STATE")], [[painted_state("ready")]])

    assert ("\x1b[32m" in said(out)) is coloured
    assert ("\x1b[" in said(out)) is coloured


def test_a_piece_has_no_line_end() -> None:
    out = output()
    out.piece("one ")
    out.piece("two")

    assert said(out) == "one two"


def test_what_the_encoding_lacks_is_replaced() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    out = Output(stdout=stream, stderr=stream, env={})
    out.piece("né\ud800")
    stream.flush()

    assert stream.buffer.getvalue() == b"n??"  # type: ignore[attr-defined]
    stream.close()


COLUMNS = [Column("NAME"), Column("SIZE", right=True), Column("SOURCE", soft=True)]


def test_a_table_in_a_pipe_is_whole_and_aligned() -> None:
    out = output()
    out.table(COLUMNS, [["a", "1 MB", "x" * 300], ["[bold]b[/]", "10 MB", "y"]])

    assert said(out).splitlines() == [
        "NAME         SIZE  SOURCE",
        f"a            1 MB  {'x' * 300}",
        "[bold]b[/]  10 MB  y",
    ]


def test_a_table_fits_the_terminal() -> None:
    out = output(terminal=True, NO_COLOR="1", COLUMNS="40")
    out.table(COLUMNS, [["a-rather-long-name", "1 MB", "pypi:some-package==1.2.3"]])

    head, row = said(out).splitlines()
    assert len(row.rstrip()) <= 40
    assert "a-rather-long-name" in row
    assert row.rstrip().endswith("…")
    assert head.startswith("NAME")


def test_fields_fold() -> None:
    out = output()
    out.fields([("name", "value"), ("longer name", "x\ny")])

    assert said(out) == "name         value\nlonger name  x y\n"


def test_nothing_moves_where_nobody_looks() -> None:
    out = output()
    with out.busy("wait"):
        pass

    assert (said(out), complained(out)) == ("", "")
    assert not output(Mode.JSON, terminal=True).live
    assert output(terminal=True).live


def test_a_spinner_is_wiped_away() -> None:
    out = output(terminal=True)
    with out.busy("Loading [x] …"):
        pass

    assert "\x1b[2K" in complained(out)
    assert said(out) == ""


def test_asking_needs_somebody() -> None:
    with pytest.raises(errors.InvalidRequest, match="--yes"):
        output().ask("Sure?")


def test_every_error_has_an_exit_code_that_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.CorralError)]

    assert kinds
    for kind in kinds:
        assert f"| {exit_code(kind('m'))} | " in page, kind
