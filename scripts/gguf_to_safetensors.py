"""Write the model of a GGUF file as safetensors in bfloat16, with its tokenizer; needs transformers, gguf, accelerate.

python scripts/gguf_to_safetensors.py FILE.gguf FOLDER
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM


def main(file: str, folder: str) -> None:
    """Convert a model of Llama's architecture."""
    source = Path(file)
    tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
    read = AutoModelForCausalLM.from_pretrained(str(source.parent), gguf_file=source.name, dtype=torch.float32)
    # What was read remembers that it was quantised, and would be written so: put its weights into a plain one.
    facts = read.config.to_dict()
    facts.pop("quantization_config", None)
    plain = LlamaForCausalLM(LlamaConfig(**facts)).to(torch.float32)
    lost = plain.load_state_dict(read.state_dict(), strict=False)
    if set(lost.missing_keys) - {"lm_head.weight"} or lost.unexpected_keys:
        sys.exit(f"{source.name} is not of Llama's architecture: {lost}")
    plain.tie_weights()
    plain.generation_config = read.generation_config
    plain = plain.to(torch.bfloat16)
    plain.config.dtype = "bfloat16"
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


main(*sys.argv[1:])
