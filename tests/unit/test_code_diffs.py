"""Two texts side by side, and diffs as models write them."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corral.workspace.code.diffs import DiffInvalid, Row, apply, apply_all, compare, read, rows, unified

TEXTS = st.lists(
    st.sampled_from(["a", "b", "c", "", " a", "--- a", "+++ b", "@@ -1 +1 @@", "\\ x", "é👩"]), max_size=25
).flatmap(lambda lines: st.sampled_from(["\n".join(lines), "\n".join(lines) + "\n"]))


def test_a_unified_diff_is_as_others_write_it() -> None:
    a = "".join(f"line {n}\n" for n in range(1, 13))
    b = a.replace("line 2\n", "line two\n").replace("line 12\n", "line 12\nline 13")
    assert unified(a, b, names=("a/x", "b/x")) == (
        "--- a/x\n+++ b/x\n@@ -1,5 +1,5 @@\n line 1\n-line 2\n+line two\n line 3\n line 4\n line 5\n"
        "@@ -10,3 +10,4 @@\n line 10\n line 11\n line 12\n+line 13\n\\ No newline at end of file\n"
    )
    assert unified(a, a) == ""


def test_two_columns_with_what_is_equal_left_out() -> None:
    a = "".join(f"{n}\n" for n in range(10))
    found = rows(a, a.replace("5\n", "five\nfifty\n"), context=1)
    assert found == (
        Row("gap", skipped=4),
        Row("equal", (5, "4"), (5, "4")),
        Row("changed", (6, "5"), (6, "five")),
        Row("added", None, (7, "fifty")),
        Row("equal", (7, "6"), (8, "6")),
        Row("gap", skipped=3),
    )
    told = compare(a, a.replace("5\n", "five\nfifty\n"), context=1)
    assert (told["equal"], told["added"], told["removed"]) == (False, 2, 1)
    assert told["rows"][2] == {
        "kind": "changed",
        "left": {"line": 6, "text": "5"},
        "right": {"line": 6, "text": "five"},
        "skipped": 0,
    }


@given(TEXTS, TEXTS)
@example("\n", "a\n\n")
@settings(max_examples=400, deadline=None)
def test_a_diff_applied_gives_the_other_text(a: str, b: str) -> None:
    diff = unified(a, b)
    assert (diff == "") == (a == b)
    for change in read(diff):
        assert apply(a, change) == b


@given(TEXTS, TEXTS, st.sampled_from([0, 1, 3, None]))
@settings(max_examples=300, deadline=None)
def test_both_columns_hold_their_texts(a: str, b: str, context: int | None) -> None:
    found = rows(a, b, context=context)
    left = [row.left for row in found if row.left is not None]
    right = [row.right for row in found if row.right is not None]
    for side, text in ((left, a), (right, b)):
        lines = text.split("\n")
        assert all(lines[number - 1] == shown for number, shown in side)
        assert [number for number, _ in side] == sorted({number for number, _ in side})
        skipped = sum(row.skipped for row in found)
        assert len(side) + skipped == len(text.removesuffix("\n").split("\n")) * bool(text)
    assert all(row.left is not None and row.right is not None for row in found if row.kind in ("equal", "changed"))


@given(TEXTS, TEXTS)
@settings(max_examples=25, deadline=None)
def test_patch_takes_it(a: str, b: str) -> None:
    diff = unified(a, b, names=("a/file", "b/file"))
    if not diff or not a or not b:
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        file.write_text(a)
        command = ["git", "apply", "--unidiff-zero", "-p1", "-"]
        subprocess.run(command, cwd=folder, input=diff.encode(), check=True, capture_output=True)
        assert file.read_text() == b


def test_long_texts_are_compared_in_time() -> None:
    a = "".join(f"{n % 97}\n" for n in range(40_000))
    b = "".join(f"{n % 89}\n" for n in range(40_000))
    assert apply(a, read(unified(a, b))[0]) == b
    lines = [f"line {n}" for n in range(50_000)]
    changed = [line if n % 100 else line + "!" for n, line in enumerate(lines)]
    told = compare("\n".join(lines), "\n".join(changed))
    assert (told["added"], told["removed"]) == (500, 500)


BEFORE = "import a\n\ndef f():\n    return 1\n\ndef g():\n    return 1\n"


@pytest.mark.parametrize(
    "diff",
    [
        "--- a/x.py\n+++ b/x.py\n@@ -3,2 +3,2 @@\n def f():\n-    return 1\n+    return 2\n",
        "--- x.py\n+++ x.py\n@@ -99,7 +1,99 @@ wrong numbers\n def f():\n-    return 1\n+    return 2\n",
        (
            "diff --git a/x.py b/x.py\nindex 1..2 100644\n"
            "--- a/x.py\t2026\n+++ b/x.py\t2026\n@@ ... @@\n def f():\n-    return 1\n+    return 2"
        ),
        "@@\n def f():   \n-    return 1\n+    return 2\n\n",
        "@@ def f @@\n\n def f():\n-    return 1\n+    return 2\n",
        "-def f():\n-    return 1\n+def f():\n+    return 2\n",
    ],
)
def test_diffs_as_models_write_them(diff: str) -> None:
    (change,) = read(diff)
    assert apply(BEFORE, change) == BEFORE.replace("return 1", "return 2", 1)
    assert apply_all(diff, {"src/x.py": BEFORE}) == {"src/x.py": BEFORE.replace("return 1", "return 2", 1)}


def test_blanks_that_end_lines_stay_as_they_were() -> None:
    (change,) = read("@@ -1,3 +1,3 @@\n a\n-b\n+c\n d\n")
    assert apply("a  \r\nb\r\nd\t\r\n", change) == "a  \nc\nd\t\n"


def test_files_are_made_and_removed() -> None:
    diff = "--- /dev/null\n+++ b/new.css\n@@ -0,0 +1,2 @@\n+a {\n+}\n--- a/old.css\n+++ /dev/null\n@@ -1 +0,0 @@\n-b\n"
    assert apply_all(diff, {"old.css": "b\n"}) == {"new.css": "a {\n}\n", "old.css": None}


@pytest.mark.parametrize(
    ("diff", "line", "said"),
    [
        ("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-there\n+here\n", 3, "fits nowhere: 'there'"),
        ("--- a/y\n+++ b/y\n@@ -1 +1 @@\n-a\n+b\n", 1, "changes y, which is not there"),
        ("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n?b\n", 5, "belongs to no diff: '?b'"),
        ("@@ ... @@\n+b\n", 1, "fits nowhere"),
    ],
)
def test_a_diff_that_does_not_fit_says_where(diff: str, line: int, said: str) -> None:
    with pytest.raises(DiffInvalid, match=re.escape(said)) as caught:
        apply_all(diff, {"x": "a\n"})
    assert caught.value.line == line
