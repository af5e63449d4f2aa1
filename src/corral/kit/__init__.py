"""Mechanisms with no policy: processes, HTTP, files, time."""
