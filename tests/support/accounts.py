"""Who may use the page of a data folder, beside the programs that have it open."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hevcq.backends.sql.video_records import SqlAccounts
from hevcq.sql.sqlite import DATABASE, SqliteDatabase


@contextmanager
def accounts_in(data_dir: Path) -> Iterator[SqlAccounts]:
    """Open the accounts of a data folder, which is made where there is none."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = SqliteDatabase(data_dir / DATABASE)
    yield SqlAccounts(database)
    database.close()
