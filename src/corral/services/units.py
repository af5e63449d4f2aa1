r"""The text of a systemd unit, and of the file with its variables. Text only; nothing is written here.

Whatever a user can say is escaped for the place in which it stands: systemd reads `%` as a specifier nearly everywhere,
`$` as a variable and `\` as an escape in commands, and a line that ends in `\` as one that goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isinf
from pathlib import Path
from typing import TYPE_CHECKING

from corral.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.domain.services import ServiceSpec

STEPS = 254
"""The first version of systemd whose pauses between restarts grow."""
_GROWTH_STEPS = 6
_CONTROL = {*range(0x20), 0x7F}

_ANYWHERE = ("NoNewPrivileges=yes", "RestrictRealtime=yes", "RestrictSUIDSGID=yes", "LockPersonality=yes", "UMask=0077")
_SYSTEM = (
    # What needs name spaces, which a user's own manager often may not make. No PrivateDevices (GPUs), no
    # ProtectClock (it closes devices, too), no MemoryDenyWriteExecute (compilers at run time), no ProtectHome (models
    # and caches lie there).
    "PrivateTmp=yes",
    "ProtectSystem=full",
    "ProtectHostname=yes",
    "ProtectControlGroups=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "CapabilityBoundingSet=",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a unit is to stand.

    `version` is systemd's. `user` is who the service runs as, None in a user's own manager.
    """

    home: Path
    environment: Path
    version: int
    user: str | None = None


def title(name: str) -> str:
    """What the unit of a service is called."""
    return f"corral-{name}.service"


def variables_file(name: str) -> str:
    """What the file with its variables is called; it lies beside the unit, and only the owner of both reads it."""
    return f"corral-{name}.environment"


def signature(name: str, home: Path) -> str:
    """The first line of a unit of ours: nothing that lacks it is ever replaced or removed."""
    return f"# Written by Corral for the service {name} of {_line(str(home))}; change corral.yaml instead."


def unit(spec: ServiceSpec, place: Place) -> str:
    """The unit's text.

    Raises:
        ServiceError: a path or an argument cannot stand in a unit.
    """
    vigilance = spec.vigilance
    system = place.user is not None
    restart = [
        f"Restart={'always' if spec.restart else 'no'}",
        f"RestartSec={seconds(vigilance.first)}",
        *([f"RestartSteps={_GROWTH_STEPS}", f"RestartMaxDelaySec={seconds(vigilance.longest)}"] * _grows(place)),
    ]
    lines = [
        signature(spec.name, place.home),
        "[Unit]",
        f"Description=Corral service {spec.name} ({spec.kind})",
        *(["After=network.target"] * system),
        f"StartLimitBurst={vigilance.crashes}",
        f"StartLimitIntervalSec={seconds(vigilance.crashes * vigilance.settled)}",
        "",
        "[Service]",
        "Type=exec",
        f"ExecStart=:{command(spec.argv)}",
        *_folder(spec),
        f"EnvironmentFile={setting(place.environment, globbed=True)}",
        *([f"User={_line(place.user)}"] if place.user is not None else []),
        *restart,
        f"TimeoutStartSec={seconds(spec.start_timeout)}",
        f"TimeoutStopSec={seconds(spec.stop_grace)}",
        "KillMode=mixed",
        "LimitCORE=0",
        *([f"MemoryMax={spec.memory}"] if spec.memory is not None else []),
        *_ANYWHERE,
        *(_SYSTEM if system else ()),
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if system else 'default.target'}",
        "",
    ]
    return "\n".join(lines)


def variables(environment: Mapping[str, str]) -> str:
    """The file of variables that goes with it."""
    lines = [f"{name}={_quoted(value, '$`')}" for name, value in sorted(environment.items())]
    return "".join(f"{line}\n" for line in lines)


def command(argv: tuple[str, ...]) -> str:
    """A command line for `ExecStart=:…`, where no variable is replaced.

    Raises:
        ServiceError: an argument holds a control character.
    """
    return " ".join(_quoted(_line(item), "").replace("%", "%%") for item in argv)


def setting(path: Path, *, globbed: bool = False) -> str:
    """A path as the value of a setting; `globbed` where systemd would take it for a pattern.

    Raises:
        ServiceError: it cannot be written there.
    """
    text = _line(str(path)).replace("%", "%%")
    if text != text.strip() or text.endswith("\\"):
        raise ServiceError(f"systemd cannot use the path {str(path)!r}.", "Choose one that ends in another character.")
    return "".join(f"\\{letter}" if letter in "*?[\\" else letter for letter in text) if globbed else text


def seconds(value: float) -> str:
    """A length of time, as systemd reads it."""
    return "infinity" if isinf(value) else f"{round(value * 1000)}ms"


def _folder(spec: ServiceSpec) -> list[str]:
    """Where it works: a folder of its own that systemd makes, with the right owner, unless it is told another."""
    if spec.cwd is not None:
        return [f"WorkingDirectory={setting(spec.cwd)}"]
    return [f"StateDirectory=corral/{spec.name}", "StateDirectoryMode=0700", f"WorkingDirectory=%S/corral/{spec.name}"]


def _grows(place: Place) -> bool:
    return place.version >= STEPS


def _line(text: str) -> str:
    if any(ord(letter) in _CONTROL for letter in text):
        raise ServiceError(f"{text!r} holds a control character, which no unit can.", "Leave it out.")
    return text


def _quoted(text: str, more: str) -> str:
    return '"' + "".join(f"\\{letter}" if letter in f'"\\{more}' else letter for letter in text) + '"'
