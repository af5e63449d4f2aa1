"""What a model can do, read from its header."""

import io

import pytest

from corral.catalog import capabilities, gguf
from corral.domain.models import Capability as Can
from support import models

WRITES = {Can.COMPLETION, Can.JSON_SCHEMA}


def header(**changes):
    data = models.gguf(**changes)
    return gguf.parse(io.BytesIO(data), len(data))


def test_a_base_model_completes():
    bare = header(drop=["tokenizer.chat_template"])
    assert capabilities.read(bare, {}) == WRITES


@pytest.mark.parametrize(
    ("template", "more"),
    [
        (models.CHATML, {Can.SYSTEM_ROLE}),
        ("{{ messages[0].content }}", set()),
        ("{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}", set()),
        ("{% if tools %}{{ tools }}{% endif %}{{ message.role }}", {Can.TOOLS, Can.SYSTEM_ROLE}),
    ],
)
def test_a_template_tells_what_chats_can_hold(template, more):
    assert capabilities.read(header(tokenizer__chat_template=template), {}) == WRITES | {Can.CHAT} | more


def test_a_pinned_template_counts_instead():
    assert Can.TOOLS in capabilities.read(header(), {"chat_template": "{{ tools }}"})


def test_a_projector_gives_sight():
    assert Can.VISION in capabilities.read(header(), {}, sees=True)
    assert capabilities.is_projector(header(general__architecture="clip"))
    assert capabilities.is_projector(header(general__type="mmproj"))
    assert not capabilities.is_projector(header())


@pytest.mark.parametrize("changes", [{"general__architecture": "bert"}, {"llama__pooling_type": 1}])
def test_encoders_only_embed(changes):
    assert capabilities.read(header(**changes), {}) == {Can.EMBEDDINGS}


def test_no_pooling_is_no_encoder():
    assert capabilities.read(header(llama__pooling_type=0), {}) > WRITES
