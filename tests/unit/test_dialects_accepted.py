"""Whatever is asked of a model, a vendor takes what is written for it: by its library's types, and by its own rules."""

from __future__ import annotations

import json

import ollama
import pytest
from hypothesis import HealthCheck, given, settings

from corral.dialects.form import PLAIN, Kind, Profile, form
from tests.support.dialects import ASKED
from tests.support.vendors.anthropic import Anthropic
from tests.support.vendors.vendor import Asked, Refusal

MANY = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
NEW = Profile(drop=frozenset({"temperature", "top_p", "top_k"}))


def answered(vendor, written, **headers):
    asked = Asked(written.path, "", headers, json.loads(json.dumps(written.document)))
    try:
        return vendor().answer(asked, None)
    except Refusal as refusal:
        pytest.fail(f"{refusal.message}: {written.document}")


def whole(request):
    """`request`, where the vendor's own order of calls and results is kept."""
    called: set[str] = set()
    for message in request.messages:
        ids = {part.id for part in message.parts if type(part).__name__ == "Call"}
        results = {part.id for part in message.parts if type(part).__name__ == "Result"}
        if (called and message.role != "tool") or not results <= called:
            return False
        called = (called | ids) - results
    return not called


@pytest.mark.parametrize(
    ("version", "profile"),
    [("2023-06-01", PLAIN), ("2023-06-01", Profile(thinking="budget")), ("2026-10-21", NEW)],
)
@MANY
@given(request=ASKED[Kind.CHAT].filter(whole))
def test_anthropic_takes_it(version, profile, request):
    written = form("anthropic.messages").write_request(request, profile)
    headers = {"x-api-key": Anthropic.key, "anthropic-version": version}
    answered(Anthropic, written, **headers)


@MANY
@given(request=ASKED[Kind.CHAT])
def test_ollama_takes_it(request):
    written = form("ollama.chat").write_request(request, PLAIN)
    ollama._types.ChatRequest.model_validate(written.document)
