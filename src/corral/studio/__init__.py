"""The workspace from Python: `Workspace`, and the `Result` of a run."""

from corral.studio.workspace import Result, Workspace

__all__ = ["Result", "Workspace"]
