"""Load a model, ask it, and read what was done for the answer. No server is needed.

corral pull smollm2
python examples/basic.py
"""

import asyncio

from corral import ModelManager


async def main() -> None:
    async with ModelManager() as manager:
        model, info = await manager.load_model("smollm2")
        print(f"{info.name} runs on {info.device} with {info.context_length} tokens of context.")

        reply = await model.generate(prompt="In one sentence: what is a corral?", max_tokens=40, temperature=0.2)
        print(reply.text)

        receipt = reply.receipt
        print(
            f"{receipt.completion_tokens} tokens by revision {(receipt.revision or '')[:12]}, {receipt.finish_reason}."
        )


if __name__ == "__main__":
    asyncio.run(main())
