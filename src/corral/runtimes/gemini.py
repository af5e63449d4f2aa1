"""Runtime `gemini`: Google's Gemini, or a server of its dialect. Nothing is started: the engine is an address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from corral.dialects.form import Profile
from corral.domain.models import Capability
from corral.domain.ports import Availability, Endpoint, LaunchSpec, Report, SessionFacts
from corral.errors import InvalidRequest, UnknownOption
from corral.kit.vendor import Question, RemoteSession, check_headers, check_least, check_url, check_variable, secret

_KEYS = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
_CATEGORIES = {
    "harassment": "HARM_CATEGORY_HARASSMENT",
    "hate_speech": "HARM_CATEGORY_HATE_SPEECH",
    "sexually_explicit": "HARM_CATEGORY_SEXUALLY_EXPLICIT",
    "dangerous_content": "HARM_CATEGORY_DANGEROUS_CONTENT",
}
_THRESHOLDS = {
    "off": "OFF",
    "none": "BLOCK_NONE",
    "only_high": "BLOCK_ONLY_HIGH",
    "medium_and_above": "BLOCK_MEDIUM_AND_ABOVE",
    "low_and_above": "BLOCK_LOW_AND_ABOVE",
}
_PRESETS: dict[str, Mapping[str, str]] = {
    "default": {},
    "permissive": dict.fromkeys(_CATEGORIES, "none"),
    "strict": dict.fromkeys(_CATEGORIES, "low_and_above"),
}
_LEVELS = ("minimal", "low", "medium", "high")


@dataclass(frozen=True, slots=True)
class _Kin:
    """What a family of models is like: how it takes wishes for thoughts, within which budgets, and its context."""

    thinking: str
    budgets: tuple[int, int] | None = None
    context: int | None = 1_048_576


_KINDS = (
    ("gemini-1.5", _Kin("none", context=None)),
    ("gemini-2.0", _Kin("none")),
    ("gemini-2.5-pro", _Kin("budget", (128, 32768))),
    ("gemini-2.5-flash", _Kin("budget", (0, 24576))),
    ("gemini-3", _Kin("level")),
    ("gemma", _Kin("none", context=None)),
)
"""The families by how their names begin. Of a model of no family nothing is supposed."""
_OTHER = _Kin("effort", context=None)


@dataclass(frozen=True, slots=True)
class GeminiOptions:
    """How Gemini is asked.

    Attributes:
        base_url: the address up to where the dialect's paths begin.
        api_key_env: the environment variable that holds the key; None looks into GEMINI_API_KEY, then GOOGLE_API_KEY.
        upstream_model: Google's name for the model; None is the name it has here.
        safety: how readily an answer is blocked when the request does not say: `default` (Google's own), `permissive`
            (nothing is blocked in any of the four categories that can be set), `strict` (what is harmful with a low
            probability already), or a threshold for each category by name.
        thinking_budget: tokens of thought when the request does not say; 0 for none, -1 for as many as the model likes.
        thinking_level: `minimal`, `low`, `medium` or `high`, for models that take a level instead.
        max_output: most tokens of an answer, thoughts among them, when the request does not say.
        headers: sent with every request. A key does not belong here: it would stand in the configuration.
        context: tokens the model holds; None is what is known of the model.
    """

    base_url: str = "https://generativelanguage.googleapis.com/v1beta"
    api_key_env: str | None = None
    upstream_model: str | None = None
    safety: str | Mapping[str, str] = "default"
    thinking_budget: int | None = None
    thinking_level: str | None = None
    max_output: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    context: int | None = None

    def __post_init__(self) -> None:
        check_url(self.base_url, "gemini", "https://HOST/v1beta")
        check_variable(self.api_key_env, "gemini")
        check_headers(self.headers, "gemini")
        check_least({"context": self.context, "max_output": self.max_output}, "gemini")
        check_least({"thinking_budget": self.thinking_budget}, "gemini", -1)
        self.blocked()
        if self.thinking_level is not None:
            _among("thinking_level", self.thinking_level, _LEVELS)
            if self.thinking_budget is not None:
                raise InvalidRequest(
                    "Options 'thinking_budget' and 'thinking_level' for gemini exclude each other.",
                    "Models before Gemini 3 take a budget, later ones a level.",
                    param="thinking_level",
                )

    def blocked(self) -> dict[str, str]:
        """What is blocked, category by category, in Google's words; empty where that is left to Google.

        Raises:
            InvalidRequest: there is no such preset, category or threshold.
        """
        if isinstance(self.safety, str):
            _among("safety", self.safety, _PRESETS)
            chosen = _PRESETS[self.safety]
        else:
            chosen = self.safety
        out: dict[str, str] = {}
        for category, threshold in chosen.items():
            name = category.lower().removeprefix("harm_category_")
            level = threshold.lower().removeprefix("block_")
            if name not in _CATEGORIES:
                raise UnknownOption.among(category, _CATEGORIES, "safety of gemini")
            _among(f"safety.{category}", level, _THRESHOLDS)
            out[_CATEGORIES[name]] = _THRESHOLDS[level]
        return out

    def supplied(self, kin: _Kin) -> dict[str, Any]:
        """What is added to every request of such a model that does not say otherwise, by the dialect's names.

        Raises:
            InvalidRequest: the model does not think so.
        """
        out: dict[str, Any] = {}
        blocked = self.blocked()
        if blocked:
            out["safetySettings"] = [{"category": key, "threshold": value} for key, value in blocked.items()]
        if self.max_output is not None:
            out["maxOutputTokens"] = self.max_output
        if self.thinking_budget is not None:
            self._check_budget(self.thinking_budget, kin)
            out["thinkingConfig"] = {"thinkingBudget": self.thinking_budget}
        if self.thinking_level is not None:
            if kin.thinking not in {"level", "effort"}:
                raise InvalidRequest(
                    "Option 'thinking_level' for gemini: this model takes none.",
                    "It does not think." if kin.thinking == "none" else "Give it a thinking_budget.",
                    param="thinking_level",
                )
            out["thinkingConfig"] = {"thinkingLevel": self.thinking_level.upper()}
        return out

    def _check_budget(self, budget: int, kin: _Kin) -> None:
        if kin.thinking == "none" and budget:
            raise InvalidRequest(
                "Option 'thinking_budget' for gemini: this model does not think.", param="thinking_budget"
            )
        if kin.budgets is not None and budget >= 0 and not kin.budgets[0] <= budget <= kin.budgets[1]:
            raise InvalidRequest(
                f"Option 'thinking_budget' for gemini must be {kin.budgets[0]} to {kin.budgets[1]} for this model, "
                f"not {budget}.",
                "-1 leaves it to the model.",
                param="thinking_budget",
            )


def _among(option: str, value: str, known: Any) -> None:
    if value not in known:
        raise InvalidRequest(
            f"Option {option!r} for gemini cannot be {value!r:.80}.", f"It is one of {', '.join(known)}.", param=option
        )


def _kin(model: str) -> _Kin:
    name = model.rpartition("/")[2].lower()
    return next((kin for start, kin in _KINDS if name.startswith(start)), _OTHER)


class Gemini:
    """Reaches Gemini."""

    kind = "gemini"
    options = GeminiOptions
    provider = "google"
    formats: frozenset[str] = frozenset()
    preference = 0
    capabilities = frozenset(Capability)

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    async def probe(self) -> Availability:
        """Always usable: it needs nothing installed."""
        return Availability(usable=True)

    def secrets(self, options: GeminiOptions) -> tuple[str, ...]:
        """The variables of the environment of which one must hold a key."""
        return _KEYS if options.api_key_env is None else (options.api_key_env,)

    def demand(self, spec: LaunchSpec) -> None:
        """None: what it takes, it takes elsewhere."""

    async def start(self, spec: LaunchSpec, report: Report) -> RemoteSession:
        """The address, with the key as the environment has it now. Google is not asked.

        Raises:
            RuntimeUnavailable: there is no key.
            InvalidRequest: the model does not take its options.
        """
        from corral.dialects.gemini import supply

        options: GeminiOptions = spec.options
        variable = options.api_key_env or next((name for name in _KEYS if self._env.get(name, "").strip()), _KEYS[0])
        model = (options.upstream_model or spec.model).removeprefix("models/")
        kin = _kin(model)
        extra = options.supplied(kin)
        endpoint = Endpoint(
            url=options.base_url.rstrip("/"),
            dialect="gemini",
            headers={**options.headers, "x-goog-api-key": secret(self._env, variable, spec.model)},
            model=model,
            adapt=partial(_adapt, supply, extra) if extra else None,
            profile=Profile(thinking=kin.thinking, thinking_range=kin.budgets, extra=extra),
            provider=self.provider,
        )
        facts = SessionFacts(context=options.context or kin.context, device="remote", counts=True)
        return RemoteSession(endpoint, facts, question=_question)


def _question(path: str, document: Mapping[str, Any]) -> Question | None:
    """What Google is asked for the length of a prompt."""
    model, _, method = path.partition("?")[0].partition(":")
    if method not in {"generateContent", "streamGenerateContent"}:
        return None
    asked = {**document, "model": model.removeprefix("/")}
    return Question(f"{model}:countTokens", {"generateContentRequest": asked}, "totalTokens")


def _adapt(supply: Any, extra: Mapping[str, Any], path: str, document: dict[str, Any]) -> bool:
    """What a client of the same dialect sends is relayed as it is, so that what it leaves out is put in here."""
    return bool(supply(document, extra))


plugin = Gemini
