"""A project, a pipeline of two steps and a file put together from them; then the same again with another seed.

corral pull smollm2
python examples/pipeline.py
"""

import asyncio
from typing import Any

from corral import Workspace
from corral.errors import EntryNotFound

PIPELINE = """
name: leaflet
inputs:
  topic: {type: string, required: true}
steps:
  facts:
    model: smollm2
    system: "{{ context.instructions }}"
    prompt: "Tell me one thing about {{ inputs.topic }}."
    parameters: {max_tokens: 30, temperature: 0.8}
  title:
    model: smollm2
    prompt: "Find a title of three words for this: {{ steps.facts.output }}"
    parameters: {max_tokens: 10, temperature: 0}
  leaflet: {assemble: [title, facts]}
"""


def show(message: dict[str, Any]) -> None:
    if message["type"] == "step":
        print(f"  {message['step']['key']}: {message['step']['status']}")


async def main() -> None:
    async with Workspace() as workspace:
        try:
            project = await workspace.projects.get("leaflets")
        except EntryNotFound:
            project = await workspace.projects.create("leaflets", title="Leaflets")
            await workspace.contexts.instruct(project, "Write one short sentence, for children.")
        for issue in (await workspace.pipelines.validate(PIPELINE)).issues:
            print(issue)

        result = await workspace.run(PIPELINE, project=project, inputs={"topic": "bees"}, seed=1, heard=show)
        print(f"{result.id} is {result.status}, for ${result.cost_usd:.4f}:")
        print(result.output("leaflet"))

        again = await workspace.rerun(result, seed=2)
        difference = await workspace.compare(result, again)
        print(f"With another seed, in {difference['b']['seconds']:.1f} s:")
        for step in difference["steps"]:
            print(f"  {step['key']}: {'the same' if step['equal'] else 'another answer'}")


if __name__ == "__main__":
    asyncio.run(main())
