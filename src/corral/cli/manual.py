"""`corral man`: the manual page, made from the commands themselves."""

import re
from collections.abc import Collection, Iterator
from typing import Any

from corral import __version__
from corral.cli.invocation import Invocation, command

_FILES = (
    (
        "corral.yaml",
        "The configuration: in the folder where Corral is started, or in its home. See corral config path.",
    ),
    ("~/.corral", "The home: models, keys, receipts, budgets. Another: --home, CORRAL_HOME."),
)
_VARIABLES = (
    ("CORRAL_HOME", "The home."),
    ("CORRAL_CONFIG", "The configuration file."),
    ("CORRAL_URL", "The server that commands talk to, in place of that of this home."),
    ("CORRAL_API_KEY", "The key of the server, and of clients in the terminal."),
    ("NO_COLOR", "Set to anything: no colours."),
    ("CORRAL_*", "Every other setting, such as CORRAL_SERVER_PORT for server.port. See corral config."),
)
_CODES = (
    ("0", "It is done."),
    ("1", "It failed, or the doctor found something to mend."),
    ("2", "The command, an option or the configuration cannot be understood."),
    ("3", "There is no such model, runtime, container or thing."),
    ("4", "No Corral server runs, or it cannot be reached."),
    ("5", "Busy: in use, taken, or running already."),
    ("6", "The store: no room, no permission, a damaged file."),
)
_ARGUMENT = "argument"
_SUMMARY = "one yard for every language model you run"


@command
def manual(invocation: Invocation) -> None:
    """Print the manual page.

    For example: corral man | man -l -
    """
    from corral.cli.app import application

    page = render(application())
    invocation.output.result({"page": page}, lambda: print(page, end=""), [page])


def render(app: Any) -> str:
    """The manual page of a Typer application, in roff."""
    from typer.main import get_command

    root = get_command(app)
    lines = [
        f'.TH CORRAL 1 "" "corral {__version__}" "Corral"',
        ".SH NAME",
        f"corral \\- {_text(_SUMMARY)}",
        ".SH SYNOPSIS",
        ".B corral",
        "[OPTIONS] COMMAND [ARGUMENTS]",
        ".SH OPTIONS",
        *_options(root),
        ".SH COMMANDS",
        "Every command takes the options above, too.",
    ]
    for path, inner in _commands(root, ()):
        lines += _section(path, inner, {_spelled(param) for param in root.params})
    for title, rows in (("FILES", _FILES), ("ENVIRONMENT", _VARIABLES), ("EXIT STATUS", _CODES)):
        lines.append(f".SH {title}")
        for name, meaning in rows:
            lines += [".TP", f".B {_text(name)}", _text(meaning)]
    return "\n".join(lines) + "\n"


def _commands(group: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that is not hidden, groups before what is in them."""
    for name, inner in group.commands.items():
        if not inner.hidden:
            yield (*path, name), inner
            if hasattr(inner, "commands"):
                yield from _commands(inner, (*path, name))


def _section(path: tuple[str, ...], inner: Any, common: set[str]) -> list[str]:
    """One command: how it is typed, what it does, and its own options."""
    typed = [_metavar(param) for param in inner.params if param.param_type_name == _ARGUMENT and not param.hidden]
    more = ["COMMAND"] if hasattr(inner, "commands") else []
    lines = [f'.SS "corral {" ".join((*path, *typed, *more))}"']
    paragraphs = [part for part in re.split(r"\n\s*\n", (inner.help or "").strip()) if part]
    for paragraph in paragraphs:
        lines += [_text(" ".join(paragraph.split())), ".PP"]
    lines += _arguments(inner)
    return lines + _options(inner, common)


def _arguments(inner: Any) -> list[str]:
    lines: list[str] = []
    for param in inner.params:
        if param.param_type_name == _ARGUMENT and not param.hidden and param.help:
            lines += [".TP", f".I {_text(_metavar(param))}", _text(param.help)]
    return lines


def _options(inner: Any, common: Collection[str] = ()) -> list[str]:
    lines: list[str] = []
    for param in inner.params:
        if param.param_type_name == _ARGUMENT or param.hidden or _spelled(param) in common:
            continue
        value = "" if param.is_flag else f" {_metavar(param)}"
        lines += [".TP", f".B {_text(_spelled(param) + value)}", _text(param.help or "")]
    return lines


def _spelled(param: Any) -> str:
    return ", ".join(param.opts)


def _metavar(param: Any) -> str:
    return str(param.metavar or (param.name or "").upper())


def _text(words: str) -> str:
    """Words as roff takes them: no line of them is a request, and hyphens can be copied."""
    escaped = words.replace("\\", "\\e").replace("-", "\\-")
    escaped = "".join(letter if letter.isascii() else f"\\[u{ord(letter):04X}]" for letter in escaped)
    return f"\\&{escaped}" if escaped[:1] in {".", "'"} else escaped
