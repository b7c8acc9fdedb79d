"""SQLite and PostgreSQL behind one interface, and the catalog, events and sync journal on it."""
