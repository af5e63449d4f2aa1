"""Install a model into a folder of its own, watch it come, look at it, and remove it again.

python examples/model_registry.py
"""

from __future__ import annotations

import asyncio
import tempfile

from corral import ModelRegistry, OperationStatus


async def finished(registry: ModelRegistry, operation_id: str) -> None:
    """Wait for an operation, and show how it goes on."""
    while True:
        operation = registry.get_operation_status(operation_id)
        print(f"{operation.operation_type} {operation.model_name}: {operation.status}, {operation.progress:.0f} %")
        if operation.status is OperationStatus.COMPLETED:
            return
        if operation.status.ended:
            raise SystemExit(operation.error)
        await asyncio.sleep(0.2)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with ModelRegistry(models_dir=folder) as registry:
            await finished(registry, await registry.install_model("smollm2"))
            model = registry.get_model("smollm2")
            print(f"{model.display_name}: {model.size_gb} GB, run by {model.runtime}")
            print("takes a system message:", registry.get_model_capabilities("smollm2").supports_system_role)
            fit = await registry.fit("smollm2")
            print("fits:", fit.reason if fit else "unknown")
            await finished(registry, await registry.remove_model("smollm2"))


asyncio.run(main())
