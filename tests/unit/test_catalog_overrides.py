"""What a user says of a model: validated, kept apart, and never lost by an update."""

import pytest

from corral.catalog.usage import Limits
from corral.domain.models import Capability
from corral.errors import (
    ConfigError,
    InvalidRequest,
    ModelNotFound,
    StoreError,
    UnknownOption,
)
from support.stores import VERSIONS, Store

SIZE = len(VERSIONS[0])


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "models", limits=Limits(keep_revisions=2))


async def test_what_the_user_says_survives_updates(store):
    await store.through("m", 0)
    before = store.get("m")
    said = {
        "capabilities": {"supports_function_calling": True, "supports_chat": False, "allowed_roles": ["user"]},
        "runtime": "vllm",
        "context_length": 99,
    }
    await store.set_override("m", said)
    assert store.override("m") == said
    for item in (store.get("m"), store.all()[0], store.page(None, 1)[0]):
        able = item.revision.capabilities
        assert Capability.TOOLS in able
        assert Capability.CHAT not in able
        assert (item.revision.facts["context_length"], item.revision.facts["allowed_roles"]) == (99, ["user"])
        assert item.revision.id == before.revision.id
    await store.through("m", 1)
    assert store.get("m").revision.facts["context_length"] == 99
    assert store.history("m")[0].revision.facts["context_length"] == 128
    await store.set_override("m", None)
    assert store.override("m") == {}
    assert store.get("m").revision.facts["context_length"] == 128
    await store.set_override("m", {"context_length": 5})
    await store.remove("m")
    await store.through("m", 0)
    assert store.override("m") == {}


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"contextlength": 5}, UnknownOption),
        ({"capabilities": {"supports_tols": True}}, UnknownOption),
        ({"capabilities": {"supports_tools": "yes"}}, InvalidRequest),
        ({"capabilities": ["tools"]}, InvalidRequest),
        ({"capabilities": {"allowed_roles": "user"}}, InvalidRequest),
        ({"capabilities": {"allowed_roles": [1]}}, InvalidRequest),
        ({"runtime": ""}, InvalidRequest),
        ({"runtime": 5}, InvalidRequest),
        ({"context_length": True}, InvalidRequest),
        ({"context_length": 0}, InvalidRequest),
        ({"context_length": 10**12}, InvalidRequest),
    ],
)
async def test_what_cannot_be_said_is_refused(store, said, error):
    await store.through("m", 0)
    with pytest.raises(error):
        await store.set_override("m", said)
    assert store.override("m") == {}


async def test_a_damaged_override_is_named(store):
    await store.through("m", 0)
    await store.set_override("m", {"context_length": 5})
    path = store._blobs.root / "overrides" / "m.json"
    for content in ("{", "[]", '{"name": "n", "override": 5}', '{"name": "m", "override": {"x": 1}}'):
        path.write_text(content)
        with pytest.raises(StoreError, match="override"):
            store.get("m")
    with pytest.raises(ModelNotFound):
        await store.set_override("n", {})
    assert not issubclass(StoreError, ConfigError)
