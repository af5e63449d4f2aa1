"""`corral keys`: who may ask this Corral, and for what. No server is needed; one that runs knows at once."""

import time
from collections.abc import Awaitable, Callable, Mapping
from math import isinf
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from corral.cli import names
from corral.cli.invocation import Invocation, Verbs, command, flag, group, invocation
from corral.cli.output import FAILED, Painted, time_text
from corral.cli.table import Column
from corral.domain.callers import SCOPES, Scope
from corral.domain.keys import Key, KeyWish, describe
from corral.errors import InvalidRequest

if TYPE_CHECKING:
    from corral.app import Corral
    from corral.cli.server import Server

app = typer.Typer(invoke_without_command=True, add_help_option=False, cls=Verbs)

_STYLES = {"live": "green", "expired": "yellow", "revoked": "dim"}
_BASE = "/api/v1/keys"


class Book(Protocol):
    """Where keys are kept. Keys are described as `corral.domain.keys.describe` does."""

    async def all(self) -> list[dict[str, Any]]:
        """Every key."""
        ...

    async def get(self, which: str) -> dict[str, Any]:
        """One."""
        ...

    async def create(self, wish: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """A new one, and its secret."""
        ...

    async def rotate(self, which: str, grace: float | None) -> tuple[dict[str, Any], str]:
        """One with another secret."""
        ...

    async def revoke(self, which: str) -> dict[str, Any]:
        """One that opens nothing any more."""
        ...

    async def delete(self, which: str) -> dict[str, Any]:
        """One that is forgotten."""
        ...

    async def entries(self, limit: int) -> list[dict[str, Any]]:
        """The newest entries of the audit log."""
        ...

    async def close(self) -> None:
        """Close the book."""
        ...


class OwnBook:
    """The database of this home, opened by this process."""

    def __init__(self, corral: "Corral") -> None:
        from corral.routing.audit import TERMINAL

        self._corral = corral
        self._keys = corral.keys
        self._actor = TERMINAL

    async def all(self) -> list[dict[str, Any]]:
        """Every key."""
        return [self._described(key) for key in await self._keys.all()]

    async def get(self, which: str) -> dict[str, Any]:
        """One."""
        return self._described(await self._keys.get(which))

    async def create(self, wish: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """A new one, and its secret."""
        key, secret = await self._keys.create(KeyWish(**wish), self._actor)
        return self._described(key), secret

    async def rotate(self, which: str, grace: float | None) -> tuple[dict[str, Any], str]:
        """One with another secret."""
        given = {} if grace is None else {"grace": grace}
        key, secret = await self._keys.rotate(which, self._actor, **given)
        return self._described(key), secret

    async def revoke(self, which: str) -> dict[str, Any]:
        """One that opens nothing any more."""
        return self._described(await self._keys.revoke(which, self._actor))

    async def delete(self, which: str) -> dict[str, Any]:
        """One that is forgotten."""
        return self._described(await self._keys.delete(which, self._actor))

    async def entries(self, limit: int) -> list[dict[str, Any]]:
        """The newest entries of the audit log."""
        from corral.routing.audit import describe as described

        return [described(entry) for entry in await self._corral.audit.page(limit)]

    async def close(self) -> None:
        """Close the database."""
        await self._corral.close()

    def _described(self, key: Key) -> dict[str, Any]:
        return describe(key, self._corral.clock.wall())


class TheirBook:
    """The keys of the server that `--url` names."""

    def __init__(self, server: "Server") -> None:
        self._server = server

    async def all(self) -> list[dict[str, Any]]:
        """Every key."""
        return list((await self._server.tell("GET", _BASE, "keys"))["keys"])

    async def get(self, which: str) -> dict[str, Any]:
        """One."""
        return await self._key("GET", which)

    async def create(self, wish: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """A new one, and its secret."""
        made = await self._server.tell("POST", _BASE, "secret", dict(wish))
        return dict(made["key"]), str(made["secret"])

    async def rotate(self, which: str, grace: float | None) -> tuple[dict[str, Any], str]:
        """One with another secret."""
        body = None if grace is None else {"grace": grace}
        made = await self._server.tell("POST", f"{_path(which)}/rotate", "secret", body)
        return dict(made["key"]), str(made["secret"])

    async def revoke(self, which: str) -> dict[str, Any]:
        """One that opens nothing any more."""
        return await self._key("POST", which, "/revoke")

    async def delete(self, which: str) -> dict[str, Any]:
        """One that is forgotten."""
        return await self._key("DELETE", which)

    async def entries(self, limit: int) -> list[dict[str, Any]]:
        """The newest entries of the audit log."""
        return list((await self._server.tell("GET", f"/api/v1/audit?limit={limit}", "entries"))["entries"])

    async def close(self) -> None:
        """Hang up."""
        await self._server.close()

    async def _key(self, method: str, which: str, more: str = "") -> dict[str, Any]:
        return dict((await self._server.tell(method, _path(which) + more, "key"))["key"])


def _path(which: str) -> str:
    from urllib.parse import quote

    return f"{_BASE}/{quote(which, safe='')}"


@app.callback()
@group
def keys(context: typer.Context) -> None:
    """Show and manage the keys of clients: who may ask, and for what.

    For example: corral keys
    """
    if context.invoked_subcommand is None:
        _list(invocation(context, {}))


@app.command("list", add_help_option=False)
@command
def list_keys(given: Invocation) -> None:
    """Show every key, without what opens anything.

    For example: corral keys list --json
    """
    _list(given)


@app.command(add_help_option=False)
@command
def create(  # noqa: PLR0913, PLR0917 — the command's options
    given: Invocation,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is called, such as its user.")],
    scope: Annotated[
        str,
        typer.Option(
            metavar="SCOPE",
            autocompletion=names.chosen(*SCOPES),
            help="infer, manage or admin; each includes those before it.",
        ),
    ] = "infer",
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            autocompletion=names.completion(names.known),
            help="A model it may use, such as gemini-*. Repeatable.",
        ),
    ] = None,
    project: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A project it may name; the first is the default. Repeatable."),
    ] = None,
    requests: Annotated[int | None, typer.Option(metavar="N", min=1, help="Most requests in a minute.")] = None,
    tokens: Annotated[int | None, typer.Option(metavar="N", min=1, help="Most tokens in a minute.")] = None,
    parallel: Annotated[int | None, typer.Option(metavar="N", min=1, help="Most requests at a time.")] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="For how long it counts, such as 30d.")] = None,
    strict: Annotated[bool, flag("--strict", help="Nothing may be silently less than what was asked.")] = False,
) -> None:
    """Make a key and show it, once.

    For example: corral keys create ci --model 'smol*' --requests 60 --expires 90d
    """
    wish = {
        "name": name,
        "scope": _scope(scope),
        "models": tuple(model or ()),
        "projects": tuple(project or ()),
        "requests": requests,
        "tokens": tokens,
        "parallel": parallel,
        "strict": strict,
        "expires_at": _end(expires),
    }
    made, secret = _with(given, lambda book: book.create(wish))
    _hand_over(given, made, secret, f"Made {made['name']} ({made['id']}).")


@app.command(add_help_option=False)
@command
def show(given: Invocation, key: names.Key) -> None:
    """Show one key: what it may do, and how it stands.

    For example: corral keys show editor
    """
    found = _with(given, lambda book: book.get(key))
    output = given.output

    def rows() -> None:
        now = time.time()
        pairs = [
            ("Key", f"{found['name']} ({found['id']})"),
            ("State", _state(found)),
            ("Begins with", found["shown"]),
            ("Scope", found["scope"]),
            ("Models", ", ".join(found["models"]) or "all"),
            ("Projects", ", ".join(found["projects"]) or "any"),
            ("Requests a minute", found["requests"]),
            ("Tokens a minute", found["tokens"]),
            ("At a time", found["parallel"]),
            ("Strict", "yes" if found["strict"] else None),
            ("Made", _ago(found["created_at"], now)),
            ("Expires", _ahead(found["expires_at"], now)),
            ("Rotated", _ago(found["rotated_at"], now)),
            ("Old one counts", _ahead(found["previous_until"], now)),
            ("Revoked", _ago(found["revoked_at"], now)),
            ("Last used", _ago(found["used_at"], now) or "never"),
        ]
        output.fields([(name, value) for name, value in pairs if value is not None])

    output.result(found, rows, [found["id"]])


@app.command(add_help_option=False)
@command
def rotate(
    given: Invocation,
    key: names.Key,
    grace: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long the old one still counts. Default: 24h.")
    ] = None,
) -> None:
    """Make another secret for a key and show it, once.

    Its budgets and limits stay. For example: corral keys rotate editor --grace 1h
    """
    length = None if grace is None else _seconds(grace, "--grace")
    made, secret = _with(given, lambda book: book.rotate(key, length))
    ahead = _ahead(made["previous_until"], time.time())
    _hand_over(given, made, secret, f"Rotated {made['name']}; the old one counts {ahead or 'no more'}.")


@app.command(add_help_option=False)
@command
def revoke(given: Invocation, key: names.Key) -> None:
    """Let a key open nothing any more; it stays in the list.

    For example: corral keys revoke editor
    """
    found = _with(given, lambda book: book.revoke(key))
    given.output.result(found, lambda: given.output.say(f"{found['name']} is revoked."), [found["id"]])


@app.command("rm", add_help_option=False)
@command
def remove(
    given: Invocation, key: names.Key, yes: Annotated[bool, flag("--yes", "-y", help="Do not ask.")] = False
) -> None:
    """Forget a key; what it used stays in the books.

    For example: corral keys rm editor --yes
    """
    if not yes and not given.output.ask(f"Forget {_with(given, lambda book: book.get(key))['name']}?"):
        given.output.note("Nothing was removed.")
        raise typer.Exit(FAILED)
    found = _with(given, lambda book: book.delete(key))
    given.output.result(found, lambda: given.output.say(f"{found['name']} is forgotten."), [found["id"]])


@app.command(add_help_option=False)
@command
def audit(
    given: Invocation,
    lines: Annotated[
        int, typer.Option("--lines", "-n", metavar="N", min=1, max=1000, help="How many of the last entries.")
    ] = 50,
) -> None:
    """Show what was managed, and by whom: the newest first.

    For example: corral keys audit -n 20
    """
    found = _with(given, lambda book: book.entries(lines))
    output = given.output

    def rows() -> None:
        if not found:
            output.say("Nothing has been managed yet.")
            return
        now = time.time()
        columns = [Column("WHEN"), Column("WHO"), Column("WHAT"), Column("TO", soft=True)]
        output.table(columns, [[_ago(e["at"], now), e["actor"], e["action"], e["target"]] for e in found])

    output.result({"entries": found, "count": len(found)}, rows, [str(entry["number"]) for entry in found])


def _list(given: Invocation) -> None:
    found = _with(given, lambda book: book.all())
    output = given.output

    def rows() -> None:
        if not found:
            output.say("There is no key. Make one: corral keys create NAME")
            return
        now = time.time()
        columns = [
            Column("NAME"),
            Column("ID", spare=1),
            Column("STATE"),
            Column("SCOPE"),
            Column("MODELS", soft=True),
            Column("PROJECTS", soft=True, spare=3),
            Column("LIMITS", soft=True, spare=2),
            Column("EXPIRES", spare=4),
            Column("LAST USED"),
        ]
        output.table(columns, [_row(key, now) for key in found])

    live = [key["id"] for key in found if key["state"] == "live"]
    output.result({"keys": found, "count": len(found)}, rows, live)


def _row(key: Mapping[str, Any], now: float) -> list[object]:
    limits = [
        f"{key[name]} {what}"
        for name, what in (("requests", "req/min"), ("tokens", "tok/min"), ("parallel", "at a time"))
        if key[name] is not None
    ]
    return [
        key["name"],
        key["id"],
        _state(key),
        key["scope"],
        ", ".join(key["models"]) or "all",
        ", ".join(key["projects"]) or "any",
        ", ".join(limits) or "-",
        _ahead(key["expires_at"], now) or "-",
        _ago(key["used_at"], now) or "never",
    ]


def _state(key: Mapping[str, Any]) -> Painted:
    return Painted(key["state"], _STYLES.get(key["state"], ""))


def _hand_over(given: Invocation, made: Mapping[str, Any], secret: str, said: str) -> None:
    """Show a key: by itself on standard output, for whoever reads it into a variable."""
    output = given.output

    def show_it() -> None:
        output.note(said)
        output.say(secret)
        output.note("Keep it: it is shown this once.")

    output.result({"key": dict(made), "secret": secret}, show_it, [secret])


def _scope(text: str) -> Scope:
    try:
        return Scope(text)
    except ValueError as error:
        raise InvalidRequest(f"{text!r} is no scope.", f"Take one of: {', '.join(SCOPES)}.") from error


def _seconds(text: str, what: str) -> float:
    from corral.config import duration

    try:
        length = duration(text)
    except ValueError as error:
        raise InvalidRequest(f"{what} is {error}.", f"For example: {what} 30d") from error
    if text.strip().startswith("-"):  # elsewhere that is a word for never
        raise InvalidRequest(f"{what} is a time that is to come.", f"For example: {what} 30d")
    return length


def _end(expires: str | None) -> float | None:
    """When what counts for that long from now on ends; None is never."""
    length = float("inf") if expires is None else _seconds(expires, "--expires")
    return None if isinf(length) else time.time() + length


def _ago(at: float | None, now: float) -> str | None:
    return None if at is None else f"{time_text(max(0.0, now - at))} ago"


def _ahead(at: float | None, now: float) -> str | None:
    if at is None:
        return None
    return f"for {time_text(at - now)}" if at > now else "no more"


def _with(given: Invocation, question: Callable[[Book], Awaitable[Any]]) -> Any:
    """Open the book, ask, close it."""
    import asyncio

    async def ask() -> Any:
        from corral.cli.server import Server

        book: Book = TheirBook(Server.of(given)) if given.url else OwnBook(given.corral())
        try:
            return await question(book)
        finally:
            await book.close()

    return asyncio.run(ask())
