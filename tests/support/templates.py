"""Chat templates of the tests' own, tried out in this very process: they are no bombs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from corral.catalog import _rendering
from corral.catalog.prompting import Prompting, Template


def probe(template: Template) -> Prompting:
    answer = _rendering.try_out(template.job())
    return Prompting(tuple(answer["roles"]), answer["tools"], answer["error"])


def probe_all(templates: Sequence[Template]) -> Mapping[Template, Prompting]:
    return {template: probe(template) for template in templates}
