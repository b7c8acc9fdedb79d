"""Every version of ffmpeg against every profile and clip: `make matrix FFMPEGS=system=,7.1=FOLDER,…`.

Each folder holds an `ffmpeg` and an `ffprobe`; `system=` are those of the PATH, with which the others
are compared. The program is run as a person runs it, in a data folder of its own.
`T="words --profiles hevc,hls --ways ingest"` chooses clips by words of their names, profiles, and what
is done with them. Outcomes are kept in `benchmarks/out/matrix`, so that a matrix can be made in pieces.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.fidelity.metadata import with_boxes, with_elements
from benchmarks.fidelity.ordinary import ORDINARY, make
from benchmarks.fidelity.trial import recipe
from support.clips import MEDIA, ffmpeg

OUT = Path(__file__).resolve().parent / "out" / "matrix"
HEVCQ = Path(sys.executable).parent / "hevcq"
BASELINE = "system"
PROFILES = ("hevc", "hls", "720p", "1080p", "mkv", "av1", "webm", "avi", "ogg")
CHUNKED = ("hevc-chunks", "hls-chunks")
"""The same recipes, each video in chunks of a second at most."""
WAYS = ("ingest", "replace", "carried")
"""Ingest beside the original; replace, check and undo; verify what the baseline made."""
TOO_LONG = "long-1080p30-6min-lowbitrate.mp4"
DAMAGED = ("made-truncated", "made-bitrot")
CUT_S = 1.5
"""Seconds of a real clip that are taken, so that a matrix takes hours and not days."""
OUTCOMES = {"job_done": "encoded", "job_skipped": "skip", "job_failed": "failed"}
Outcomes = dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Build:
    """One build of ffmpeg, by its name and the folder of its programs ("" for the system's)."""

    name: str
    folder: str = ""

    def environment(self) -> dict[str, str]:
        """Return the settings that choose it."""
        return {"HEVCQ_FFMPEG": str(Path(self.folder) / "ffmpeg") if self.folder else "ffmpeg"}


def main() -> int:
    asked = _arguments()
    folder = OUT / "work"
    library = _library(folder / "library", tuple(asked.words))
    write_profiles(folder / "profiles")
    for build in asked.builds:
        for way in asked.ways:
            found = RUNS[way](build, library, folder, asked.profiles)
            _keep(build.name, way, found)
    print(table(asked.profiles))
    return 0


def _arguments() -> argparse.Namespace:
    def listed(text: str) -> list[str]:
        return [word for word in text.split(",") if word]

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="words of clips' names")
    parser.add_argument("--ffmpegs", type=listed, default=[f"{BASELINE}="], help="name=folder,…")
    parser.add_argument("--profiles", type=listed, default=[*PROFILES, *CHUNKED])
    parser.add_argument("--ways", type=listed, default=list(WAYS))
    asked = parser.parse_args()
    asked.builds = [Build(*each.split("=", 1)) for each in asked.ffmpegs]
    return asked


def _library(folder: Path, words: tuple[str, ...]) -> list[Path]:
    """Make the clips that are not there yet, and return those whose name has one of the words."""
    folder.mkdir(parents=True, exist_ok=True)
    for clip in ORDINARY:
        if not (folder / clip.name).exists():
            make(clip, folder)
    for name, clip in (("boxes.mp4", with_boxes), ("elements.mkv", with_elements)):
        if not (folder / name).exists():
            clip(folder)
    for real in sorted(MEDIA.glob("*.m*")):
        wanted = real.suffix != ".md" and real.name != TOO_LONG
        if wanted and not (folder / real.name).exists():
            _shortened(real, folder / real.name)
    found = sorted(path for path in folder.iterdir() if path.is_file())
    return [p for p in found if not words or any(word in p.name for word in words)]


def _shortened(real: Path, target: Path) -> None:
    """Copy a clip; of a large one its beginning, unless that cannot be cut or its damage would go."""
    words = ("-i", real, "-t", CUT_S, "-map", "0", "-ignore_unknown", "-c", "copy", target)
    if real.stat().st_size > 1 << 19 and not real.name.startswith(DAMAGED):
        with contextlib.suppress(subprocess.CalledProcessError):
            ffmpeg(*words)
            return
    shutil.copyfile(real, target)


def write_profiles(folder: Path) -> None:
    """Write the shipped profiles with quick presets and one try, and two that cut every video in chunks."""
    folder.mkdir(parents=True, exist_ok=True)
    chunks = {"mode": "always", "target_s": 0.6}
    for name in (*PROFILES, *CHUNKED):
        shipped, _, chunked = name.partition("-")
        quick = {} if shipped not in FASTEST else {"preset": FASTEST[shipped]}
        made = recipe(shipped, video=quick).model_dump(mode="json")
        made |= {"name": name, "subscribe": False}
        made["queue"] |= {"max_failures": 1, "backoff_base_s": 1}
        made["bounds"] |= {"stall_s": 90}
        if chunked:
            made["chunking"] |= chunks
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(made), encoding="utf-8")


FASTEST = {"hevc": "ultrafast", "mkv": "ultrafast", "hls": "ultrafast", "720p": "ultrafast",
           "1080p": "ultrafast", "av1": "8", "webm": "8", "avi": "medium", "ogg": "medium"}  # fmt: skip
"""Quick presets: what is compared does not depend on them. SVT-AV1's of later versions fail gate G8."""


def ingested(
    build: Build, library: Sequence[Path], folder: Path, profiles: Sequence[str]
) -> Outcomes:
    """Ingest into a folder beside the library, and return the outcome of each clip by profile."""
    target = folder / "renditions" / build.name / "+".join(profiles)
    shutil.rmtree(target, ignore_errors=True)
    words = ["--output", target, *(word for name in profiles for word in ("--profile", name))]
    done = _hevcq(build, folder, "ingest", *library, *words, "--json", "--workers", 2)
    if not done.stdout:
        raise SystemExit(done.stderr)
    return _outcomes(done)


def _outcomes(done: subprocess.CompletedProcess[str]) -> Outcomes:
    """Return what became of each clip by profile; what was queued and not worked on waits."""
    found: Outcomes = {}
    for event in map(json.loads, done.stdout.splitlines()):
        name, said = event["event"], event.get("reason", "")
        if name == "file_planned" and event["disposition"] != "queue":
            word = event["disposition"]
        elif name == "job_queued":
            word, said = "waits", done.stderr.strip()
        elif name == "place_failed":
            word = "not_placed"
        elif name in OUTCOMES:
            word = ":".join(
                filter(None, [OUTCOMES[name], event.get("skip"), event.get("failure_class")])
            )
        elif name == "placed":
            word, said = "encoded", " ".join(event.get("notices", ()))
        else:
            continue
        clip = found.setdefault(Path(event["path"]).name, {})
        clip[event.get("profile", "every")] = f"{word} {said}".strip()
    return found


def replaced(
    build: Build, library: Sequence[Path], folder: Path, profiles: Sequence[str]
) -> Outcomes:
    """Replace copies of the clips, read them whole, verify and undo: each original must come back."""
    copies = folder / "replaced" / build.name
    shutil.rmtree(copies, ignore_errors=True)
    copies.mkdir(parents=True)
    found: Outcomes = {}
    before = {}
    for clip in library:
        shutil.copyfile(clip, copies / clip.name)
        before[clip.name] = _digest(clip)
    done = _hevcq(build, folder, "ingest", copies, "--replace", "--profile", "hevc", "--json")
    for name, each in _outcomes(done).items():
        found[name] = {f"replace {profile}": outcome for profile, outcome in each.items()}
    checked = _hevcq(build, folder, "check", copies, "--decode", "--json")
    for row in map(json.loads, checked.stdout.splitlines()):
        if row.get("path"):
            name = Path(row["path"]).name
            said = (str(row[key]) for key in ("health", "detail") if row.get(key))
            found.setdefault(name, {})["check"] = " ".join(said)
    _hevcq(build, folder, "undo", copies)
    for name, digest in before.items():
        there = (copies / name).is_file() and _digest(copies / name) == digest
        found.setdefault(name, {})["undo"] = "the original" if there else "NOT THE ORIGINAL"
    return found


def carried(
    build: Build, library: Sequence[Path], folder: Path, profiles: Sequence[str]
) -> Outcomes:
    """Verify what the baseline made with this build."""
    found: Outcomes = {}
    for clip in library:
        for made in sorted((folder / "renditions" / BASELINE).glob(f"*/{clip.stem}.*")):
            profile = made.name.removeprefix(f"{clip.stem}.").partition(".")[0]
            if profile not in profiles:
                continue
            done = _hevcq(
                build, folder, "check", made, "--source", clip, "--profile", profile, "--json"
            )
            rows = [json.loads(line) for line in done.stdout.splitlines()]
            wrong = [f"{row['gate']}: {row.get('detail', '')}" for row in rows
                     if row.get("outcome") in {"failed", "unknown"}]  # fmt: skip
            said = "verified" if done.returncode == 0 else "; ".join(wrong) or done.stderr.strip()
            found.setdefault(clip.name, {})[f"verify {profile}"] = said
    return found


RUNS = {"ingest": ingested, "replace": replaced, "carried": carried}


def _hevcq(build: Build, folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    data = folder / "data" / f"{build.name}-{os.getpid()}"
    if words[0] == "ingest":
        shutil.rmtree(data, ignore_errors=True)
    environment = {
        **os.environ,
        **build.environment(),
        "HEVCQ_DATA_DIR": str(data),
        "HEVCQ_PROFILES_DIR": str(folder / "profiles"),
        "HEVCQ_MIN_FREE_MIB": "1",
    }
    return subprocess.run(
        [str(HEVCQ), *map(str, words)],
        check=False, capture_output=True, text=True, errors="replace", env=environment,
    )  # fmt: skip


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _keep(name: str, way: str, found: Outcomes) -> None:
    """Add outcomes to those of earlier runs."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{name}.json"
    kept: Outcomes = json.loads(path.read_text()) if path.exists() else {}
    for clip, outcomes in found.items():
        kept.setdefault(clip, {}).update(outcomes)
    path.write_text(json.dumps(kept, indent=1, sort_keys=True), encoding="utf-8")


def table(profiles: Sequence[str]) -> str:
    """Return a table of versions, and each outcome that differs from the baseline's."""
    kept = {path.stem: json.loads(path.read_text()) for path in sorted(OUT.glob("*.json"))}
    known = kept.pop(BASELINE, {})
    lines = []
    for name, found in kept.items():
        pairs = [(clip, what, outcome, known.get(clip, {}).get(what))
                 for clip, each in found.items() for what, outcome in each.items()]  # fmt: skip
        differ = [pair for pair in pairs if _word(pair[2]) != _word(pair[3])]
        lines.append(f"{name}: {len(pairs)} outcomes, {len(differ)} differ from {BASELINE}'s")
        lines += [f"  {clip} {what}: {outcome} (was: {was})" for clip, what, outcome, was in differ]
    return "\n".join(lines)


def _word(outcome: str | None) -> str:
    """Return what is compared of an outcome: its first word."""
    return (outcome or "").partition(" ")[0]


if __name__ == "__main__":
    sys.exit(main())
