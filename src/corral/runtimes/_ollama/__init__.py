"""What the plugin `ollama` is made of: options, the command of an engine, and what its failures mean."""
