"""pip's settings, read as pip reads them: which indexes, which proxy, whose certificates."""

from __future__ import annotations

import configparser
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from corral.errors import ConfigError
from corral.kit.web import Access

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

PYPI = "https://pypi.org/simple"

_SECTIONS = ("global", "install", "download", ":env:")
_YES = frozenset({"y", "yes", "t", "true", "on", "1"})


@dataclass(frozen=True, slots=True)
class PipConfig:
    """Where packages come from. `indexes` are asked in that order, `find_links` are folders or pages of links.

    The addresses may carry logins and are kept out of this value's text.
    """

    indexes: tuple[str, ...] = field(default=(PYPI,), repr=False)
    find_links: tuple[str, ...] = field(default=(), repr=False)
    access: Access = field(default_factory=Access)

    @classmethod
    def read(cls, env: Mapping[str, str], *, root: Path = Path("/"), prefix: Path | None = None) -> PipConfig:
        """What pip would use here, given the environment `env`. Reads files; blocks briefly.

        `root` is where `/etc` lies and `prefix` is the Python environment's own folder.

        Raises:
            ConfigError: a configuration file cannot be read.
        """
        values = dict(_in_pip_order(_merged(env, root, prefix or Path(env.get("VIRTUAL_ENV") or sys.prefix))))
        home = _home(env)
        indexes: list[str] = []
        if values.get("no-index", "").lower() not in _YES:
            indexes = [values.get("index-url") or PYPI, *values.get("extra-index-url", "").split()]
        return cls(
            indexes=tuple(_address(item, home) for item in indexes),
            find_links=tuple(_address(item, home) for item in values.get("find-links", "").split()),
            access=_access(values, env, home),
        )


def _home(env: Mapping[str, str]) -> Path:
    return Path(env["HOME"]) if env.get("HOME") else Path.home()


def _expand(text: str, home: Path) -> Path:
    return home / text[2:] if text.startswith("~/") else Path(text)


def _address(text: str, home: Path) -> str:
    """A URL as it is, a path as a `file:` URL."""
    return text if "://" in text or text.startswith("file:") else _expand(text, home).absolute().as_uri()


def _files(env: Mapping[str, str], root: Path, prefix: Path) -> Iterator[Path]:
    """The configuration files that pip looks at here, the weakest first."""
    home = _home(env)
    named = env.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    if sys.platform == "darwin":
        yield root / "Library/Application Support/pip/pip.conf"
    else:
        for folder in (env.get("XDG_CONFIG_DIRS") or str(root / "etc/xdg")).split(os.pathsep):
            yield Path(folder) / "pip/pip.conf"
        yield root / "etc/pip.conf"
    if named is None or not Path(named).exists():
        yield home / ".pip/pip.conf"
        support = home / "Library/Application Support/pip"
        if sys.platform == "darwin" and support.is_dir():
            yield support / "pip.conf"
        else:
            yield Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf"
    yield prefix / "pip.conf"
    if named is not None:
        yield Path(named)


def _merged(env: Mapping[str, str], root: Path, prefix: Path) -> dict[tuple[str, str], str]:
    """Every setting by section and name: a later file beats an earlier one within a section."""
    merged: dict[tuple[str, str], str] = {}
    for path in _files(env, root, prefix):
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(path.read_text(encoding="utf-8"), source=str(path))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, UnicodeDecodeError, configparser.Error) as error:
            # Neither the error's own text nor the error: it quotes lines, and a line may hold a login.
            raise _unreadable(path, error) from None
        for section in parser.sections():
            merged |= {(section, _name(key)): value for key, value in parser.items(section)}
    merged |= {(":env:", _name(key[4:])): value for key, value in env.items() if key.startswith("PIP_")}
    return merged


def _unreadable(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"pip's settings in {path} cannot be read ({type(error).__name__}).", "See: pip config list")


def _name(key: str) -> str:
    return key.lower().replace("_", "-").removeprefix("--")


def _in_pip_order(merged: Mapping[tuple[str, str], str]) -> Iterable[tuple[str, str]]:
    """Names and values, the stronger later: by section before by file, as pip does; empty values count as absent."""
    for wanted in _SECTIONS:
        for (section, key), value in merged.items():
            if section == wanted and value:
                yield ("timeout" if key == "default-timeout" else key), value


def _access(values: Mapping[str, str], env: Mapping[str, str], home: Path) -> Access:
    certificates = (values.get("cert"), *map(env.get, ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")))
    ca = next((_expand(item, home) for item in (*certificates, env.get("SSL_CERT_DIR")) if item), None)
    client = values.get("client-cert")
    login_file = Path(env["NETRC"]) if env.get("NETRC") else home / ".netrc"
    return Access(
        ca=ca,
        client_cert=_expand(client, home) if client else None,
        proxies=_proxies(values.get("proxy"), env),
        netrc=login_file,
        trusted=frozenset(values.get("trusted-host", "").split()),
        timeout=_number(values, "timeout", 15.0),
        retries=int(_number(values, "retries", 5)),
    )


def _proxies(setting: str | None, env: Mapping[str, str]) -> dict[str, str]:
    """Proxies by scheme. Lower case wins, as usual; `HTTP_PROXY` is ignored in a CGI, where a client may set it."""
    proxies: dict[str, str] = {}
    for scheme in ("http", "https", "all", "no"):
        upper = f"{scheme}_PROXY".upper()
        value = env.get(upper.lower()) or ("" if scheme == "http" and "REQUEST_METHOD" in env else env.get(upper))
        if value:
            proxies[scheme] = value
    if setting:
        proxies |= {"http": setting, "https": setting}
    return proxies


def _number(values: Mapping[str, str], key: str, default: float) -> float:
    try:
        number = float(values.get(key, default))
    except ValueError as error:
        raise ConfigError(f"pip's setting {key} is not a number.", "See: pip config list") from error
    return number if number >= 0 else default
