"""References as the catalog reads them: what one means, what a model from it is called, which are of one family."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from corral.domain.models import ModelRef, check_name, told
from corral.errors import InvalidName, ModelNotFound, nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_NO_SCHEME = re.compile(r"[^:]*$|[./~]")
_VERSION = re.compile(r"==[^#]*|@(?:sha256:)?[^:#@/]+")
_DIGEST = re.compile(r"#sha256=[0-9a-f]{64}$")
_PIECE = re.compile(r"-\d{5}-of-\d{5}$")


def reference(what: str, schemes: Collection[str], library: Iterable[str]) -> ModelRef:
    """What `scheme:locator` refers to.

    Raises:
        ModelNotFound: it is no reference to a source that is here; with what was perhaps meant.
    """
    names = list(library)
    if what.endswith(".gguf") and _NO_SCHEME.match(what):
        path = what if what.startswith(("/", "./", "../", "~/")) else f"./{what}"
        raise ModelNotFound(f"{what!r} is no model's name.", f"For a file: corral pull file:{path}", param="model")
    try:
        ref = ModelRef.parse(what)
    except InvalidName as error:
        raise ModelNotFound.among(what, nearest(what[:200], names), names) from error
    if ref.scheme not in schemes:
        close = nearest(what[:200], names)
        if close:
            raise ModelNotFound.among(what, close)
        known = ", ".join(f"{scheme}:" for scheme in schemes)
        raise ModelNotFound(
            f"{what[:200]!r} is neither in the library, nor is {ref.scheme!r} a source of models here.",
            f"Sources: {known}. Short names: {', '.join(names)}.",
            param="model",
        )
    return ref


def family(source: str) -> str:
    """A source's reference without its version, so that another version may take a model's place."""
    if source.startswith("file:"):
        return source
    unpinned = _DIGEST.sub("", source)
    return unpinned if source.startswith(("http:", "https:")) else _VERSION.sub("", unpinned)


def name_of(ref: ModelRef) -> str:
    """A name for what a reference points at: the last piece of its locator, without version and suffix.

    What has a name in a shared catalog keeps it. A login or a query in an address is no part of a name.
    """
    locator = ref.locator if ref.scheme == "file" else family(told(ref.locator))
    if ref.scheme == "bucket" and locator.partition("#")[2]:
        return check_name(locator.partition("#")[2])
    stem = _PIECE.sub("", locator.rstrip("/").rpartition("/")[2].removesuffix(".gguf"))
    return check_name(re.sub(r"[^\w.:\-]+", "-", stem, flags=re.ASCII).strip("-.:").lower()[:200] or "model")
