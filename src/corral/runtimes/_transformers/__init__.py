"""What the runtime `transformers` is made of: its server, and how requests are put to it."""
