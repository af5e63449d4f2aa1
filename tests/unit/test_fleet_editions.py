"""The second names by which a server holds what a model was."""

from __future__ import annotations

import pytest

from corral.app.containment import told
from corral.fleet.asking import HELD
from corral.fleet.editions import aside
from corral.fleet.rollout import Renewed
from corral.kit.ollama_api import whole

NAMES = ["tiny", "tiny:1b", "user/tiny:1b", "user--tiny:1b", "127.0.0.1:5000/user/tiny", "a" * 190, "a" * 189 + "b"]


def test_two_models_never_share_one():
    names = [aside(name, done=done) for name in NAMES for done in (False, True)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_name_that_a_server_takes_and_keeps_the_tag(name):
    held, kept = aside(name), aside(name, done=True)
    for second, lead in zip((held, kept), HELD, strict=True):
        folder, _, rest = second.partition("/")
        assert f"{folder}/" == lead
        assert rest.count(":") == 1
        assert rest.rpartition(":")[2] == whole(name).rpartition(":")[2]
        assert "/" not in rest
        assert len(rest) < 80


def test_the_tag_that_goes_without_saying_is_the_same_model():
    assert aside("tiny") == aside("tiny:latest")


def test_what_became_of_an_update_is_told_in_one_line():
    done = [
        Renewed("coder", None, "updated"),
        Renewed("coder", "tiny:1b", "undone"),
        Renewed("other", None, "not tried"),
    ]
    assert told(done) == "coder: updated; coder/tiny:1b: undone; other: not tried"
    assert told([]) == "there is nothing to update"
