"""Long work that survives a restart: its queue, its progress, and how it is paused, called off and taken up again."""
