"""A table of a database's tests, and a look at it."""

from pathlib import Path

from hevcq.sql.sqlite import SqliteDatabase

ADD = "INSERT INTO note VALUES (?)"


def open_with_notes(path: Path) -> SqliteDatabase:
    database = SqliteDatabase(path, lock_wait_s=0.2)
    database.change("CREATE TABLE note (text TEXT NOT NULL)")
    return database


def notes(database: SqliteDatabase) -> list[str]:
    return [row[0] for row in database.rows("SELECT text FROM note ORDER BY rowid")]
