"""Settings of the workspace: projects, pipelines and artifacts."""

from __future__ import annotations

from dataclasses import dataclass

from corral.config.items import setting
from corral.config.values import count, duration, size, whole


@dataclass(frozen=True, slots=True)
class WorkspaceSettings:
    """Projects, pipelines and artifacts."""

    retention: float = setting(30 * 86400.0, duration, "How long what was deleted can be had back.")
    max_artifact: int = setting(16 * 1024**2, size, "Largest artifact, and largest file of a context.")
    max_import: int = setting(1024**3, size, "Largest archive of a project, and the most that it may unpack to.")
    parallel: int = setting(8, whole, "Steps of one run that are at work at a time, at most.")
    runs: int = setting(2, whole, "Runs that are at work at a time, at most; others wait.")
    step_timeout: float = setting(1800.0, duration, "Longest time of one step's answer, unless the step says another.")
    repairs: int = setting(1, count, "Times that code with mistakes goes back to its model, unless the step says.")
