"""What the documents of a snapshot say: config.json, generation_config.json, the tokenizer's and the model card.

All of them are a stranger's: each value is taken only when it is of the kind and size that it should be.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from corral.catalog import formats
from corral.catalog.prompting import LONGEST_TEMPLATE, Template
from corral.domain.models import Capability
from corral.errors import CorruptModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from corral.catalog.formats import Shape

_ENCODERS: Final = frozenset(
    {"bert", "roberta", "xlm-roberta", "distilbert", "mpnet", "albert", "electra", "deberta", "deberta-v2", "camembert"}
    | {
        "modernbert",
        "nomic_bert",
        "new",
        "eurobert",
        "jina_bert",
        "xlm-roberta-xl",
        "ernie",
        "luke",
        "gte",
        "squeezebert",
    }
)
_WRITERS: Final = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForImageTextToText", "ForVision2Seq")
_JUDGES: Final = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
_NO_WRITERS: Final = frozenset({"whisper", "speecht5", "seamless_m4t", "vits", "clip", "siglip", "vit", "wav2vec2"})
_WRITES: Final = frozenset({Capability.COMPLETION, Capability.JSON_SCHEMA})

# The names of facts are those of a GGUF's, so that whoever reckons with them need not ask what it was.
_SIZES: Final = {
    "context_length": (
        "max_position_embeddings",
        "n_positions",
        "n_ctx",
        "max_seq_len",
        "seq_length",
        "max_sequence_length",
    ),
    "embedding_length": ("hidden_size", "n_embd", "d_model", "dim"),
    "block_count": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "head_count": ("num_attention_heads", "n_head", "n_heads"),
    "head_count_kv": ("num_key_value_heads", "num_kv_heads"),
    "key_length": ("head_dim",),
    "sliding_window": ("sliding_window",),
    "expert_count": ("num_local_experts", "num_experts", "n_routed_experts"),
    "vocab_size": ("vocab_size", "padded_vocab_size"),
}
_SAMPLING: Final = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repetition_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
_TOKENS: Final = ("bos_token", "eos_token", "unk_token", "pad_token")
_LONGEST_CARD: Final = 1 << 16
_MATTER: Final = re.compile(r"\A\ufeff?---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", re.DOTALL)
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9.\-_+ ]{0,60}")


def read(shape: Shape) -> tuple[frozenset[Capability], dict[str, Any]]:
    """What the model can do but for chats, and its facts. Blocks.

    Raises:
        CorruptModel: config.json cannot be read.
    """
    try:
        config = formats.document(shape.documents["config.json"])
    except (OSError, ValueError) as error:
        raise CorruptModel("config.json of the snapshot cannot be read.", "Fetch it again.") from error
    facts = _of_config(config)
    facts |= _of_weights(shape, config)
    facts |= _of_card(shape.documents)
    sampling = _sampling(_document(shape, "generation_config.json"))
    if sampling:
        facts["sampling"] = sampling
    return _able(shape, config), facts


def template(shape: Shape) -> Template | None:
    """The chat template of the tokenizer: a file of its own counts more than one inside its configuration."""
    config = _document(shape, "tokenizer_config.json")
    named = _named(config.get("chat_template"))
    named |= _named(_document(shape, "chat_template.json").get("chat_template"))
    for key, name in (("default", "chat_template.jinja"), ("tool_use", "additional_chat_templates/tool_use.jinja")):
        if name in shape.documents:
            named[key] = _text(shape.documents[name], 4 * LONGEST_TEMPLATE)
    if not named.get("default"):
        return None
    tokens = {key: _token(config.get(key)) for key in _TOKENS}
    return Template(
        named["default"], named.get("tool_use"), tuple((key, value) for key, value in tokens.items() if value)
    )


def _named(found: object) -> dict[str, str]:
    """Templates by name, from one text or from a list of {name, template}."""
    if isinstance(found, str):
        return {"default": found}
    entries = found if isinstance(found, list) else []
    return {
        entry["name"]: entry["template"]
        for entry in entries[:32]
        if isinstance(entry, dict) and isinstance(entry.get("name"), str) and isinstance(entry.get("template"), str)
    }


def _token(found: object) -> str | None:
    text = found.get("content") if isinstance(found, dict) else found
    return text if isinstance(text, str) and len(text) <= 100 else None


def _document(shape: Shape, name: str) -> dict[str, Any]:
    """A document of the snapshot, empty when it is not there or unfit: only config.json must be sound."""
    try:
        return formats.document(shape.documents[name])
    except (KeyError, OSError, ValueError):
        return {}


def _text(path: Path, longest: int) -> str:
    with path.open("rb") as stream:
        return stream.read(longest).decode("utf-8", "replace")


def _sections(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The configuration, and the part of it that is about text where it has several."""
    yield config
    for key in ("text_config", "llm_config", "language_config", "thinker_config"):
        section = config.get(key)
        if isinstance(section, dict):
            yield section


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for section in _sections(config):
        for name in names:
            value = section.get(name)
            if type(value) is int and 0 < value < 1 << 40:
                return value
    return None


def _of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    kind = config.get("model_type")
    found: dict[str, Any] = {
        "architecture": kind if isinstance(kind, str) and len(kind) <= 100 else "unknown",
        "architectures": _architectures(config),
    }
    return found | {key: value for key, names in _SIZES.items() if (value := _first(config, names)) is not None}


def _architectures(config: Mapping[str, Any]) -> list[str]:
    found = config.get("architectures")
    return (
        [item for item in found if isinstance(item, str) and len(item) <= 100][:10] if isinstance(found, list) else []
    )


def _of_weights(shape: Shape, config: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters and quantisation, from the headers of the weights and what the configuration says of them."""
    dtypes: Counter[str] = Counter()
    for header in shape.weights:
        dtypes.update(header.dtypes)
    found: dict[str, Any] = {}
    if shape.weights:
        found["parameters"] = sum(header.parameters for header in shape.weights)
        found["dtypes"] = dict(dtypes)
        found["quantization"] = max(dtypes, key=lambda kind: dtypes[kind], default="unknown")
    quantised = config.get("quantization_config")
    if isinstance(quantised, dict) and isinstance(quantised.get("quant_method"), str):
        bits = quantised.get("bits", quantised.get("w_bit"))
        method = quantised["quant_method"][:40]
        found["quantization"] = f"{method}-{bits}bit" if type(bits) is int and 0 < bits <= 16 else method
    found["has_chat_template"] = template(shape) is not None
    return found


def _of_card(documents: Mapping[str, Path]) -> dict[str, Any]:
    """Licence and languages from the lines at the top of README.md: simple YAML, read without a YAML reader."""
    if "README.md" not in documents:
        return {}
    matter = _MATTER.match(_text(documents["README.md"], _LONGEST_CARD).replace("\r\n", "\n"))
    lines = matter[1].split("\n") if matter else []
    found: dict[str, Any] = {}
    languages = _values(lines, "language")
    licence = _values(lines, "license")
    if licence and licence[0] == "other":
        licence = _values(lines, "license_name") or licence
    if languages:
        found["languages"] = languages[:300]
    if licence:
        found["licence"] = licence[0]
    return found


def _values(lines: list[str], key: str) -> list[str]:
    """What stands under a key: one word, a list in brackets, or a list of lines that begin with a dash."""
    for number, line in enumerate(lines):
        name, colon, rest = line.partition(":")
        if name != key or not colon:
            continue
        rest = rest.partition(" #")[0].strip()
        items = rest.strip("[]").split(",") if rest else []
        for below in lines[number + 1 :] if not rest else []:
            text = below.strip()
            if not text.startswith("- "):
                break
            items.append(text[2:])
        words = [item.strip().strip("'\"") for item in items]
        return [word for word in words if _WORD.fullmatch(word)]
    return []


def _sampling(config: Mapping[str, Any]) -> dict[str, float]:
    if config.get("do_sample") is False:
        return {}
    found: dict[str, float] = {}
    for theirs, ours in _SAMPLING.items():
        match config.get(theirs):
            case bool():
                continue
            case int() | float() as value if abs(value) < 1 << 20:
                found[ours] = value
    return found


def _able(shape: Shape, config: Mapping[str, Any]) -> frozenset[Capability]:
    architectures, kind = _architectures(config), config.get("model_type")
    if "modules.json" in shape.documents or "config_sentence_transformers.json" in shape.documents:
        return frozenset({Capability.EMBEDDINGS})
    if any(name.endswith(_JUDGES) for name in architectures) or kind in _NO_WRITERS:
        return frozenset()
    if kind in _ENCODERS:
        return frozenset({Capability.EMBEDDINGS})
    if not any(name.endswith(_WRITERS) for name in architectures):
        return _WRITES if not architectures and template(shape) is not None else frozenset()
    sees = isinstance(config.get("vision_config"), dict) or "vision_tower" in config
    return _WRITES | ({Capability.VISION} if sees else frozenset())
