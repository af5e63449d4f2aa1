"""Decisions about requests, pure: whether to try again, where to go next, whom to leave alone."""
