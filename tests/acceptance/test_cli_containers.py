"""`corral containers`, as people type it, over a Docker engine of the tests' own: with a server, and without one."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.commands import CORRAL, Yard
from tests.support.docker import PLAYER, TINY, Engine, until
from tests.support.ports import free_port

pytestmark = pytest.mark.timeout(300)


def tiny(port: int, *more: str, **settings: Any) -> dict[str, Any]:
    """A container that answers like a server of models without any."""
    command = [*more, "serve", str(port), "127.0.0.1"]
    fixed = {"kind": "openai", "image": TINY, "network": "host", "port": port, "inside": port, "command": command}
    return {**fixed, "stop_grace": "1s", **settings}


def yard(folder: Path, docker: Engine, **containers: dict[str, Any]) -> Yard:
    made = Yard(folder / "home")
    made.configure(yaml.safe_dump({"docker": {"host": docker.address}, "containers": containers}))
    return made


@contextmanager
def started(place: Yard, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on, for the block's length."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [CORRAL, *arguments], env=place.env, cwd=place.home, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def on_a_terminal(place: Yard, *arguments: str, width: int = 80, until_text: str = "") -> tuple[int, str]:
    """The exit code of a command on a terminal, and what it showed; with `until_text`, Ctrl-C once that is there."""
    main, side = pty.openpty()
    env = {**place.env, "TERM": "xterm", "COLUMNS": str(width), "LINES": "24"}
    with subprocess.Popen(
        [CORRAL, *arguments], env=env, cwd=place.home, stdin=side, stdout=side, stderr=side, start_new_session=True
    ) as process:
        os.close(side)
        shown = b""
        try:
            while True:
                try:
                    piece = os.read(main, 65536)
                except OSError:  # the other side is closed
                    break
                if not piece:
                    break
                shown += piece
                if until_text and until_text in shown.decode(errors="replace"):
                    process.send_signal(signal.SIGINT)
                    until_text = ""
            return process.wait(90), shown.decode(errors="replace")
        finally:
            process.kill()
            os.close(main)


def test_without_a_server(docker: Engine, tiny_image: str, tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    place = yard(
        tmp_path,
        docker,
        coder=tiny(ports[0], "say", "hello", "warn", "beware", purpose="code completion"),
        writer=tiny(ports[1], purpose="prose", enabled=False),
    )
    with place.desk() as desk:
        text = desk.run("containers").stdout
        assert "code completion" in text
        assert "absent" in text
        desk.run("containers", "status", code=1)
        planned = desk.json("containers", "up", "--dry-run")
        assert ("create", "coder") in [(step["step"], step["name"]) for step in planned["plan"]]
        assert docker.seen() == {}

        up = desk.run("containers", "up", "coder")
        assert f"coder is healthy at http://127.0.0.1:{ports[0]}." in up.stdout
        assert "corral serve" in up.stderr
        assert desk.json("containers", "status", "coder")["state"] == "healthy"
        assert desk.run("containers", "-q").stdout == "coder\n"
        shown = desk.run("containers", "show", "coder").stdout
        assert f"http://127.0.0.1:{ports[0]}" in shown
        assert TINY in shown
        # Two pipes lead to the engine: of lines that come at the same time it may take the second first.
        assert sorted(desk.run("containers", "logs", "coder").stdout.splitlines()) == ["beware", "hello"]
        lines = desk.json("containers", "logs", "coder", "-n", "2")["lines"]
        assert {line["text"]: line["error"] for line in lines} == {"hello": False, "beware": True}
        (row,) = desk.json("containers", "stats", "--once")["stats"]
        assert row["name"] == "coder"
        assert row["memory"] > 0
        assert desk.json("containers", "health", "coder")["healthy"] is True

        # What is done by hand is seen.
        docker.cli("kill", desk.json("containers", "status", "coder")["container"])
        assert desk.json("containers", "sync")["containers"][0]["state"] == "killed"
        assert "killed" in desk.run("containers", "status", "coder", code=1).stdout
        desk.run("containers", "start", "coder")
        assert desk.json("containers", "restart", "coder")["state"] == "healthy"
        assert "coder is stopped" in desk.run("containers", "stop", "coder").stdout
        happened = [line["what"] for line in desk.json("containers", "history", "coder")["history"]]
        assert len(happened) > 3
        assert "WHEN" in desk.run("containers", "history", "coder").stdout

        desk.run("containers", "rm", "coder")
        assert docker.seen() == {}
        assert "nothing" in desk.run("containers", "down", "writer").stdout.lower() or docker.seen() == {}


def test_with_a_server_that_keeps_them(docker: Engine, tiny_image: str, tmp_path: Path) -> None:
    port = free_port()
    place = yard(tmp_path, docker, coder=tiny(port, "say", "hello", purpose="code"))
    with place.serving(), place.desk() as desk:
        assert "coder is healthy" in desk.run("containers", "up").stdout
        first = desk.json("containers", "status", "coder")
        docker.cli("kill", first["container"])
        until(lambda: (now := desk.json("containers"))["containers"][0]["state"] == "healthy" and now)
        assert desk.json("containers", "restart", "coder")["state"] == "healthy"
        assert desk.run("containers", "logs", "coder").stdout.startswith("hello")
        assert desk.json("containers", "stats", "--once")["count"] == 1
        assert desk.json("containers", "health", "coder")["healthy"] is True
        assert desk.json("containers", "plan")["changes"] is False
        desk.run("containers", "start", "codre", code=3)
        desk.run("containers", "rm", "coder", code=5)
        desk.run("containers", "rm", "coder", "--force")
        assert "is not there" in desk.run("containers", "down").stdout or docker.seen() == {}


def test_what_goes_on_ends_with_ctrl_c(docker: Engine, tiny_image: str, tmp_path: Path) -> None:
    place = yard(tmp_path, docker, coder=tiny(free_port(), "print", "5", "and"))
    place.run("containers", "up")
    for arguments in (["containers", "logs", "coder", "-f", "--json"], ["containers", "stats", "--json"]):
        with started(place, *arguments) as process:
            assert process.stdout is not None
            line = json.loads(process.stdout.readline())
            assert "text" in line or line["name"] == "coder"
            process.send_signal(signal.SIGINT)
            assert process.wait(90) == 130
            assert process.stderr is not None
            assert process.stderr.read() == ""
    with started(place, "containers", "logs", "coder", "--follow") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "line 1\n"
        docker.cli("rm", "--force", *docker.seen())
        assert process.wait(90) == 0


def test_figures_stay_in_their_place_on_a_terminal(docker: Engine, tiny_image: str, tmp_path: Path) -> None:
    place = yard(tmp_path, docker, coder=tiny(free_port(), purpose="code"))
    place.run("containers", "up")
    code, shown = on_a_terminal(place, "containers", "stats", until_text="coder")
    assert code == 130
    assert "\x1b[?25h" in shown  # the cursor is back
    assert "MEMORY" in shown
    code, shown = on_a_terminal(place, "containers", "list")
    assert code == 0
    assert max(len(line) for line in shown.replace("\r", "").splitlines()) <= 80


def test_errors_say_what_to_do(docker: Engine, tiny_image: str, tmp_path: Path) -> None:
    place = yard(tmp_path, docker, coder=tiny(free_port()), gone=tiny(free_port(), image="corral-test/nowhere:1"))
    with place.desk() as desk:
        missing = desk.run("containers", "up", "gone", "--no-pull", code=1)
        assert "corral-test/nowhere:1" in missing.stdout
        unknown = desk.run("containers", "start", "codre", code=3).stderr.splitlines()
        assert len(unknown) == 2
        assert "coder" in unknown[1]
        desk.run("containers", "up", "--orphans", "forget", code=2)
        desk.run("containers", "logs", "coder", code=3)
        desk.run("containers", "update", "--image-only", "--models-only", code=2)
        desk.run("containers", "rollback", "coder", code=5)


def test_a_port_that_another_has_is_said_with_whose_it_is(bridged: Engine, tmp_path: Path) -> None:
    image, port = bridged.image(TINY), free_port()
    bridged.cli("run", "--detach", "--name", "rival", "--publish", f"127.0.0.1:{port}:8000", image, "serve", "8000")
    entry = {"kind": "openai", "image": image, "port": port, "inside": 8000, "command": ["serve", "8000"]}
    place = yard(tmp_path, bridged, coder=entry)
    refused = place.run("containers", "start", "coder", code=5).stderr.splitlines()
    assert str(port) in refused[0]
    assert "rival" in refused[0]
    assert refused[1].startswith("hint: ")
    assert len(refused) == 2


def test_without_docker(tmp_path: Path) -> None:
    place = Yard(tmp_path / "home")
    place.configure(
        yaml.safe_dump({"docker": {"host": f"unix://{tmp_path}/no.sock"}, "containers": {"coder": tiny(free_port())}})
    )
    with place.desk() as desk:
        found = desk.json("containers")
        assert [one["state"] for one in found["containers"]] == ["unknown"]
        text = desk.run("containers").stdout
        assert "no.sock" in text
        desk.run("containers", "status", code=1)
        for arguments in (
            ["up"],
            ["start", "coder"],
            ["stats", "coder", "--once"],
            ["stats"],
            ["logs", "coder"],
            ["plan"],
            ["sync"],
        ):
            failed = desk.run("containers", *arguments, code=1).stderr.splitlines()
            assert len(failed) == 2, failed
            assert failed[0].startswith("error: ")
            assert "no.sock" in failed[0]
        refused = json.loads(desk.run("containers", "up", "--json", code=1).stderr)
        assert refused["error"]["code"] == "docker_missing"


def test_an_engine_that_goes_away_ends_what_follows_it(docker: Engine, tiny_image: str, tmp_path: Path) -> None:
    place = yard(tmp_path, docker, coder=tiny(free_port(), "print", "5", "and"))
    place.run("containers", "up")
    followers = (["logs", "coder", "-f"], ["stats", "--json"])
    with started(place, "containers", *followers[0]) as first, started(place, "containers", *followers[1]) as second:
        for process in (first, second):
            assert process.stdout is not None
            assert process.stdout.readline()
        docker.stop()
        for process in (first, second):
            code = process.wait(90)
            assert process.stderr is not None
            said = process.stderr.read().splitlines()
            assert code in {0, 1}  # its containers end a moment before it does, and that is an end like any other
            assert len(said) == (2 * code), said


def test_ctrl_c_while_it_comes_up(docker: Engine, tiny_image: str, tmp_path: Path) -> None:
    place = yard(tmp_path, docker, coder=tiny(free_port(), health="/no-such-path", start_timeout="2m"))
    with started(place, "containers", "up") as process:
        until(lambda: any(one["State"]["Running"] for one in docker.seen().values()))
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 130
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert place.json("containers")["containers"][0]["state"] in {"starting", "unhealthy"}


def test_models_in_containers(docker: Engine, player_image: str, tmp_path: Path) -> None:
    entry = {"kind": "ollama", "image": PLAYER, "network": "host", "port": free_port(), "stop_grace": "1s"}
    place = yard(tmp_path, docker, coder={**entry, "models": ["tiny:1b"]})
    with place.desk() as desk:
        lacking = desk.run("containers", "up", "--no-pull", code=1)
        assert "Fetch it: corral containers models pull coder tiny:1b" in lacking.stderr
        assert json.loads(desk.run("containers", "status", "coder", "--json", code=1).stdout)["missing"] == ["tiny:1b"]
        assert "There is no model" in desk.run("containers", "models", "coder").stdout
        pulled = desk.run("containers", "models", "pull", "coder", "tiny:1b", "--json").stdout.splitlines()
        assert json.loads(pulled[-1])["model"] == "tiny:1b"
        assert "tiny:1b" in desk.run("containers", "models", "coder").stdout
        assert desk.json("containers", "status", "coder")["missing"] == []
        assert desk.json("containers", "models")["count"] == 1
        assert desk.json("containers", "models", "test", "coder", "tiny:1b")["ok"] is True
        assert desk.run("containers", "models", "pull", "coder", "nobody:has", code=None).returncode != 0
        desk.run("containers", "models", "rm", "coder", "tiny:1b", code=2)  # nobody is there to say yes
        desk.run("containers", "models", "rm", "coder", "tiny:1b", "--yes")
        assert desk.json("containers", "models", "list", "coder")["count"] == 0


def test_an_orphan_is_written_back_as_it_was(docker: Engine, player_image: str, tmp_path: Path) -> None:
    served = {"kind": "ollama", "image": PLAYER, "network": "host", "port": free_port(), "stop_grace": "1s"}
    entry = {**served, "purpose": "code", "models": ["tiny:1b"], "environment": {"PLAYED_MODELS": "tiny:1b"}}
    place = yard(tmp_path, docker, coder=entry, other=tiny(free_port(), enabled=False))
    with place.desk() as desk:
        desk.run("containers", "up", "coder")
        first = desk.json("containers", "status", "coder")
        yard(tmp_path, docker, other=tiny(free_port(), enabled=False))
        assert desk.json("containers", "status", "coder")["state"] == "orphan"
        assert "is written to" in desk.run("containers", "adopt", "coder", "--write").stderr
        again = desk.json("containers", "status", "coder")
        kept = yaml.safe_load((place.home / "corral.yaml").read_text())["containers"]["coder"]
        plan = desk.json("containers", "plan", "coder")
        assert plan["changes"] is False, kept
    assert (again["state"], again["id"], again["purpose"]) == ("healthy", first["id"], "code")
    assert again["wanted"], "it was an orphan, and nobody stopped it"
    assert (kept["purpose"], kept["models"]) == ("code", ["tiny:1b"])


COMPOSE = """
name: stack
services:
  code: {image: "ollama/ollama:0.12.3", ports: ["127.0.0.1:21434:11434"], volumes: ["models:/root/.ollama"]}
  reason:
    image: ollama/ollama:0.12.3
    ports: ["127.0.0.1:21435:11434"]
    deploy: {resources: {reservations: {devices: [{driver: nvidia, device_ids: ["0"], capabilities: [gpu]}]}}}
  writing: {image: "ollama/ollama:0.12.3", ports: ["127.0.0.1:21436:11434"], privileged: true}
  web: {build: .}
volumes: {models: {}}
"""


def test_a_compose_file_is_taken_over_and_written_again(tmp_path: Path) -> None:
    place = Yard(tmp_path / "home")
    place.configure(f"# mine\ndocker: {{host: 'unix://{tmp_path}/no.sock'}}\n")
    (tmp_path / "stack").mkdir()
    (tmp_path / "stack" / "docker-compose.yml").write_text(COMPOSE)
    file = str(tmp_path / "stack")
    with place.desk() as desk:
        asked = desk.run("import", "docker-compose", file, code=2)
        assert "+ reason  ollama/ollama:0.12.3, on port 21435, GPUs 0" in asked.stdout
        for left_out in ("! writing.privileged: ", "! web.build: "):
            assert left_out in asked.stdout
        assert "containers" not in (place.home / "corral.yaml").read_text()

        plan = desk.json("containers", "import", file, "--yes")
        assert list(plan["containers"]) == ["code", "reason", "writing"]
        assert {"writing", "web"} <= {left["service"] for left in plan["unsupported"]}
        text = (place.home / "corral.yaml").read_text()
        assert text.startswith("# mine")
        kept = yaml.safe_load(text)["containers"]
        assert kept["code"]["volumes"] == {"stack_models": "/root/.ollama"}
        assert "nothing to import" in desk.run("import", "docker-compose", file, "--yes").stdout

        desk.run("containers", "export", "--output", str(tmp_path / "out.yml"))
        desk.run("containers", "export", "--output", str(tmp_path / "out.yml"), code=5)
        written = (tmp_path / "out.yml").read_text()
        assert desk.run("containers", "export").stdout == written
        desk.run("import", "docker-compose", str(tmp_path / "none.yml"), code=2)

    other = Yard(tmp_path / "other")
    other.configure("")
    other.run("import", "docker-compose", str(tmp_path / "out.yml"), "--yes")
    again = yaml.safe_load((other.home / "corral.yaml").read_text())["containers"]
    for name, entry in kept.items():
        for key in ("image", "port", "gpus", *(["volumes"] if "volumes" in entry else [])):
            assert again[name].get(key) == entry.get(key), (name, key)
