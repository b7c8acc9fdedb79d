"""A table of a database's tests, and a look at it."""

from hevcq.backends.embedded.database import Database

NOTE = "CREATE TABLE note (text TEXT NOT NULL);"
ADD = "INSERT INTO note VALUES (?)"


def notes(database: Database) -> list[str]:
    return [row[0] for row in database.rows("SELECT text FROM note ORDER BY rowid")]
