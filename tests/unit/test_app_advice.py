"""What a revision may say of how it is launched: how it talks, and nothing that touches this machine."""

from pathlib import Path

import pytest

from corral.app import Corral
from corral.app.described import Describer
from corral.config import load
from corral.domain.models import FileEntry, Installed, Revision


@pytest.fixture
def corral(tmp_path: Path) -> Corral:
    env = {"HOME": str(tmp_path)}
    return Corral(load(env, cwd=tmp_path), env=env)


def advised(corral: Corral, **defaults: object) -> dict[str, object]:
    installed = Installed("m", Revision("s3://b#m", "gguf", (), defaults=defaults), 0.0)
    return corral._defaults("llamacpp", installed)


def test_how_a_model_talks_is_its_own_to_say(corral: Corral) -> None:
    said = {"temperature": 0.2, "stop": ["x"], "system": "Be brief.", "context": 512, "chat_template": "{{ messages }}"}
    assert advised(corral, **said) == said


def test_what_touches_this_machine_is_not(corral: Corral) -> None:
    paths = {"mmproj": "/etc/passwd", "lora": {"/etc/passwd": 1.0}, "chat_template": "/dev/zero"}
    assert advised(corral, **paths, slots=1 << 20, threads=999, prompt_cache_mib=1 << 30, unknown=1) == {}


def test_a_model_in_a_folder_of_its_own_has_no_digest_to_show(corral: Corral, tmp_path: Path) -> None:
    revision = Revision("file:m", "gguf", (FileEntry("m.gguf", 1, "ab" * 32),))
    assert Describer(corral).metadata(Installed("m", revision, 0.0, folder=tmp_path)).sha256 is None
    assert Describer(corral).metadata(Installed("m", revision, 0.0)).sha256 == "ab" * 32
