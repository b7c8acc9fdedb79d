"""The WebDAV client against a real server and its faults."""

from contextlib import closing

import httpx2
import pytest

from hevcq.errors import ConfigError, SourceChanged, SourceGone, Unavailable, UsageError
from hevcq.ports.catalog import RemoteFile, Removal
from hevcq.remotes import webdav
from hevcq.remotes.webdav import WebDavRemote
from support.webdav import (
    PASSWORD,
    USER,
    changed_header,
    cut,
    serving,
    status,
    times,
    without,
)


@pytest.fixture
def server(webdav):
    return webdav


@pytest.fixture
def remote(server):
    opened = WebDavRemote(server.url, USER, PASSWORD)
    yield opened
    opened.close()


def only(remote, folder="Camera") -> RemoteFile:
    (file,) = remote.folder(folder).files
    return file


def body(remote, file, start=0):
    with remote.read(file, start) as found:
        return found.start, b"".join(found.blocks)


def test_lists_a_folder_with_what_tells_versions_apart(server, remote):
    server.put("Camera/ä 100% +#?.mp4", b"12345")
    (server.root / "Camera/2024").mkdir()
    found = remote.folder("Camera")
    assert found.folders == ("Camera/2024",)
    assert not found.refused
    (file,) = found.files
    assert file.path == "Camera/ä 100% +#?.mp4"
    assert file.size == 5
    assert file.etag
    assert '"' not in file.etag
    assert file.modified
    assert remote.stat(file.path) == file
    assert body(remote, file) == (0, b"12345")


@pytest.mark.parametrize(
    ("faults", "found"), [([], (4, b"456789")), ([without("Range")], (0, b"0123456789"))]
)
def test_reads_from_the_middle_if_the_server_has_ranges(server, remote, faults, found):
    server.put("Camera/a", b"0123456789")
    file = only(remote)
    server.faults += faults
    assert body(remote, file, 4) == found


def test_a_changed_file_is_not_read(server, remote):
    server.put("Camera/a", b"old")
    file = only(remote)
    server.put("Camera/a", b"new")
    with pytest.raises(SourceChanged):
        body(remote, file)
    server.faults.append(without("If-Match"))
    with pytest.raises(SourceChanged):
        body(remote, file)


def test_a_file_that_is_gone(server, remote):
    server.put("Camera/a", b"old")
    file = only(remote)
    (server.root / "Camera/a").unlink()
    with pytest.raises(SourceGone):
        body(remote, file)
    assert remote.stat("Camera/a") is None
    assert remote.remove(file) is Removal.GONE


@pytest.mark.parametrize(
    ("faults", "error", "said"),
    [
        ([changed_header("GET", "Content-Range", "bytes 3-9/10")], Unavailable, "another part"),
        ([changed_header("GET", "Content-Range", "bytes 4-9/11")], Unavailable, "another part"),
        ([cut(100_000)], Unavailable, None),
    ],
    ids=["from elsewhere", "of another length", "cut off"],
)
def test_bytes_that_are_not_those_asked_for_are_refused(server, remote, faults, error, said):
    server.put("Camera/a", b"0123456789" if said else b"x" * 300_000)
    file = only(remote)
    server.faults += faults
    with pytest.raises(error, match=said):
        body(remote, file, 4)


def test_a_wrong_length_is_no_version_of_the_file(server, remote):
    server.put("Camera/a", b"0123456789")
    with pytest.raises(SourceChanged):
        body(remote, RemoteFile("Camera/a", 9))


def test_a_listing_without_end_is_not_read(server, remote, monkeypatch):
    monkeypatch.setattr(webdav, "LISTING_BYTES", 100)
    server.put("Camera/a", b"0123456789")
    with pytest.raises(Unavailable, match="without end"):
        only(remote)


def test_removes_one_version_only(server, remote):
    server.put("Camera/a", b"old")
    file = only(remote)
    server.put("Camera/a", b"new")
    assert remote.remove(file) is Removal.CHANGED
    assert server.files() == {"Camera/a": b"new"}
    assert remote.remove(only(remote)) is Removal.REMOVED
    assert server.files() == {}


def test_a_delete_that_is_sent_elsewhere_is_refused(server, remote):
    for name in "ab":
        server.put(f"Camera/{name}", b"old")
    file = remote.stat("Camera/a")
    server.faults.append(times(1, status("DELETE", 307, Location=f"{server.url}/Camera/b")))
    assert remote.remove(file) is Removal.REFUSED
    assert server.methods().count("DELETE") == 1


def test_nothing_is_removed_without_an_etag(server, remote):
    server.put("Camera/a", b"old")
    assert remote.remove(RemoteFile("Camera/a", 3)) is Removal.REFUSED
    assert "DELETE" not in server.methods()


@pytest.mark.parametrize("code", [423, 429, 500, 503, 507])
def test_a_busy_server_is_tried_later(server, remote, tmp_path, code):
    server.put("Camera/a", b"old")
    file = only(remote)
    server.faults += [status("DELETE", code), status("GET", code), status("PUT", code)]
    for call in (
        lambda: remote.remove(file),
        lambda: body(remote, file),
        lambda: remote.unsafe_to_remove(["Camera"], "1", tmp_path),
    ):
        with pytest.raises(Unavailable):
            call()


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ([without("If-Match")], "ignores If-Match"),
        ([status("PUT", 403)], "HTTP 403"),
        ([status("DELETE", 412)], "own ETag"),
        ([times(1, status("DELETE", 400))], "by its ETag (HTTP 400)"),
        ([], ""),
    ],
)
def test_a_server_may_delete_only_if_it_honours_if_match(server, remote, tmp_path, faults, said):
    server.faults += faults
    problem = remote.unsafe_to_remove(["Camera"], "1", tmp_path / "target")
    assert said in problem
    assert bool(problem) == bool(faults)
    assert server.files() == {} or "own ETag" in problem


def test_a_folder_that_is_not_there_is_named(remote):
    with pytest.raises(UsageError, match="no folder Other"):
        remote.folder("Other")


def test_a_wrong_password_is_reported_and_not_shown(server):
    with (
        closing(WebDavRemote(server.url, USER, "s3cret-word")) as remote,
        pytest.raises(ConfigError) as caught,
    ):
        remote.folder("Camera")
    assert "password_file" in str(caught.value)
    assert "s3cret-word" not in str(caught.value)


def test_a_redirect_to_another_host_gets_no_password(server, remote, tmp_path):
    (tmp_path / "other" / "Camera").mkdir(parents=True)
    with serving(tmp_path / "other") as other:
        server.faults.append(status("PROPFIND", 302, Location=f"{other.url}/Camera"))
        with pytest.raises(ConfigError, match="redirects to"):
            remote.folder("Camera")
        assert other.requests == []


def test_the_address_of_a_nextcloud_is_enough(tmp_path):
    root = tmp_path / "nextcloud"
    (root / "Camera").mkdir(parents=True)
    (root / "Camera/a").write_bytes(b"1")
    with serving(root, prefix="/remote.php/dav/files/anna") as server:
        base = server.url.removesuffix("/remote.php/dav/files/anna")
        with closing(WebDavRemote(base, USER, PASSWORD)) as remote:
            assert only(remote).path == "Camera/a"
            assert body(remote, only(remote)) == (0, b"1")


def test_a_server_that_does_not_answer():
    with (
        closing(WebDavRemote("http://127.0.0.1:9", USER, PASSWORD)) as remote,
        pytest.raises(Unavailable, match="does not answer"),
    ):
        remote.folder("Camera")


def reported(answer: httpx2.Response) -> WebDavRemote:
    """Return a client of a server that answers this to everything."""
    transport = httpx2.MockTransport(lambda _asked: answer)
    return WebDavRemote("http://dav.example/dav", "", PASSWORD, transport=transport)


@pytest.mark.parametrize(
    "href", ["http://[::1/x", "//[", "/dav/%00", "/dav/..%2fx", "/other/b.mp4"]
)
def test_an_address_that_cannot_be_read_is_refused_alone_and_a_weak_etag_is_none(href):
    def row(address: str) -> str:
        return (
            f"<d:response><d:href>{address}</d:href><d:propstat><d:prop>"
            '<d:getcontentlength>3</d:getcontentlength><d:getetag>W/"1"</d:getetag></d:prop>'
            "<d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>"
        )

    content = f'<d:multistatus xmlns:d="DAV:">{row(href)}{row("/dav/a.mp4")}</d:multistatus>'
    answer = httpx2.Response(207, stream=httpx2.ByteStream(content.encode()))
    with closing(reported(answer)) as remote:
        remote._is_located = True
        found = remote.folder("")
    assert [(file.path, file.etag) for file in found.files] == [("a.mp4", "")]
    assert found.refused == (href,)


def test_an_account_is_its_address_and_its_user():
    known = [("a/x", "anna"), ("a/x", "ben"), ("a/y", "anna"), ("a:81/x", "anna"), ("b/x", "anna")]
    found = [WebDavRemote(f"http://{url}", user, PASSWORD) for url, user in known]

    assert len({remote.account for remote in found}) == len(known)
    for remote in found:
        remote.close()
