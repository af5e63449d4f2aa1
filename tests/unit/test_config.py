"""One configuration: precedence, origins, and what is refused with which words."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.config import duration, load, reference, size, variable
from corral.errors import ConfigError, UnknownOption


def write(folder: Path, text: str) -> Path:
    path = folder / "corral.yaml"
    path.write_text(text)
    return path


def env(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(tmp_path), **more}


def test_defaults_need_nothing(tmp_path: Path) -> None:
    settings = load(env(tmp_path), cwd=tmp_path)
    assert settings.home == tmp_path / ".corral"
    assert settings.models_dir == tmp_path / ".corral" / "models"
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 7860)
    assert settings.origin("server.port") == "default"
    assert settings.api_key is None


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    write(tmp_path, "server:\n  port: 1\n  host: 127.0.0.2\nengines:\n  idle_timeout: 1m\n")
    settings = load(
        env(tmp_path, CORRAL_SERVER_PORT="2", CORRAL_ENGINES_IDLE_TIMEOUT="2m"), {"server.port": 3}, cwd=tmp_path
    )
    assert settings.server.port == 3
    assert settings.engines.idle_timeout == 120
    assert settings.server.host == "127.0.0.2"
    assert settings.origin("server.port") == "flag --port"
    assert settings.origin("engines.idle_timeout") == "environment CORRAL_ENGINES_IDLE_TIMEOUT"
    assert settings.origin("server.host") == f"{tmp_path / 'corral.yaml'}:3"


def test_the_file_is_looked_for_in_order(tmp_path: Path) -> None:
    here, home, named = tmp_path / "here", tmp_path / ".corral", tmp_path / "named.yaml"
    here.mkdir()
    home.mkdir()
    assert load(env(tmp_path), cwd=here).file is None
    in_home = write(home, "server: {port: 1}")
    assert load(env(tmp_path), cwd=here).file == in_home
    local = write(here, "server: {port: 2}")
    assert load(env(tmp_path), cwd=here).file == local
    named.write_text("server: {port: 3}")
    assert load(env(tmp_path, CORRAL_CONFIG=str(named)), cwd=here).server.port == 3
    assert load(env(tmp_path, CORRAL_CONFIG=str(named)), file=local, cwd=here).server.port == 2


def test_json_is_yaml(tmp_path: Path) -> None:
    write(tmp_path, '{"server": {"port": 5}, "models": {"a": {"runtime": "fake"}}}')
    settings = load(env(tmp_path), cwd=tmp_path)
    assert settings.server.port == 5
    assert settings.models["a"].runtime == "fake"


def test_models_and_runtimes_are_read_with_their_places(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "runtimes:\n  llamacpp: {threads: 2}\n"
        "models:\n  a:\n    source: smollm2\n    idle_timeout: never\n    options: {x: 1}\n",
    )
    settings = load(env(tmp_path), cwd=tmp_path)
    assert settings.runtimes == {"llamacpp": {"threads": 2}}
    model = settings.models["a"]
    assert (model.source, model.idle_timeout, model.options) == ("smollm2", inf, {"x": 1})
    rows = {key: (value, origin) for key, value, origin in settings.rows()}
    assert rows["models.a.source"] == ("smollm2", f"{path}:4")
    assert rows["runtimes.llamacpp.threads"] == (2, f"{path}:2")


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("server:\n  prot: 1\n", UnknownOption, ["server.prot", "server.port", ":2"]),
        ("sevrer: {}\n", UnknownOption, ["sevrer", "server"]),
        ("models:\n  a: {runtme: fake}\n", UnknownOption, ["runtme", "runtime", ":2"]),
        ("server:\n  port: many\n", ConfigError, ["server.port", "many", ":2"]),
        ("server:\n  port: 70000\n", ConfigError, ["70000"]),
        ("server:\n  port: true\n", ConfigError, ["server.port"]),
        ("server:\n  host: 7\n", ConfigError, ["server.host", "text"]),
        ("log: {level: loud}\n", ConfigError, ["log.level", "debug"]),
        ("log: {requests: perhaps}\n", ConfigError, ["log.requests", "true or false"]),
        ("engines: {idle_timeout: soon}\n", ConfigError, ["idle_timeout", "soon"]),
        ("server: {max_body: big}\n", ConfigError, ["max_body", "64MiB"]),
        ("server: [1]\n", ConfigError, ["server is [1]", "names with values", "Write server: {name: value}"]),
        ("models: {a: 3}\n", ConfigError, ["models.a is 3"]),
        ("models: {a: {options: yes}}\n", ConfigError, ["options is True"]),
        ("groups:\n  pair: [a, b]\n", ConfigError, ["groups.pair is ['a', 'b']", ":2"]),
        ("engines: {memory: 12GB}\n", ConfigError, ["engines.memory", "does not say of what", "cpu: 12GB"]),
        ("engines: {memory: 12}\n", ConfigError, ["engines.memory", "not by name, such as {cpu: 12GB}"]),
        ("server: {host: ''}\n", ConfigError, ["server.host", "empty"]),
        ("store: {models_dir: ''}\n", ConfigError, ["store.models_dir", "empty"]),
        ("server:\n  max_body: 5\nmodels:\n  a b: {runtime: fake}\n", ConfigError, ["a b", ":4"]),
        ('models: {"a\\n": {runtime: fake}}\n', ConfigError, ["name"]),
        ("- a\n- b\n", ConfigError, ["mapping"]),
        ("server: {port: 1}\nserver: {port: 2}\n", ConfigError, [":2", "second time"]),
        ("server: {port: 1\n", ConfigError, ["not YAML"]),
        ("api_key: hunter2\n", ConfigError, ["CORRAL_API_KEY"]),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(
    tmp_path: Path, text: str, error: type[Exception], words: list[str]
) -> None:
    write(tmp_path, text)
    with pytest.raises(error) as caught:
        load(env(tmp_path), cwd=tmp_path)
    for word in words:
        assert word in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_home_that_cannot_be_looked_into_is_said(tmp_path: Path) -> None:
    home = tmp_path / ("h" * 300)
    with pytest.raises(ConfigError, match="cannot be read: File name too long") as caught:
        load(env(tmp_path) | {"CORRAL_HOME": str(home)}, cwd=tmp_path)
    assert "CORRAL_HOME" in str(caught.value)


def test_a_named_file_must_exist_and_be_readable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file"):
        load(env(tmp_path), file=tmp_path / "absent.yaml")
    garbage = tmp_path / "garbage.yaml"
    garbage.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(env(tmp_path), file=garbage)


def test_an_empty_file_is_an_empty_configuration(tmp_path: Path) -> None:
    write(tmp_path, "# nothing yet\n")
    assert load(env(tmp_path), cwd=tmp_path).server.port == 7860


def test_a_wrong_variable_is_an_error_and_an_unknown_one_a_warning(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="environment CORRAL_SERVER_PORT"):
        load(env(tmp_path, CORRAL_SERVER_PORT="x"), cwd=tmp_path)
    settings = load(env(tmp_path, CORRAL_SERVER_PROT="1"), cwd=tmp_path)
    assert "CORRAL_SERVER_PORT" in settings.warnings[0]


def test_the_key_comes_from_the_environment_and_is_never_shown(tmp_path: Path) -> None:
    settings = load(env(tmp_path, CORRAL_API_KEY="hunter2"), cwd=tmp_path)
    assert settings.api_key == "hunter2"
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in repr(list(settings.rows()))
    assert settings.origin("api_key") == "environment CORRAL_API_KEY"
    with pytest.raises(ConfigError, match="header"):
        load(env(tmp_path, CORRAL_API_KEY="schlüssel"), cwd=tmp_path)


def test_every_key_can_be_given_by_its_variable(tmp_path: Path) -> None:
    samples = {
        "home": "/h",
        "server.host": "h",
        "server.allowed_hosts": "a, b",
        "log.level": "debug",
        "log.requests": "on",
        "log.format": "json",
        "log.prompts": "on",
        "auth.required": "always",
        "docker.keep": "off",
        "docker.orphans": "remove",
        "store.models_dir": "/m",
        "store.quotas": "hf=20GB",
        "engines.memory": "cpu=4GB",
    }
    for key, default, _ in reference():
        text = samples.get(key, "17")
        settings = load(env(tmp_path, **{variable(key): text}), cwd=tmp_path)
        assert settings.value(key) != default, key
        assert settings.origin(key) == f"environment {variable(key)}"


def test_groups_and_services_are_read_like_models(tmp_path: Path) -> None:
    write(tmp_path, "groups:\n  big: {members: [a, b], exclusive: true}\nservices:\n  ollama: {stop_grace: 5s}\n")
    settings = load(env(tmp_path), cwd=tmp_path)
    assert settings.groups["big"].members == ("a", "b")
    assert (settings.groups["big"].swap, settings.groups["big"].exclusive) == (True, True)
    assert settings.services["ollama"].stop_grace == 5
    assert ("groups.big.exclusive", True) in [(key, value) for key, value, _ in settings.rows()]


def test_a_group_with_an_unknown_key_is_refused_with_its_place(tmp_path: Path) -> None:
    write(tmp_path, "groups:\n  big: {member: [a]}\n")
    with pytest.raises(UnknownOption, match=r"corral\.yaml:2.*members"):
        load(env(tmp_path), cwd=tmp_path)


def test_quotas_are_sizes_by_source_in_a_file_and_in_the_environment(tmp_path: Path) -> None:
    write(tmp_path, "store:\n  quotas: {hf: 20GB, ollama: 1000}\n")
    assert load(env(tmp_path), cwd=tmp_path).store.quotas == {"hf": 20_000_000_000, "ollama": 1000}
    given = load(env(tmp_path, CORRAL_STORE_QUOTAS="hf=1GB, pypi=5MiB"), cwd=tmp_path)
    assert given.store.quotas == {"hf": 1_000_000_000, "pypi": 5 * 1024**2}


@pytest.mark.parametrize("value", ["{hf: much}", "[hf]", "3"])
def test_quotas_that_are_none_are_refused(tmp_path: Path, value: str) -> None:
    write(tmp_path, f"store:\n  quotas: {value}\n")
    with pytest.raises(ConfigError, match=r"store\.quotas"):
        load(env(tmp_path), cwd=tmp_path)


def test_folders_to_discover_lie_beside_what_names_them(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    assert load(env(tmp_path), cwd=here).store.discover == (here / "models",)
    write(tmp_path, "store:\n  discover: [a, ~/b, /c]\n")
    named = load(env(tmp_path), file=tmp_path / "corral.yaml", cwd=here)
    assert named.store.discover == (tmp_path / "a", tmp_path / "b", Path("/c"))
    given = load(env(tmp_path, CORRAL_STORE_DISCOVER="x,/y"), cwd=here)
    assert given.store.discover == (here / "x", Path("/y"))


def test_the_password_of_a_database_is_not_shown(tmp_path: Path) -> None:
    settings = load(env(tmp_path, CORRAL_DATABASE_URL="postgresql://me:secret@db/corral"), cwd=tmp_path)
    assert settings.database.url == "postgresql://me:secret@db/corral"
    assert "secret" not in str(list(settings.rows()))


def test_an_empty_variable_gives_nothing(tmp_path: Path) -> None:
    settings = load(
        env(tmp_path, CORRAL_HOME="", CORRAL_STORE_MODELS_DIR="", CORRAL_SERVER_PORT="", CORRAL_SERVER_HOST=""),
        cwd=tmp_path,
    )
    assert settings.home == tmp_path / ".corral"
    assert settings.models_dir == tmp_path / ".corral" / "models"
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 7860)
    assert settings.origin("home") == "default"


def test_an_empty_value_in_the_file_is_the_default_and_says_so(tmp_path: Path) -> None:
    write(tmp_path, "server:\n  port:\n")
    settings = load(env(tmp_path), cwd=tmp_path)
    assert (settings.server.port, settings.origin("server.port")) == (7860, "default")


def test_paths_of_a_file_are_beside_it_and_others_where_the_command_runs(tmp_path: Path) -> None:
    here, home = tmp_path / "here", tmp_path / ".corral"
    here.mkdir()
    home.mkdir()
    write(home, "store: {models_dir: mine}\n")
    assert load(env(tmp_path), cwd=here).models_dir == home / "mine"
    assert load(env(tmp_path, CORRAL_STORE_MODELS_DIR="m"), cwd=here).models_dir == here / "m"
    assert load(env(tmp_path), {"store.models_dir": "./m"}, cwd=here).models_dir == here / "m"


def test_a_tilde_is_the_home_of_the_environment_given(tmp_path: Path) -> None:
    write(tmp_path, "store: {models_dir: ~/models}\n")
    named = env(tmp_path, CORRAL_CONFIG="~/corral.yaml", CORRAL_HOME="~/yard")
    settings = load(named, cwd=Path("/"))
    assert settings.file == tmp_path / "corral.yaml"
    assert settings.home == tmp_path / "yard"
    assert settings.models_dir == tmp_path / "models"
    with pytest.raises(ConfigError, match="nobody-of-that-name"):
        load(env(tmp_path, CORRAL_HOME="~nobody-of-that-name/x"), cwd=tmp_path)


def test_a_key_is_taken_without_the_line_end_of_its_file(tmp_path: Path) -> None:
    assert load(env(tmp_path, CORRAL_API_KEY="hunter2\r\n"), cwd=tmp_path).api_key == "hunter2"
    assert load(env(tmp_path, CORRAL_API_KEY=" "), cwd=tmp_path).api_key is None
    with pytest.raises(ConfigError, match="header"):
        load(env(tmp_path, CORRAL_API_KEY="hun\nter2"), cwd=tmp_path)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5s", 1.5),
        ("5m", 300),
        ("2h", 7200),
        ("1d", 86400),
        ("250ms", 0.25),
        ("1h30m", 5400),
        ("1m1.5s", 61.5),
        ("-1", inf),
        ("-5m", inf),
        (3, 3),
        (-1, inf),
        ("never", inf),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"), [("7", 7), (8, 8), ("1kB", 1000), ("1KiB", 1024), ("64MiB", 2**26), ("50GB", 50 * 10**9)]
)
def test_sizes(text: object, count: int) -> None:
    assert size(text) == count


@given(st.one_of(st.text(), st.booleans(), st.none(), st.lists(st.integers())))
def test_nonsense_is_refused_and_nothing_else(value: object) -> None:
    for read in (duration, size):
        try:
            assert read(value) >= 0
        except (ValueError, TypeError):
            continue


def test_an_empty_flag_is_as_good_as_none(tmp_path: Path) -> None:
    settings = load(env(tmp_path), {"home": "", "server.host": ""}, cwd=tmp_path)
    assert settings.home == tmp_path / ".corral"
    assert settings.origin("home") == "default"


@pytest.mark.parametrize("port", ["x", "-1", "1e3", "80.5", "٣"])
def test_what_is_no_port_is_said_in_words(tmp_path: Path, port: str) -> None:
    with pytest.raises(ConfigError, match="port from 0 to 65535"):
        load(env(tmp_path, CORRAL_SERVER_PORT=port), cwd=tmp_path)
