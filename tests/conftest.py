"""Shared fixtures: one model download for all tests."""
