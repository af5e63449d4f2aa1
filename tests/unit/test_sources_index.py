"""The package index as pip sees it: settings, pages, choice. No sockets: indexes in folders."""

import pytest

from corral.errors import ConfigError, SourceError, SourceNotFound
from corral.kit import index
from corral.kit.clock import SystemClock
from corral.kit.index import Index
from corral.kit.pip_config import PYPI, PipConfig
from corral.kit.web import Access, Web, goes_direct, local_path, shown
from support import models

DIGEST = "ab" * 32


@pytest.fixture
def machine(tmp_path):
    """A machine's pip settings: `write` puts a file, `read` reads the whole as pip would."""

    class Machine:
        def write(self, path, text):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)

        def read(self, **env):
            env = {"HOME": str(tmp_path / "home"), **env}
            return PipConfig.read(env, root=tmp_path, prefix=tmp_path / "venv")

    return Machine()


def test_without_settings_it_is_pypi(machine):
    config = machine.read()
    assert (config.indexes, config.find_links) == ((PYPI,), ())
    assert config.access == Access(netrc=config.access.netrc)


def test_later_files_beat_earlier_and_the_environment_beats_all(machine):
    for number, path in enumerate(
        ["etc/xdg/pip/pip.conf", "etc/pip.conf", "home/.pip/pip.conf", "home/.config/pip/pip.conf", "venv/pip.conf"]
    ):
        machine.write(path, f"[global]\nindex-url = https://{number}.test/simple\n")
        assert machine.read().indexes == (f"https://{number}.test/simple",)
    assert machine.read(PIP_INDEX_URL="https://env.test/").indexes == ("https://env.test/",)


def test_a_named_file_replaces_the_users(machine, tmp_path):
    machine.write("home/.config/pip/pip.conf", "[global]\ntimeout = 3\n")
    machine.write("etc/pip.conf", "[global]\nretries = 9\n")
    machine.write("named.conf", "[global]\nindex-url = https://named.test/\n")
    config = machine.read(PIP_CONFIG_FILE=str(tmp_path / "named.conf"))
    assert (config.indexes, config.access.timeout, config.access.retries) == (("https://named.test/",), 15.0, 9)
    assert machine.read(PIP_CONFIG_FILE=str(tmp_path / "missing.conf")).access.timeout == 3
    assert machine.read(PIP_CONFIG_FILE="/dev/null").access.retries == 5


def test_sections_beat_files(machine):
    machine.write("etc/pip.conf", "[download]\ntimeout = 7\n[install]\ntimeout = 6\nretries = 1\n[list]\nretries = 8\n")
    machine.write("venv/pip.conf", "[global]\ntimeout = 5\nretries = 5\n")
    access = machine.read().access
    assert (access.timeout, access.retries) == (7, 1)


def test_lists_switches_and_paths(machine, tmp_path):
    machine.write(
        "home/.config/pip/pip.conf",
        "[global]\nextra_index_url = https://a.test/\n    file:///b\nfind-links = ~/wheels /other\n"
        "trusted-host = c.test d.test:8080\ncert = ~/ca.pem\nclient-cert = /me.pem\nproxy = http://p.test:1\n",
    )
    config = machine.read()
    assert config.indexes == (PYPI, "https://a.test/", "file:///b")
    assert config.find_links == ((tmp_path / "home/wheels").as_uri(), "file:///other")
    access = config.access
    assert access.trusted == {"c.test", "d.test:8080"}
    assert (access.ca, str(access.client_cert)) == (tmp_path / "home/ca.pem", "/me.pem")
    assert access.proxies == {"http": "http://p.test:1", "https": "http://p.test:1"}
    assert machine.read(PIP_NO_INDEX="1").indexes == ()
    assert machine.read(PIP_NO_INDEX="no").indexes == config.indexes
    assert machine.read(PIP_EXTRA_INDEX_URL="").indexes == config.indexes


@pytest.mark.parametrize(
    "variable", ["PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"]
)
def test_certificates_come_from_any_of_the_usual_variables(machine, variable):
    assert str(machine.read(**{variable: "/ca.pem"}).access.ca) == "/ca.pem"


def test_proxies_come_from_the_environment(machine):
    env = {"HTTP_PROXY": "http://a", "https_proxy": "http://b", "HTTPS_PROXY": "http://c", "NO_PROXY": "d"}
    assert machine.read(**env).access.proxies == {"http": "http://a", "https": "http://b", "no": "d"}
    assert "http" not in machine.read(**env, REQUEST_METHOD="GET").access.proxies


def test_the_older_name_of_the_timeout(machine):
    assert machine.read(PIP_DEFAULT_TIMEOUT="180").access.timeout == 180
    assert machine.read(PIP_TIMEOUT="-1").access.timeout == 15
    with pytest.raises(ConfigError, match="timeout is not a number"):
        machine.read(PIP_TIMEOUT="soon")


def test_a_broken_file_is_named_and_not_quoted(machine):
    machine.write("etc/pip.conf", "index-url = https://me:pass-hunter@a.test/\n")
    with pytest.raises(ConfigError, match=r"etc/pip\.conf") as caught:
        machine.read()
    assert "pass-hunter" not in f"{caught.value!r}{caught.value.__cause__!r}"


def test_settings_keep_their_logins_out_of_their_text(machine):
    config = machine.read(PIP_INDEX_URL="https://me:pass-hunter@a.test/", HTTPS_PROXY="http://me:pass-hunter@p.test")
    assert "pass-hunter" not in repr(config)


@pytest.mark.parametrize(
    ("host", "port", "exceptions", "direct"),
    [
        ("a.test", 80, "", False),
        ("a.test", 80, "a.test", True),
        ("b.a.test", 80, "x, .a.test", True),
        ("b.a.test", 80, "a.test", True),
        ("ba.test", 80, "a.test", False),
        ("a.test", 80, "a.test:81", False),
        ("a.test", 81, "a.test:81", True),
        ("a.test", 80, "*", True),
        ("b.a.test", 80, "*.a.test", True),
        ("10.1.2.3", 80, "10.0.0.0/8", True),
        ("11.1.2.3", 80, "10.0.0.0/8", False),
        ("::1", 80, "::1", True),
    ],
)
def test_who_is_reached_without_a_proxy(host, port, exceptions, direct):
    assert goes_direct(host, port, exceptions) is direct


def test_addresses_are_shown_without_secrets():
    assert shown("https://me:pw@a.test:8/b/c?sig=pw#frag") == "https://a.test:8/b/c"
    assert local_path("https://a.test/b") is None
    assert str(local_path("file:///a%20b/c")) == "/a b/c"


PAGE = f"""<!DOCTYPE html><html><head><base href="/pool/"></head><body>
<a href="a-1.0-py3-none-any.whl#sha256={DIGEST.upper()}" data-requires-python="&gt;=3.9">a</a>
<a href="https://other.test/a-1.1-py3-none-any.whl" data-yanked="broken">a</a>
<a href="a-1.2-py3-none-any.whl#md5=00" data-yanked>a</a><a name="x">no link</a>
<a href="http://[bad">x</a></body>"""


def test_html_pages():
    first, second, third = index.parse_html(PAGE, "https://i.test/simple/a/")
    assert first == index.Link(
        "a-1.0-py3-none-any.whl", "https://i.test/pool/a-1.0-py3-none-any.whl", DIGEST, None, ">=3.9"
    )
    assert (second.url, second.yanked) == ("https://other.test/a-1.1-py3-none-any.whl", "broken")
    assert (third.sha256, third.yanked) == (None, "")


def test_json_pages():
    body = (
        b'{"files": [{"filename": "a-1.0-py3-none-any.whl", "url": "../a.whl#x", "hashes": {"sha256": "%s"},'
        b' "size": 5, "requires-python": null, "yanked": false}, {"filename": "b", "url": "https://o.test/b",'
        b' "hashes": {}, "yanked": true, "size": -1}]}' % DIGEST.encode()
    )
    first, second = index.parse_json(body, "https://i.test/simple/a/")
    assert first == index.Link("a-1.0-py3-none-any.whl", "https://i.test/simple/a.whl", DIGEST, 5)
    assert second == index.Link("b", "https://o.test/b", yanked="True")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"files": 5}', b'{"files": ["a"]}', b'{"files": [{"url": "a"}]}']
)
def test_nonsense_is_no_index(body):
    with pytest.raises(SourceError, match="is not a package index"):
        index.parse_json(body, "https://me:pw@i.test/simple/a/")


def wheels(*versions, name="tiny", tag="py3-none-any"):
    return [(f"{name}-{version}-{tag}.whl", version.encode()) for version in versions]


async def find(config, name="tiny", version=None):
    async with Web(config.access, SystemClock()) as web:
        return await Index(config, web).find(name, version)


async def test_the_newest_final_release_is_taken(tmp_path):
    config = PipConfig((models.folder_index(tmp_path, *wheels("1.0", "1.10", "1.9", "2.0rc1")),))
    wheel = await find(config)
    assert (str(wheel.version), wheel.link.filename) == ("1.10", "tiny-1.10-py3-none-any.whl")
    assert wheel.link.sha256 == models.sha256(b"1.10")
    assert str((await find(config, "Tiny", "2.0rc1")).version) == "2.0rc1"
    assert str((await find(config, "TINY", "1.0.0")).version) == "1.0"


async def test_only_early_releases_are_better_than_none(tmp_path):
    config = PipConfig((models.folder_index(tmp_path, *wheels("1.0a1", "1.0a2")),))
    assert str((await find(config)).version) == "1.0a2"


async def test_wheels_for_elsewhere_are_passed_over(tmp_path):
    pages = models.folder_index(tmp_path, *wheels("9", tag="py3-none-win32"), *wheels("3", "4"))
    page = tmp_path / "simple/tiny/index.html"
    page.write_text(
        page.read_text().replace(".whl#sha256=" + models.sha256(b"4") + '"', '.whl" data-requires-python="<3"')
    )
    assert str((await find(PipConfig((pages,)))).version) == "3"


async def test_withdrawn_releases_are_taken_only_by_name(tmp_path):
    pages = models.folder_index(tmp_path, *wheels("1", "2"))
    page = tmp_path / "simple/tiny/index.html"
    page.write_text(page.read_text().replace(f'{models.sha256(b"2")}"', f'{models.sha256(b"2")}" data-yanked'))
    assert str((await find(PipConfig((pages,)))).version) == "1"
    assert str((await find(PipConfig((pages,)), version="2")).version) == "2"


async def test_folders_of_wheels_and_several_indexes_are_one(tmp_path):
    first = models.folder_index(tmp_path / "a", *wheels("1"))
    second = models.folder_index(tmp_path / "b", *wheels("2"), digests=False)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "tiny-3-py3-none-any.whl").write_bytes(b"3")
    (tmp_path / "links" / "tiny-4.tar.gz").write_bytes(b"no wheel")
    config = PipConfig((first, second), ((tmp_path / "links").as_uri(), (tmp_path / "gone").as_uri()))
    found = [str((await find(config, version=version)).version) for version in ("1", "2", "3")]
    assert found == ["1", "2", "3"]
    best = await find(config)
    assert (str(best.version), best.link.size) == ("3", 1)


async def test_of_equals_the_one_with_a_digest_is_taken(tmp_path):
    bare = models.folder_index(tmp_path / "a", *wheels("1"), digests=False)
    known = models.folder_index(tmp_path / "b", *wheels("1"))
    assert (await find(PipConfig((bare, known)))).link.sha256 is not None


async def test_a_missing_package_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(SourceNotFound, match=r"No package index here has nothing.*Asked: file:.*simple/nothing/"):
        await find(PipConfig((models.folder_index(tmp_path, *wheels("1")),)), "nothing")
    with pytest.raises(SourceNotFound, match="Asked: none"):
        await find(PipConfig(()), "nothing")


async def test_a_missing_version_says_which_there_are(tmp_path):
    with pytest.raises(SourceNotFound, match=r"tiny==7 has no wheel.*There are: 2, 1\."):
        await find(PipConfig((models.folder_index(tmp_path, *wheels("1", "2")),)), version="7")


async def test_a_package_without_wheels_says_so(tmp_path):
    page = tmp_path / "simple/tiny/index.html"
    page.parent.mkdir(parents=True)
    page.write_text('<a href="tiny-1.tar.gz">tiny</a>')
    with pytest.raises(SourceNotFound, match="no wheel for this machine"):
        await find(PipConfig(((tmp_path / "simple").as_uri(),)))


@pytest.mark.parametrize(("name", "version"), [("a/b", None), ("tiny", "not a version")])
async def test_impossible_names_are_refused(name, version):
    with pytest.raises(SourceNotFound, match="does not name"):
        await find(PipConfig(()), name, version)


async def test_unsafe_addresses_are_not_asked():
    config = PipConfig(("http://index.test/simple",), access=Access(retries=0))
    with pytest.raises(SourceError, match=r"not encrypted, and index\.test is not trusted"):
        await find(config)
    with pytest.raises(SourceError, match="not a web address"):
        await find(PipConfig(("ftp://index.test/simple",)))
