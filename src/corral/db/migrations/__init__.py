"""From an older form of the database to the one that this Corral reads and writes.

A new database gets the tables as they are now. An older one is brought up step by step by Alembic (`versions/`), which
takes half a second to import and is left alone unless there is something to do.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, select, text

from corral import __version__
from corral.db.tables import metadata, version
from corral.errors import DatabaseError

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0005"
"""The form that this Corral knows: the last revision in `versions/`."""

FOLDER = Path(__file__).parent

_ADVISORY = 0x636F7272616C  # "corral": one at a time changes the tables of a PostgreSQL database


def stored(connection: Connection) -> str | None:
    """The form the database has; None when it is new. Blocks."""
    if not inspect(connection).has_table(version.name):
        return None
    return connection.execute(select(version.c.version_num)).scalar_one_or_none()


def migrate(connection: Connection, place: str) -> None:
    """Bring the database to `HEAD` within the connection's transaction: all of it or nothing. Blocks.

    The caller sees to it that nobody else does so with the same SQLite file; on PostgreSQL this does.

    Raises:
        DatabaseError: it was written by a newer Corral.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY})
    have = stored(connection)
    if have is None:
        metadata.create_all(connection)
        connection.execute(version.insert().values(version_num=HEAD))
    elif have != HEAD:
        _refuse_newer(have, place)
        replay(connection)


def replay(connection: Connection, to: str = "head") -> None:
    """Run every migration that the database has not seen yet, from nothing if need be, up to one of them. Blocks."""
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def known() -> list[str]:
    """The revisions in `versions/`, oldest first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_config())
    return [script.revision for script in scripts.walk_revisions()][::-1]


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    return config


def _refuse_newer(have: str, place: str) -> None:
    if have not in known():
        raise DatabaseError(
            f"{place} was written by a newer Corral: it has the form {have!r}, and this one ({__version__}) knows up to"
            f" {HEAD!r}.",
            "Update Corral with: pip install --upgrade corral",
        )
