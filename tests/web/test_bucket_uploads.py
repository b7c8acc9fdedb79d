"""The page of a farm on AWS in a real browser: uploads straight to a bucket that is as strict as S3."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import httpx2
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from contracts.backends import PROFILES
from hevcq.backends.aws.videos import files as s3_files
from hevcq.domain.videos import Video, VideoStatus
from hevcq.ports.videos import VideoFilter
from hevcq.settings.web import WebSettings
from hevcq.usecases.farm_check import examined
from hevcq.util.signals import StopSignals
from hevcq.web.app import create_app
from hevcq.web.checks import page_checks
from hevcq.web.server import listen, run_until
from hevcq.wiring.app import App
from hevcq.wiring.contexts import video_farm
from support.aws.emulator import KEYS
from support.aws.moto_server import Farm, make_farm
from support.browser import Watched, browser, require_chromium

pytestmark = [pytest.mark.aws, pytest.mark.timeout(180)]
PART_BYTES = 5 << 20
"""The least that S3 takes for a part but the last."""


class StrictS3:
    """S3 as a browser meets it, in front of moto, which lets every site in; `refused` are the reasons.

    Cross-origin requests are answered by the bucket's own rules.
    (https://docs.aws.amazon.com/AmazonS3/latest/userguide/cors.html)
    """

    def __init__(self, moto: Callable[..., Iterable[bytes]], s3: Any) -> None:
        self._moto, self._s3 = moto, s3
        self.refused: list[str] = []
        self.served: list[tuple[str, str]] = []

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        origin, method = environ.get("HTTP_ORIGIN", ""), environ["REQUEST_METHOD"]
        bucket, _, _key = environ["PATH_INFO"].strip("/").partition("/")
        if not origin:
            return self._moto(environ, start)
        asked = environ.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD", method)
        cors = self._cors(bucket, origin, asked, environ)
        if method == "OPTIONS":
            if cors is None:
                self.refused.append(f"CORS: {asked} from {origin}")
                start("403 Forbidden", [])
                return []
            start("200 OK", [*cors.items(), ("Content-Length", "0")])
            return []
        self.served.append((method, environ["PATH_INFO"]))

        def answered(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            kept = [h for h in headers if not h[0].lower().startswith("access-control-")]
            return start(status, [*kept, *(cors or {}).items()], *more)

        return self._moto(environ, answered)

    def _cors(
        self, bucket: str, origin: str, method: str, environ: dict[str, Any]
    ) -> dict[str, str] | None:
        """Return the headers of the first rule that matches, or None."""
        try:
            rules = self._s3.get_bucket_cors(Bucket=bucket)["CORSRules"]
        except self._s3.exceptions.ClientError:
            return None
        named = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "").lower().split(",")
        wanted = [each.strip() for each in named if each.strip()]
        for rule in rules:
            allowed = [each.lower() for each in rule.get("AllowedHeaders", [])]
            if (
                any(fnmatchcase(origin, each) for each in rule["AllowedOrigins"])
                and method in rule["AllowedMethods"]
                and all(any(fnmatchcase(each, one) for one in allowed) for each in wanted)
            ):
                return {
                    "Access-Control-Allow-Origin": origin,
                    "Access-Control-Allow-Methods": ", ".join(rule["AllowedMethods"]),
                    "Access-Control-Allow-Headers": ", ".join(wanted),
                    "Access-Control-Expose-Headers": ", ".join(rule.get("ExposeHeaders", [])),
                    "Vary": "Origin, Access-Control-Request-Headers, Access-Control-Request-Method",
                }
        return None


@contextmanager
def strict_s3(s3: Any) -> Iterator[tuple[StrictS3, str]]:
    """Serve this process's moto strictly on a port of its own; yield it and its address."""
    strict = StrictS3(DomainDispatcherApplication(create_backend_app), s3)
    server = make_server("127.0.0.1", 0, strict, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield strict, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def aws() -> Iterator[Farm]:
    farm = make_farm(PROFILES)
    yield farm
    farm.backend.close()


@pytest.fixture
def bucket(aws: Farm) -> Iterator[tuple[StrictS3, str]]:
    with strict_s3(aws.clients.s3) as served:
        yield served


def allow(aws: Farm, origin: str) -> None:
    """Give the buckets the rules that Terraform gives them."""
    rules = {
        "uploads": {
            "AllowedMethods": ["PUT"],
            "AllowedHeaders": ["*"],
            "ExposeHeaders": ["ETag"],
        },
        "out": {"AllowedMethods": ["GET", "HEAD"], "AllowedHeaders": ["Range"]},
    }
    for name, rule in rules.items():
        listed = [{"AllowedOrigins": [origin], **rule}]
        aws.clients.s3.put_bucket_cors(Bucket=name, CORSConfiguration={"CORSRules": listed})  # type: ignore[typeddict-item]


@pytest.fixture
def page(
    aws: Farm, bucket: tuple[StrictS3, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[App, str]]:
    """Serve the page in this process; yield its app and its address."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    here = {"endpoint_url": bucket[1], "profiles": tuple(PROFILES)}
    settings = aws.settings.model_copy(
        update={
            "web": WebSettings(auth="none", port=port),
            "aws": aws.settings.aws.model_copy(update=here),
            "min_free_mib": 0,
        }
    )
    app = App(settings)
    signals = StopSignals()
    page = create_app(app), signals, listening
    thread = threading.Thread(target=run_until, args=page)
    thread.start()
    try:
        yield app, f"http://127.0.0.1:{port}"
    finally:
        signals.ask()
        thread.join()
        listening.close()
        app.close()


@contextmanager
def window(address: str) -> Iterator[Watched]:
    require_chromium()
    with browser() as chromium:
        yield Watched(chromium.new_context(), address)


def choose(person: Watched, path: Path) -> None:
    person.go("/upload")
    person.page.get_by_label("Video file").set_input_files(path)
    person.page.get_by_role("button", name="Upload", exact=True).click()


def came(app: App, title: str) -> tuple[Video, bytes]:
    """Return a video's record, and what is in the bucket for it."""
    found = video_farm(app).videos.page(VideoFilter(text=title)).videos
    (video,) = [each for each in found if each.title == title]
    assert video.source is not None
    at = app.video_files.raw(video, name="a", media_type="video/mp4", attachment=False)
    return video, httpx2.get(str(at)).raise_for_status().content


def test_a_browser_sends_parts_to_the_bucket(page, bucket, aws, tmp_path, monkeypatch):
    app, address = page
    monkeypatch.setattr(s3_files, "PART_BYTES", PART_BYTES)
    small, large = tmp_path / "small.mp4", tmp_path / "large.mp4"
    small.write_bytes(b"small" * 1000)
    large.write_bytes(bytes(range(256)) * ((PART_BYTES + 1024) // 256))
    with window(address) as ann:
        ann.forgive = True
        choose(ann, small)
        ann.page.locator('#files [data-state="failed"]').wait_for()
        assert bucket[0].refused[-1] == f"CORS: PUT from {address}"
        ann.forgive = False
        allow(aws, address)
        ann.page.get_by_role("button", name="Resume").click()
        ann.page.wait_for_url("**/v/*")
        bucket[0].refused.clear()
        choose(ann, large)
        ann.page.wait_for_url("**/v/*")
        assert not ann.said, "; ".join(ann.said)

    assert bucket[0].refused == []
    methods = [method for method, _path in bucket[0].served]
    assert methods == ["PUT"] * 3
    for path in (small, large):
        video, content = came(app, path.stem)
        assert content == path.read_bytes()
        assert video.status is VideoStatus.PROCESSING


def test_the_doctor_asks_the_buckets_as_a_browser_does(page, aws):
    app, address = page

    def browsers() -> Any:
        (found,) = [each for each in examined(page_checks(app)) if each.name == "browsers"]
        return found

    before = browsers()
    assert not before.ok
    assert f"may not send videos to the bucket uploads from pages at {address}" in before.detail
    assert "may not play videos of the bucket out" in before.detail
    assert "web.url" in before.remedy
    allow(aws, "https://another.example")
    assert not browsers().ok
    allow(aws, address)
    assert browsers().ok
