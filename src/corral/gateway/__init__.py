"""The HTTP server: inference as raw ASGI, management by FastAPI."""
