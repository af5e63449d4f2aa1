"""The process of a `fake` engine."""
