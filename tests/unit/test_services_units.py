"""The text of units: every setting that matters is there, and whatever a user says stays what it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from corral.domain.services import ServiceSpec
from corral.errors import ServiceError
from corral.services import units

SPEC = ServiceSpec(
    "web", "command", ("/opt/a b/server", "--port", "80"), {"TOKEN": "s3cr3t"}, port=80, memory=5000, stop_grace=2.5
)
PLACE = units.Place(Path("/srv/yard"), Path("/srv/yard/e"), 252, "ada")


def settings(text: str) -> dict[str, str]:
    pairs = [line.partition("=") for line in text.splitlines() if "=" in line]
    return {name: value for name, _, value in pairs}


def test_a_unit_of_the_machine() -> None:
    text = units.unit(SPEC, PLACE)
    found = settings(text)

    assert text.startswith(units.signature("web", Path("/srv/yard")) + "\n[Unit]\n")
    assert found["Type"] == "exec"
    assert found["ExecStart"] == ':"/opt/a b/server" "--port" "80"'
    assert (found["StateDirectory"], found["WorkingDirectory"]) == ("corral/web", "%S/corral/web")
    assert found["EnvironmentFile"] == "/srv/yard/e"
    assert found["User"] == "ada"
    assert (found["Restart"], found["RestartSec"]) == ("always", "1000ms")
    assert (found["StartLimitBurst"], found["StartLimitIntervalSec"]) == ("5", "300000ms")
    assert (found["TimeoutStopSec"], found["KillMode"]) == ("2500ms", "mixed")
    assert (found["LimitCORE"], found["NoNewPrivileges"], found["MemoryMax"]) == ("0", "yes", "5000")
    assert (found["PrivateTmp"], found["ProtectSystem"]) == ("yes", "full")
    assert found["WantedBy"] == "multi-user.target"
    assert "s3cr3t" not in text


def test_a_user_s_unit_asks_for_nothing_that_only_the_machine_s_manager_may_do() -> None:
    found = settings(units.unit(replace(SPEC, memory=None, restart=False), replace(PLACE, user=None)))

    assert not found.keys() & {"User", "PrivateTmp", "ProtectSystem", "CapabilityBoundingSet", "MemoryMax", "After"}
    assert found["WantedBy"] == "default.target"
    assert found["Restart"] == "no"
    elsewhere = settings(units.unit(replace(SPEC, cwd=Path("/data/%")), PLACE))
    assert elsewhere["WorkingDirectory"] == "/data/%%"
    assert "StateDirectory" not in elsewhere
    assert found["NoNewPrivileges"] == "yes"


def test_pauses_grow_where_systemd_can() -> None:
    old, new = (settings(units.unit(SPEC, replace(PLACE, version=version))) for version in (253, 254))

    assert not old.keys() & {"RestartSteps", "RestartMaxDelaySec"}
    assert (new["RestartSteps"], new["RestartMaxDelaySec"]) == ("6", "60000ms")


def test_no_text_of_a_user_becomes_syntax() -> None:
    assert units.command(("/a", "%h %%", '"q"', "back\\slash", "$HOME", "; rm", "")) == (
        '"/a" "%%h %%%%" "\\"q\\"" "back\\\\slash" "$HOME" "; rm" ""'
    )
    assert units.setting(Path("/100%/a b")) == "/100%%/a b"
    assert units.setting(Path("/a*[b]?\\c"), globbed=True) == "/a\\*\\[b\\]?\\\\c".replace("\\]", "]").replace(
        "?", "\\?"
    )
    assert units.variables({"B": 'a"b\\c$d`e', "A": "1"}) == 'A="1"\nB="a\\"b\\\\c\\$d\\`e"\n'
    assert units.seconds(float("inf")) == "infinity"
    assert units.title("web") == "corral-web.service"


@pytest.mark.parametrize("text", ["a\nExecStartPre=/bin/evil", "a\0", "a\x1b", "a\r"])
def test_a_line_break_is_refused_wherever_it_stands(text: str) -> None:
    for spec, place in (
        (replace(SPEC, argv=("/a", text)), PLACE),
        (replace(SPEC, cwd=Path("/", text)), PLACE),
        (SPEC, replace(PLACE, home=Path("/", text))),
        (SPEC, replace(PLACE, environment=Path("/", text))),
        (SPEC, replace(PLACE, user=text)),
    ):
        with pytest.raises(ServiceError):
            units.unit(spec, place)


@pytest.mark.parametrize("path", ["/a\\", "/a "])
def test_a_path_whose_end_would_be_lost_is_refused(path: str) -> None:
    with pytest.raises(ServiceError):
        units.setting(Path(path))
