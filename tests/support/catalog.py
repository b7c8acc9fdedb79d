"""A catalog for tests that have no data folder: the real one, in a folder that ends with the test."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hevcq.sql.catalog import Catalog
from hevcq.sql.sqlite import SqliteDatabase
from hevcq.util.clock import Clock

_made: list[tuple[Catalog, TemporaryDirectory]] = []


def new_catalog(clock: Clock) -> Catalog:
    folder = TemporaryDirectory()
    catalog = Catalog(SqliteDatabase(Path(folder.name) / "catalog.db"), clock)
    _made.append((catalog, folder))
    return catalog


def close_catalogs() -> None:
    """Close what a test has made; `tests/conftest.py` calls it after each."""
    while _made:
        catalog, folder = _made.pop()
        catalog.close()
        folder.cleanup()
