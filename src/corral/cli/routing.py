"""Where a request would go: `explain --request`, asked of the running server, or worked out here where none runs."""

import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from corral.cli.invocation import Invocation
from corral.cli.table import Column
from corral.errors import InvalidRequest


def explain(invocation: Invocation, file: Path, dialect: str, model: str | None, *, strict: bool) -> None:
    """Show the plan for the request in `file`.

    Raises:
        InvalidRequest: the file cannot be read, or holds no such request.
    """
    document = _document(file)
    output = invocation.output
    if invocation.running() is None:
        plan, where = _here(invocation, document, dialect, model, strict=strict), "no server runs: as one would start"
    else:
        plan, where = invocation.ask(lambda server: server.route(document, dialect, model, strict=strict)), ""

    def show() -> None:
        _show(invocation, plan)
        if where:
            output.say(where, "dim")

    output.result(plan, show, [each["model"] for each in plan.get("candidates") or ()])


def _document(file: Path) -> dict[str, Any]:
    import orjson

    try:
        text = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        found = orjson.loads(text)
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be read: {error.strerror}.", "Name a file with the body.") from error
    except ValueError as error:
        raise InvalidRequest(f"{file} is not JSON: {error}.", "It must hold the body that a client sends.") from error
    if not isinstance(found, dict):
        raise InvalidRequest(f"{file} holds no JSON object.", "It must hold the body that a client sends.")
    return found


def _here(
    invocation: Invocation, document: Mapping[str, Any], dialect: str, model: str | None, *, strict: bool
) -> dict[str, Any]:
    """The plan as this process sees it: nothing is in memory, and nobody has failed."""
    import asyncio

    from corral.gateway.forecast import forecast, order_of

    order = order_of(document, dialect, model, strict=strict)

    async def plan() -> dict[str, Any]:
        corral = invocation.corral()
        try:
            return await forecast(corral, order)
        finally:
            await corral.close()

    return asyncio.run(plan())


def _show(invocation: Invocation, plan: Mapping[str, Any]) -> None:
    output = invocation.output
    candidates, dropped = plan.get("candidates") or [], plan.get("dropped") or []
    means = "" if plan.get("means") == plan.get("model") else f", which is {plan.get('means')}"
    first = candidates[0]["model"] if candidates else "nobody"
    output.say(f"{plan.get('model')}{means}: goes to {first}", "bold")
    prompt, most = plan.get("prompt_tokens"), plan.get("max_tokens")
    bound = "as much answer as the model likes" if most is None else f"at most {most} of answer"
    output.say(f"  about {prompt if prompt is not None else '?'} tokens of prompt, {bound}; {plan.get('policy')}")
    error = plan.get("error")
    if error:
        output.say(f"  {error.get('code')}: {error.get('message')} {error.get('hint') or ''}".rstrip())
    columns = [Column("#", right=True), Column("MODEL"), Column("COST", right=True), Column("AT MOST", right=True)]
    rows = [_asked(number, each) for number, each in enumerate(candidates, 1)]
    rows += [["-", each.get("model"), "-", "-", f"{each.get('code')}: {each.get('reason')}"] for each in dropped]
    if rows:
        output.say()
        output.table([*columns, Column("WHY", soft=True)], rows)
    for each in candidates:
        memory = each.get("memory")
        if memory:
            output.say(f"{each['model']}: {memory.get('verdict')}: {memory.get('reason')}", "dim")


def _asked(number: int, each: Mapping[str, Any]) -> list[object]:
    return [number, each.get("model"), _dollars(each.get("cost")), _dollars(each.get("worst")), each.get("reason")]


def _dollars(amount: float | None) -> str:
    if amount is None:
        return "unknown"
    if amount >= 0.01:
        return f"${amount:.2f}"
    return f"${Decimal(f'{amount:.2g}'):f}" if amount else "free"
