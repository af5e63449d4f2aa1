"""Completion in bash, which takes `A:tiny` for the three words `A`, `:` and `tiny`, though it is one name.

Bash hands a command line over in COMP_WORDS, broken at the characters of COMP_WORDBREAKS, and puts what it is answered
in the place of the last piece alone. So the pieces are put together before Typer sees them, and what stands in the line
already is taken off the answers.
"""

import io
import sys
from collections.abc import Callable, MutableMapping
from contextlib import redirect_stdout

_BREAKS = frozenset(":=")


def in_bash(run: Callable[[], int], environment: MutableMapping[str, str]) -> int:
    """What `run`, which completes, returns; what it prints is printed as bash wants it. Changes `environment`."""
    words, at = environment.get("COMP_WORDS", ""), environment.get("COMP_CWORD", "")
    if not at.isdigit():
        return run()
    between = "\n" if "\n" in words else " "
    whole, place, typed = joined(words.split(between), int(at))
    environment.update({"COMP_WORDS": between.join(whole), "COMP_CWORD": str(place)})
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            return run()
    finally:
        sys.stdout.write("".join(line.removeprefix(typed) for line in said.getvalue().splitlines(keepends=True)))
        sys.stdout.flush()


def joined(words: list[str], at: int) -> tuple[list[str], int, str]:
    """Words that bash broke, whole again; which of them the one at `at` is, and what of it the answers leave out."""
    whole: list[str] = []
    place, typed = at, ""
    for index, word in enumerate(words):
        after = index > 0 and words[index - 1] in _BREAKS and word != ""
        if index > 1 and (word in _BREAKS or after):
            whole[-1] += word
        else:
            whole.append(word)
        if index == at:
            place = len(whole) - 1
            broken = word == ":" or (after and words[index - 1] == ":")
            typed = whole[-1][: whole[-1].rindex(":") + 1] if broken and len(whole[-1]) > 1 else ""
    return whole, place, typed
