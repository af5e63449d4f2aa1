"""Several models, one after the other and side by side, from a request to artifacts."""
