"""The database: SQLite in the home, or PostgreSQL for a team; its tables, and how an older one becomes a newer one."""
