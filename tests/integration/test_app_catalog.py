"""Orders for what is really installed: where an update would ask, and what can be refused before anybody is asked."""

from pathlib import Path

import pytest

from corral.app import Corral
from corral.config import load
from corral.domain.operations import Order
from corral.errors import InvalidName, ModelNotFound


@pytest.fixture
def corral(model_store: Path, tmp_path: Path) -> Corral:
    env = {"HOME": str(tmp_path), "CORRAL_STORE_MODELS_DIR": str(model_store)}
    return Corral(load(env, cwd=tmp_path), env=env)


def test_a_model_of_the_library_is_updated_from_where_the_library_says(corral: Corral) -> None:
    for name in ("smollm2", "smollm2:135m"):
        order = corral.catalog.order("update", name)
        assert order == Order("update", "smollm2", {}, "model:smollm2", "pypi")
        corral.catalog.check(order)


def test_an_install_is_about_the_name_it_will_have(corral: Corral) -> None:
    assert corral.catalog.install_order("smollm2:135m").model == "smollm2"
    order = corral.catalog.install_order("https://me:pw@host.test:8443/a/Tiny.gguf?x=1", runtime="llamacpp")
    assert (order.model, order.lane, order.host) == ("tiny", "llamacpp", "host.test:8443")
    assert corral.catalog.install_order("hf:a/B-GGUF:Q4_K_M").model == "b-gguf:q4_k_m"


def test_what_is_no_order_is_refused(corral: Corral) -> None:
    with pytest.raises(InvalidName):
        corral.catalog.install_order("")
    for order in (corral.catalog.install_order("nothing"), Order("update", "nothing"), Order("remove", "nothing")):
        with pytest.raises(ModelNotFound):
            corral.catalog.check(order)
