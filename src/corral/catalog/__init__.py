"""The store: what is installed, by digest, and how it gets there."""
