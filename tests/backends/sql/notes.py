"""A table of a database's tests, and a look at it."""

from pathlib import Path

from hevcq.sql.database import Database

ADD = "INSERT INTO note VALUES (?)"


def open_with_notes(path: Path) -> Database:
    database = Database(path, busy_s=0.2)
    database.change("CREATE TABLE note (text TEXT NOT NULL)")
    return database


def notes(database: Database) -> list[str]:
    return [row[0] for row in database.rows("SELECT text FROM note ORDER BY rowid")]
