"""Where the Docker engine is: what was set, then what the docker command line would use, then where sockets lie.

docker.host  >  docker.context  >  DOCKER_HOST  >  DOCKER_CONTEXT  >  currentContext of config.json  >  sockets

~/.docker/config.json                       (or below DOCKER_CONFIG)
~/.docker/contexts/meta/SHA256/meta.json    SHA256 of the context's name
~/.docker/contexts/tls/SHA256/docker/       ca.pem, cert.pem, key.pem
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.errors import DockerUnavailable

if TYPE_CHECKING:
    import ssl

SYSTEM = Path("/var/run/docker.sock")
_FILES = ("ca.pem", "cert.pem", "key.pem")
_HUB = "https://index.docker.io/v1/"


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files by which an engine and we know each other; None is none. Unverified, any engine is believed."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """An engine's address (`unix:///…`, `tcp://HOST:PORT`), who said so, and what it takes to be trusted there."""

    address: str
    origin: str
    tls: Certificates | None = None

    @property
    def socket(self) -> Path | None:
        """The path of its socket; None where it has an address of the network."""
        return Path(self.address.removeprefix("unix://")) if self.address.startswith("unix://") else None


@dataclass(frozen=True, slots=True)
class Places:
    """Where to look.

    Attributes:
        host, context: settings; None leaves it to the environment.
        env: the environment.
        home: the user's folder.
        sockets: where an engine's socket lies when nothing was said, in this order.
    """

    host: str | None = None
    context: str | None = None
    env: Mapping[str, str] | None = None
    home: Path | None = None
    sockets: tuple[Path, ...] | None = None

    @property
    def folder(self) -> Path:
        """The folder of the docker command line's own configuration."""
        return Path((self.env or {}).get("DOCKER_CONFIG") or (self.home or Path.home()) / ".docker")

    def candidates(self) -> tuple[Path, ...]:
        """Sockets of engines: the machine's, then those that a user runs without root, then those of desktops."""
        if self.sockets is not None:
            return self.sockets
        runtime = (self.env or {}).get("XDG_RUNTIME_DIR")
        own = (Path(runtime) / "docker.sock",) if runtime else ()
        home = self.home or Path.home()
        return (SYSTEM, *own, home / ".docker" / "run" / "docker.sock", home / ".docker" / "desktop" / "docker.sock")


def locate(places: Places) -> Place:
    """Where the engine is. Reads small files; whether something listens there is not asked.

    Raises:
        DockerUnavailable: what was said cannot be used; says by whom.
    """
    env = places.env or {}
    if places.host:
        return _place(places.host, "the setting docker.host", places)
    if places.context:
        return _of_context(places.context, "the setting docker.context", places)
    if host := env.get("DOCKER_HOST", "").strip():
        return _place(host, "DOCKER_HOST", places)
    if context := env.get("DOCKER_CONTEXT", "").strip():
        return _of_context(context, "DOCKER_CONTEXT", places)
    if context := str(_configuration(places).get("currentContext") or ""):
        return _of_context(context, f"currentContext in {places.folder / 'config.json'}", places)
    return _usual(places)


def credentials(reference: str, places: Places) -> dict[str, str] | None:
    """User and password for the registry of an image, where the docker command line keeps them in its own file.

    What a helper program keeps is not asked for.
    """
    registry = _HUB if is_of_hub(reference) else reference.partition("/")[0]
    kept = (_configuration(places).get("auths") or {}).get(registry) or {}
    try:
        user, sign, password = base64.b64decode(kept.get("auth", ""), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise DockerUnavailable(
            f"{places.folder / 'config.json'} has something for {registry} that cannot be read.",
            f"Log in again: docker login {registry}",
        ) from error
    return {"username": user, "password": password, "serveraddress": registry} if sign else None


def is_of_hub(reference: str) -> bool:
    """Whether an image's reference names no registry of its own."""
    first, slash, _ = reference.partition("/")
    return not slash or not ("." in first or ":" in first or first == "localhost")


def _usual(places: Places) -> Place:
    """The first socket that is there; where none is, the one that should be."""
    found = places.candidates()
    chosen = next((path for path in found if path.is_socket()), found[0])
    return Place(f"unix://{chosen}", "its usual place")


def _place(host: str, origin: str, places: Places) -> Place:
    """An address as somebody gave it."""
    address = _address(host, origin)
    env = places.env or {}
    if address.startswith("unix://"):
        return Place(address, origin)
    secure = address.startswith("https://")
    if secure or env.get("DOCKER_TLS_VERIFY") or env.get("DOCKER_TLS"):
        folder = Path(env.get("DOCKER_CERT_PATH") or places.folder)
        verify = secure or bool(env.get("DOCKER_TLS_VERIFY"))
        return Place(_tcp(address), origin, _certificates(folder, verify=verify))
    return Place(_tcp(address), origin)


def _of_context(name: str, origin: str, places: Places) -> Place:
    """What a context of the docker command line says; `default` is the usual place."""
    if name == "default":
        host = (places.env or {}).get("DOCKER_HOST", "").strip()
        return _place(host, "DOCKER_HOST", places) if host else _usual(places)
    stem = hashlib.sha256(name.encode()).hexdigest()
    meta = places.folder / "contexts" / "meta" / stem / "meta.json"
    try:
        endpoint = json.loads(meta.read_bytes())["Endpoints"]["docker"]
        host = str(endpoint["Host"])
    except FileNotFoundError as error:
        raise DockerUnavailable(
            f"There is no Docker context {name!r}, which {origin} names.", "See what there is: docker context ls"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DockerUnavailable(
            f"The Docker context {name!r}, which {origin} names, cannot be read: {error}.",
            f"Make it anew: docker context rm {name}, docker context create {name} …",
        ) from error
    address = _address(host, f"the Docker context {name!r}")
    folder = places.folder / "contexts" / "tls" / stem / "docker"
    told = f"the Docker context {name!r}"
    if address.startswith("unix://"):
        return Place(address, told)
    tls = _certificates(folder, verify=not endpoint.get("SkipTLSVerify", False))
    return Place(_tcp(address), told, tls if tls.ca or tls.cert or address.startswith("https://") else None)


def _certificates(folder: Path, *, verify: bool) -> Certificates:
    """Those that are there; without one of its own the system's authorities are believed."""
    ca, cert, key = (path if path.exists() else None for path in (folder / name for name in _FILES))
    return Certificates(ca, cert, key, verify)


def _address(host: str, origin: str) -> str:
    scheme, sign, rest = host.partition("://")
    if not sign:
        scheme, rest = ("unix", host) if host.startswith("/") else ("tcp", host)
    if scheme == "ssh":
        raise DockerUnavailable(
            f"{origin[0].upper()}{origin[1:]} is {host}: Corral does not go to an engine over ssh.",
            "Forward its socket, and name that: ssh -N -L /tmp/engine.sock:/var/run/docker.sock HOST, and set "
            "docker.host to unix:///tmp/engine.sock",
        )
    if scheme not in ("unix", "tcp", "http", "https") or not rest.strip("/"):
        raise DockerUnavailable(
            f"{origin[0].upper()}{origin[1:]} is {host!r}, which is no address of an engine.",
            "Write unix:///var/run/docker.sock or tcp://HOST:2376.",
        )
    return f"{scheme}://{rest}"


def _tcp(address: str) -> str:
    return f"tcp://{address.partition('://')[2].rstrip('/')}"


def _configuration(places: Places) -> dict[str, Any]:
    """The docker command line's own settings; none where there are none."""
    path = places.folder / "config.json"
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise DockerUnavailable(
            f"{path} cannot be read: {error}.", "Mend it, or say where the engine is: docker.host or DOCKER_HOST."
        ) from error
    return found if isinstance(found, dict) else {}


def secured(tls: Certificates) -> ssl.SSLContext:
    """How connections to the engine are secured.

    Raises:
        DockerUnavailable: a certificate is missing or no use.
    """
    import ssl

    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if not tls.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if tls.cert is not None:
            context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise DockerUnavailable(
            f"The certificates for the Docker engine cannot be used: {error}.",
            "Check DOCKER_CERT_PATH, or the context's files.",
        ) from error
    return context
