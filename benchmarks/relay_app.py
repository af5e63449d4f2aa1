"""The relay under a gateway of the fewest lines: what `benchmarks/gateway.py` measures as the floor under Corral's own.

It does what no gateway can leave out: it reads the request whole, parses it, finds the model, gives the request an id,
watches for the client going away, relays, and meters. Run by `python benchmarks/relay_app.py PORT UPSTREAM_URL`.
"""

from __future__ import annotations

import itertools
import secrets
import sys
from typing import TYPE_CHECKING, Any

import orjson
import uvicorn

from corral.errors import CorralError
from corral.gateway.wire import Protocol
from corral.kit.clients import Clients
from corral.kit.relay import Outcome, Receive, Send, relay, respond
from corral.kit.upstream import Target, Upstream, block

if TYPE_CHECKING:
    from collections.abc import MutableMapping

JSON = block([(b"content-type", b"application/json")])


def render(error: CorralError) -> bytes:
    """The error as the last event of a stream."""
    said = {"message": error.message, "type": "upstream_error", "code": error.code}
    return b"data: " + orjson.dumps({"error": said}) + b"\n\n"


class Gateway:
    """One model behind one address."""

    def __init__(self, url: str) -> None:
        self._upstream = Upstream()
        self._clients = Clients()
        self._models = {"bench": Target.of(url)}
        self._prefix = secrets.token_hex(6).encode()
        self._count = itertools.count(1)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """The ASGI application."""
        message = await receive()
        body: bytes = message.get("body", b"")
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        request_id = b"req-%b-%d" % (self._prefix, next(self._count))
        target = self._models.get(orjson.loads(body).get("model"))
        if target is None:
            await respond(send, 404, b"{}", [(b"x-request-id", request_id)])
            return
        headers = [(b"x-request-id", request_id), (b"x-corral-model", b"bench"), (b"x-corral-attempts", b"1")]
        outcome = Outcome()
        with self._clients.watch(receive):
            try:
                response = await self._upstream.request(target, "POST", "/chat/completions", headers=JSON, body=body)
                await relay(response, send, render, headers=headers, outcome=outcome)
            except CorralError as error:
                await respond(send, error.http_status, render(error), headers)
        if outcome.usage is None or outcome.finish_reason is None:
            sys.stderr.write("an answer without usage\n")


def main() -> None:
    uvicorn.run(
        Gateway(sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http=Protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        proxy_headers=False,
    )


if __name__ == "__main__":
    main()
