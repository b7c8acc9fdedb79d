"""Media servers: the documented call of each, against a stand-in that refuses any other."""

import json
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from hevcq.ports.catalog import Message, NotDelivered
from hevcq.remotes.message_delivery import KINDS, MediaServer
from support.standin import Quiet, running

MOVED = Message("1", "video.replaced", 1.0, "", "", {}, Path("/media/Videos/Nord Kap/a.mp4"))
PLEX = {
    "MediaContainer": {
        "Directory": [
            {"key": "1", "Location": [{"path": "/data/Shows"}]},
            {"key": "4", "Location": [{"path": "/x"}, {"path": "/data/Videos"}]},
        ]
    }
}
SERIES = [{"id": 3, "path": "/data/Videos/Nord Kap"}, {"id": 5, "path": "/data/Videos/Nord"}]
ANSWERS = {
    ("GET", "/System/Info"): {},
    ("POST", "/Library/Media/Updated"): None,
    ("GET", "/library/sections"): PLEX,
    ("GET", "/library/sections/4/refresh?path=%2Fdata%2FVideos%2FNord%20Kap"): None,
    ("GET", "/api/v3/series"): SERIES,
    ("GET", "/api/v3/movie"): SERIES,
    ("GET", "/api/v3/system/status"): {},
    ("POST", "/api/v3/command"): {"id": 1},
}
KEYS = {
    "authorization": 'MediaBrowser Token="k1"',
    "x-plex-token": "k1",
    "x-api-key": "k1",
}


class StandIn(ThreadingHTTPServer):
    """Answers the documented calls with the right key, and keeps them."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, object]] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(Quiet):
    server: StandIn

    def answer(self) -> None:
        body = self.body()
        self.server.calls.append((self.command, self.path, json.loads(body) if body else None))
        known = any(self.headers.get(name) == value for name, value in KEYS.items())
        found = (self.command, self.path) in ANSWERS
        told = json.dumps(ANSWERS[self.command, self.path]).encode() if known and found else b""
        self.reply(401 if not known else 404 if not found else 200, told)

    do_GET = do_POST = answer


@pytest.fixture
def server() -> Iterator[StandIn]:
    with running(StandIn()) as found:
        yield found


def made(server: StandIn, kind: str, key: str = "k1") -> MediaServer:
    url = f"http://127.0.0.1:{server.server_port}"
    return KINDS[kind](url, key, [("/media", "/data")])


EXPECTED = {
    "jellyfin": [
        (
            "POST",
            "/Library/Media/Updated",
            {"Updates": [{"Path": "/data/Videos/Nord Kap/a.mp4", "UpdateType": "Modified"}]},
        )
    ],
    "plex": [
        ("GET", "/library/sections", None),
        ("GET", "/library/sections/4/refresh?path=%2Fdata%2FVideos%2FNord%20Kap", None),
    ],
    "sonarr": [
        ("GET", "/api/v3/series", None),
        ("POST", "/api/v3/command", {"name": "RescanSeries", "seriesId": 3}),
    ],
    "radarr": [
        ("GET", "/api/v3/movie", None),
        ("POST", "/api/v3/command", {"name": "RescanMovie", "movieId": 3}),
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_replacement_the_server_is_told_of_the_file_as_it_sees_it(server, kind):
    made(server, kind).deliver([MOVED])
    assert server.calls == EXPECTED[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_key_is_reported_and_a_right_one_passes_the_test(server, kind):
    made(server, kind).test(MOVED)
    with pytest.raises(NotDelivered, match="answered 401"):
        made(server, kind, "wrong").test(MOVED)
    with pytest.raises(NotDelivered, match="answered 401"):
        made(server, kind, "wrong").deliver([MOVED])


@pytest.mark.parametrize("kind", ["plex", "sonarr", "radarr"])
def test_a_file_in_none_of_its_libraries_is_no_failure(server, kind):
    elsewhere = Message("1", "video.replaced", 1.0, "", "", {}, Path("/other/a.mp4"))
    made(server, kind).deliver([elsewhere])
    assert len(server.calls) == 1


def test_a_folder_that_only_begins_alike_keeps_its_path(server):
    found = made(server, "jellyfin")
    assert found.remote_path("/media/a.mp4") == "/data/a.mp4"
    assert found.remote_path("/media2/a.mp4") == "/media2/a.mp4"
