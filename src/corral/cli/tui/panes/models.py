"""Models: what is here, how it stands, and everything that is done to a model."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType

from corral.cli.output import line, time_text
from corral.cli.tui.dialogs import Ask, Confirm, Page
from corral.cli.tui.listing import Listing
from corral.cli.tui.marks import cell
from corral.cli.tui.panes.pane import ListPane
from corral.cli.tui.tape import Sheet, field_rows, text_rows
from corral.cli.tui.texts import model_fields, models_table, operation_fields
from corral.domain.operations import Order

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.cli.tui.marks import Fields, Row

_WHAT = (
    "smollm2                     a short name of the library\n"
    "hf:ORG/REPO:Q4_K_M          from the Hugging Face hub\n"
    "ollama:qwen2.5-coder:7b     from Ollama's registry\n"
    "file:/path/model.gguf       from the server's disk"
)


class Models(ListPane):
    """The models and what is done to them."""

    NAME = "models"
    TITLE = "Models"
    TOPICS = frozenset({"models", "queue", "work", "link"})
    HINTS = (
        ("i", "install"),
        ("l", "load"),
        ("u", "unload"),
        ("t", "test"),
        ("n", "update"),
        ("x", "remove"),
        ("c", "chat"),
        ("e", "explain"),
        ("o", "log"),
        ("/", "find"),
    )
    HELP = "Every model that can be asked for. Enter shows all of one; an install shows its progress in the list."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "install"),
        Binding("l", "load"),
        Binding("u", "unload"),
        Binding("t", "test"),
        Binding("n", "update"),
        Binding("x,delete", "remove"),
        Binding("c", "chat"),
        Binding("e", "explain"),
        Binding("o", "log"),
    ]

    def draw(self) -> None:
        """Show the models as they are now."""
        self.query_one(Listing).show(models_table(self.yard).narrowed(self.wanted))
        self.detail()

    async def entered(self) -> None:
        """Versions and licences are told by the catalog alone."""
        self.yard.installed = {str(one["name"]): one for one in await self.menu.link().installed()}
        self.menu.tell("models")

    def on_listing_opened(self, message: Listing.Opened) -> None:
        """All of one."""
        name = message.key or ""
        self.menu.push_screen(Page(name, lambda width: field_rows(self._fields(name), width)))

    def action_install(self) -> None:
        """Ask what, and begin."""
        question = "Which model? A short name, or where it is:"
        self.menu.push_screen(Ask("Install a model", question, _WHAT), self._install)

    def action_load(self) -> None:
        """Into memory."""
        if name := self._chosen():
            self.menu.act(partial(self._load, name), f"Loading {name} …")

    def action_unload(self) -> None:
        """Out of memory."""
        if name := self._chosen():
            self.menu.act(partial(self._unload, name), f"Taking {name} out of memory …")

    def action_test(self) -> None:
        """Have it say a few words."""
        if name := self._chosen():
            self.menu.act(partial(self._test, name), f"Asking {name} to say hello …")

    def action_update(self) -> None:
        """Bring it to what its source has now."""
        if name := self._chosen():
            self.menu.act(partial(self._begin, "update", name), f"Asking the source of {name} …")

    def action_remove(self) -> None:
        """Ask, and remove."""
        if name := self._chosen():
            question = f"Remove {name}? Its files go, except those that other models use, too."

            def answered(yes: bool | None) -> None:
                if yes:
                    self.menu.act(partial(self._begin, "remove", name), f"Removing {name} …")

            self.menu.push_screen(Confirm("Remove a model", question, "Yes, remove it"), answered)

    def action_chat(self) -> None:
        """Talk to it."""
        if name := self._chosen():
            self.menu.chat_with(name)

    def action_log(self) -> None:
        """What its engine printed."""
        if name := self._chosen():
            self.menu.log_of("model", name)

    def action_explain(self) -> None:
        """What would happen to a request for it now."""
        if name := self._chosen():
            self.menu.act(partial(self._explain, name), f"Asking what would happen to a request for {name} …")

    def _chosen(self) -> str | None:
        name = self.query_one(Listing).key
        if name is None:
            self.menu.notice.say("There is no model to do that to. Press i to install one.")
        return name

    def _fields(self, name: str) -> Fields:
        yard = self.yard
        work = [one for one in yard.at_work if one.order.model == name]
        found: Fields = []
        if name in yard.models:
            found = model_fields(yard.models[name], yard.installed.get(name) or {}, yard.url)
        return found + [field for one in work for field in operation_fields(one)]

    def detail(self) -> None:
        """Show what is to be known of this one."""
        name = self.query_one(Listing).key
        detail = self.query_one(Sheet)
        if name is None:
            detail.show(lambda _: ())
            return
        fields = self._fields(name)
        detail.show(lambda width: field_rows(fields, width, name if self.menu.wide else ""))

    def _install(self, what: str | None) -> None:
        if what:
            self.menu.act(partial(self._installing, what), f"Asking for {what} …")

    async def _installing(self, what: str) -> str:
        operation = await self.menu.link().submit(Order("install", what, {"what": what}))
        self.menu.attend(operation)
        return f"{operation.order.model or what} is being installed; it goes on if you leave."

    async def _begin(self, kind: str, name: str) -> str:
        operation = await self.menu.link().submit(Order(kind, name))
        self.menu.attend(operation)
        return f"{kind.capitalize()} of {name} has begun."

    async def _load(self, name: str) -> str:
        found = await self.menu.link().load(name)
        took = found.get("load_seconds")
        return f"{name} is ready{'' if took is None else f', loaded in {time_text(took)}'}, by {found.get('engine')}."

    async def _unload(self, name: str) -> str:
        await self.menu.link().unload(name)
        return f"{name} is no longer in memory."

    async def _test(self, name: str) -> str:
        found = await self.menu.link().test(name)
        receipt = found.get("receipt") or {}
        total = receipt.get("total_ms")
        took = f" in {time_text(total / 1000)}" if total else ""
        said = line(found.get("text") or "").strip() or "nothing"
        return f"{found.get('model') or name} answered{took}, {found.get('tokens')} tokens: {said}"

    async def _explain(self, name: str) -> None:
        found: Mapping[str, Any] = (await self.menu.link().explain(name)) or {}

        def draw(width: int) -> list[Row]:
            rows = field_rows([("verdict", cell(found.get("verdict"), "bold"))], width)
            rows += [(), *text_rows(line(found.get("reason") or "-"), width), ()]
            for number, step in enumerate(found.get("steps") or (), 1):
                rows += text_rows(f"{number}. {line(step)}", width)
            others = [
                (line(other.get("model")), cell(f"{other.get('state')}: {other.get('reason') or '-'}"))
                for other in found.get("candidates") or ()
            ]
            return rows + ([(), *field_rows(others, width, "In memory")] if others else [])

        self.menu.push_screen(Page(f"A request for {name}", draw))
