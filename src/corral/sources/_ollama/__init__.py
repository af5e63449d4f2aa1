"""What only the source `ollama` needs: Go templates made into Jinja, and the small layers of a model read."""
