"""Compose files: read into entries of `containers:`, and written from them.

text.py      YAML as compose reads it, and its variables     pure
values.py    ports, volumes, sizes and times                 pure
keys.py      what is not taken over, and why                 pure
service.py   one service as an entry                         pure
reading.py   a whole file
writing.py   entries as a file                               pure
"""

from corral.fleet.compose.keys import Unsupported
from corral.fleet.compose.reading import Imported, plan_compose, read_compose
from corral.fleet.compose.writing import to_compose

__all__ = ["Imported", "Unsupported", "plan_compose", "read_compose", "to_compose"]
