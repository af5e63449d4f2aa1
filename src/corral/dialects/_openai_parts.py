"""The parts of a message in OpenAI's chat and responses: text, pictures, sound and files, both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corral.dialects._openai_fields import cache_of, need, take, wrong
from corral.dialects.canonical import File, Image, Text
from corral.errors import NotSupported

if TYPE_CHECKING:
    from collections.abc import Mapping

_SOUNDS = {"mp3": "audio/mpeg"}
_FORMATS = {"audio/mpeg": "mp3", "audio/x-wav": "wav", "audio/wave": "wav"}
_TEXTS = frozenset(("text", "input_text", "output_text"))
_PICTURES = frozenset(("image_url", "input_image"))
_FILES = frozenset(("file", "input_file"))


def read_content(content: Any, where: str) -> tuple[Text | Image | File, ...]:
    """The parts of `content`: a string, an array of parts, or null.

    Raises:
        InvalidRequest: it is none of these, or a part is of no known type; names it.
    """
    if type(content) is str:
        return (Text(content),) if content else ()
    if content is None:
        return ()
    if type(content) is not list:
        raise wrong(where, "a string or an array")
    return tuple(_read_part(part, f"{where}[{index}]") for index, part in enumerate(content))


def _read_part(part: Any, where: str) -> Text | Image | File:
    if type(part) is str:
        return Text(part)
    if type(part) is not dict:
        raise wrong(where, "an object")
    kind = part.get("type")
    if type(kind) is not str:
        raise wrong(f"{where}.type", "a string")
    if kind in _TEXTS:
        return Text(need(part, "text", str, f"{where}."), cache_of(part))
    if kind == "refusal":
        return Text(need(part, "refusal", str, f"{where}."))
    if kind in _PICTURES:
        return _read_image(part, where)
    if kind == "input_audio":
        return _read_sound(part, where)
    if kind in _FILES:
        return _read_file(part, where)
    raise NotSupported(
        f"`{where}` is of the type {kind[:100]!r}, which cannot be said to the engine of this model.",
        "Text, pictures, sound and files can.",
        param=where,
    )


def _read_image(part: Mapping[str, Any], where: str) -> Image:
    _refuse_id(part, where)
    url = part.get("image_url")
    detail: str | None
    if type(url) is dict:
        detail = take(url, "detail", str, f"{where}.image_url.")
        url = need(url, "url", str, f"{where}.image_url.")
    else:
        detail = take(part, "detail", str, f"{where}.")
    if type(url) is not str or not url:
        raise wrong(f"{where}.image_url", "an address")
    detail = None if detail == "auto" else detail
    media_type, data = split_data(url)
    if data is None:
        return Image(url=url, detail=detail, cache=cache_of(part))
    return Image(media_type, data, None, detail, cache_of(part))


def _read_sound(part: Mapping[str, Any], where: str) -> File:
    sound = need(part, "input_audio", dict, f"{where}.")
    data = need(sound, "data", str, f"{where}.input_audio.")
    form = need(sound, "format", str, f"{where}.input_audio.")
    return File(_SOUNDS.get(form, f"audio/{form}"), data, cache=cache_of(part))


def _read_file(part: Mapping[str, Any], where: str) -> File:
    inner, where = (part, where) if part.get("type") == "input_file" else (part.get("file"), f"{where}.file")
    if type(inner) is not dict:
        raise wrong(where, "an object")
    _refuse_id(inner, where)
    name: str | None = take(inner, "filename", str, f"{where}.")
    url: str | None = take(inner, "file_url", str, f"{where}.")
    if url is not None:
        return File(url=url, name=name, cache=cache_of(part))
    given = need(inner, "file_data", str, f"{where}.")
    if given.startswith(("http://", "https://")):
        return File(url=given, name=name, cache=cache_of(part))
    media_type, data = split_data(given)
    return File(media_type, given if data is None else data, None, name, cache_of(part))


def _refuse_id(part: Mapping[str, Any], where: str) -> None:
    if part.get("file_id") is not None:
        raise NotSupported(
            f"`{where}.file_id` names a file that is stored elsewhere.",
            "Send the file itself in the request.",
            param=f"{where}.file_id",
        )


def split_data(url: str) -> tuple[str | None, str | None]:
    """The media type and the base64 of a `data:` address; (None, None) of any other."""
    if not url.startswith("data:"):
        return None, None
    head, comma, data = url.partition(",")
    if not comma or not head.endswith(";base64"):
        return None, None
    return head[5:-7] or None, data


def _address(part: Image | File, fallback: str) -> str:
    return part.url if part.url is not None else f"data:{part.media_type or fallback};base64,{part.data or ''}"


def write_chat_part(part: Text | Image | File, also: dict[str, None]) -> dict[str, Any]:
    """A part of a chat message; what it cannot say is noted in `also`."""
    _note_cache(part, also)
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, Image):
        address: dict[str, Any] = {"url": _address(part, "image/png")}
        if part.detail is not None:
            address["detail"] = part.detail
        return {"type": "image_url", "image_url": address}
    if _is_sound(part):
        return _write_sound(part, also)
    return {"type": "file", "file": _write_file(part, part.url)}


def write_input_part(part: Text | Image | File, also: dict[str, None]) -> dict[str, Any]:
    """A part of a message in a request for a response; what it cannot say is noted in `also`."""
    _note_cache(part, also)
    if isinstance(part, Text):
        return {"type": "input_text", "text": part.text}
    if isinstance(part, Image):
        return {"type": "input_image", "image_url": _address(part, "image/png"), "detail": part.detail or "auto"}
    if _is_sound(part):
        return _write_sound(part, also)
    if part.url is not None:
        named = {} if part.name is None else {"filename": part.name}
        return {"type": "input_file", "file_url": part.url, **named}
    return {"type": "input_file", **_write_file(part, None)}


def _is_sound(part: File) -> bool:
    return part.data is not None and part.media_type is not None and part.media_type.startswith("audio/")


def _write_sound(part: File, also: dict[str, None]) -> dict[str, Any]:
    if part.name is not None:
        also["file.name"] = None
    kind = part.media_type or ""
    return {"type": "input_audio", "input_audio": {"data": part.data, "format": _FORMATS.get(kind, kind[6:])}}


def _write_file(part: File, url: str | None) -> dict[str, Any]:
    data = url
    if data is None:
        data = part.data or "" if part.media_type is None else f"data:{part.media_type};base64,{part.data or ''}"
    file: dict[str, Any] = {"file_data": data}
    if part.name is not None:
        file["filename"] = part.name
    return file


def _note_cache(part: Text | Image | File, also: dict[str, None]) -> None:
    if part.cache is not None:
        also[f"{type(part).__name__.lower()}.cache"] = None
