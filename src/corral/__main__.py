"""`python -m corral` is `corral`."""

from __future__ import annotations

from corral.cli.main import main

raise SystemExit(main())
