"""From a model's name to an engine's answer."""
