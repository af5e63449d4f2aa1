"""Print an answer while it is written, and stop when there is enough of it.

corral pull smollm2
python examples/streaming.py "Tell me a story."
"""

import asyncio
import sys

from corral import GenerationConfig, ModelManager

ENOUGH = 200


async def main(prompt: str) -> None:
    config = GenerationConfig(prompt, max_tokens=80, system="You are brief.", stop=["\n\n"])
    written = 0
    async with ModelManager() as manager:
        async for piece in manager.generate_stream("smollm2", config):
            print(piece, end="", flush=True)
            written += len(piece)
            if written > ENOUGH:  # leaving the loop stops the engine too: nobody pays for words that nobody reads
                print(" …", end="")
                break
    print()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "Tell me about horses."))
