"""Ask Gemini's large model, its quick one where that fails, and one of your own where both do; receipts tell the costs.

export GEMINI_API_KEY=…    # without it your own model answers
corral pull smollm2
python examples/gemini_fallback.py

The route `writing`, with its models, is in cloud.yaml beside this file; give another file as an argument.
"""

import asyncio
import sys
from pathlib import Path

from corral import GenerationConfig, ModelManager

QUESTIONS = ("Name a colour.", "Name a river.", "Name an animal.")


def dollars(nano: int | None) -> str:
    """Costs are in billionths of a dollar; None is a price that nobody knows."""
    return "unknown" if nano is None else f"${nano / 1e9:.9f}"


async def main(config: Path) -> None:
    spent = 0
    async with ModelManager(config) as manager:
        for question in QUESTIONS:
            reply = await manager.generate("writing", GenerationConfig(question, max_tokens=1500))
            receipt = reply.receipt
            print(f"{question} {receipt.model}: {' '.join(reply.text.split())}")
            for number, call in enumerate(receipt.tries, 1):
                print(f"  try {number}: {call.model}, {call.error or 'answered'}, {dollars(call.cost)}")
            for left_out in receipt.route:
                print(f"  not asked: {left_out.model}, {left_out.message}")
            print(f"  in all {dollars(receipt.cost)}, price: {receipt.price}")
            spent += receipt.cost or 0
    print(f"Spent: {dollars(spent)}")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("cloud.yaml")))
