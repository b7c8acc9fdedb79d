"""Start the web page with sample videos on this machine: `make demo-web`.

A data folder in demo-out/web, a page without a sign-in that only this machine reaches, and one worker
that encodes the samples while one watches. Ctrl-C stops both.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from hevcq.settings.model import Settings
from hevcq.usecases.videos.uploads import UploadRequest, complete_upload, request_upload
from hevcq.wiring.app import App
from hevcq.wiring.contexts import video_farm

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / "demo-out" / "web"
BLOCK = 1 << 20
SAMPLES = {
    "Mandelbrot, slowly": "mandelbrot=size=640x360:rate=25:maxiter=400:end_scale=0.05",
    "Game of life": "life=size=320x180:rate=25:mold=12:ratio=0.12:death_color=#7a1f5c:life_color=#5cc9bd:"
    "seed=7,scale=640:360:flags=neighbor",
    "Colours in motion": "gradients=size=640x360:rate=25:c0=#0f6b64:c1=#f3c37a:c2=#a3241c:c3=#101d2b:"
    "nb_colors=4:speed=0.02:seed=3",
    "Test card": "testsrc2=size=640x360:rate=25",
}
"""Titles, and the ffmpeg sources that they are made by."""
SECONDS = {"Mandelbrot, slowly": 12, "Game of life": 10, "Colours in motion": 8, "Test card": 6}
BROKEN = "Cut off while copying"


def make_samples(folder: Path) -> list[tuple[str, Path]]:
    """Make the sample videos with ffmpeg, and one that is damaged; return titles and files."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number, (title, picture) in enumerate(SAMPLES.items(), 1):
        path = folder / f"sample{number}.mkv"
        if not path.is_file():
            tone = f"sine=frequency={180 + 60 * number}:sample_rate=44100"
            command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", picture]
            command += ["-f", "lavfi", "-i", tone, "-t", str(SECONDS[title])]
            command += ["-c:v", "libx264", "-preset", "veryfast", "-crf", "16", "-g", "50"]
            command += ["-pix_fmt", "yuv420p", "-c:a", "aac"]
            subprocess.run([*command, "-f", "matroska", str(path)], check=True)
        made.append((title, path))
    broken = folder / "broken.mkv"
    whole = made[-1][1].read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    return [(BROKEN, broken), *made]


def upload(app: App, title: str, path: Path, owner: str = "local") -> str:
    """Upload one file through the use cases, as the page does; return the video's id."""
    farm = video_farm(app)
    description = (
        "Made by ffmpeg for the demo." if title != BROKEN else "A copy that is incomplete."
    )
    request = UploadRequest(owner, path.name, path.stat().st_size, title, description)
    video = request_upload(farm, request)
    with farm.files.receive(video) as receiver, path.open("rb") as file:
        while block := file.read(BLOCK):
            receiver.append(block)
        receiver.sync()
    return complete_upload(farm, video).video_id


def prepare() -> dict[str, str]:
    """Make a new data folder with the samples uploaded; return the environment of its programs."""
    for folder in ("data", "config"):
        shutil.rmtree(HOME / folder, ignore_errors=True)
    samples = make_samples(HOME / "samples")
    app = App(Settings(data_dir=HOME / "data"))
    try:
        for title, path in samples:
            upload(app, title, path)
    finally:
        app.close()
    return {
        **os.environ,
        "HEVCQ_DATA_DIR": str(HOME / "data"),
        "XDG_CONFIG_HOME": str(HOME / "config"),  # the page may change settings: not a person's own
        "HEVCQ_WEB__AUTH": "none",
        "HEVCQ_LOG_LEVEL": "warning",
    }


@contextlib.contextmanager
def running(environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command of hevcq inside the context, in a group of its own, and stop it after it."""
    command = [sys.executable, "-m", "hevcq", "-q", *arguments]
    child = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=60)
        if child.poll() is None:
            child.kill()


def main() -> int:
    """Make the samples, upload them, and run page and worker until Ctrl-C."""
    port = sys.argv[1] if len(sys.argv) > 1 else "8790"
    environment = prepare()
    page = ("serve", "--host", "127.0.0.1", "--port", port)
    with running(environment, "worker"), running(environment, *page) as served:
        try:
            return served.wait()
        except KeyboardInterrupt:
            return 0


if __name__ == "__main__":
    sys.exit(main())
