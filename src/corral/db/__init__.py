"""The database: its connection, its tables and their migrations."""
