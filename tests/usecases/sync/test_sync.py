"""A sync from a real WebDAV server into a folder, with everything that servers do.

What goes wrong in the middle of a sync: on the server, on the disk, or with a name.
"""

import errno
import os
import shutil

import pytest

from hevcq.errors import DiskFull, Stopped, UsageError
from hevcq.library.filesystem import FileSystem
from hevcq.remotes import webdav
from hevcq.usecases.sync import move, session
from hevcq.usecases.sync.move import parts_prefix
from hevcq.usecases.sync.session import Fate
from support.syncing import VIDEO
from support.webdav import cut, refusing, status, times


def test_a_file_is_durable_before_it_has_its_name_and_its_name_before_the_server_loses_it(
    machine, monkeypatch
):
    machine.server.put("Camera/a.mp4", VIDEO)
    order = []

    def noted(owner: type, name: str, what: str) -> None:
        real = getattr(owner, name)

        def call(self, *given, **more):
            order.append((what, given[0]))
            return real(self, *given, **more)

        monkeypatch.setattr(owner, name, call)

    noted(FileSystem, "fsync_file", "bytes")
    noted(FileSystem, "rename_new", "named")
    noted(FileSystem, "fsync_dir", "folder")
    noted(webdav.WebDavRemote, "remove", "removed")

    machine.sync()

    (part,) = (path for what, path in order if what == "named")
    named = order.index(("named", part))
    assert order.index(("bytes", part)) < named
    after = [what for what, path in order[named:] if what == "removed" or path == machine.target]
    assert after.index("folder") < after.index("removed")


def test_a_copied_file_stays_there_and_is_fetched_once(machine):
    machine.server.put("Camera/a.mp4", VIDEO)
    machine.server.put("Camera/note.txt", b"every file, not only videos")
    assert set(machine.fates(move=False).values()) == {Fate.COPIED}
    machine.server.requests.clear()
    assert machine.sync(move=False) == []
    assert set(machine.server.methods()) == {"PROPFIND"}
    assert set(machine.files()) == set(map(os.path.basename, machine.server.files()))


def test_a_file_must_stay_the_same_for_a_while(machine):
    machine.server.put("Camera/a.mp4", VIDEO[:100])
    assert machine.fates(settle_s=600) == {"Camera/a.mp4": Fate.WAITING}
    machine.clock.advance(599)
    machine.server.put("Camera/a.mp4", VIDEO)
    assert machine.fates(settle_s=600) == {"Camera/a.mp4": Fate.WAITING}
    machine.clock.jump_wall(-86_400)  # a clock that is set back makes it wait again, no longer
    assert machine.fates(settle_s=600) == {"Camera/a.mp4": Fate.WAITING}
    machine.clock.advance(599)
    assert machine.fates(settle_s=600) == {"Camera/a.mp4": Fate.WAITING}
    machine.clock.advance(1)
    assert machine.fates(settle_s=600) == {"Camera/a.mp4": Fate.MOVED}


def test_the_same_bytes_are_not_had_twice(machine):
    machine.server.put("Camera/a.mp4", VIDEO)
    machine.sync()
    machine.server.put("Camera/a.mp4", VIDEO)  # the phone uploads again
    machine.server.put("Camera/b.mp4", VIDEO)
    assert set(machine.fates().values()) == {Fate.KNOWN}
    assert machine.files() == {"a.mp4": VIDEO}
    assert machine.server.files() == {}


def test_bytes_that_came_before_and_are_lost_here_stay_there(machine):
    machine.server.put("Camera/a.mp4", VIDEO)
    machine.sync()
    (machine.target / "a.mp4").unlink()
    machine.server.put("Camera/a.mp4", VIDEO)
    assert machine.fates() == {"Camera/a.mp4": Fate.LEFT}
    assert machine.server.files() == {"Camera/a.mp4": VIDEO}
    machine.server.requests.clear()
    machine.sync()
    assert "GET" not in machine.server.methods()


def test_other_bytes_under_the_same_name_get_a_number(machine):
    for name, content in (("a.mp4", b"one"), ("a.mp4", b"two"), ("A.MP4", b"three")):
        machine.server.put(f"Camera/{name}", content)
        assert machine.fates() == {f"Camera/{name}": Fate.MOVED}
    assert machine.files() == {"a.mp4": b"one", "a (2).mp4": b"two", "A (3).MP4": b"three"}


def test_a_cut_connection_is_resumed_where_it_was_cut(machine):
    machine.server.put("Camera/a.mp4", VIDEO)
    machine.server.faults.append(times(2, cut(150_000)))
    assert machine.fates() == {"Camera/a.mp4": Fate.MOVED}
    assert machine.files() == {"a.mp4": VIDEO}
    ranges = [h.get("HTTP_RANGE") for h in machine.server.headers if "HTTP_RANGE" in h]
    assert len(ranges) == 2


@pytest.mark.parametrize("restarted", [True, False])
def test_nothing_half_is_resumed_after_a_restart_or_of_another_version(machine, restarted):
    machine.server.put("Camera/a.mp4", VIDEO)
    machine.server.faults.append(cut(50_000))
    machine.sync()
    machine.server.faults.clear()
    (part,) = machine.target.iterdir()
    wanted = VIDEO if restarted else bytes(reversed(VIDEO))
    if restarted:
        part.write_bytes(bytes(part.stat().st_size))  # as a power cut may leave it
        machine.clock.restart()
    else:
        machine.server.put("Camera/a.mp4", wanted)
    assert machine.fates() == {"Camera/a.mp4": Fate.MOVED}
    assert machine.files() == {"a.mp4": wanted}


def test_a_server_without_etags_gets_copies_only(machine):
    machine.server.put("Camera/a.mp4", VIDEO)
    machine.server.faults.append(status("PUT", 405))
    assert machine.fates() == {"Camera/a.mp4": Fate.COPIED}
    assert "HTTP 405" in machine.notices[0]


def test_a_locked_file_is_deleted_later(machine):
    machine.server.put("Camera/a.mp4", VIDEO)
    machine.sync(move=False)
    machine.sync()
    machine.server.put("Camera/b.mp4", VIDEO[1:])
    machine.server.faults.append(refusing(423))
    assert machine.fates() == {"Camera/b.mp4": Fate.LEFT}
    machine.server.faults.clear()
    assert machine.fates() == {"Camera/b.mp4": Fate.MOVED}
    assert machine.server.files() == {}


def test_a_stop_is_heeded_and_resumed(machine):
    machine.server.put("Camera/a.mp4", VIDEO)
    machine.on_bytes = lambda *_: machine.stop.set()
    with pytest.raises(Stopped):
        machine.sync()
    machine.stop.clear()
    machine.on_bytes = None
    assert machine.fates() == {"Camera/a.mp4": Fate.MOVED}
    assert machine.files() == {"a.mp4": VIDEO}


def test_a_disk_without_room_stops_before_the_first_byte(machine, monkeypatch):
    machine.server.put("Camera/a.mp4", VIDEO)
    monkeypatch.setattr(session, "free_disk_bytes", lambda _: len(VIDEO) + 99)
    with pytest.raises(DiskFull):
        machine.sync(least_free=100)
    assert "GET" not in machine.server.methods()


def test_a_target_that_is_not_there_is_never_made(machine):
    machine.server.put("Camera/a.mp4", VIDEO)
    with pytest.raises(UsageError, match="mount its disk"):
        machine.sync(target=machine.folder / "unmounted")


def test_a_dry_run_changes_nothing(machine):
    machine.server.put("Camera/a.mp4", VIDEO)
    assert machine.fates(dry_run=True) == {"Camera/a.mp4": Fate.WOULD}
    assert machine.files() == {}
    machine.sync(move=False)
    assert machine.sync(dry_run=True, move=False) == []
    (told,) = machine.sync(dry_run=True)
    assert "would be deleted" in told.reason
    assert "DELETE" not in machine.server.methods()
    assert machine.fates() == {"Camera/a.mp4": Fate.MOVED}


def test_parts_of_files_that_are_gone_do_not_stay_but_those_of_another_account(machine):
    machine.server.put("Camera/a.mp4", VIDEO)
    machine.server.faults.append(cut(50_000))
    machine.sync()
    another = machine.target / f"{parts_prefix('another account')}1.part"
    another.touch()
    assert len(list(machine.target.iterdir())) == 2
    machine.server.reset()
    machine.sync()
    assert list(machine.target.iterdir()) == [another]


def test_a_hostile_listing_leads_nowhere(machine):
    names = ("..%2F..%2Fetc%2Fpasswd", "%2e%2e", "a%00b", "x/../../../y")

    def hostile(environ, start_response, _application):
        if environ["REQUEST_METHOD"] != "PROPFIND":
            return None
        rows = "".join(
            f"<d:response><d:href>/Camera/{name}</d:href><d:propstat><d:prop>"
            "<d:getcontentlength>3</d:getcontentlength><d:getetag>1</d:getetag><d:resourcetype/>"
            "</d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>"
            for name in names
        )
        start_response("207 Multi-Status", [("Content-Type", "text/xml")])
        return iter([f'<d:multistatus xmlns:d="DAV:">{rows}</d:multistatus>'.encode()])

    machine.server.faults.append(hostile)
    told = machine.sync()
    assert {each.fate for each in told} == {Fate.REFUSED}
    assert len(told) == len(names)
    assert machine.files() == {}


def failing(code: int):
    def call(*_given):
        raise OSError(code, "no matter what")

    return call


def test_a_target_that_goes_during_a_sync_is_not_made_again(machine):
    for name in ("a", "b"):
        machine.server.put(f"Camera/{name}.mp4", VIDEO)
    machine.on_bytes = lambda *_: shutil.rmtree(machine.target, ignore_errors=True)
    with pytest.raises(UsageError, match="mount its disk"):
        machine.sync()
    assert not machine.target.exists()
    assert len(machine.server.files()) == 2


def test_a_sync_whose_hours_end_finishes_its_file_and_begins_no_other(machine):
    for name in ("a", "b"):
        machine.server.put(f"Camera/{name}.mp4", VIDEO)
    machine.hours = iter([True, False])
    assert machine.fates() == {"Camera/a.mp4": Fate.MOVED}
    assert machine.server.files() == {"Camera/b.mp4": VIDEO}


def test_a_disk_that_is_full_ends_the_sync_and_the_server_keeps_its_file(machine, monkeypatch):
    machine.server.put("Camera/a.mp4", VIDEO)
    monkeypatch.setattr(FileSystem, "fsync_file", failing(errno.ENOSPC))
    with pytest.raises(DiskFull, match="is full"):
        machine.sync()
    assert machine.server.files() == {"Camera/a.mp4": VIDEO}


def test_a_server_that_allows_no_deleting_keeps_its_copy_and_it_is_said(machine):
    machine.server.put("Camera/a.mp4", b"1")
    machine.sync()
    machine.server.put("Camera/b.mp4", b"2")
    machine.server.faults.append(refusing(403))
    (told,) = machine.sync()
    assert (told.fate, told.reason.endswith("does not allow its copy to be deleted")) == (
        Fate.LEFT,
        True,
    )


def test_a_landing_that_could_not_be_proven_is_not_taken_for_one(machine, monkeypatch):
    machine.server.put("Camera/a.mp4", VIDEO)
    with monkeypatch.context() as disk:
        disk.setattr(FileSystem, "digest", lambda *_: "0" * 64)
        assert machine.fates() == {"Camera/a.mp4": Fate.FAILED}
    assert machine.server.files() == {"Camera/a.mp4": VIDEO}
    assert machine.fates() == {"Camera/a.mp4": Fate.MOVED}
    assert machine.files() == {"a.mp4": VIDEO}


def test_a_folder_that_the_settings_no_longer_name_is_let_alone(machine):
    machine.server.put("Camera/a.mp4", VIDEO)
    machine.server.put("Other/b.mp4", VIDEO[1:])
    machine.sync(settle_s=600)
    assert machine.fates(folders=("Other",)) == {"Other/b.mp4": Fate.MOVED}
    machine.clock.advance(600)
    assert machine.fates(settle_s=600) == {"Camera/a.mp4": Fate.MOVED}, "it is known since then"


@pytest.mark.parametrize(("most", "fate"), [(1, Fate.FAILED), (2, Fate.MOVED)])
def test_a_name_that_another_program_takes_meanwhile_is_not_overwritten(
    machine, monkeypatch, most, fate
):
    (machine.target / "a.mp4").write_bytes(b"another")
    machine.server.put("Camera/a.mp4", VIDEO)
    monkeypatch.setattr(FileSystem, "names", lambda *_: [])
    monkeypatch.setattr(move, "MAX_NUMBER", most)
    (told,) = machine.sync()
    assert (told.fate, "no free name" in told.reason) == (fate, fate is Fate.FAILED)
    assert machine.files()["a.mp4"] == b"another"
    assert bool(machine.server.files()) is (fate is Fate.FAILED)
