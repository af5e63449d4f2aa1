"""How the next token of each request is chosen, in a batch of many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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
        self._generators: dict[str, Any] = {}

    def fill_defaults(self, tensor: Any) -> None:
        """Nothing is kept in tensors."""
        tensor.zero_()

    def prepare_tensor_args(self, requests: Sequence[Any]) -> Any:
        """Note which requests the rows of the next scores are of."""
        self._states = [request.state for request in requests]
        known = {state.request_id for state in self._states}
        self._generators = {name: found for name, found in self._generators.items() if name in known}
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
        scores = scores / plan["temperature"]
        count = min(plan["top_k"] or scores.shape[0], scores.shape[0])
        best, tokens = torch.topk(scores, count)  # sorted, the best first
        shares = torch.softmax(best, dim=-1)
        out = torch.cumsum(shares, dim=-1) - shares >= plan["top_p"]
        out |= shares < plan["min_p"] * shares[0]
        out[0] = False
        # Chance is dealt out in the order of the vocabulary: many scores are equal in bfloat16, and their order is not
        # the same twice, so that in the order of the scores a seed would mean another token each time.
        shares = torch.zeros_like(scores).scatter(0, tokens, shares.masked_fill(out, 0.0))
        return int(torch.multinomial(shares, 1, generator=self._generator(plan, state, scores.device)))

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

    def _generator(self, plan: Mapping[str, Any], state: Any, device: Any) -> Any:
        seed = plan.get("seed")
        if seed is None:
            return None
        if state.request_id not in self._generators:
            self._generators[state.request_id] = self._torch.Generator(device=device).manual_seed(seed)
        return self._generators[state.request_id]
