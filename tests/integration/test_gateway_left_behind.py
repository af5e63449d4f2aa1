"""What a request that was refused leaves behind: nothing that must be looked for."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest

from corral.app import Corral
from corral.config import load
from corral.gateway.application import Gateway
from support.origin import Origin, Reply


class Client:
    """Sends one body; whoever holds it has the request."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    async def __call__(self) -> Any:
        return {"type": "http.request", "body": self.body, "more_body": False}


@pytest.mark.parametrize(("model", "status"), [("refusing", 400), ("nobody", 404)])
async def test_a_request_that_is_refused_is_let_go_at_once(tmp_path: Path, model: str, status: int) -> None:
    told = []

    async def send(message: Any) -> None:
        told.append(message.get("status"))

    async def ask() -> weakref.ref[Client]:
        client = Client(json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]}).encode())
        path = "/v1/chat/completions"
        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
        await gateway(scope | {"headers": [(b"host", b"localhost")]}, client, send)
        return weakref.ref(client)

    async with Origin() as vendor:
        vendor.tamper = lambda _: Reply(400, {"content-length": "2"}, b"{}")
        options = {"base_url": f"{vendor.url}/v1"}
        config = {"models": {"refusing": {"runtime": "openai", "options": options}}}
        (tmp_path / "corral.yaml").write_text(json.dumps(config))
        corral = Corral(load({"HOME": str(tmp_path)}, cwd=tmp_path))
        gateway = Gateway(corral)
        try:
            await ask()  # the first finds out where the model is
            gc.disable()
            left = await ask()
            assert left() is None
        finally:
            gc.enable()
            await corral.close()
    assert told[-2:] == [status, None]
