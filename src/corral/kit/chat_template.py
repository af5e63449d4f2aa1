"""The option `chat_template`, which several runtimes have: a Jinja text, or the path of one."""

from __future__ import annotations

from pathlib import Path

from corral.errors import InvalidRequest


def text(option: str | None, runtime: str) -> str | None:
    """The text that the option of `runtime` means: itself, or what is in the file that it names. Blocks.

    Raises:
        InvalidRequest: the file cannot be read.
    """
    if option is None or "{" in option or "\n" in option:
        return option
    try:
        return Path(option).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"Option 'chat_template' for {runtime}: {option!r} cannot be read: {error}.",
            "Give a Jinja text or the path of one.",
            param="chat_template",
        ) from error
