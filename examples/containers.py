"""Look at the containers of a configuration, bring each up, ask its models, and see what it takes.

python examples/containers.py [corral.yaml]
"""

from __future__ import annotations

import asyncio
import sys

from corral import DockerManager, OllamaClient


async def main(config: str | None) -> None:
    async with DockerManager(config) as docker:
        stack = await docker.get_stack_status()
        print("Docker:", stack["engine"]["version"] if stack["docker"] else stack["reason"])
        print(f"{stack['active']} of {stack['total']} containers answer")
        models = OllamaClient(corral=docker.corral)
        for container in stack["containers"]:
            name = container["name"]
            if not await docker.start_container(name):
                print(f"{name}: {(await docker.get_container_status(name))['reason']}")
                continue
            for model in await models.list_models(name):
                said = await models.test_model(model, name)
                version = await models.get_model_version(model, name)
                print(f"{name}: {model} ({version[:12]}):", said["response"] if said["success"] else said["error"])
            usage = await docker.get_container_stats(name)
            print(f"{name}: {(usage['memory_usage'] or 0) / 1e6:.0f} MB, {usage['cpu_percent']} % of a processor")
        for found in await docker.get_active_models():
            print(f"{found['name']} at {found['openai_base_url']}")


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else None))
