"""The ports on SQLite (one data folder, no server) or PostgreSQL, with plain files."""
