"""Ask a model in the cloud, and one of your own where that cannot be had; the receipt says who answered, and why.

corral pull smollm2
python examples/fallback.py
"""

import asyncio

from corral import GenerationConfig, ModelConfig, ModelManager


async def main() -> None:
    async with ModelManager() as manager:
        # Nobody answers at this address: it stands for a vendor who is away, or a key that is missing.
        vendor = {"base_url": "http://127.0.0.1:9/v1"}
        manager.register_model(
            ModelConfig("large-2026", "cloud", runtime_type="openai", options=vendor, fallback=["smollm2"])
        )

        reply = await manager.generate("cloud", GenerationConfig("Name a colour.", max_tokens=16))
        print(f"{reply.receipt.model} answered: {' '.join(reply.text.split())}")
        for missed in reply.receipt.fallbacks:
            print(f"{missed.model} could not be had: {missed.message}")

        print("As a stream: ", end="")
        async for piece in manager.generate_stream("cloud", GenerationConfig("Name a river.", max_tokens=16)):
            print(piece, end="", flush=True)
        print()


if __name__ == "__main__":
    asyncio.run(main())
