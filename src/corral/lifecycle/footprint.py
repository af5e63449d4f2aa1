"""How much memory an engine will take, from the model's own metadata. Pure."""
