"""The embedded way of running: SQLite and plain files in one data folder, no server, no network."""
