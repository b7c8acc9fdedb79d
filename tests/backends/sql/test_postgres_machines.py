"""Several machines on one PostgreSQL: the folder of renditions that they share, and their processes."""

import sys

import psycopg
import pytest

from contracts.backends import PROFILES
from hevcq.backends.sql.factory import open_sql
from hevcq.errors import ConfigError, DatabaseDamaged, HevcqError, Unavailable
from hevcq.settings.model import Settings
from hevcq.sql import postgres
from hevcq.sql.postgres import PostgresSession
from hevcq.util.clock import SystemClock
from hevcq.util.processes import Processes
from support.clips import ManualClock
from support.postgres import own_server, shared_dsn


def test_a_folder_that_is_not_the_one_of_all_machines_is_refused(tmp_path) -> None:
    def start(name: str, files: str) -> None:
        folders = {"dsn": server.dsn, "files_dir": tmp_path / files}
        settings = Settings.model_validate(
            {"backend": "postgres", "data_dir": tmp_path / name, "postgres": folders}
        )
        open_sql(settings, PROFILES, SystemClock()).close()

    with own_server() as server:
        start("nas", "share")
        start("desktop", "share")
        with pytest.raises(ConfigError, match="is not what holds the renditions"):
            start("desktop", "bare mount point")


def test_a_share_that_went_away_is_not_made_anew_by_a_publication(tmp_path, machine) -> None:
    opened = machine("nas")
    (tmp_path / "files" / "objects").rename(tmp_path / "away")

    with pytest.raises(Unavailable):
        opened.backend.store.put("certificates/a.json", b"bytes", metadata={})

    assert not (tmp_path / "files" / "objects").exists()


def test_bytes_stay_while_their_commit_is_still_going_on(machine, monkeypatch) -> None:
    monkeypatch.setattr(postgres, "SESSION", postgres.SESSION.replace("'30s'", "'200ms'"))
    store = machine("nas").backend.store
    run, held = PostgresSession.run, list[psycopg.Connection]()

    def lose(self: PostgresSession, sql: str) -> object:
        if sql != "COMMIT" or held:
            return run(self, sql)
        held.append(self.raw)  # the server has it, and the client's side breaks
        self.raw = psycopg.connect(shared_dsn())
        self.raw.close()
        return run(self, sql)

    monkeypatch.setattr(PostgresSession, "run", lose)
    with pytest.raises(HevcqError):
        store.put("certificates/a.json", b"bytes", metadata={})
    held[0].execute("COMMIT")
    held[0].close()

    with store.open("certificates/a.json") as found:
        assert found.read() == b"bytes"


def test_renditions_without_the_tables_that_name_them_are_no_new_farm(tmp_path, shared) -> None:
    (tmp_path / "objects" / "ab").mkdir(parents=True)
    settings = Settings.model_validate(
        {"backend": "postgres", "data_dir": tmp_path, "postgres": {"dsn": shared_dsn()}}
    )

    with pytest.raises(DatabaseDamaged, match="renditions are in its folder"):
        open_sql(settings, PROFILES, SystemClock())


def test_without_psycopg_the_settings_say_what_to_install(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "hevcq.sql.postgres", None)

    with pytest.raises(ConfigError, match=r"Install hevcq\[postgres\]"):
        open_sql(Settings(backend="postgres", data_dir=tmp_path), PROFILES, SystemClock())


def test_a_process_of_another_machine_is_never_held_to_be_dead(tmp_path, monkeypatch) -> None:
    def row(node: str, boot: str, **options: bool) -> Processes:
        clock = ManualClock()
        monkeypatch.setattr(clock, "boot", lambda: boot)
        monkeypatch.setattr("hevcq.util.processes.node", lambda: node)
        return Processes(tmp_path, clock, **options)

    gone = [row("nas", "1"), row("nas", "2"), row("desktop", "2"), row("desktop", "3")]
    for each in gone:
        each.close()  # its lock is free, as where a share keeps locks to itself
    here = row("nas", "2", shared=True)
    freed: list[str] = []
    here.reap(lambda owner, _died_alone: freed.append(owner), now=True)
    here.close()

    assert set(freed) == {each.owner for each in gone[:3]}
