"""The entry of `corral`. Answers `--version` before anything is imported: keep the top of this file to `sys`."""

import sys


def main(arguments: list[str] | None = None) -> int:
    """Run the command line `arguments` (the process's own when None) and return the exit code of `cli.output.EXITS`."""
    given = sys.argv[1:] if arguments is None else arguments
    if given in (["--version"], ["-V"]):
        from corral import __version__

        print(f"corral {__version__}")
        return 0
    import os

    from corral.cli.app import run

    if os.environ.get("_CORRAL_COMPLETE") == "complete_bash":
        from corral.cli.completion import in_bash

        return in_bash(lambda: run(given), os.environ)
    return run(given)
