"""The menu against a real server, driven by Textual's pilot: what is pressed, and what is seen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input

from corral.cli.invocation import Invocation
from corral.cli.output import Output
from corral.cli.tui.app import PANES, Menu
from corral.cli.tui.dialogs import Ask, Choose, Confirm, Page
from corral.cli.tui.frame import Finder, Hints
from corral.cli.tui.link import Link
from corral.cli.tui.panes.chat import Chat
from corral.cli.tui.panes.logs import Logs
from corral.cli.tui.tape import Sheet, Tape
from tests.support.menu import Lateness, Seat, invited, seated
from tests.support.models import gguf
from tests.support.origin import Origin, Reply, ThreadedOrigin
from tests.support.servers import Server, corral_server

CONFIG = """
models:
  parrot: {runtime: fake, options: {reply: "one two three"}}
  second: {runtime: fake, options: {context: 512}}
  broken: {runtime: fake, options: {fault: crash_on_start}}
  held: {runtime: fake, options: {hold_after: 1, reply: "one two three"}}
prices:
  parrot: {input: 1.0, output: 2.0}
"""


@pytest.fixture(scope="module")
def web() -> Iterator[ThreadedOrigin]:
    origin = ThreadedOrigin({"/tiny.gguf": gguf(5_000), "/late.gguf": gguf(50_000)})
    yield origin
    origin.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, web: ThreadedOrigin) -> Iterator[Server]:
    env = {"CORRAL_SOURCES_ALLOW_PRIVATE": web.origin.host}
    with corral_server(tmp_path_factory.mktemp("menu"), CONFIG, env=env) as running:
        yield running


async def test_the_models_are_there_with_their_states(server: Server) -> None:
    async with seated(server) as seat:
        await seat.sees("NAME", "STATE", "broken", "parrot", "second", "cold", "connected", "i install")


async def test_a_model_is_loaded_tested_and_unloaded(server: Server) -> None:
    async with seated(server) as seat:
        seat.listing().choose("parrot")
        await seat.press("l")
        await seat.told("parrot is ready")
        await seat.until(lambda: seat.menu.yard.models["parrot"]["state"] == "ready")
        await seat.sees("fake-", "tokens,")
        await seat.press("t")
        await seat.told("answered")
        assert "one two three" in seat.menu.notice.said
        await seat.press("u")
        await seat.told("parrot is no longer in memory")
        await seat.until(lambda: seat.menu.yard.models["parrot"]["state"] == "cold")


async def test_an_error_is_its_message_and_what_to_do_and_never_a_trace(server: Server) -> None:
    async with seated(server) as seat:
        seat.listing().choose("broken")
        await seat.press("l")
        await seat.told("error: ")
        said = seat.menu.notice.said
        assert "hint: " in said
        assert "Traceback" not in seat.text
        await seat.press("escape")
        assert seat.menu.notice.said == ""


async def test_a_model_is_installed_with_its_progress_and_removed(server: Server, web: ThreadedOrigin) -> None:
    go = asyncio.Event()

    async def halting(body: bytes) -> AsyncIterator[bytes]:
        yield body[: len(body) // 2]
        await go.wait()
        yield body[len(body) // 2 :]

    def tamper(asked: Any) -> Reply | None:
        honest = web.origin.serve(asked)
        if go.is_set() or not isinstance(honest.body, bytes) or len(honest.body) < 1000:
            return None
        return Reply(honest.status, honest.headers, halting(honest.body))

    web.origin.tamper = tamper
    async with seated(server) as seat:
        await seat.press("i")
        assert isinstance(seat.menu.screen, Ask)
        seat.menu.screen.query_one(Input).value = f"{web.origin.url}/late.gguf"
        await seat.press("enter")
        await seat.sees("late", "installing")
        await seat.press("5")
        await seat.until(lambda: any(one.progress > 0 for one in seat.menu.yard.at_work))
        await seat.sees("install", "at work", "download")
        web.loop.call_soon_threadsafe(go.set)
        await seat.told("Install late: completed.")
        await seat.press("1")
        await seat.until(lambda: "late" in seat.menu.yard.models)
        await seat.until(lambda: "late" in seat.listing().table.keys)
        seat.listing().choose("late")
        await seat.press("x")
        assert isinstance(seat.menu.screen, Confirm)
        await seat.press("enter")  # which is no
        assert "late" in seat.menu.yard.models
        await seat.press("x", "y")
        await seat.told("Remove late: completed.")
        await seat.until(lambda: "late" not in seat.menu.yard.models)


async def test_an_install_is_paused_resumed_and_called_off(server: Server, web: ThreadedOrigin) -> None:
    async def nothing(body: bytes) -> AsyncIterator[bytes]:
        yield body[:1000]
        await asyncio.Event().wait()

    def tamper(asked: Any) -> Reply | None:
        honest = web.origin.serve(asked)
        return Reply(honest.status, honest.headers, nothing(honest.body)) if "tiny" in asked.path else None

    web.origin.tamper = tamper
    async with seated(server) as seat:
        await seat.press("5", "i")
        seat.menu.screen.query_one(Input).value = f"{web.origin.url}/tiny.gguf"
        await seat.press("enter")
        await seat.sees("tiny", "at work")
        await seat.press("home", "p")
        await seat.sees("paused")
        await seat.press("r")
        await seat.sees("at work")
        await seat.press("x", "y")
        await seat.sees("cancelled")


async def test_the_queue_shows_engines_memory_and_what_was_decided(server: Server) -> None:
    async with seated(server) as seat:
        seat.listing().choose("second")
        await seat.press("l")
        await seat.told("second is ready")
        await seat.press("2")
        await seat.sees("second", "ready", "held of", "load second")
        seat.listing().choose("second")
        await seat.press("u")
        await seat.told("no longer in memory")


async def test_the_machine_has_its_figures(server: Server) -> None:
    async with seated(server) as seat:
        await seat.press("4")
        await seat.sees("Processor", "Memory", "Disk", "GPU")
        await seat.until(lambda: seat.menu.yard.trail("cpu").last is not None)


async def test_the_chat_answers_and_shows_the_receipt_and_the_day_its_cost(server: Server) -> None:
    async with seated(server) as seat:
        seat.menu.chat_with("parrot")
        await seat.sees("enter send", "F1 help")
        await seat.type("hello there")
        await seat.press("enter")
        await seat.sees("one two three", "waited", "$0.00")
        await seat.press("escape", "v")
        assert isinstance(seat.menu.screen, Page)
        await seat.sees("request id", "req-")
        await seat.press("escape", "6")
        await seat.sees("Today, in UTC: $", "parrot")


async def test_an_answer_is_stopped_and_what_came_of_it_stays(server: Server) -> None:
    async with seated(server) as seat:
        seat.menu.chat_with("held")
        await seat.type("go")
        await seat.press("enter")
        chat = seat.menu.query_one(Chat)
        await seat.until(lambda: chat.answer is not None and bool(chat.answer.text))
        await seat.press("escape", "s")
        await seat.until(lambda: chat.answer is None)
        assert chat.conversation.messages[-1] == {"role": "assistant", "content": "one "}


async def test_the_log_of_an_engine_is_shown(server: Server) -> None:
    async with seated(server) as seat:
        seat.listing().choose("parrot")
        await seat.press("l")
        await seat.told("is ready")
        await seat.press("o")
        await seat.sees("model parrot", "listening on")
        await seat.press("s")
        assert isinstance(seat.menu.screen, Choose)
        await seat.press("escape")


async def test_containers_say_honestly_what_is_there(server: Server) -> None:
    async with seated(server) as seat:
        await seat.press("3")
        await seat.until(lambda: len(seat.listing().table.empty) > 0)
        await seat.sees("NAME", "STATE")


async def test_what_is_looked_for_is_all_that_is_shown(server: Server) -> None:
    async with seated(server) as seat:
        await seat.press("slash")
        await seat.sees("enter keep  esc show all  F1 help")
        await seat.type("sec")
        await seat.until(lambda: seat.listing().table.keys == ("second",))
        await seat.press("enter")
        assert seat.listing().has_focus
        assert not seat.menu.query_one(Finder).display
        await seat.press("escape")
        await seat.until(lambda: len(seat.listing().table.keys) >= 4)
        await seat.sees("i install", "? help")


async def test_every_screen_is_reached_by_its_number_by_arrows_and_by_the_mouse(server: Server) -> None:
    async with seated(server) as seat:
        for number, pane in enumerate(PANES, 1):
            await seat.press("escape", str(number))
            assert seat.menu.current == pane.NAME
        await seat.press("escape", "1", "right")
        assert seat.menu.current == PANES[1].NAME
        await seat.press("left", "left")
        assert seat.menu.current == PANES[-1].NAME
        await seat.pilot.click("Tabs", offset=(4, 0))
        assert seat.menu.current == "models"
        await seat.sees("parrot")
        assert await seat.pilot.click(seat.listing(), offset=(3, 2))
        assert seat.listing().key == seat.listing().table.keys[1]


async def test_help_tells_every_key_and_a_hint_is_clicked(server: Server) -> None:
    async with seated(server, (120, 60)) as seat:
        await seat.press("question_mark")
        page = seat.menu.screen.query_one(Sheet).text
        for pane in PANES:
            assert pane.TITLE in page
            assert all(word in page for key, word in pane.HINTS if key != "/"), pane
        await seat.press("escape")
        await seat.pilot.click(Hints, offset=(3, 0))
        await seat.until(lambda: isinstance(seat.menu.screen, Ask))


async def test_every_command_is_in_the_palette(server: Server) -> None:
    async with seated(server, (100, 30)) as seat:
        await seat.press("colon")
        await seat.type("theme: light")
        await seat.sees("Theme: light")
        await seat.press("enter", "enter")
        await seat.until(lambda: seat.menu.theme == "corral-light")


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (100, 30), (200, 60)])
async def test_nothing_is_wider_or_higher_than_the_terminal(server: Server, size: tuple[int, int]) -> None:
    async with seated(server, size) as seat:
        for number in range(1, len(PANES) + 1):
            await seat.press("escape", str(number))
            lines = seat.text.splitlines()
            assert len(lines) <= size[1]
            assert max(map(len, lines)) <= size[0]
            assert "help" in lines[-1]


async def test_a_terminal_that_is_too_small_is_told_so_and_one_that_grows_is_used(server: Server) -> None:
    async with seated(server) as seat:
        await seat.pilot.resize_terminal(50, 12)
        await seat.sees("This terminal has 50 columns and 12 rows", "60 and 16")
        assert "parrot" not in seat.text
        await seat.pilot.resize_terminal(200, 60)
        await seat.sees("parrot", "RUNTIME", "│ broken")
        assert seat.menu.wide


@pytest.mark.parametrize("theme", ["dark", "light", "contrast"])
async def test_themes(server: Server, theme: str) -> None:
    async with seated(server, theme=theme) as seat:
        assert seat.menu.theme == f"corral-{theme}"
        await seat.press("T")
        assert seat.menu.theme != f"corral-{theme}"


async def test_without_a_server_it_says_what_to_type_and_comes_when_one_does(tmp_path: Path) -> None:
    home = tmp_path / ".corral"
    menu = Menu(Invocation(Output(), home=home, env={"HOME": str(tmp_path)}))
    async with menu.run_test(size=(80, 24)) as pilot:
        seat = Seat(menu, pilot)
        await seat.sees("No Corral server runs", "corral serve", "no server")
        await seat.press("1", "l", "2", "5", "7", "8", "escape", "1")
        with corral_server(tmp_path, "models: {late: {runtime: fake}}"):
            await seat.press("ctrl+r")
            await seat.sees("connected", "late", "cold")
        await seat.sees("no server", "late", "What is shown")


async def test_a_server_that_comes_back_is_found_again(tmp_path: Path) -> None:
    config = "models: {one: {runtime: fake}}"
    with corral_server(tmp_path, config) as first:
        menu = Menu(invited(first))
        async with menu.run_test(size=(80, 24)) as pilot:
            seat = Seat(menu, pilot)
            await seat.sees("connected", "one")
            first.process.terminate()
            await seat.sees("no server")
            first.process.wait(90)
            with corral_server(tmp_path, "models: {two: {runtime: fake}}"):
                await seat.sees("connected", "two")


async def test_a_key_that_is_wrong_is_told(tmp_path: Path) -> None:
    with corral_server(tmp_path, "models: {}", env={"CORRAL_API_KEY": "right"}) as server:
        menu = Menu(Invocation(Output(), url=server.url, env={"HOME": str(tmp_path), "CORRAL_API_KEY": "wrong"}))
        async with menu.run_test(size=(80, 24)) as pilot:
            await Seat(menu, pilot).sees("refused", "key")


async def flood(pieces: list[bytes], every: float) -> AsyncIterator[bytes]:
    """Those pieces, one at a time; whoever takes them too slowly gets them late, and all of them."""
    began = time.monotonic()
    for number, piece in enumerate(pieces):
        yield piece
        await asyncio.sleep(max(0.0, began + number * every - time.monotonic()))


def scrolled(tape: Tape) -> bool:
    """Whether it is no longer at its end, having been scrolled; a line that comes in between may undo that."""
    tape.action_scroll_up()
    return not tape.follow


async def test_five_thousand_lines_a_second_do_not_freeze_it(server: Server) -> None:
    """The wire and the menu are real; what a container would say is made up here, since that needs no Docker engine."""
    count, a_second, at_once = 20_000, 5_000, 50
    events = [f'data: {{"text":"line {number} of a container that talks"}}\n\n'.encode() for number in range(count)]
    pieces = [b"".join(events[start : start + at_once]) for start in range(0, count, at_once)]
    async with Origin() as origin, seated(server) as seat:
        origin.tamper = lambda _: Reply(200, {"content-type": "text/event-stream"}, flood(pieces, at_once / a_second))
        logs, tape = seat.menu.query_one(Logs), seat.menu.query_one(Tape)
        await seat.press("7")
        await seat.until(lambda: logs.source is not None)
        logs.left()
        logs.ring.clear()
        talker = Link(origin.url)

        async def read() -> None:
            async for lines in talker.container_lines("talker", 100):
                logs.put(lines)

        lateness, spent = Lateness(), time.process_time()
        reading = asyncio.ensure_future(read())
        await seat.until(lambda: logs.ring.gone > 0 and tape.allow_vertical_scroll)
        await seat.until(lambda: scrolled(tape))  # somebody reads, while lines go on coming in
        await seat.press("end")
        await seat.until(lambda: tape.follow)
        await seat.until(lambda: scrolled(tape))
        await reading
        spent = time.process_time() - spent
        lateness.end()
        await seat.press("end")
        await seat.sees(f"line {count - 1} of")
        await talker.close()
    print(f"{count} lines took {spent:.2f} s of the processor; a key waited {lateness.worst * 1000:.0f} ms at most")
    # In shares of the work, which a slow machine and a tool that looks on make longer alike.
    assert lateness.worst < spent / 2, f"a key would have waited for {lateness.worst:.2f} s of {spent:.2f} s of work"
    assert logs.ring.gone == count - len(logs.ring)
