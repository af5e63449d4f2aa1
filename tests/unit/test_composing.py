"""What an engine is asked, and what a strict one is refused for: the processor in place of a GPU, a lost parameter."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from corral.dialects.form import form
from corral.domain.models import Capability
from corral.domain.ports import Endpoint, SessionFacts
from corral.errors import Degraded
from corral.routing.composing import Composer
from corral.routing.order import Order

SLOW = "device: it runs on the processor although there is a GPU"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def engine(able=None):
    facts = SessionFacts(4096, 1, "cpu", able)
    session = SimpleNamespace(endpoint=Endpoint("http://engine"), facts=facts)
    return SimpleNamespace(id="e-1", model="m", remote=False, session=session)


def order(*, strict, **more):
    document = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **more}
    return Order("req-1", form("openai.chat"), "m", document, json.dumps(document).encode(), strict=strict)


def test_a_processor_in_place_of_a_gpu_is_told_and_refused_where_that_matters():
    composer = Composer(lambda _: (SLOW,))
    assert composer.compose(order(strict=False), engine(), "m").way.lacking == (SLOW,)
    with pytest.raises(Degraded, match="although there is a GPU"):
        composer.compose(order(strict=True), engine(), "m")


def test_a_parameter_without_effect_is_told_and_refused_where_that_matters():
    composer, plain = Composer(), engine(frozenset({Capability.CHAT, Capability.SYSTEM_ROLE}))
    assert composer.compose(order(strict=False, tools=[TOOL]), plain, "m").ignored == ("tools",)
    with pytest.raises(Degraded, match="would ignore tools") as caught:
        composer.compose(order(strict=True, tools=[TOOL]), plain, "m")
    assert caught.value.param == "tools"
    assert composer.compose(order(strict=True), plain, "m").ignored == ()
