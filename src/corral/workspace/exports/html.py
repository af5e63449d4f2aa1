"""The files that a page refers to, and the page with other addresses in their places. Pure."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corral.errors import InvalidRequest
from corral.workspace.code.languages import LARGEST
from corral.workspace.code.trees import parse, walk, words
from corral.workspace.exports.exported import reached

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tree_sitter import Node

    from corral.workspace.exports.exported import Material

_ADDRESSES = {"script": "src", "link": "href", "img": "src", "source": "src", "audio": "src", "video": "src"}


@dataclass(frozen=True, slots=True)
class Reference:
    """An element that brings in another file: its `address` as the page means it, between the bytes `start` and `end`.

    `module`: it is a script that may import others.
    """

    tag: str
    address: str
    start: int
    end: int
    module: bool = False

    @property
    def local(self) -> bool:
        """Whether it names a file beside the page, and not one on the network or what is written in the address."""
        scheme, colon, _ = self.address.partition(":")
        return not (self.address.startswith(("//", "#")) or (colon and "/" not in scheme))

    @property
    def remote(self) -> bool:
        """Whether the network is needed for it."""
        return self.address.lower().startswith(("//", "http:", "https:"))


def references(page: str) -> tuple[Reference, ...]:
    """What the elements of a page bring in, in their order; links to other pages are none.

    Raises:
        InvalidRequest: the page cannot be read.
    """
    tree = parse("html", page.encode()) if len(page) <= LARGEST else None
    if tree is None:
        raise InvalidRequest("The page cannot be read: it is too large, or too much is left open in it.")
    return tuple(_references(tree.root_node))


def resolve(reference: Reference, page: str, names: Sequence[str] | Mapping[str, object]) -> str | None:
    """The one of `names` that a reference in the file `page` means; None when it is not among them."""
    found = reached(reference.address, page)
    return found if found in names else None


def sorted_out(material: Material) -> tuple[dict[Reference, str], tuple[str, ...]]:
    """The references of a page with the files that they mean, and a note on each other that needs something.

    Raises:
        InvalidRequest: the page cannot be read.
    """
    known, notes = dict[Reference, str](), list[str]()
    for reference in references(material.source):
        there = resolve(reference, material.path, material.files) if reference.local else None
        if there is not None:
            known[reference] = there
        elif not reference.address.startswith("data:"):
            why = "needs the network" if reference.remote else "is not among the run's artifacts"
            notes.append(f"{reference.address} {why}.")
    return known, tuple(notes)


def rewritten(page: str, addresses: Mapping[Reference, str]) -> str:
    """The page with those addresses in place of what its references say."""
    data = page.encode()
    for reference in sorted(addresses, key=lambda reference: -reference.start):
        written = f'"{html.escape(addresses[reference])}"'.encode()
        data = data[: reference.start] + written + data[reference.end :]
    return data.decode()


def _references(root: Node) -> Iterator[Reference]:
    for node in walk(root):
        if node.type not in ("start_tag", "self_closing_tag"):
            continue
        tag = next((words(child).lower() for child in node.children if child.type == "tag_name"), "")
        attributes = dict(_attributes(node))
        value = attributes.get(_ADDRESSES.get(tag, ""))
        if value is None or (tag == "link" and "stylesheet" not in _text(attributes.get("rel")).lower().split()):
            continue
        module = tag == "script" and _text(attributes.get("type")).lower() == "module"
        yield Reference(tag, _text(value).strip(), value.start_byte, value.end_byte, module)


def _attributes(tag: Node) -> Iterator[tuple[str, Node | None]]:
    for node in tag.children:
        if node.type == "attribute" and node.children:
            last = node.children[-1]
            yield words(node.children[0]).lower(), None if last.type == "attribute_name" else last


def _text(value: Node | None) -> str:
    """What an attribute's value means."""
    text = words(value)
    quoted = value is not None and value.type == "quoted_attribute_value"
    return html.unescape(text[1:-1] if quoted else text)
