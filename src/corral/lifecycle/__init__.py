"""Which models are in memory, and why."""
