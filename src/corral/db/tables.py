"""The tables as they are now. A change needs a migration beside it and a new `HEAD`; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)

from corral.db import workspace_tables

metadata = workspace_tables.metadata

version = Table(
    "alembic_version",
    metadata,
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""Which form the database has, where Alembic looks for it."""

_UNFINISHED = text("ended_at IS NULL")

operations = Table(
    "operations",
    metadata,
    # The order in which they were asked for. The wall clock may jump; this does not.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", String(40), nullable=False, unique=True),
    Column("home", String(40), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("kind", String(40), nullable=False),
    Column("model", Text, nullable=False),
    Column("params", JSON, nullable=False),
    Column("lane", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("status", String(20), nullable=False),
    Column("wish", String(20), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("attempts", Integer, nullable=False),
    Column("progress", Double, nullable=False),
    Column("phase", String(40), nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("total", BigInteger),
    Column("rate", Double),
    Column("eta", Double),
    Column("message", Text, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("result", JSON(none_as_null=True)),
    Column("parts", JSON, nullable=False),
    Index("operations_by_home", "home", "number"),
    Index(
        "operations_unfinished",
        "home",
        "fingerprint",
        unique=True,
        sqlite_where=_UNFINISHED,
        postgresql_where=_UNFINISHED,
    ),
)
"""Long work. `fingerprint` says which orders are equal: of those, one at a time is unfinished. `home` is whose work it
is, where several share a database. `wish` is what another process asks of the one that is at it: pause, cancel."""


keys = Table(
    "keys",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", Text, nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    Column("shown", String(20), nullable=False),
    Column("scope", String(20), nullable=False),
    Column("models", JSON, nullable=False),
    Column("projects", JSON, nullable=False),
    Column("requests", BigInteger),
    Column("tokens", BigInteger),
    Column("parallel", BigInteger),
    Column("strict", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    Column("used_at", Double),
    Column("rotated_at", Double),
    Column("previous", String(64)),
    Column("previous_until", Double),
)
"""Keys of clients. `hash` is the SHA-256 of the key, which itself is nowhere; `shown` are its first characters.
`requests` and `tokens` bound a minute. `previous` is what it hashed to before it was rotated, which counts until
`previous_until`: a key keeps its id, and with it its budgets."""

audit = Table(
    "audit",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("actor", String(80), nullable=False),
    Column("action", String(80), nullable=False),
    Column("target", Text, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("request_id", String(80)),
    Index("audit_by_time", "at"),
)
"""What was managed, and by whom. `actor` is a caller's id, or `terminal`."""

budgets = Table(
    "budgets",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("subject", String(20), nullable=False),
    Column("who", String(200), nullable=False),
    Column("unit", String(20), nullable=False),
    Column("period", String(20), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
)
"""What may be spent. `subject` is `key`, `project` or `all`, and `who` the key's id or the project's name. `unit` is
`usd` (then `amount` is in nanodollars), `tokens` or `requests`; `period` is `day`, `week`, `month` or `total`."""

spending = Table(
    "spending",
    metadata,
    Column("budget", String(40), nullable=False),
    Column("period", String(20), nullable=False),
    Column("spent", BigInteger, nullable=False),
    Column("leased", BigInteger, nullable=False),
    Column("abandoned", BigInteger, nullable=False),
    PrimaryKeyConstraint("budget", "period", name="spending_pkc"),
)
"""What of a budget is gone in one period (`2026-11-21`, `2026-W47`, `2026-11`, `total`): spent for good, or leased to
holders who may spend it without asking. A lease never takes `spent + leased` over the budget's amount. `abandoned` is
the part of `spent` of which nobody knows whether it was: what was reserved by calls under way when a process died."""

holders = Table(
    "holders",
    metadata,
    Column("id", String(60), primary_key=True),
    Column("home", String(40), nullable=False),
    Column("applied", BigInteger, nullable=False),
    Column("seen_at", Double, nullable=False),
)
"""Processes that spend. `applied` is how far, in bytes, the journal of a holder is booked."""

leases = Table(
    "leases",
    metadata,
    Column("holder", String(60), nullable=False),
    Column("budget", String(40), nullable=False),
    Column("period", String(20), nullable=False),
    Column("amount", BigInteger, nullable=False),
    PrimaryKeyConstraint("holder", "budget", "period", name="leases_pkc"),
)
"""What of `spending.leased` is whose."""


def _measures() -> tuple[Column[int], ...]:
    names = ("input", "output", "cached", "cache_write", "reasoning", "cost")
    return tuple(Column(name, BigInteger, nullable=False) for name in names)


usage = Table(
    "usage",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("request_id", String(80), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", Double, nullable=False),
    Column("key", String(40), nullable=False),
    Column("project", String(200), nullable=False),
    Column("model", String(200), nullable=False),
    Column("asked", String(200), nullable=False),
    Column("runtime", String(40), nullable=False),
    Column("dialect", String(40), nullable=False),
    Column("status", Integer, nullable=False),
    Column("error", String(80)),
    *_measures(),
    Column("price", Text),
    Column("wait_ms", Double),
    Column("first_ms", Double),
    Column("total_ms", Double),
    Column("receipt", Text),
    Index("usage_by_request", "request_id", "attempt", unique=True),
    Index("usage_by_time", "at", "number"),
)
"""One row for each attempt that counts: the one that answered, and each before it that cost something. `receipt`, of
the last attempt of a request only, is the whole receipt as JSON. Tokens; `cost` in nanodollars."""


def _sums(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("bucket", BigInteger, nullable=False),
        Column("key", String(40), nullable=False),
        Column("project", String(200), nullable=False),
        Column("model", String(200), nullable=False),
        Column("runtime", String(40), nullable=False),
        Column("requests", BigInteger, nullable=False),
        Column("errors", BigInteger, nullable=False),
        Column("unpriced", BigInteger, nullable=False),
        Column("firsts", BigInteger, nullable=False),
        *_measures(),
        Column("first_ms", Double, nullable=False),
        Column("total_ms", Double, nullable=False),
        PrimaryKeyConstraint("bucket", "key", "project", "model", "runtime", name=f"{name}_pkc"),
        sqlite_with_rowid=False,  # rows lie in the order of their key: a span of time is read in one go
    )


usage_hours = _sums("usage_hours")
"""Sums of `usage` by the hour; `bucket` is Unix seconds of its begin, in UTC. `first_ms`, `total_ms` are sums, too.
`unpriced` counts the answers whose cost nobody knows, which is not in `cost`, `firsts` those with a first byte."""
usage_days = _sums("usage_days")
"""The same by the day."""

containers = Table(
    "containers",
    metadata,
    Column("yard", String(40), nullable=False),
    Column("name", String(48), nullable=False),
    Column("container_name", Text, nullable=False),
    Column("container_id", String(64)),
    Column("kind", String(20), nullable=False),
    Column("purpose", Text, nullable=False),
    Column("port", Integer),
    Column("image", Text, nullable=False),
    Column("image_id", Text),
    Column("installed_version", Text),
    Column("spec", String(12)),
    Column("status", String(10), nullable=False),
    Column("state", String(20), nullable=False),
    Column("reason", Text, nullable=False),
    Column("wanted", Boolean, nullable=False),
    Column("exit_code", Integer),
    Column("restarts", Integer, nullable=False),
    Column("since", Double),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("checked_at", Double),
    Column("previous", Text),
    Column("created_at", Double, nullable=False),
    Column("last_updated", Double, nullable=False),
    PrimaryKeyConstraint("yard", "name", name="containers_key"),
)
"""Containers as they were last seen, one row each. `yard` is whose they are; `wanted` whether they shall run, which is
what somebody last said, by hand or through Corral. `status` is `active` while its models can be asked."""

container_models = Table(
    "container_models",
    metadata,
    Column("yard", String(40), nullable=False),
    Column("container", String(48), nullable=False),
    Column("name", String(200), nullable=False),
    Column("digest", Text),
    Column("size", BigInteger),
    Column("loaded", Boolean, nullable=False),
    Column("last_updated", Double, nullable=False),
    PrimaryKeyConstraint("yard", "container", "name", name="container_models_key"),
)
"""The models in each container, as its server last told."""

container_versions = Table(
    "container_versions",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("yard", String(40), nullable=False),
    Column("container", String(48), nullable=False),
    Column("model", Text),
    Column("version", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("status", String(10), nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Double, nullable=False),
    Index("container_versions_of", "yard", "container", "number"),
)
"""What a container's image, or a `model` in it, was at which time: `current`, `previous`, or `failed` and undone."""

container_history = Table(
    "container_history",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("yard", String(40), nullable=False),
    Column("container", String(48), nullable=False),
    Column("at", Double, nullable=False),
    Column("what", String(40), nullable=False),
    Column("before", String(20)),
    Column("after", String(20)),
    Column("reason", Text, nullable=False),
    Column("detail", JSON(none_as_null=True)),
    Index("container_history_of", "yard", "container", "number"),
)
"""What happened to each container: by Corral, by hand, or by itself."""
