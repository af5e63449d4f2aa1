"""The engine's own program: it runs on the Python of the engine's environment, and imports nothing of Corral."""
