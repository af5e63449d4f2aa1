"""Run the engine: `python -m corral.runtimes._fake`, with its lifeline on standard input."""

from corral.runtimes._fake.server import main

main()
