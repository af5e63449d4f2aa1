"""How the next token of each request is chosen, in a batch of many."""

from __future__ import annotations

from hashlib import blake2b
from os import urandom
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MANY = 1024
"""Tokens that nearly always hold what `top_p` asks for; to sort a whole vocabulary takes longer than to compute one."""


def sampling(config: Any) -> dict[str, Any]:
    """How the library's generation config says that the next token is chosen; empty is the likeliest."""
    found: dict[str, Any] = {
        "repetition": config.repetition_penalty or 1.0,
        "presence": getattr(config, "presence_penalty", None) or 0.0,
        "frequency": getattr(config, "frequency_penalty", None) or 0.0,
    }
    if config.do_sample:
        found |= {
            "temperature": 1.0 if config.temperature is None else config.temperature,
            "top_k": config.top_k or 0,
            "top_p": 1.0 if config.top_p is None else config.top_p,
            "min_p": config.min_p or 0.0,
            "seed": getattr(config, "seed", None),
        }
    neutral = {"repetition": 1.0, "presence": 0.0, "frequency": 0.0}
    return {name: value for name, value in found.items() if name not in neutral or value != neutral[name]}


class Chooser:
    """Chooses each request's next token by its own parameters, in a batch of many.

    To the library it is a processor of scores, registered as one of those that know requests apart: it leaves the
    chosen token as the likeliest.
    """

    supported_kwargs: Mapping[str, type] = {"sampling": dict}
    ignored_kwargs: tuple[str, ...] = ()

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._states: list[Any] = []

    def fill_defaults(self, tensor: Any) -> None:
        """Nothing is kept in tensors."""
        tensor.zero_()

    def prepare_tensor_args(self, requests: Sequence[Any]) -> Any:
        """Note which requests the rows of the next scores are of."""
        self._states = [request.state for request in requests]
        return self._torch.zeros(len(self._states), dtype=self._torch.int32)

    def __call__(self, scores: Any, _: Any) -> Any:
        """Scores in which the chosen token of each row is the likeliest."""
        plans = [state.logit_processor_kwargs.get("sampling") or {} for state in self._states]
        if not any(plans):
            return scores
        chosen = scores.clone()
        for row, (state, plan) in enumerate(zip(self._states, plans, strict=True)):
            if plan and row < chosen.shape[0]:
                token = self._choose(chosen[row].float(), plan, state)
                chosen[row].fill_(float("-inf"))
                chosen[row, token] = 0.0
        return chosen

    def _choose(self, scores: Any, plan: Mapping[str, Any], state: Any) -> int:
        torch = self._torch
        scores = self._penalised(scores, plan, state)
        if not plan.get("temperature"):
            return int(scores.argmax())
        tokens, shares = self._likely(torch.softmax(scores / plan["temperature"], dim=-1), plan)
        if plan.get("seed") is not None:
            at = int((shares / self._noise(plan["seed"], state, tokens, whole=scores.shape[0]).to(shares)).argmax())
        else:
            sums = torch.cumsum(shares, dim=-1)
            at = int(torch.searchsorted(sums, sums[-1:] * chance(), right=True))
            at = at if at < shares.shape[0] else int(shares.argmax())  # rounding
        return at if tokens is None else int(tokens[at])

    def _noise(self, seed: int, state: Any, tokens: Any, *, whole: int) -> Any:
        """What the share of each token is divided by, so that the greatest quotient is one drawn by these shares.

        Each token of the vocabulary has its own, by the seed and the place in the text alone: scores whose last digits
        differ, as with what else is computed beside, seldom change a token, and a request can be put back and read
        again.
        """
        digest = blake2b(f"{seed}/{state.current_len()}".encode(), digest_size=7).digest()
        generator = self._torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        noise = self._torch.empty(whole).exponential_(generator=generator)
        return noise if tokens is None else noise[tokens.to("cpu")]

    def _likely(self, shares: Any, plan: Mapping[str, Any]) -> tuple[Any, Any]:
        """The tokens among which chance decides, and the share of each; None for the tokens is the whole vocabulary."""
        torch, whole = self._torch, shares.shape[0]
        top_k, top_p, min_p = min(plan["top_k"] or whole, whole), plan["top_p"], plan["min_p"]
        if top_k == whole and top_p >= 1:
            return None, shares.masked_fill(shares < min_p * shares.max(), 0.0)
        best, tokens = torch.topk(shares, top_k if top_k < whole else min(_MANY, whole))  # sorted, the best first
        total = best.sum() if top_k < whole else 1.0
        if top_k == whole and best.sum() < top_p:
            best, tokens = torch.topk(shares, whole)
        kept = torch.cumsum(best, dim=-1) - best < top_p * total
        kept &= best >= min_p * best[0]
        kept[0] = True
        return tokens[kept], best[kept]

    def _penalised(self, scores: Any, plan: Mapping[str, Any], state: Any) -> Any:
        torch = self._torch
        repetition = plan.get("repetition", 1.0)
        if repetition != 1.0:
            seen = torch.tensor([*state.initial_tokens, *state.generated_tokens], device=scores.device).unique()
            held = scores[seen]
            scores[seen] = torch.where(held > 0, held / repetition, held * repetition)
        presence, frequency = plan.get("presence", 0.0), plan.get("frequency", 0.0)
        if (presence or frequency) and state.generated_tokens:
            said = torch.tensor(state.generated_tokens, device=scores.device)
            seen, counts = said.unique(return_counts=True)
            scores[seen] -= presence + frequency * counts
        return scores


def chance() -> float:
    """A number from 0 to 1, without 1."""
    return (int.from_bytes(urandom(8), "big") >> 11) / 2**53
