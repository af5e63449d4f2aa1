"""`corral projects`, `pipeline` and `artifacts`, as people type them: without a server, and with one."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import CORRAL, Yard

pytestmark = pytest.mark.timeout(240)

CODE = "\n```tsx\n// file: src/Counter.tsx\nexport default function Counter() {\n  return <button>0</button>;\n}\n```\n"
OTHER = "```tsx\n// file: src/Counter.tsx\nexport default () => <b>1</b>;\n```\n"
CONFIG = f"""\
models:
  parrot: {{ runtime: fake }}
  coder: {{ runtime: fake, options: {{ reply: {json.dumps(f"Here it is: {CODE}")} }} }}
  poet: {{ runtime: fake, options: {{ reply: {json.dumps(OTHER)} }} }}
  held: {{ runtime: fake, options: {{ hold_after: 1, reply: "one two three" }} }}
  lame: {{ runtime: fake, options: {{ fault: crash_on_start }} }}
"""
PAGE = """\
name: page
description: A page about something
inputs:
  topic: {type: string, required: true}
  parts: {type: list, default: [1, 2]}
steps:
  analysis:
    model: parrot
    prompt: "{{ context.instructions }} {{ inputs.topic }}"
  code:
    model: coder
    prompt: "Write it: {{ steps.analysis.output }}"
    output: {code: tsx}
  parts:
    model: parrot
    for_each: "{{ inputs.parts }}"
    prompt: "part {{ item }}"
  never:
    model: parrot
    when: "{{ inputs.topic == 'nothing' }}"
    prompt: "never"
"""
HELD = """\
name: held
steps:
  first: {model: parrot, prompt: "one"}
  second: {model: held, prompt: "{{ steps.first.output }}"}
"""


def place(folder: Path) -> Yard:
    yard = Yard(folder / "home")
    yard.configure(CONFIG)
    for name, text in (("page.yaml", PAGE), ("held.yaml", HELD)):
        (yard.home / name).write_text(text)
    return yard


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    """A home with fake models and no server."""
    return place(tmp_path)


@contextmanager
def around(kind: str, yard: Yard) -> Iterator[Yard]:
    """Commands in one process, with a server or without one."""
    if kind == "server":
        with yard.serving(), yard.desk() as desk:
            yield desk
    else:
        with yard.desk() as desk:
            yield desk


def messages(said: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines()]


@pytest.mark.parametrize("kind", ["alone", "server"])
def test_a_project_from_its_making_to_another_machine(kind: str, yard: Yard, tmp_path: Path) -> None:
    with around(kind, yard) as desk:
        assert "There is no project" in desk.run("projects").stdout
        assert desk.run("projects", "create", "shop", "--title", "The shop", "--tag", "web").stdout == (
            "Project shop is made.\n"
        )
        assert "shop" in desk.run("projects", "create", "shop", code=5).stderr
        desk.run("projects", "create", "Not A Name", code=2)
        desk.run("projects", "contexts", "add", "shop", "--text", "Be brief.", "--name", "style")
        desk.run("projects", "contexts", "add", "shop", "--set", "colour=teal", "--set", "sizes=[1, 2]")
        desk.run("projects", "contexts", "add", "shop", "--file", "page.yaml")
        desk.run("projects", "contexts", "add", "shop", code=2)
        assert desk.run("projects", "contexts", "list", "shop").stdout.split("\n")[3].startswith("page.yaml")
        shown = desk.json("projects", "contexts", "show", "shop", "variables")
        assert shown["variables"] == {"colour": "teal", "sizes": [1, 2]}
        desk.run("projects", "contexts", "change", "shop", "page.yaml", "--leave-out", "--name", "notes")
        assert desk.json("projects", "contexts", "show", "shop", "notes")["enabled"] is False
        order = desk.json("projects", "contexts", "reorder", "shop", "notes", "variables")["contexts"]
        assert [one["name"] for one in order] == ["notes", "variables", "style"]
        desk.run("projects", "contexts", "rm", "shop", "notes", "--yes")
        desk.run("projects", "contexts", "rm", "shop", "notes", "--yes", code=3)
        desk.run("projects", "contexts", "restore", "shop", "notes")

        run = messages(desk.run("pipeline", "run", "page.yaml", "--input", "topic=bees", "--json").stdout)[-1]["run"]
        assert run["status"] == "completed"
        project = desk.json("projects", "show", "shop")
        assert (project["runs"], project["pipelines"], len(project["contexts"])) == (1, 0, 3)
        assert "Be brief." in desk.run("pipeline", "show", run["id"], "--step", "analysis").stdout
        assert desk.json("projects", "search", "bees", "--kind", "run")["hits"][0]["id"] == run["id"]

        desk.run("projects", "duplicate", "shop", "--name", "copy")
        desk.run("projects", "archive", "copy")
        assert desk.run("projects", "-q").stdout == "shop\n"
        desk.run("projects", "restore", "copy")
        desk.run("projects", "rm", "copy", code=2)
        desk.run("projects", "rm", "copy", "--yes")
        assert desk.run("projects", "list", "--removed", "-q").stdout == "copy\n"
        desk.run("projects", "rm", "copy", "--yes", "--purge")
        assert desk.run("projects", "list", "--removed", "-q").stdout == ""

        archive = tmp_path / "shop.zip"
        desk.run("projects", "export", "shop", "-o", str(archive))
        desk.run("projects", "export", "shop", "-o", str(archive), code=5)
        made = {one["name"]: one["digest"] for one in desk.json("artifacts", "list")["artifacts"]}
    other = place(tmp_path / "other")
    with around(kind, other) as desk:
        assert desk.json("projects", "import", str(archive), "--name", "shop-2")["name"] == "shop-2"
        again = {one["name"]: one["digest"] for one in desk.json("artifacts", "list")["artifacts"]}
        assert again == made
        assert "src/Counter.tsx" in made
        desk.run("projects", "import", str(archive), "--name", "shop-2", code=5)
        desk.run("projects", "import", "page.yaml", code=2)


@pytest.mark.parametrize("kind", ["alone", "server"])
def test_a_pipeline_is_checked_saved_run_and_compared(kind: str, yard: Yard) -> None:
    (yard.home / "broken.yaml").write_text(PAGE.replace("steps.analysis.output", "steps.analysys.output"))
    with around(kind, yard) as desk:
        assert "broken.yaml:12:" in desk.run("pipeline", "validate", "broken.yaml", code=1).stdout
        assert desk.json("pipeline", "validate", "page.yaml")["steps"][0] == "analysis"
        assert "corral projects create" in desk.run("pipeline", "run", "page.yaml", "--input", "topic=x", code=2).stderr
        desk.run("projects", "create", "shop")
        assert "analysys" in desk.run("pipeline", "run", "broken.yaml", "--input", "topic=x", code=2).stderr
        assert "broken.yaml:12:" in desk.run("pipeline", "save", "broken.yaml", code=2).stderr
        assert "topic" in desk.run("pipeline", "run", "page.yaml", code=2).stderr
        desk.run("pipeline", "run", "page.yaml", "--input", "topic=x", "--input", "parts=3", code=2)

        assert desk.run("pipeline", "save", "page.yaml").stdout == "Pipeline page is saved.\n"
        assert desk.run("pipeline", "save", "page.yaml").stdout == "Pipeline page is changed.\n"
        assert desk.run("pipeline", "-q").stdout == "page\n"
        assert desk.run("pipeline", "show", "page", "-q").stdout == PAGE

        said = desk.run("pipeline", "run", "page", "--input", "topic=bees", "--seed", "7", "--title", "first")
        assert "analysis" in said.stdout
        assert re.search(r"✓ code +completed +coder", said.stdout)
        assert re.search(r"○ never +skipped", said.stdout)
        assert "parts[1]: completed" in said.stderr
        (run,) = desk.json("pipeline", "runs", "--pipeline", "page", "--status", "completed")["runs"]
        assert (run["seed"], run["title"], run["steps_done"]) == (7, "first", run["steps_total"])
        assert desk.run("pipeline", "show", run["id"][:8]).stdout.startswith("first  run-")

        told = messages(desk.run("pipeline", "rerun", run["id"], "--model", "code=poet", "--json").stdout)
        assert {"snapshot", "run", "step", "end", "result"} <= {one["type"] for one in told}
        again = told[-1]["run"]
        assert again["rerun_of"] == run["id"]
        assert again["models"] == {"code": "poet"}
        compared = desk.run("pipeline", "compare", run["id"], again["id"]).stdout
        assert re.search(r"code +differs +coder → poet", compared)
        assert re.search(r"analysis +same", compared)
        assert "+export default () => <b>1</b>;" in compared

        desk.run("pipeline", "rm", "page", "--yes")
        desk.run("pipeline", "run", "page", code=3)
        desk.run("pipeline", "restore", "page")
        assert desk.run("pipeline", "cancel", run["id"], code=5).stderr
        assert (
            "--project"
            in (
                desk.run("projects", "create", "other"),
                desk.run("pipeline", "run", "page", "--input", "topic=x", code=2),
            )[1].stderr
        )


@pytest.mark.parametrize("kind", ["alone", "server"])
def test_artifacts_are_seen_taken_away_and_put_back(kind: str, yard: Yard, tmp_path: Path) -> None:
    with around(kind, yard) as desk:
        desk.run("projects", "create", "shop")
        run = desk.run("pipeline", "run", "page.yaml", "--input", "topic=bees", "-q").stdout.strip()
        assert run.startswith("run-")
        listed = desk.json("artifacts", "list", "--run", run, "--kind", "tsx")["artifacts"]
        assert [one["name"] for one in listed] == ["src/Counter.tsx"]
        text = desk.run("artifacts", "cat", "src/Counter.tsx").stdout
        assert "<button>0</button>" in text
        assert desk.json("artifacts", "cat", listed[0]["id"])["content"] == text

        desk.run("artifacts", "save", "--run", run, "--into", str(tmp_path / "site"))
        assert (tmp_path / "site" / "src" / "Counter.tsx").read_text() == text
        desk.run("artifacts", "save", "src/Counter.tsx", "--into", str(tmp_path / "site"), code=5)
        (yard.home / "Counter.tsx").write_text(text.replace(">0<", ">1<"))
        kept = desk.run("artifacts", "put", "Counter.tsx", "--project", "shop", "--name", "src/Counter.tsx").stdout
        assert kept.endswith("is kept as edition 2.\n")
        assert ">1<" in desk.run("artifacts", "cat", "src/Counter.tsx").stdout
        assert ">0<" in desk.run("artifacts", "cat", "src/Counter.tsx", "--edition", "1").stdout
        desk.run("artifacts", "cat", "src/Counter.tsx", "--edition", "9", code=3)
        shown = desk.json("artifacts", "show", "src/Counter.tsx")
        assert [each["number"] for each in shown["editions"]] == [1, 2]
        assert "coder" in desk.run("artifacts", "show", "src/Counter.tsx").stdout

        desk.run("artifacts", "put", "Counter.tsx", "--project", "shop", "--name", "../Counter.tsx", code=2)
        desk.run("artifacts", "put", "Counter.tsx", "--project", "shop", "--name", "src/Other.tsx")
        assert desk.run("artifacts", "diff", "src/Other.tsx", "src/Counter.tsx").stdout == "They are the same.\n"
        desk.run("artifacts", "export", "src/Counter.tsx", "--form", "html", "-o", str(tmp_path / "page.html"))
        assert "<!doctype html>" in (tmp_path / "page.html").read_text().lower()
        desk.run("artifacts", "export", "src/Counter.tsx", "-o", str(tmp_path / "same.tsx"))
        assert (tmp_path / "same.tsx").read_text() == desk.run("artifacts", "cat", "src/Counter.tsx").stdout
        desk.run("artifacts", "export", "src/Counter.tsx", "--form", "pdf", code=2)
        (yard.home / "Money.tsx").write_text("export default (p: { of: (n: number) => string }) => <b>{p.of(1)}</b>;\n")
        desk.run("artifacts", "put", "Money.tsx", "--project", "shop")
        money = ("artifacts", "export", "Money.tsx", "--form", "framer", "--force", "-o", str(tmp_path / "Money.tsx"))
        assert desk.json(*money)["notes"] == ["The prop of has no control in Framer."]
        assert "no control in Framer" in desk.run(*money).stderr

        desk.run("artifacts", "rm", "src/Other.tsx", "--yes")
        desk.run("artifacts", "cat", "src/Other.tsx", code=3)
        desk.run("artifacts", "restore", "src/Other.tsx")
        mended = desk.run("artifacts", "repair", "src/Counter.tsx", "--error", "no count", "--model", "poet", "-q")
        assert mended.stdout.startswith("run-")
        assert "<b>1</b>" in desk.run("artifacts", "cat", "src/Counter.tsx").stdout


@pytest.mark.parametrize("kind", ["alone", "server"])
def test_ctrl_c_pauses_and_the_same_run_goes_on(kind: str, yard: Yard) -> None:
    with around(kind, yard) as desk:
        desk.run("projects", "create", "shop")
        command = [CORRAL, "pipeline", "run", "held.yaml"]
        with subprocess.Popen(command, env=yard.env, cwd=yard.home, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            said = ""
            while "second: running" not in said:
                line = process.stderr.readline()
                assert line, said
                said += line
            process.send_signal(signal.SIGINT)
            said += process.stderr.read()
            assert process.wait(30) == 130
        run = re.findall(r"corral pipeline resume (run-\w+)", said)[-1]
        assert f"To call it off: corral pipeline cancel {run}" in said
        stands = desk.json("pipeline", "show", run)
        assert stands["run"]["status"] == "paused"
        assert [step["status"] for step in stands["steps"]] == ["completed", "waiting"]
        first = stands["steps"][0]

        yard.configure(CONFIG.replace("hold_after: 1, ", ""))
        if kind == "server":
            desk.run("unload", "held", "--force", code=None)
            desk.run("config", "reload")
        done = messages(desk.run("pipeline", "resume", run, "--json").stdout)[-1]
        assert done["run"]["status"] == "completed"
        assert done["steps"][0]["request_id"] == first["request_id"]  # it was not asked again
        assert done["steps"][1]["output"] == "one two three"
        desk.run("pipeline", "resume", run, code=5)


def test_what_is_kept_is_told_alike_with_a_server_and_without(yard: Yard) -> None:
    with yard.desk() as desk:
        desk.run("projects", "create", "shop", "--tag", "web")
        desk.run("projects", "contexts", "add", "shop", "--text", "Be brief.")
        desk.run("pipeline", "save", "page.yaml")
        runs = [desk.run("pipeline", "run", "page", "--input", f"topic={n}", "-q").stdout.strip() for n in range(2)]
        asked = [
            *(["projects"], ["projects", "show", "shop"], ["projects", "contexts", "list", "shop"]),
            *(["pipeline"], ["pipeline", "show", "page"], ["pipeline", "runs"], ["pipeline", "show", runs[0]]),
            *(["pipeline", "validate", "held.yaml"], ["pipeline", "compare", *runs], ["projects", "search", "brief"]),
            *(
                ["artifacts", "-n", "1"],
                ["artifacts", "show", "src/Counter.tsx"],
                ["artifacts", "cat", "src/Counter.tsx"],
            ),
            *(["projects", "show", "none"], ["pipeline", "show", "run-000000000000"], ["artifacts", "cat", "none"]),
            *(
                ["pipeline", "cancel", runs[0]],
                ["projects", "create", "shop"],
                ["artifacts", "show", "art-000000000000"],
            ),
            *(["pipeline", "run", "page"], ["pipeline", "run", "page", "--input", "topic=1", "--model", "nobody=x"]),
        ]
        ways = [[*words, *more] for words in asked for more in ([], ["--json"], ["-q"])]
        alone = [_said(desk, way) for way in ways]
        with yard.serving():
            there = [_said(desk, way) for way in ways]

    assert dict(zip(map(" ".join, ways), there, strict=True)) == dict(zip(map(" ".join, ways), alone, strict=True))


def _said(desk: Yard, words: list[str]) -> tuple[int, str, str]:
    """What a command said, but for where a browser would look, which only a server can say whole."""
    done = desk.run(*words, code=None)
    assert ("preview " not in done.stdout) or "/ui/preview.html?artifact=art-" in done.stdout
    return done.returncode, re.sub(r"(?m)^preview .*$", "preview", done.stdout), done.stderr


def test_a_run_that_another_terminal_pauses_ends_here(yard: Yard) -> None:
    yard.run("projects", "create", "shop")
    command = [CORRAL, "pipeline", "run", "held.yaml"]
    with subprocess.Popen(command, env=yard.env, cwd=yard.home, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while "second: running" not in said:
            said += process.stderr.readline()
        run = re.findall(r"run-\w+", said)[0]
        assert f"corral pipeline resume {run}" in yard.run("pipeline", "pause", run).stderr
        said = process.stderr.read()
        assert process.wait(30) == 5

    assert f"Run {run} was paused." in said
    assert yard.json("pipeline", "show", run)["run"]["status"] == "paused"
    assert yard.run("pipeline", "cancel", run).stdout == f"Run {run} is cancelled.\n"


def test_a_run_of_a_killed_process_goes_on(yard: Yard) -> None:
    yard.run("projects", "create", "shop")
    command = [CORRAL, "pipeline", "run", "held.yaml"]
    with subprocess.Popen(command, env=yard.env, cwd=yard.home, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "second: running" not in (line := process.stderr.readline()):
            assert line
        process.kill()
    yard.configure(CONFIG.replace("hold_after: 1, ", ""))
    (left,) = yard.json("pipeline", "runs")["runs"]
    done = messages(yard.run("pipeline", "resume", left["id"], "--json").stdout)[-1]

    assert left["status"] == "running"
    assert done["run"]["status"] == "completed"
    assert done["steps"][1]["output"] == "one two three"
    used = {row["model"]: row["requests"] for row in yard.json("usage", "--by", "model")["usage"]}
    assert used["parrot"] == 1  # it was answered before the kill, and not asked again


def test_a_run_that_fails_says_so(yard: Yard) -> None:
    (yard.home / "lame.yaml").write_text("name: lame\nsteps:\n  one: {model: lame, prompt: x}\n")
    yard.run("projects", "create", "shop")
    done = yard.run("pipeline", "run", "lame.yaml", code=1)

    assert re.search(r"✗ one +failed +lame", done.stdout)
    assert done.stderr.splitlines()[-2].startswith("error: ")
    assert re.search(r"^hint: .*corral pipeline show run-\w+ --step one$", done.stderr.splitlines()[-1])


@pytest.mark.parametrize("kind", ["alone", "server"])
def test_a_run_that_cannot_be_written_down_is_paused_and_says_how_to_go_on(kind: str, yard: Yard) -> None:
    with around(kind, yard) as desk:
        desk.run("projects", "create", "shop")
        in_the_way = yard.home / "workspace" / "runs"
        in_the_way.parent.mkdir(exist_ok=True)
        in_the_way.write_bytes(b"")
        said = desk.run("pipeline", "run", "page.yaml", "--input", "topic=bees", code=6).stderr
        (run,) = desk.json("pipeline", "runs")["runs"]
        assert run["status"] == "paused"
        assert f"error: Failed reading {in_the_way}/{run['id']}.journal" in said
        assert said.rstrip().endswith(f"Go on: corral pipeline resume {run['id']}")
        in_the_way.unlink()
        assert messages(desk.run("pipeline", "resume", run["id"], "--json").stdout)[-1]["run"]["status"] == "completed"


def test_a_queued_run_is_watched(yard: Yard) -> None:
    assert "corral serve" in yard.run("pipeline", "run", "page.yaml", "--detach", code=4).stderr
    with yard.serving(), yard.desk() as desk:
        desk.run("projects", "create", "shop")
        queued = desk.json("pipeline", "run", "page.yaml", "--input", "topic=bees", "-d")
        told = messages(desk.run("pipeline", "watch", queued["id"], "--json").stdout)

    assert told[-1]["run"]["status"] == "completed"
    assert told[-1]["run"]["id"] == queued["id"]


def test_a_terminal_sees_a_tree_that_moves(yard: Yard) -> None:
    yard.run("projects", "create", "shop")
    main, side = pty.openpty()
    env = {**yard.env, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    command = [CORRAL, "pipeline", "run", "page.yaml", "--input", "topic=bees"]
    with subprocess.Popen(command, env=env, cwd=yard.home, stdin=side, stdout=side, stderr=side) as process:
        os.close(side)
        shown = b""
        try:
            while piece := _piece(main):
                shown += piece
            assert process.wait(30) == 0
        finally:
            process.kill()
            os.close(main)
    text = shown.decode()

    assert re.search(r"● \w+ +running", text)
    assert text.count("page  run-") > 1  # drawn again and again
    assert "\x1b[2K" in text  # and wiped away
    assert text.rindex("├─ ✓ analysis") > text.rindex("\x1b[2K")  # what stays is the tree as it ended


def _piece(main: int) -> bytes:
    try:
        return os.read(main, 65536)
    except OSError:  # the other side is closed
        return b""
