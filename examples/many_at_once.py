"""Register a model under a name of your own, with options, and ask it several things at the same time.

corral pull smollm2
python examples/many_at_once.py
"""

import asyncio

from corral import GenerationConfig, ModelConfig, ModelManager

QUESTIONS = ("Name a colour.", "Name a river.", "Name an animal.")


async def main() -> None:
    async with ModelManager() as manager:
        # Three slots of 512 tokens: the engine answers three requests in one go.
        options = {"context": 512, "slots": len(QUESTIONS)}
        manager.register_model(ModelConfig(model_id="smollm2", model_name="quiz", options=options))

        asked = [GenerationConfig(question, max_tokens=16, temperature=0.0) for question in QUESTIONS]
        replies = await asyncio.gather(*(manager.generate("quiz", config) for config in asked))
        for question, reply in zip(QUESTIONS, replies, strict=True):
            print(f"{question} {' '.join(reply.text.split())}")


if __name__ == "__main__":
    asyncio.run(main())
