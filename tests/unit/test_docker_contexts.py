"""Where the Docker engine is said to be, and by whom."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from corral.containers.contexts import Certificates, Places, credentials, locate, secured
from corral.errors import DockerUnavailable


def configured(home: Path, **settings: Any) -> None:
    (home / ".docker").mkdir(exist_ok=True)
    (home / ".docker" / "config.json").write_text(json.dumps(settings))


def context(home: Path, name: str, host: str, *, certificates: bool = False, **more: Any) -> Path:
    stem = hashlib.sha256(name.encode()).hexdigest()
    meta = home / ".docker" / "contexts" / "meta" / stem
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host, **more}}}))
    tls = home / ".docker" / "contexts" / "tls" / stem / "docker"
    if certificates:
        tls.mkdir(parents=True)
        for part in ("ca.pem", "cert.pem", "key.pem"):
            (tls / part).touch()
    return tls


def places(home: Path, env: dict[str, str] | None = None, **more: Any) -> Places:
    return Places(env=env or {}, home=home, **more)


def test_whoever_is_nearest_has_the_say(tmp_path: Path):
    configured(tmp_path, currentContext="current")
    for name in ("current", "named", "set"):
        context(tmp_path, name, f"unix:///{name}.sock")
    env: dict[str, str] = {}
    assert locate(places(tmp_path, env)).address == "unix:///current.sock"
    env["DOCKER_CONTEXT"] = "named"
    assert locate(places(tmp_path, env)).address == "unix:///named.sock"
    env["DOCKER_HOST"] = "unix:///host.sock"
    assert locate(places(tmp_path, env)).address == "unix:///host.sock"
    assert locate(places(tmp_path, env)).origin == "DOCKER_HOST"
    assert locate(places(tmp_path, env, context="set")).address == "unix:///set.sock"
    found = locate(places(tmp_path, env, context="set", host="/given.sock"))
    assert (found.address, found.origin, found.socket) == (
        "unix:///given.sock",
        "the setting docker.host",
        Path("/given.sock"),
    )


def test_without_a_word_it_is_the_first_socket_that_is_there(tmp_path: Path):
    runtime = tmp_path / "run"
    runtime.mkdir()
    env = {"XDG_RUNTIME_DIR": str(runtime)}
    assert places(tmp_path, env).candidates()[0] == Path("/var/run/docker.sock")
    assert runtime / "docker.sock" in places(tmp_path, env).candidates()
    both = (tmp_path / "machine.sock", runtime / "docker.sock")
    assert locate(places(tmp_path, env, sockets=both)).socket == both[0]
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(both[1]))
        assert locate(places(tmp_path, env, sockets=both)).socket == both[1]


def test_the_default_context_is_the_usual_place_whatever_is_current(tmp_path: Path):
    configured(tmp_path, currentContext="other")
    at = (tmp_path / "x.sock",)
    assert locate(places(tmp_path, {"DOCKER_CONTEXT": "default"}, sockets=at)).socket == at[0]
    env = {"DOCKER_HOST": "tcp://127.0.0.1:1"}
    assert locate(places(tmp_path, env, context="default", sockets=at)).address == "tcp://127.0.0.1:1"


def test_an_address_of_the_network_is_secured_when_the_environment_says_so(tmp_path: Path):
    assert locate(places(tmp_path, {"DOCKER_HOST": "127.0.0.1:2375"})).tls is None
    (tmp_path / "ca.pem").touch()
    env = {"DOCKER_HOST": "tcp://h:2376/", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    found = locate(places(tmp_path, env))
    assert (found.address, found.tls, found.socket) == ("tcp://h:2376", Certificates(tmp_path / "ca.pem"), None)
    found = locate(places(tmp_path, {"DOCKER_HOST": "https://h:2376"}))
    assert found.tls == Certificates()


def test_a_context_brings_its_certificates(tmp_path: Path):
    tls = context(tmp_path, "far", "tcp://h:2376", certificates=True, SkipTLSVerify=True)
    found = locate(places(tmp_path, context="far"))
    assert found.tls == Certificates(tls / "ca.pem", tls / "cert.pem", tls / "key.pem", verify=False)
    context(tmp_path, "plain", "tcp://h:2375")
    assert locate(places(tmp_path, context="plain")).tls is None


@pytest.mark.parametrize(
    ("env", "words", "hint"),
    [
        ({"DOCKER_HOST": "ssh://ada@far"}, "over ssh", "ssh -N -L"),
        ({"DOCKER_HOST": "npipe:////./pipe/docker"}, "no address", "unix:///"),
        ({"DOCKER_HOST": "unix://"}, "no address", "unix:///"),
        ({"DOCKER_CONTEXT": "gone"}, "no Docker context 'gone', which DOCKER_CONTEXT names", "docker context ls"),
        ({"DOCKER_CONTEXT": "odd"}, "cannot be read", "docker context rm odd"),
    ],
)
def test_what_cannot_be_used_is_said_with_who_said_it(tmp_path: Path, env: dict[str, str], words: str, hint: str):
    context(tmp_path, "odd", "unix:///x")
    (next((tmp_path / ".docker/contexts/meta").iterdir()) / "meta.json").write_text('{"Endpoints": {}}')
    with pytest.raises(DockerUnavailable, match=words) as caught:
        locate(places(tmp_path, env))
    assert hint in caught.value.hint


def test_a_broken_configuration_is_named(tmp_path: Path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DockerUnavailable, match=r"config\.json cannot be read"):
        locate(places(tmp_path, {"DOCKER_CONFIG": str(tmp_path)}))


def test_certificates_that_are_no_use_are_named(tmp_path: Path):
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(DockerUnavailable, match="certificates"):
        secured(Certificates(tmp_path / "ca.pem"))
    assert secured(Certificates(verify=False)).check_hostname is False


def test_passwords_for_registries_are_found_where_the_command_line_keeps_them(tmp_path: Path):
    kept = base64.b64encode(b"ada:pass:word").decode()
    configured(tmp_path, auths={"ghcr.io": {"auth": kept}, "https://index.docker.io/v1/": {"auth": kept}, "odd.io": {}})
    for reference, server in (("ghcr.io/a/b:1", "ghcr.io"), ("ollama/ollama", "https://index.docker.io/v1/")):
        assert credentials(reference, places(tmp_path)) == {
            "username": "ada",
            "password": "pass:word",
            "serveraddress": server,
        }
    assert credentials("odd.io/x", places(tmp_path)) is None
    assert credentials("localhost:5000/x", places(tmp_path)) is None
    configured(tmp_path, auths={"ghcr.io": {"auth": "%"}})
    with pytest.raises(DockerUnavailable, match=r"ghcr\.io"):
        credentials("ghcr.io/x", places(tmp_path))
