"""Make the pictures of the terminal menu in docs/screens: every screen at 80 by 24 and 200 by 60, of a real server.

    python scripts/screens.py [FOLDER]

The server runs in a folder that is removed afterwards; its models are of the runtime `fake`, a model is being installed
from a web server on loopback, and what is shown is what the server said. Nothing is drawn by hand. The containers run
on a Docker engine of their own; where none can be had, that is what their screen says.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

# The tests' support lies beside the project.
from corral.cli.invocation import Invocation  # noqa: E402
from corral.cli.output import Output  # noqa: E402
from corral.cli.tui.app import Menu  # noqa: E402
from corral.cli.tui.dialogs import Ask, Confirm  # noqa: E402
from corral.cli.tui.link import Link  # noqa: E402
from corral.cli.tui.panes.chat import Chat  # noqa: E402
from corral.domain.operations import Order  # noqa: E402
from corral.errors import CorralError  # noqa: E402
from support.docker import TINY, Engine, lacking, running  # noqa: E402
from support.models import gguf  # noqa: E402
from support.origin import Asked, Reply, ThreadedOrigin  # noqa: E402
from support.ports import free_port  # noqa: E402
from support.servers import Server, corral_server  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_FIGURES = 6
"""Seconds of figures that are worth a picture."""
_LOOK = 0.05
"""Seconds between two looks."""
SIZES = ((80, 24), (200, 60))
CONFIG = """
models:
  qwen-coder: {runtime: fake, options: {memory_mib: 60, context: 32768, slots: 4, delay_ms: 15, reply: "%s"}}
  deepseek-reasoner: {runtime: fake, options: {memory_mib: 90, context: 65536, slots: 2, tokens: 4000, delay_ms: 40}}
  story-writer: {runtime: fake, options: {context: 8192, load_ms: 600000}, fallback: [qwen-coder]}
  broken-build: {runtime: fake, options: {fault: crash_on_start}}
  nightly-summary: {runtime: fake, options: {context: 16384}}
  mail-sorter: {runtime: fake}
prices:
  qwen-coder: {input: 0.2, output: 0.8}
  deepseek-reasoner: {input: 0.5, output: 2.0}
runtimes:
  fake: {}
"""
REPLY = (
    "A trie keeps words by their letters, so that all with the same beginning share a path. Finding those takes as "
    "many steps as the beginning has letters, however many words there are."
)


class Slow:
    """A web server that sends a model in small pieces, for as long as it is asked to."""

    def __init__(self) -> None:
        self.web = ThreadedOrigin({"/phi-mini.gguf": gguf(400_000), "/tiny-coder.gguf": gguf(200_000)})
        self.web.origin.tamper = self._tamper

    @property
    def host(self) -> str:
        """Where it listens."""
        return self.web.origin.host

    def _tamper(self, asked: Asked) -> Reply | None:
        honest = self.web.origin.serve(asked)
        if asked.path != "/phi-mini.gguf" or not isinstance(honest.body, bytes) or len(honest.body) < 1000:
            return None
        return Reply(honest.status, honest.headers, self._dripping(honest.body))

    async def _dripping(self, body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 2000):
            yield body[start : start + 2000]
            await asyncio.sleep(0.2)


async def until(menu: Menu, wanted: str, seconds: float = 20.0) -> None:
    """Wait until that text is on the screen."""
    await when(lambda: wanted in plain(menu.export_screenshot()), seconds)


async def when(so: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until it is so.

    Raises:
        TimeoutError: it did not become so.
    """
    for _ in range(int(seconds / _LOOK)):
        if so():
            return
        await asyncio.sleep(_LOOK)
    raise TimeoutError


def plain(svg: str) -> str:
    """The texts of a picture."""
    return re.sub(r"<[^>]+>", " ", svg).replace("&#160;", " ")


class Photographer:
    """Takes the pictures of one size."""

    def __init__(self, menu: Menu, folder: Path, size: tuple[int, int]) -> None:
        self._menu = menu
        self._folder = folder
        self._size = "x".join(map(str, size))

    async def take(self, name: str, wanted: str = "") -> None:
        """A picture of the screen as it is, once `wanted` is on it."""
        if wanted:
            await until(self._menu, wanted)
        await asyncio.sleep(0.3)
        svg = self._menu.export_screenshot(title="corral ui", simplify=True)
        # No font is fetched from anywhere: the reader's own monospaced one does.
        svg = re.sub(r"@font-face\s*\{.*?\}\s*", "", svg, flags=re.DOTALL)
        svg = re.sub(r"terminal-\d+", "terminal", svg).replace("Fira Code", "monospace")
        path = self._folder / f"{name}-{self._size}.svg"
        path.write_text("\n".join(text.rstrip() for text in svg.splitlines()) + "\n")
        sys.stdout.write(f"{path.name} {path.stat().st_size // 1024} KiB\n")


async def prepare(server: Server, slow: Slow) -> list[asyncio.Task[object]]:
    """Bring the server into a state in which there is something to see; the requests that go on."""
    link = Link(server.url)
    await link.load("qwen-coder")
    await link.load("deepseek-reasoner")
    for question in ("What is a trie?", "What is a heap?", "What is a skip list?"):
        body = {"model": "qwen-coder", "messages": [{"role": "user", "content": question}]}
        await link.tell("POST", "/v1/chat/completions", "choices", body)
    with suppress(CorralError):  # as it was made to
        await link.load("broken-build")
    await link.tell("POST", "/api/v1/budgets", "budget", {"name": "everything", "amount": 20})
    await link.tell(
        "POST",
        "/api/v1/budgets",
        "budget",
        {"name": "daily-requests", "amount": 5, "unit": "requests", "period": "day"},
    )
    small = await link.submit(Order("install", "", {"what": f"http://{slow.host}/tiny-coder.gguf"}))
    async for _ in link.watch(small.id):
        pass
    await link.submit(Order("install", "tiny", {"what": f"http://{slow.host}/phi-mini.gguf", "name": "phi-mini"}))
    body = {"model": "deepseek-reasoner", "messages": [{"role": "user", "content": "Prove it."}], "stream": True}

    async def busy() -> None:
        async for _ in link.chat(body):
            pass

    return [asyncio.ensure_future(busy()), asyncio.ensure_future(link.load("story-writer"))]


async def photograph(menu: Menu, pilot: object, camera: Photographer) -> None:
    """All screens, one after the other."""
    press = pilot.press  # type: ignore[attr-defined]
    await camera.take("models", "ready")
    await press("2")
    await camera.take("queue", "deepseek")
    await press("3")
    await when(lambda: bool(menu.yard.containers) or menu.yard.docker is not None)
    await when(lambda: menu.yard.docker is not None or len(menu.yard.trail("write/memory").values) > _FIGURES)
    await camera.take("containers", "healthy" if menu.yard.containers else "Docker")
    await press("4")
    await camera.take("machine", "Processor")
    await press("5")
    await camera.take("work", "at work")
    await press("6")
    await camera.take("spend", "daily-requests")
    menu.log_of("model", "deepseek-reasoner")
    await camera.take("logs", "following")
    menu.chat_with("qwen-coder")
    await press(*"What is a trie?", "enter")
    await when(lambda: bool(menu.query_one(Chat).receipts))
    await camera.take("chat", "waited")
    await press("escape", "1")
    if menu.wide:
        return
    menu.query_one("#models").action_install()  # type: ignore[attr-defined]
    await when(lambda: isinstance(menu.screen, Ask))
    await camera.take("install")
    await press("escape")
    await press("down", "x")
    await when(lambda: isinstance(menu.screen, Confirm))
    await camera.take("remove")
    await press("escape", "question_mark")
    await camera.take("help")
    await press("escape")


async def picture(server: Server, folder: Path) -> None:
    """Every screen in every size, and the first in every theme."""
    os.environ.pop("NO_COLOR", None)
    for size in SIZES:
        menu = Menu(Invocation(Output(), home=server.home, env=server.env))
        async with menu.run_test(size=size) as pilot:
            camera = Photographer(menu, folder, size)
            await photograph(menu, pilot, camera)
            if size == SIZES[0]:
                for theme in ("light", "contrast"):
                    await pilot.press("T")
                    await camera.take(f"models-{theme}", "ready")


def containers(engine: Engine) -> str:
    """The configuration of containers with purposes, one of which crashes, on that engine."""
    image = engine.image(TINY)

    def one(purpose: str, *words: str, **more: object) -> dict[str, object]:
        port = free_port()
        command = [*words, *(() if "exit" in words else ("serve", str(port), "127.0.0.1"))]
        where = {"image": image, "kind": "openai", "network": "host", "port": port, "inside": port}
        return {**where, "command": command, "purpose": purpose, "memory": "64 MB", "stop_grace": "1s", **more}

    entries = {
        "code": one("completes code in the editor", "say", "ready to complete"),
        "reason": one("thinks for long", "say", "ready to think"),
        "write": one("writes prose", "say", "ready to write"),
        "trial": one("a build that does not run", "exit", "3"),
        "night": one("summaries at night", enabled=False),
    }
    return yaml.safe_dump({"docker": {"host": engine.address}, "containers": entries})


def main() -> None:
    """Start the server, take the pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "screens"
    folder.mkdir(parents=True, exist_ok=True)
    slow = Slow()
    with ExitStack() as open_:
        home = Path(open_.enter_context(tempfile.TemporaryDirectory()))
        more = "" if lacking() else containers(open_.enter_context(running()))
        env = {"CORRAL_SOURCES_ALLOW_PRIVATE": slow.host}
        server = open_.enter_context(corral_server(home, CONFIG % REPLY + more, env=env))
        asyncio.run(_all(server, slow, folder))


async def _all(server: Server, slow: Slow, folder: Path) -> None:
    going = await prepare(server, slow)
    try:
        await picture(server, folder)
    finally:
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)


if __name__ == "__main__":
    main()
