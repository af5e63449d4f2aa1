"""Fenced blocks in what a model wrote: where each begins and ends, also when it was written wrongly.

CommonMark ends a block at the first fence that is long enough. Models nest blocks in fences of the same length, forget
to close or to open one, and put fences at the ends of lines; here fences are matched like brackets, and what stays
open is closed where that makes most sense. Takes time linear in the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from corral.workspace.code.hints import read_info
from corral.workspace.code.languages import guess, is_label

_MARK = re.compile(r"([ \t]*(?:>[ \t]?)*)(`{3,}|~{3,}|'''(?!'))")
_QUOTE = re.compile(r"\A(?:[ \t]*>[ \t]?)+")
_PAPER = frozenset({"markdown", "md", "mdx"})


@dataclass(slots=True)
class Block:
    """Lines `first` up to, not with, `after` (from 0) of a fenced block; `at` is the line of its opening fence.

    `inner` are blocks within its lines. `inline` is the content of one that is written in a single line. Of one that
    is `quoted` each line begins with `>`.
    """

    at: int
    first: int
    info: str
    mark: str
    indent: int = 0
    after: int = -1
    complete: bool = False
    inner: list[Block] = field(default_factory=list)
    inline: str | None = None
    quoted: bool = False

    @property
    def paper(self) -> bool:
        """Whether it is a text that may itself have fenced blocks."""
        return read_info(self.info)[0] in _PAPER


@dataclass(frozen=True, slots=True)
class _Fence:
    line: int
    indent: int
    mark: str
    info: str
    quoted: bool


def blocks(lines: list[str]) -> list[Block]:
    """The outermost fenced blocks, in order, each with those inside of it."""
    fences = _fences(lines)
    left = _bare_after(fences)
    found: list[Block] = []
    stack: list[Block] = []
    for index, fence in enumerate(fences):
        top = stack[-1] if stack else None
        if top is None:
            single = _single(fence)
            if single is not None:
                found.append(single)
                continue
            if fence.mark[0] == "'" and not fence.info:
                continue
        elif fence.mark[0] != top.mark[0] or len(fence.mark) < len(top.mark):
            continue
        elif not fence.info and fence.indent <= top.indent + 3:
            if not (top.paper and left[index] >= 2 and _opens(lines, fence.line)):
                top.after, top.complete = fence.line, True
                stack.pop()
                continue
        elif not is_label(read_info(fence.info)[0]):
            continue
        block = Block(fence.line, fence.line + 1, fence.info, fence.mark, fence.indent, quoted=fence.quoted)
        (top.inner if top else found).append(block)
        stack.append(block)
    if stack:
        # What never closes holds all that is inside of it, down to the innermost that never closes.
        found.remove(stack[0])
        found.extend(_ended(stack[0], lines, fences))
    return _opened(lines, found)


def _fences(lines: list[str]) -> list[_Fence]:
    found = []
    for number, line in enumerate(lines):
        match = _MARK.match(line)
        if match:
            info = line[match.end() :].strip()
            if match[2][0] == "'" and info and not is_label(info):
                continue
            if "`" in info and not (match[2][0] == "`" and info.endswith(match[2])):
                continue
            found.append(_Fence(number, len(match[1].expandtabs(4)), match[2], info, ">" in match[1]))
        elif "```" in line:
            before, _, word = line.rstrip().rpartition("```")
            if is_label(word) and "```" not in before:
                found.append(_Fence(number, len(line) - len(line.lstrip()), "```", word, quoted=False))
    return found


def _bare_after(fences: list[_Fence]) -> list[int]:
    """For each fence, how many after it have no word."""
    counts, seen = [0] * len(fences), 0
    for index in range(len(fences) - 1, -1, -1):
        counts[index] = seen
        seen += not fences[index].info
    return counts


def _opens(lines: list[str], at: int) -> bool:
    """Whether a fence without a word looks like the beginning of a block: a gap or a colon before it, none after it."""
    before = lines[at - 1].rstrip() if at else ""
    after = lines[at + 1].strip() if at + 1 < len(lines) else ""
    return (not before or before.endswith(":")) and bool(after)


def _single(fence: _Fence) -> Block | None:
    """A block that opens and closes in the line of the fence."""
    if "`" not in fence.info:
        return None
    inside = fence.info[: -len(fence.mark)].rstrip("`").strip()
    word, _, rest = inside.partition(" ")
    info, content = (word, rest.strip()) if is_label(word) and rest else ("", inside)
    block = Block(fence.line, fence.line, info, fence.mark, fence.indent, fence.line + 1, complete=True)
    block.inline = content
    return block


def _ended(block: Block, lines: list[str], fences: list[_Fence]) -> list[Block]:
    """An open block, ended before the first one in it, and those; one without any by a fence that might be its end."""
    result: list[Block] = []
    todo = [block]
    while todo:
        one = todo.pop(0)
        result.append(one)
        if one.complete:
            continue
        if one.inner and not one.paper:
            one.after, one.complete = one.inner[0].at, True
            todo = [*one.inner, *todo]
            one.inner = []
            continue
        one.after = len(lines)
        _close_weakly(one, lines, fences)
        if one.inner and one.inner[-1].after < 0:
            one.inner = []
    return result


def _close_weakly(block: Block, lines: list[str], fences: list[_Fence]) -> None:
    """End an open block at a fence at the end of a line of code, or at one that is too short."""
    for number in range(block.first, block.after):
        line = lines[number].rstrip()
        if line.endswith(block.mark) and line.count(block.mark) == 1 and line.strip("`~' \t"):
            lines[number] = line[: -len(block.mark)]
            block.after, block.complete = number + 1, True
            return
    short = [
        fence.line for fence in fences if block.at < fence.line and not fence.info and fence.mark[0] == block.mark[0]
    ]
    if short and len(block.mark) > 3:
        block.after, block.complete = short[-1], True


def _opened(lines: list[str], found: list[Block]) -> list[Block]:
    """The blocks, where the first of them is a closing fence whose opening one is missing: with what is before it."""
    if not found or found[0].info or found[0].inline is not None:
        return found
    first = found[0]
    before = "\n".join(lines[: first.at])
    inside = "\n".join(lines[first.first : first.after])
    if not before.strip() or guess(before) in {"text", "markdown"} or guess(inside) not in {"text", "markdown"}:
        return found
    missing = Block(-1, 0, "", first.mark, 0, first.at, complete=True)
    return [missing, *found[1:]]


def content(block: Block, lines: list[str]) -> list[str]:
    """The lines of a block, without the marks of a quotation."""
    found = lines[block.first : block.after]
    return [_QUOTE.sub("", line, count=1) for line in found] if block.quoted else found
