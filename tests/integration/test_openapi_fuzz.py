"""The management API, asked whatever its OpenAPI document allows and some of what it forbids.

Never is it Corral that fails; every answer has a status and a shape that the document says it has.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import FlakyStrategyDefinition, Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.servers import Server, corral_server

CONFIG = """
models:
  robot: {runtime: fake, options: {reply: hi}, fallback: [spare]}
  spare: {runtime: fake}
routes:
  both: {models: [robot, spare]}
sources: {retries: 1, stall_timeout: 1s}
docker: {host: "unix:///no/such/docker.sock"}
containers:
  coder: {image: "model-server:1", port: 18080}
"""
KEY = "the-servers-own-key"
NOWHERE = {"HF_ENDPOINT": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
EXAMPLES = 6
ENDLESS = frozenset(("GET /api/v1/runtime/events", "GET /api/v1/containers/events"))
"""Events come for as long as somebody listens."""
SLOW = frozenset(("GET /api/v1/runtime/fit", "GET /api/v1/models/search", "GET /api/v1/models/providers"))
"""They ask sources, which takes its time where none is there."""
TRIES = 3
"""How often an operation is asked anew when the generator makes two things of one choice."""
ABSENT = frozenset((502, 503, 504))
"""What a source or a vendor that is not there is answered with; here none is."""


schemathesis.serializer.alias("application/zip", "application/octet-stream")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = {"CORRAL_API_KEY": KEY, "NO_PROXY": "127.0.0.1,localhost", **NOWHERE}
    with corral_server(tmp_path_factory.mktemp("home"), CONFIG, env=env) as running:
        yield running


@pytest.fixture(scope="module")
def document(server: Server) -> Any:
    request = urllib.request.Request(f"{server.url}/api/v1/openapi.json", headers={"x-api-key": KEY})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def judge(case: Any, answer: Response) -> None:
    if answer.status_code not in ABSENT:
        case.validate_response(
            answer,
            checks=[
                not_a_server_error,
                status_code_conformance,
                content_type_conformance,
                response_schema_conformance,
            ],
        )


def _modes(operation: dict[str, Any]) -> tuple[schemathesis.GenerationMode, ...]:
    """How an operation can be asked: where any words of a path will do and nothing else is taken, never wrongly."""
    words = ({"type"}, {"type", "title"}, {"type", "title", "description"})
    free = all(
        each["in"] == "path" and each["schema"]["type"] == "string" and set(each["schema"]) in words
        for each in operation.get("parameters", ())
    )
    right, wrong = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
    return (right,) if free and "requestBody" not in operation else (right, wrong)


def _patiently(ask: Callable[[], None]) -> None:
    """Ask; again when the generator made two things of one choice, which is nothing of the server's."""
    for left in reversed(range(TRIES)):
        try:
            ask()
        except (FlakyStrategyDefinition, BaseExceptionGroup) as error:
            if not left or "FlakyStrategyDefinition" not in _said(error):
                raise
        else:
            return


def _said(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "\n".join(_said(each) for each in error.exceptions)
    return f"{type(error).__name__}: {error}"


@pytest.mark.timeout(300)
def test_whatever_is_asked_is_answered_as_documented(server: Server, document: Any) -> None:
    failures: dict[str, str] = {}
    asked = 0
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = found.ok()
        if operation.label in ENDLESS:
            continue
        for mode in _modes(document["paths"][operation.path][operation.method]):

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(
                max_examples=2 if operation.label in SLOW else EXAMPLES,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            def ask(case: Any) -> None:
                nonlocal asked
                asked += 1
                judge(case, case.call(base_url=server.url, headers={"x-api-key": KEY}, timeout=30))

            try:
                _patiently(ask)
            except Unsatisfiable:  # what takes nothing cannot be asked wrongly
                assert mode is schemathesis.GenerationMode.NEGATIVE, operation.label
            except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001  # every operation is to be seen
                failures.setdefault(operation.label, _said(error))
    assert not failures, "\n\n".join(f"{label}\n{why[:1500]}" for label, why in failures.items())
    assert asked > 500
    assert "Traceback" not in (server.home.parent / "server.log").read_text()
