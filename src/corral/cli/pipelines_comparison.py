"""Two runs side by side, for a person."""

from typing import Any

from corral.cli.output import Output


def shown(output: Output, found: dict[str, Any]) -> None:
    """Say how two runs differ, as `corral.workspace.comparing.compare` tells it."""
    output.fields(list(found.items()))
