"""What an HLS set costs the store beside one file of the same bytes: objects, calls, requests and time.

Run as `python benchmarks/set_bench.py [ROUNDS]`. The files have the sizes of a real set: 3 min of 720p
in four rungs. Both are published as a worker does it, on the embedded backend and on moto, in turns;
a proxy counts the calls of the store, a hook of botocore what goes over the network. The certificate,
one more object either way, is put as well.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from benchmarks.aws_farm import emulator
from benchmarks.aws_farm import opened as opened_on_aws
from benchmarks.measured import report
from hevcq.backends.embedded.factory import open_embedded
from hevcq.domain.keys import member_key, rendition_key, set_note_key, set_version
from hevcq.ports.store import Publication, Store
from hevcq.settings.model import Settings
from hevcq.settings.profile_files import installed_folder, load_profile
from hevcq.util.clock import SystemClock
from hevcq.util.hashing import sha256_stream

SIZES = {
    "v720.mp4": 51_314_619, "v480.mp4": 21_952_620, "v360.mp4": 15_489_932, "v240.mp4": 5_983_900,
    "sound1.mp4": 2_933_724, "v720.m3u8": 2961, "v480.m3u8": 2917, "v360.m3u8": 2908,
    "v240.m3u8": 2871, "sound1.m3u8": 2867, "v720-keys.m3u8": 6351, "v480-keys.m3u8": 6299,
    "v360-keys.m3u8": 6241, "v240-keys.m3u8": 6166, "poster.jpg": 40_021, "storyboard.vtt": 6865,
    "storyboard1.jpg": 63_510, "storyboard2.jpg": 66_138, "storyboard3.jpg": 68_455,
    "storyboard4.jpg": 72_768, "storyboard5.jpg": 11_860,
}  # fmt: skip
MASTER_BYTES = 1_800
CERTIFICATE = b"{" + b" " * 12_000 + b"}"


@dataclass
class Counted:
    """A store that counts what is asked of it; `requests` are those that go over the network."""

    store: Store
    calls: int = 0
    requests: int = 0

    def __getattr__(self, name: str) -> object:
        found = getattr(self.store, name)

        def call(*words: object, **more: object) -> object:
            self.calls += 1
            return found(*words, **more)

        return call if callable(found) else found


def main(rounds: int) -> int:
    """Measure both backends, print the figures and write them."""
    profiles = {"hls": load_profile(installed_folder() / "hls.yaml")}
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files = made(folder)
        backend = open_embedded(Settings(data_dir=folder / "data"), profiles, SystemClock())
        rows += figures("embedded", Counted(backend.backend.store), files, rounds)
        with emulator() as endpoint:
            farm, clients, _ = opened_on_aws(endpoint, profiles, folder / "aws")
            store = Counted(farm.store)

            def sent(**_: object) -> None:
                store.requests += 1

            clients.s3.meta.events.register("before-send.s3", sent)
            rows += figures("moto", store, files, rounds)
    objects = len(files["set"]) + 1
    return report(
        "set", [{"figure": "HLS set: objects, with the certificate", "value": objects}, *rows]
    )


def made(folder: Path) -> dict[str, list[tuple[str, Path, str]]]:
    """Write the files of a set, its master playlist last, and one of the same bytes, with digests."""
    found: dict[str, list[tuple[str, Path, str]]] = {"set": [], "one": []}
    whole = sum(SIZES.values()) + MASTER_BYTES
    sizes = {**SIZES, "master.m3u8": MASTER_BYTES, "one.mp4": whole}
    for name, size in sizes.items():
        path = folder / name
        path.write_bytes(os.urandom(size))
        with path.open("rb") as stream:
            sha256, _ = sha256_stream(stream, lambda: None)
        found["one" if name == "one.mp4" else "set"].append((name, path, sha256))
    return found


def figures(
    name: str, store: Counted, files: dict[str, list[tuple[str, Path, str]]], rounds: int
) -> list[dict[str, object]]:
    """Publish both in turns; return the calls, the requests and the times as rows."""
    seconds: dict[str, list[float]] = {"set": [], "one": []}
    calls: dict[str, tuple[int, int]] = {}
    for number in range(rounds):
        for kind, publish in (("set", publish_set), ("one", publish_one))[
            :: -1 if number % 2 else 1
        ]:
            again = [(name, linked(path), digest) for name, path, digest in files[kind]]
            before = store.calls, store.requests
            job = f"{number:08x}{'5e' if kind == 'set' else '01'}".ljust(64, "0")
            seconds[kind].append(timed(lambda p=publish, f=again, j=job: p(store, f, j)))
            calls[kind] = store.calls - before[0], store.requests - before[1]
    ratio = statistics.median(a / b for a, b in zip(seconds["set"], seconds["one"], strict=True))
    rows: list[dict[str, object]] = [
        {"figure": f"HLS set on {name}: calls of the store", "value": calls["set"][0]},
        {"figure": f"HLS set on {name}: the same of one file", "value": calls["one"][0]},
    ]
    if store.requests:
        rows += [
            {"figure": f"HLS set on {name}: requests", "value": calls["set"][1]},
            {"figure": f"HLS set on {name}: the same of one file", "value": calls["one"][1]},
        ]
    said = f"HLS set on {name}: time to publish, ratio to one file of its 98 MB"
    took = {"value": statistics.median(seconds["set"]), "unit": "s"}
    rows.append({"figure": f"HLS set on {name}: time to publish", **took})
    return [*rows, {"figure": said, "value": ratio, "unit": "x"}]


def linked(path: Path) -> Path:
    """Return another name of a file: publishing it consumes the name."""
    other = path.with_name(f"again-{path.name}")
    other.unlink(missing_ok=True)
    os.link(path, other)
    return other


def timed(work: Callable[[], None]) -> float:
    """Return the wall seconds of a call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def publish_set(store: Counted, files: list[tuple[str, Path, str]], job: str) -> None:
    """Publish a set as hevcq.worker.publish does."""
    *members, (_, path, sha256) = files
    key = rendition_key(f"TODO/all/{job[:10]}.mp4", "hls", "m3u8")
    note, folder = set_note_key("hls", job, 1, 0), set_version(job, 1, 0)
    store.put(f"{key}.{sha256}.certificate.json", CERTIFICATE, metadata={"job": job})
    store.put(note, b"{}", metadata={"job": job})
    for name, file, digest in members:
        store.publish(publication(member_key(key, f"{folder}/{name}"), file, digest, job))
    store.publish(publication(key, path, sha256, job))
    store.delete(note)


def publish_one(store: Counted, files: list[tuple[str, Path, str]], job: str) -> None:
    """Publish one file and its certificate."""
    ((_, path, sha256),) = files
    key = rendition_key(f"TODO/all/{job[:10]}.mp4", "hls", "mp4")
    store.put(f"{key}.{sha256}.certificate.json", CERTIFICATE, metadata={"job": job})
    store.publish(publication(key, path, sha256, job))


def publication(key: str, file: Path, sha256: str, job: str) -> Publication:
    """Return the publication of one file at fence 1."""
    return Publication(
        key=key, file=file, sha256=sha256, job_id=job, fence=1,
        metadata={"job": job, "fence": "1", "profile": "hls", "sha256": sha256},
        stop=threading.Event(), recheck=lambda _there: None,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
