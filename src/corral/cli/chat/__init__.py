"""Talking to a model: what was said, the commands, where answers come from, and the terminal around them."""
