"""What the runtime `container` is made of; no plugin of its own."""
