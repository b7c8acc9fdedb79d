"""One machine, no server: sqlite3 lives only here."""
