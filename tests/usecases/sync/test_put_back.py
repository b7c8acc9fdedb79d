"""Renditions go back to the server they came from: once, whole, in chunks where they are large."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from contextlib import closing
from itertools import islice

import pytest

from hevcq.errors import SourceChanged, SourceUnreadable, Unavailable
from hevcq.library.names import certificate_path
from hevcq.library.pace import Pace
from hevcq.ports.sync import Upload
from hevcq.remotes.webdav import upload
from hevcq.remotes.webdav.client import Account, WebDavRemote
from hevcq.usecases.sync import local_names, put_back, session
from hevcq.usecases.sync.put_back import PutBack
from hevcq.usecases.sync.session import Fate
from support.clips import ManualClock
from support.library import certificate
from support.syncing import VIDEO, Machine
from support.webdav import PASSWORD, USER, status, times

FILES = "/remote.php/dav/files/anna"
UPLOADS = "/remote.php/dav/uploads/anna"


@pytest.fixture
def server(webdav):
    return webdav


def encode(machine: Machine, name: str, content: bytes) -> bytes:
    """Put a certified rendition beside what landed, as ingest does."""
    source = machine.target / name
    rendition = content[: len(content) // 2]
    proof = certificate(source, content, rendition)
    source.with_name(f"{source.stem}.hevc.mp4").write_bytes(rendition)
    path = certificate_path(
        machine.target, proof.rendition_sha256, (len(rendition), len(content)), proof.job_id
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(proof.model_dump_json(by_alias=True))
    return rendition


def test_a_rendition_is_put_back_once(server, machine):
    server.put("Camera/2024/a b.MP4", VIDEO)
    machine.sync(put_back="Encoded")
    rendition = encode(machine, "2024/a b.MP4", VIDEO)
    (told,) = machine.sync(put_back="Encoded")
    assert told.fate is Fate.PUT_BACK
    assert server.files() == {"Encoded/2024/a b.hevc.mp4": rendition}
    put = next(h for h, (m, _) in zip(server.headers, server.requests, strict=True)
               if m == "PUT" and "HTTP_OC_CHECKSUM" in h)  # fmt: skip
    assert put["HTTP_OC_CHECKSUM"] == f"SHA1:{hashlib.sha1(rendition).hexdigest()}"
    assert put["HTTP_IF_NONE_MATCH"] == "*"
    (server.root / "Encoded/2024/a b.hevc.mp4").unlink()  # a person does not want it
    assert machine.sync(put_back="Encoded") == []


def test_nothing_on_the_server_is_overwritten(server, machine):
    server.put("Camera/a.mp4", VIDEO)
    server.put("Encoded/a.hevc.mp4", b"another")
    machine.sync(put_back="Encoded")
    rendition = encode(machine, "a.mp4", VIDEO)
    machine.sync(put_back="Encoded")
    assert server.files() == {
        "Encoded/a.hevc.mp4": b"another",
        "Encoded/a.hevc (2).mp4": rendition,
    }


def test_a_rendition_without_a_free_name_is_told_as_failed(server, machine, monkeypatch):
    server.put("Camera/a.mp4", VIDEO)
    machine.sync(put_back="Encoded")
    encode(machine, "a.mp4", VIDEO)
    server.put("Encoded/a.hevc.mp4", b"another")
    monkeypatch.setattr(local_names, "MAX_NUMBER", 1)
    (told,) = machine.sync(put_back="Encoded")
    assert (told.fate, told.reason) == (Fate.FAILED, "It has no free name left on the server.")
    assert server.files() == {"Encoded/a.hevc.mp4": b"another"}


def test_of_another_target_only_the_name_is_kept_and_only_videos_go_back(server, machine, tmp_path):
    for name in ("a.mp4", "note.txt"):
        server.put(f"Camera/2024/{name}", VIDEO + name.encode())
    machine.sync(put_back="Encoded")
    for name in ("a.mp4", "note.txt"):
        encode(machine, f"2024/{name}", VIDEO + name.encode())
    (tmp_path / "other").mkdir()
    assert machine.fates(put_back="Encoded", target=tmp_path / "other") == {
        "Encoded/a.hevc.mp4": Fate.PUT_BACK
    }


@pytest.mark.parametrize(
    ("sent", "error", "words"),
    [(0, SourceChanged, "changed while it was put back"), (1, SourceUnreadable, "ended early")],
)
def test_a_rendition_that_changes_while_it_is_sent_is_no_upload(
    tmp_path, monkeypatch, sent, error, words
):
    (rendition := tmp_path / "a.hevc.mp4").write_bytes(VIDEO)
    monkeypatch.setattr(put_back, "READ", 1000)
    pace = Pace(ManualClock(), threading.Event(), 0.0)
    blocks = PutBack(None, None, pace)._upload(rendition).blocks(0, len(VIDEO))
    assert len(b"".join(islice(blocks, sent))) == sent * 1000
    os.truncate(rendition, 1000)
    with pytest.raises(error, match=words):
        list(blocks)


def test_a_file_without_a_certificate_is_not_put_back(server, machine):
    server.put("Camera/a.mp4", VIDEO)
    machine.sync(put_back="Encoded")
    encode(machine, "a.mp4", VIDEO)
    shutil.rmtree(machine.target / ".hevcq")
    assert machine.sync(put_back="Encoded") == []


def test_an_account_without_room_is_reported_and_tried_again(server, machine):
    server.put("Camera/a.mp4", VIDEO)
    machine.sync(put_back="Encoded")
    encode(machine, "a.mp4", VIDEO)
    server.faults.append(times(1, status("PUT", 507)))
    (told,) = machine.sync(put_back="Encoded")
    assert told.fate is Fate.FAILED
    assert "no room" in told.reason
    assert machine.fates(put_back="Encoded") == {"Encoded/a.hevc.mp4": Fate.PUT_BACK}


def test_a_server_that_is_busy_is_waited_for(server, machine):
    server.put("Camera/a.mp4", VIDEO)
    machine.sync(put_back="Encoded")
    encode(machine, "a.mp4", VIDEO)
    server.faults.append(times(2, status("PUT", 503)))
    assert machine.fates(put_back="Encoded") == {"Encoded/a.hevc.mp4": Fate.PUT_BACK}
    server.faults.append(status("PROPFIND", 503))
    with pytest.raises(Unavailable):
        machine.sync(put_back="Encoded")
    assert session.RETRY.attempts > 1


@pytest.fixture
def nextcloud(server):
    """A server with the folders of a Nextcloud, which joins chunks when `.file` is moved."""
    for folder in (FILES, UPLOADS):
        (server.root / folder.lstrip("/")).mkdir(parents=True)

    def join(environ, start_response, _application):
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] != "MOVE" or not path.endswith("/.file"):
            return None
        folder = (server.root / path.lstrip("/")).parent
        chunks = sorted(folder.iterdir())
        content = b"".join(chunk.read_bytes() for chunk in chunks)
        said = environ["HTTP_OC_CHECKSUM"].removeprefix("SHA1:")
        fits = hashlib.sha1(content).hexdigest() == said
        fits = fits and len(content) == int(environ["HTTP_OC_TOTAL_LENGTH"])
        if fits:
            target = environ["HTTP_DESTINATION"].partition(FILES)[2]
            server.put(f"{FILES.lstrip('/')}{target}", content)
            shutil.rmtree(folder)
        start_response("201 Created" if fits else "400 Bad Request", [("Content-Length", "0")])
        return iter([])

    server.faults.append(join)
    return server


def large(content: bytes, modified: float = 1_700_000_000.0) -> Upload:
    digest = hashlib.sha1(content).hexdigest()
    return Upload(
        len(content), modified, digest, lambda start, n: iter([content[start : start + n]])
    )


def test_a_large_file_goes_in_chunks_and_a_broken_upload_is_resumed(nextcloud, monkeypatch):
    content = VIDEO[:1000]
    monkeypatch.setattr(
        "hevcq.remotes.webdav.client.Uploader",
        lambda *given: upload.Uploader(*given, whole_bytes=100, chunk_bytes=300),
    )
    with closing(WebDavRemote(Account(nextcloud.url + FILES, USER, PASSWORD))) as remote:
        chunk = [0]

        def broken(environ, start_response, _application):
            if environ["REQUEST_METHOD"] == "PUT":
                chunk[0] += 1
                if chunk[0] == 3:
                    start_response("503 Fault", [("Content-Length", "0")])
                    return iter([])
            return None

        nextcloud.faults.append(broken)
        with pytest.raises(Unavailable):
            remote.put("Encoded/a.mp4", large(content))
        nextcloud.requests.clear()
        assert remote.put("Encoded/a.mp4", large(content))
        assert nextcloud.methods().count("PUT") == 2, "two of four chunks were there"
        assert not remote.put("Encoded/a.mp4", large(content))
    stored = nextcloud.files()
    assert stored == {f"{FILES.lstrip('/')}/Encoded/a.mp4": content}
