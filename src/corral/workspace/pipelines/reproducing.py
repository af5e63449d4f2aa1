"""Why a rerun of a step may come to something else. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corral.domain.workspace import StepStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from corral.domain.workspace import Step
    from corral.workspace.pipelines.plan import Definition


def reasons(definition: Definition, steps: Iterable[Step]) -> dict[str, str]:
    """Of each step that a rerun may change why, by its key. One without a model, or that was not done, has none."""
    plans = {plan.name: plan for plan in definition.steps}
    found = {}
    for step in steps:
        if step.status is StepStatus.COMPLETED and step.request is not None and step.name in plans:
            said = "; ".join(_reasons(step, step.request, step.receipt or {}))
            if said:
                found[step.key] = said
    return found


def _reasons(step: Step, request: Mapping[str, Any], receipt: Mapping[str, Any]) -> Iterable[str]:
    asked, answered = request.get("model"), receipt.get("model") or step.model
    parameters = request.get("parameters") or {}
    ignored = receipt.get("ignored") or ()
    if receipt.get("fallbacks"):
        yield f"{asked} could not be had, and {answered} stood in for it"
    elif asked != answered:
        yield f"{asked} chose {answered}, and may choose another"
    if receipt.get("revision") is None:
        yield f"nobody says which revision of {answered} it was"
    if receipt.get("device") == "remote":
        yield f"{answered} is a vendor's, who may change it"
    if parameters.get("temperature") != 0:
        if "seed" not in parameters:
            yield "it has no seed"
        elif "seed" in ignored:
            yield f"{answered} takes no seed"
    if any(each.get("error") for each in step.tries):
        yield "it was asked again after an error"
