"""Renditions by ranges, under their own names and types, to those who may watch them."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from hevcq.domain.certificate import (
    REQUIRED_OF_SETS,
    Certificate,
    CertifiedFile,
    GateResult,
    Outcome,
)
from hevcq.domain.job import RenditionRef
from hevcq.domain.videos import Video
from hevcq.usecases.videos import manage
from hevcq.usecases.videos.manage import refresh
from hevcq.wiring.app import App
from hevcq.wiring.contexts import video_farm
from support.videos import CLIP, VideoBench


@pytest.fixture
def bench(opened: App, tmp_path: Path) -> VideoBench:
    return VideoBench(tmp_path, video_farm(opened))


def address(video: Video, profile: str = "hevc") -> str:
    (made,) = [each for each in video.renditions if each.profile == profile]
    return f"/media/{video.video_id}/{profile}/{made.key.rpartition('/')[2]}"


def content_of(bench: VideoBench, video: Video, profile: str = "hevc") -> bytes:
    (made,) = [each for each in video.renditions if each.profile == profile]
    with bench.backend.store.open(made.key) as stream:
        return stream.read()


def test_a_rendition_is_served_whole_by_range_and_only_once(bench, as_person):
    video = bench.done(title='Ümläut "quoted"; x=1\r\nX: y', profiles=("hevc",))
    ann, where, content = as_person("ann"), address(video), content_of(bench, video)
    whole = ann.get(where)
    assert (whole.status_code, whole.content) == (200, content)
    assert whole.headers["Content-Type"] == "video/mp4"
    assert whole.headers["X-Content-Type-Options"] == "nosniff"
    assert whole.headers["Content-Disposition"] == (
        'inline; filename="_ml_ut _quoted__ x=1 X_ y (hevc).mp4"; '
        "filename*=UTF-8''%C3%9Cml%C3%A4ut%20_quoted_%3B%20x%3D1%20X_%20y%20%28hevc%29.mp4"
    )
    saved = ann.get(where, params={"download": "1"})
    assert saved.headers["Content-Disposition"].startswith("attachment; ")

    part = ann.get(where, headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, content[2:5])
    assert part.headers["Content-Range"] == f"bytes 2-4/{len(content)}"
    assert ann.get(where, headers={"Range": "bytes=-3"}).content == content[-3:]
    beyond = ann.get(where, headers={"Range": f"bytes={len(content)}-"})
    assert beyond.status_code == 416
    assert beyond.headers["Content-Range"] == f"bytes */{len(content)}"

    tag = whole.headers["ETag"]
    again = ann.get(where, headers={"If-None-Match": f'"other", {tag}'})
    assert (again.status_code, again.content) == (304, b"")
    stale = ann.get(where, headers={"Range": "bytes=0-0", "If-Range": '"other"'})
    assert (stale.status_code, stale.content) == (200, content)
    head = ann.head(where)
    assert head.headers["Content-Length"] == str(len(content))
    assert head.content == b""


@pytest.mark.parametrize(
    ("told", "word", "seen"),
    [
        ((), {}, {"hevc"}),
        (("location",), {}, set()),
        (None, {}, set()),
        (("location",), {"tags": True}, {"hevc"}),
        ((), {"original": True}, {"hevc", "original"}),
    ],
)
def test_a_public_address_gives_what_its_owner_agreed_to(bench, visit, told, word, seen):
    video = manage.publish(bench.farm, bench.upload(profiles=("hevc",)), **word)
    bench.work()
    video = bench.telling(refresh(bench.farm, video), told)
    stranger, shared = visit(auth="users"), f"/p/{video.slug}/media"
    names = {"hevc": address(video).rpartition("/")[2], "original": bench.raw(video).name}
    got = {name: stranger.get(f"{shared}/{name}/{file}") for name, file in names.items()}
    assert {name for name, each in got.items() if each.status_code == 200} == seen
    html = stranger.get(f"/p/{video.slug}").text
    assert {name for name in names if f"/media/{name}/" in html} == seen
    texts = stranger.get(f"{shared}/hevc/texts/0.vtt").json()["detail"]
    assert ("There is no such file." in texts) == ("hevc" not in seen)


def test_only_the_owner_and_operators_play_a_private_video(bench, as_person):
    video = bench.done(profiles=("hevc",))
    where = address(video)
    assert as_person("bob").get(where).status_code == 404
    assert as_person("").get(where).status_code == 401
    assert as_person("op").get(where).status_code == 200


def test_the_uploaded_file_plays_while_it_is_kept(bench, as_person):
    video, ann = bench.upload(profiles=("hevc",)), as_person("ann")
    where = f"/media/{video.video_id}/original/{video.source.key.rpartition('/')[2]}"
    part = ann.get(where, headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, CLIP[2:5])
    assert part.headers["Content-Type"] == "video/quicktime"
    assert as_person("bob").get(where).status_code == 404
    bench.farm.change(video, raw_leaving=True)
    assert ann.get(where).status_code == 404


def test_an_upload_that_is_no_video_is_never_shown(bench, as_person):
    for name in ("a.html", "a.svg", "a.m3u8", "a.vtt", "a.jpg", "a"):
        video = bench.upload(name=name, profiles=("hevc",))
        where = f"/media/{video.video_id}/original/{video.source.key.rpartition('/')[2]}"
        answer = as_person("ann").get(where)
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"].startswith("attachment; ")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_nothing_but_the_rendition_is_served(bench, as_person):
    video, ann = bench.done(profiles=("hevc",)), as_person("ann")
    folder = address(video).rpartition("/")[0]
    certificate = video.renditions[0].certificate_key.rpartition("/")[2]
    for name in ("..%2f..%2fx", certificate, "", "x", "%00", "a/b"):
        assert ann.get(f"{folder}/{name}").status_code == 404
    assert ann.get(address(video).replace("/hevc/", "/720p/")).status_code == 404
    assert ann.get(f"/media/{'0' * 26}/hevc/x").status_code == 404


def test_the_files_of_a_set_are_those_of_its_certificate(bench, as_person):
    video, store = bench.upload(profiles=("hevc",)), bench.backend.store
    assert video.source is not None
    folder = f"DONE/hevc/UPLOAD/{video.video_id}.hls"
    master, segment = b"#EXTM3U\n", b"segment"
    titles = [{"language": "und", "title": "The <lake>"}]
    marks = [
        {"chapter": 2, "start-time": 3725.5, "duration": 9.0, "titles": titles},
        {"chapter": 1, "start-time": 0.0, "duration": 9.0, "titles": [{"title": "Start"}]},
    ]
    chapters = json.dumps(marks).encode()
    store.put(f"{folder}/master.m3u8", master, metadata={})
    store.put(f"{folder}/v1/v720.m4s", segment, metadata={})
    store.put(f"{folder}/v1/chapters.json", chapters, metadata={})
    store.put(f"{folder}/v1/secret.txt", b"no", metadata={})
    claim = bench.backend.ledger.claim(video.source, "hevc", owner="w", lease_s=60)
    job = bench.job(video, "hevc")
    sha256 = hashlib.sha256(master).hexdigest()
    proof = Certificate(
        job_id=job.job_id,
        fence=claim.fence,
        source=video.source,
        source_sha256="0" * 64,
        rendition_key=f"{folder}/master.m3u8",
        rendition_sha256=sha256,
        rendition_size=len(master),
        files=tuple(
            CertifiedFile(name=name, size=len(held), sha256=hashlib.sha256(held).hexdigest())
            for name, held in (("v1/v720.m4s", segment), ("v1/chapters.json", chapters))
        ),
        profile="hevc",
        revision="r",
        ffmpeg="f",
        arguments=(),
        gates=tuple(GateResult(gate=g, outcome=Outcome.PASSED) for g in REQUIRED_OF_SETS),
        hevcq_version="1",
        made_at=0.0,
    )
    key = f"{folder}/master.certificate.json"
    store.put(key, proof.to_json().encode(), metadata={})
    made = RenditionRef(
        key=f"{folder}/master.m3u8", size=len(master), sha256=sha256, certificate_key=key
    )
    bench.backend.ledger.complete(job.job_id, claim.fence, made, cpu_s=1.0)

    ann, where = as_person("ann"), f"/media/{video.video_id}/hevc"
    playlist = ann.get(f"{where}/master.m3u8")
    assert playlist.content == master
    assert playlist.headers["Content-Type"] == "application/vnd.apple.mpegurl"
    assert ann.get(f"{where}/v1/v720.m4s").content == segment
    assert ann.get(f"{where}/v1/secret.txt").status_code == 404
    assert ann.get(f"{where}/master.certificate.json").status_code == 404

    shown = ann.get(f"/v/{video.video_id}").text
    found = re.findall(r'data-start="([^"]+)"><time>([^<]+)</time> ([^<]+)</button>', shown)
    assert found == [("0.0", "0:00:00", "Start"), ("3725.5", "1:02:06", "The &lt;lake&gt;")]
    for damaged in (b"{}", b"[1]", b"no", chapters.replace(b"3725.5", b"NaN")):
        store.put(f"{folder}/v1/chapters.json", damaged, metadata={})
        assert "data-start" not in ann.get(f"/v/{video.video_id}").text
