"""One entry of LiteLLM's `model_list`, as a model of Corral: who its vendor is, where, and with whose key.

A key is never carried over, only the name of the variable that holds it; no value that may be one is repeated anywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_REFERENCE = "os.environ/"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SECRET = re.compile(r"key|token|secret|auth|cookie|password|credential", re.IGNORECASE)
_NO_KEY = frozenset({"", "none", "null", "empty", "dummy", "fake", "fake-key", "no-key", "not-needed", "anything"})
"""What people write where a server wants no key."""
_VENDORS: Mapping[str, tuple[str, str]] = {
    "openai": ("openai", "OPENAI_API_KEY"),
    "text-completion-openai": ("openai", "OPENAI_API_KEY"),
    "groq": ("groq", "GROQ_API_KEY"),
    "mistral": ("mistral", "MISTRAL_API_KEY"),
    "deepseek": ("deepseek", "DEEPSEEK_API_KEY"),
    "together_ai": ("together", "TOGETHERAI_API_KEY"),
    "openrouter": ("openrouter", "OPENROUTER_API_KEY"),
    "xai": ("xai", "XAI_API_KEY"),
    "fireworks_ai": ("fireworks", "FIREWORKS_API_KEY"),
    "cerebras": ("cerebras", "CEREBRAS_API_KEY"),
    "perplexity": ("perplexity", "PERPLEXITYAI_API_KEY"),
    "huggingface": ("huggingface", "HF_TOKEN"),
    "nvidia_nim": ("nvidia", "NVIDIA_NIM_API_KEY"),
}
"""LiteLLM's word for a vendor → Corral's, and the variable that LiteLLM reads the key from."""
_SERVERS: Mapping[str, str] = {
    "hosted_vllm": "HOSTED_VLLM_API_KEY",
    "vllm": "HOSTED_VLLM_API_KEY",
    "openai_like": "OPENAI_LIKE_API_KEY",
    "custom_openai": "OPENAI_API_KEY",
    "litellm_proxy": "LITELLM_PROXY_API_KEY",
    "lm_studio": "LM_STUDIO_API_KEY",
    "llamafile": "LLAMAFILE_API_KEY",
    "docker_model_runner": "DOCKER_MODEL_RUNNER_API_KEY",
}
"""Servers that anybody runs, and speak OpenAI's dialect. Without a key in the file they are asked without."""
_UNPREFIXED = (
    (re.compile(r"gpt-|chatgpt-|o[1-9](-|$)|text-embedding-|ft:gpt-"), "openai"),
    (re.compile(r"claude-"), "anthropic"),
    (re.compile(r"deepseek-(chat|reasoner)$"), "deepseek"),
    (re.compile(r"gemini-"), "vertex_ai"),
)
_UNREACHED: Mapping[str, str] = {
    "vertex_ai": "It is reached with a service account of Google Cloud, which Corral has no runtime for. "
    "The same models answer as gemini/NAME with an API key: runtime `gemini`.",
    "bedrock": "Corral has no runtime for it. Put a gateway of OpenAI's dialect before it, and import openai/NAME.",
}
_OF_REQUESTS = frozenset(
    {"temperature", "top_p", "top_k", "seed", "stop", "presence_penalty", "frequency_penalty", "n", "user"}
    | {"reasoning_effort", "response_format", "max_completion_tokens", "logprobs", "parallel_tool_calls"}
)
"""What LiteLLM adds to each request that does not say so itself."""
_TAKEN = frozenset(
    {"model", "api_key", "api_base", "base_url", "api_version", "custom_llm_provider", "litellm_credential_name"}
    | {"organization", "extra_headers", "headers", "extra_body", "max_tokens", "additional_drop_params", "drop_params"}
    | {"weight", "rpm", "tpm", "order", "max_parallel_requests", "timeout", "stream_timeout", "max_retries"}
)
_PRICES: Mapping[str, str] = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cached",
    "cache_creation_input_token_cost": "cache_write",
    "output_cost_per_reasoning_token": "reasoning",
    "input_cost_per_audio_token": "audio_input",
    "output_cost_per_audio_token": "audio_output",
    "output_cost_per_image": "image",
    "input_cost_per_request": "request",
}
_INSTEAD: Mapping[str, str] = {
    "max_budget": "Budgets are for keys and projects: corral budgets create --help",
    "budget_duration": "Budgets are for keys and projects: corral budgets create --help",
    "tags": "Corral does not choose by tags: give each its own model's name, and keys the names they may use.",
    "mock_response": "The runtime `fake` answers without any model.",
}
_INFORMS = frozenset({"mode", "id", "base_model", "max_input_tokens", "max_tokens", "max_output_tokens"})
_MILLION = 1_000_000


class UnfitError(Exception):
    """Why an entry cannot be taken over."""


@dataclass(slots=True)
class Deployment:
    """One entry of `model_list`. `entry` is for `models:`, `price` for `prices:`; `reasons` say what is not in them."""

    name: str
    entry: dict[str, Any]
    price: dict[str, Any] = field(default_factory=dict)
    weight: float | None = None
    rpm: float | None = None
    tpm: float | None = None
    order: int | None = None
    limit: int | None = None
    timeout: float | None = None
    retries: int | None = None
    reasons: list[str] = field(default_factory=list)


def deployment(
    name: str, item: Mapping[str, Any], credentials: Mapping[str, Any], env: Mapping[str, str]
) -> Deployment:
    """The model that an entry describes.

    Args:
        name: what clients ask for.
        item: the entry.
        credentials: `credential_list`, by name.
        env: fills in what the entry takes from the environment, except keys.

    Raises:
        UnfitError: there is no such model here.
    """
    return _Reading(name, item, credentials, env).done()


class _Reading:
    """Reads one entry."""

    def __init__(
        self, name: str, item: Mapping[str, Any], credentials: Mapping[str, Any], env: Mapping[str, str]
    ) -> None:
        given = item.get("litellm_params")
        if not isinstance(given, dict):
            raise UnfitError("It has no `litellm_params`.")
        named = given.get("litellm_credential_name")
        named = None if named is None else str(named)
        if named is not None and named not in credentials:
            raise UnfitError("Its `litellm_credential_name` names no credential of `credential_list`.")
        self._params: dict[str, Any] = {**credentials.get(named or "", {}), **given}
        info = item.get("model_info")
        self._info: Mapping[str, Any] = info if isinstance(info, dict) else {}
        self._env = env
        self._made = Deployment(name, {})
        self._options: dict[str, Any] = {}

    def done(self) -> Deployment:
        """The whole of it."""
        made = self._made
        provider, model = self._provider()
        runtime = self._vendor(provider, model)
        self._bounds(runtime)
        self._defaults(runtime)
        context = self._info.get("max_input_tokens") or self._info.get("max_tokens")
        if _whole(context):
            self._options["context"] = context
        made.entry = {"runtime": runtime, "options": self._options}
        self._price(provider)
        for key in sorted(map(str, self._params.keys() - _TAKEN - _OF_REQUESTS - _PRICES.keys())):
            made.reasons.append(f"`{key[:60]}` is not taken over. {_INSTEAD.get(key, '')}".rstrip())
        strange = {key for key in map(str, self._info) if key not in _INFORMS and key not in _PRICES}
        strange = {key for key in strange if not key.startswith("supports_")}
        if strange:
            made.reasons.append(f"Not taken over from `model_info`: {', '.join(sorted(strange))[:200]}.")
        return made

    def _provider(self) -> tuple[str, str]:
        model = self._text("model")
        if not model:
            raise UnfitError("Its `litellm_params` name no `model`.")
        if "*" in model or "*" in self._made.name:
            raise UnfitError(
                "It stands for many models; Corral's have a name each. Write the ones you use, one by one."
            )
        said = self._text("custom_llm_provider")
        head, slash, rest = model.partition("/")
        known = {*_VENDORS, *_SERVERS, "azure", "anthropic", "gemini", "ollama", "ollama_chat", *_UNREACHED}
        if said:
            return said, rest if slash and head == said else model
        if slash and head in known:
            return head, rest
        found = next((vendor for pattern, vendor in _UNPREFIXED if pattern.match(model)), None)
        if found is not None and not slash:
            return found, model
        if slash:
            raise UnfitError(f"Corral has no runtime for {head[:60]!r}. {_HOW}")
        raise UnfitError(f"Its `model` does not say whose it is. Write it as PROVIDER/NAME. {_HOW}")

    def _vendor(self, provider: str, model: str) -> str:
        """The runtime, with its options set."""
        if provider in _UNREACHED:
            raise UnfitError(_UNREACHED[provider])
        base = self._address()
        if provider in {"ollama", "ollama_chat"}:
            return self._ollama(model, base)
        self._options["upstream_model"] = model
        if provider == "azure":
            return self._azure(model, base)
        if provider in {"anthropic", "gemini"}:
            return self._native(provider, base)
        if provider in _VENDORS and (not base or provider != "openai"):
            self._listed(provider, model, base)
        elif provider in _SERVERS or provider == "openai":
            if not base:
                raise UnfitError("It has no `api_base`, and only you know where it is.")
            self._options["base_url"] = base
            self._key(_SERVERS.get(provider, "OPENAI_API_KEY"), usual=provider == "openai")
        else:
            raise UnfitError(f"Corral has no runtime for {provider[:60]!r}. {_HOW}")
        if self._text("organization"):
            self._options["organization"] = self._text("organization")
        return "openai"

    def _native(self, provider: str, base: str) -> str:
        """Vendors whose own dialect Corral speaks."""
        if base:
            anthropic = provider == "anthropic"
            self._options["base_url"] = (
                f"{base.removesuffix('/messages').removesuffix('/v1')}/v1" if anthropic else base
            )
        self._key("ANTHROPIC_API_KEY" if provider == "anthropic" else "GEMINI_API_KEY")
        return provider

    def _listed(self, provider: str, model: str, base: str) -> None:
        """Vendors of OpenAI's dialect that Corral knows."""
        vendor, variable = _VENDORS[provider]
        self._options["vendor"] = vendor
        if provider == "fireworks_ai" and not model.startswith("accounts/"):
            self._options["upstream_model"] = f"accounts/fireworks/models/{model}"
        if provider == "openai":
            self._options["upstream_model"] = model.removeprefix("responses/")
        if base:
            self._options["base_url"] = base
        self._key(variable)

    def _ollama(self, model: str, base: str) -> str:
        """Ollama is given what is said of a model when it is loaded, and has no key."""
        self._options["model"] = model
        self._options["base_url"] = base or "http://localhost:11434"
        if self._params.get("api_key"):
            self._made.reasons.append("Its `api_key` is not taken over: the runtime `ollama` sends none.")
        return "ollama"

    def _azure(self, model: str, base: str) -> str:
        if not base:
            raise UnfitError("It has no `api_base`: the address of your resource, https://RESOURCE.openai.azure.com")
        version = self._text("api_version")
        root = base.partition("/openai")[0]
        self._options["vendor"] = "azure"
        if "/openai/v1" in base or version in {"", "v1", "preview", "latest"}:
            self._options["base_url"] = f"{root}/openai/v1"
        else:
            self._options["base_url"] = f"{root}/openai/deployments/{model}"
            self._options["api_version"] = version
        self._key("AZURE_API_KEY")
        return "openai"

    def _address(self) -> str:
        base = (self._text("api_base") or self._text("base_url")).rstrip("/")
        if base and ("?" in base or "#" in base or "@" in base or not base.startswith(("http://", "https://"))):
            raise UnfitError("Its `api_base` is no address, or more than one: http or https, without name and query.")
        return base

    def _key(self, variable: str, *, usual: bool = True) -> None:
        """The variable that holds the key. `usual`: without a word of it, the vendor's own."""
        said = self._params.get("api_key")
        if said is None:
            if usual:
                self._options["api_key_env"] = variable
            return
        text = str(said)
        named = text.removeprefix(_REFERENCE)
        if named != text and _VARIABLE.fullmatch(named):
            self._options["api_key_env"] = named
        elif text.strip().lower() not in _NO_KEY:
            self._options["api_key_env"] = variable
            reason = "Its key is written in the file, and is not copied: export"
            self._made.reasons.append(f"{reason} {variable}=… where Corral runs, or name another as `api_key_env`.")
        elif "vendor" in self._options:
            self._options["api_key_env"] = variable

    def _bounds(self, runtime: str) -> None:
        made = self._made
        made.weight, made.rpm, made.tpm = self._number("weight"), self._number("rpm"), self._number("tpm")
        order, limit, retries = (self._number(key) for key in ("order", "max_parallel_requests", "max_retries"))
        made.order = None if order is None else int(order)
        made.limit = int(limit) if limit else None
        made.retries = None if retries is None else int(retries)
        made.timeout = self._number("timeout") or None
        if self._number("stream_timeout"):
            made.reasons.append(
                "`stream_timeout` is not taken over: Corral waits for the first byte of streams as of others."
            )
        for key in ("rpm", "tpm"):
            if self._number(key):
                made.reasons.append(
                    f"`{key}` bounds no model here: what a vendor refuses with 429 is waited for, or asked elsewhere; "
                    "keys have such limits: corral keys create --help"
                )
        if self._params.get("drop_params") is False:
            made.reasons.append(
                "`drop_params: false` is a client's or a key's to ask for: x-corral-strict, or strict keys."
            )
        if runtime == "ollama":
            self._params.pop("organization", None)

    def _defaults(self, runtime: str) -> None:
        """What is added to requests, as far as the runtime can."""
        given = {key: value for key, value in self._params.items() if key in _OF_REQUESTS and value is not None}
        body = self._params.get("extra_body")
        most = self._params.get("max_tokens")
        reasons = self._made.reasons
        if runtime == "openai":
            given |= body if isinstance(body, dict) else {}
            given |= {"max_tokens": most} if _whole(most) else {}
            if given:
                self._options["extra"] = _plain(given, reasons)
        else:
            if runtime in {"anthropic", "gemini"} and _whole(most):
                self._options["max_output"] = most
            elif most is not None:
                reasons.append("`max_tokens` is not taken over: Ollama's own is `parameters: {num_predict: …}`.")
            if runtime == "ollama" and given:
                own = {key: given.pop(key) for key in ("temperature", "top_p", "top_k", "seed") if key in given}
                self._options |= {"parameters": own} if own else {}
            if given or body:
                names = ", ".join(sorted([*given, *(["extra_body"] if body else [])]))
                reasons.append(f"Not taken over: {names}. The runtime `{runtime}` adds nothing to requests.")
        self._headers(runtime)
        drop = self._params.get("additional_drop_params")
        if isinstance(drop, list) and runtime in {"openai", "anthropic"}:
            self._options["drop"] = sorted(str(each) for each in drop)

    def _headers(self, runtime: str) -> None:
        for key in ("headers", "extra_headers"):
            given = self._params.get(key)
            if not isinstance(given, dict) or not given:
                continue
            kept = {str(name): str(value) for name, value in given.items() if not _SECRET.search(str(name))}
            kept = {name: value for name, value in kept.items() if not value.startswith(_REFERENCE)}
            if runtime == "ollama":
                kept = {}
            if kept:
                self._options["headers"] = {**self._options.get("headers", {}), **kept}
            lost = sorted(str(name) for name in given if str(name) not in kept)
            if lost:
                self._made.reasons.append(
                    f"Headers not taken over, as they may be secrets or are not sent: {', '.join(lost)[:200]}."
                )

    def _price(self, provider: str) -> None:
        """Per token there, per million here; of the same in both places `litellm_params` count."""
        price = self._made.price
        for source in (self._info, self._params):
            for key, ours in _PRICES.items():
                value = _amount(source.get(key))
                if value is not None and value < _MILLION:
                    price[ours] = round(value * (1 if ours in {"image", "request"} else _MILLION), 9)
        base = self._info.get("base_model")
        if isinstance(base, str) and base and not price:
            vendor, slash, model = base.partition("/")
            price["like"] = f"{vendor}:{model}" if slash else f"{provider}:{base}"

    def _text(self, key: str) -> str:
        """A value that is no secret, taken from the environment where the file says so."""
        value = self._params.get(key)
        if value is None or isinstance(value, dict | list):
            return ""
        text = str(value)
        if text.startswith(_REFERENCE):
            name = text.removeprefix(_REFERENCE)
            if not self._env.get(name):
                raise UnfitError(f"Its `{key}` is in the environment's {name[:60]}, which has none.")
            text = self._env[name]
        return text.strip()

    def _number(self, key: str) -> float | None:
        return _amount(self._params.get(key))


_HOW = "What speaks OpenAI's dialect is imported as openai/NAME with an `api_base`."


def _plain(given: dict[str, Any], reasons: list[str]) -> dict[str, Any]:
    """What may be written into the file: nothing that may be a secret."""
    hidden = sorted(key for key in map(str, given) if _SECRET.search(key) and not key.startswith(("max_", "logprobs")))
    if hidden:
        reasons.append(f"Not taken over from `extra_body`, as they may be secrets: {', '.join(hidden)[:200]}.")
    return {str(key): value for key, value in given.items() if str(key) not in hidden}


def _amount(value: object) -> float | None:
    """A number of at least 0. YAML takes `1e-6` for a text, so that a text may be one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number < float("inf") else None


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
