"""What all tables belong to. Those of the workspace and the others are written down apart, and made together."""

from __future__ import annotations

from sqlalchemy import MetaData

metadata = MetaData()
