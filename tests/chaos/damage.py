"""`python -m tests.chaos.damage`: hundreds of spoilt inputs and outputs, and what caught each.

--inputs N --outputs N   how many of each (default 500)
--clean N                how many clean sources, for false alarms (default 100)
--seed N                 the same seed spoils the same bytes (default 1)
"""

import argparse
import itertools
import random
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from chaos.damage_corpus import KINDS, clips, rewritten
from chaos.damage_judge import (
    ENCODER,
    Content,
    Ended,
    changed,
    content,
    judge,
    lost,
    profile,
    run,
)
from hevcq.domain.certificate import Gate
from hevcq.ports.encoder import VerifyRequest
from hevcq.util.clock import SystemClock
from support.clips import ffmpeg

SOUND_SLACK = 400
"""50 ms at 8 kHz: what the decoders of one codec differ by at the ends of a track."""


@dataclass(frozen=True)
class Case:
    """One spoilt file: `verdict` is caught, harmless, lost or changed."""

    kind: str
    clip: str
    step: str
    verdict: str
    detail: str


@dataclass
class Findings:
    """What a campaign found."""

    inputs: list[Case] = field(default_factory=list)
    outputs: list[Case] = field(default_factory=list)
    clean: int = 0
    alarms: list[str] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=dict)
    encode_s: float = 0.0

    def unsafe(self) -> list[Case]:
        """Return what was accepted although packets, frames or promised content are missing."""
        return [case for case in (*self.inputs, *self.outputs) if case.verdict == "lost"]


@dataclass(frozen=True)
class Clean:
    """An undamaged clip, its rendition, and what both hold."""

    path: Path
    request: VerifyRequest
    shown: Content
    made: Content


def prepare(folder: Path, found: Findings, *, real: bool = True) -> list[Clean]:
    """Encode every undamaged clip; a complaint about one is a false alarm."""
    ready = []
    for clip in clips(folder, real=real):
        ended = run(clip, folder / f"made-{clip.name}", profile())
        _note_clean(clip.name, ended, found)
        if ended.request is not None:
            info, output = ended.request.info, ended.request.output
            made = content(output, ENCODER.probe(str(output), stop=threading.Event()))
            ready.append(Clean(clip, ended.request, content(clip, info), made))
    return ready


def _note_clean(name: str, ended: Ended, found: Findings) -> None:
    found.clean += 1
    if ended.step:
        found.alarms.append(f"{name}: {ended.step}: {ended.reason}")
    else:
        spent = dict(ended.seconds or {})
        found.encode_s += spent.pop("encode", 0.0)
        for name_, seconds in spent.items():
            found.cost[name_] = found.cost.get(name_, 0.0) + seconds
        for gate in ended.gates:
            short = gate.gate.value
            found.cost[short] = found.cost.get(short, 0.0) + gate.seconds


def inputs(
    clean: list[Clean], count: int, seed: int, folder: Path, *, stride: int = 1
) -> Iterator[Case]:
    """Spoil sources, and take each through every step; a stride gives a few of every kind."""
    for number in range(0, count * stride, stride):
        rng = random.Random(f"input {seed} {number}")
        one, kind = clean[number % len(clean)], KINDS[number // len(clean) % len(KINDS)]
        other = rng.choice([c for c in clean if c is not one]).path.read_bytes()
        whole = one.path.read_bytes()
        spoilt = folder / f"in{number}{one.path.suffix}"
        output = folder / f"out{number}{one.request.output.suffix}"
        spoilt.write_bytes(kind(whole, other, rng))
        ended = run(spoilt, output, profile())
        verdict, detail = ("caught", ended.reason)
        if ended.request is not None:
            verdict, detail = _accepted(spoilt, ended.request, one)
        yield Case(kind.__name__.replace("_", " "), one.path.name, ended.step, verdict, detail)
        spoilt.unlink()
        output.unlink(missing_ok=True)


def _accepted(spoilt: Path, made: VerifyRequest, one: Clean) -> tuple[str, str]:
    missing = lost(made, one.request) or _fewer(made, one)
    if missing:
        return "lost", missing
    other = changed(content(spoilt, made.info), one.shown)
    if not other:
        return "harmless", ""
    strict = run(spoilt, made.output.with_name(f"again-{made.output.name}"), profile("decode"))
    if strict.request is not None:
        strict.request.output.unlink()
    return "changed", f"{other}{'; preflight: decode finds it' if strict.step else ''}"


def _fewer(made: VerifyRequest, one: Clean) -> str:
    """Look into the rendition itself, whatever was counted on its way: is less in it?"""
    info = ENCODER.probe(str(made.output), stop=threading.Event())
    now, then = content(made.output, info), one.made
    if len(now.frames) < len(then.frames):
        return f"{len(then.frames) - len(now.frames)} of {len(then.frames)} decoded frames"
    for track, (heard, said) in enumerate(zip(now.sounds, then.sounds, strict=False)):
        if len(said) - len(heard) > SOUND_SLACK:
            return f"{(len(said) - len(heard)) / 8000:.2f} s of sound {track}"
    before = len(one.request.info.chapters)
    return "" if len(info.chapters) >= before else f"{before - len(info.chapters)} chapters"


def outputs(
    clean: list[Clean], count: int, seed: int, folder: Path, *, stride: int = 1
) -> Iterator[Case]:
    """Spoil renditions, bytes or content, and let the gates look at each."""
    for number in range(0, count * stride, stride):
        rng = random.Random(f"output {seed} {number}")
        one = clean[number % len(clean)]
        turn = number // len(clean) % (len(KINDS) + 3)
        good = one.request.output
        spoilt = folder / f"spoilt{number}{good.suffix}"
        if turn < len(KINDS):
            other = rng.choice([c for c in clean if c is not one]).request.output.read_bytes()
            kind = KINDS[turn].__name__.replace("_", " ")
            spoilt.write_bytes(KINDS[turn](good.read_bytes(), other, rng))
        else:
            kind = _rewritten(good, spoilt, rng)
        request = replace(one.request, output=spoilt)
        ended = judge(request)
        verdict, detail = "caught", ended.reason
        if not ended.step:
            verdict, detail = _passed(spoilt, one)
        yield Case(kind, one.path.name, ended.step, verdict, detail)
        spoilt.unlink()


def _rewritten(good: Path, spoilt: Path, rng: random.Random) -> str:
    """Some clips lack what a rewrite needs (a second sound, chapters): then another is drawn."""
    while True:
        try:
            kind = rewritten(good, spoilt, rng)
        except subprocess.CalledProcessError:
            continue
        return kind


def _passed(spoilt: Path, one: Clean) -> tuple[str, str]:
    """Judge an output that all gates passed: does it still hold what the clean rendition holds?"""
    info = ENCODER.probe(str(spoilt), stop=threading.Event())
    now, then = content(spoilt, info), one.made
    if now.frames != then.frames:
        return "lost", f"pictures differ ({len(now.frames)} of {len(then.frames)} frames)"
    other = changed(now, then)  # a renamed codec may be decoded by another decoder, which rounds
    if other:
        return "lost", other
    before = ENCODER.probe(str(one.request.output), stop=threading.Event())
    if len(info.chapters) != len(before.chapters):
        return "lost", "chapters are missing"
    return "harmless", "" if info == before else "a fact of its header differs"


def clean_sources(count: int, seed: int, folder: Path, found: Findings) -> None:
    """Make clean sources of many makes, and count those that are refused."""
    for number in range(count):
        rng = random.Random(f"clean {seed} {number}")
        suffix = rng.choice(("mp4", "mkv", "ts", "mov", "avi"))
        video = rng.choice(("libx264", "mpeg4", "mpeg2video"))
        sound = rng.choice(("aac", "ac3", "mp2") if suffix != "avi" else ("ac3", "mp2"))
        width, height = rng.choice(((160, 120), (176, 144), (200, 90), (128, 128)))
        rate = rng.choice(("24000/1001", "25", "30000/1001", "50"))
        seconds = rng.uniform(0.3, 2.0)
        clip = folder / f"clean{number}.{suffix}"
        ffmpeg(
            "-f", "lavfi", "-i",
            f"testsrc2=size={width}x{height}:rate={rate}:duration={seconds:.2f}",
            "-f", "lavfi", "-i", f"sine=duration={seconds * rng.uniform(0.8, 1.2):.2f}",
            "-c:v", video, "-bf", 0 if suffix == "avi" else rng.choice((0, 2)),
            "-g", rng.choice((1, 12, 250)), "-pix_fmt", "yuv420p", "-c:a", sound, clip,
        )  # fmt: skip
        ended = run(clip, folder / f"clean-made{number}.mkv", profile())
        _note_clean(f"{video} and {sound} in {suffix}", ended, found)
        for made in folder.glob(f"clean*{number}.*"):
            made.unlink()


def campaign(asked: argparse.Namespace, folder: Path) -> Findings:
    """Run everything."""
    found = Findings()
    ready = prepare(folder, found)
    clean_sources(asked.clean, asked.seed, folder, found)
    found.inputs += _within(asked.seconds, inputs(ready, asked.inputs, asked.seed, folder))
    found.outputs += _within(asked.seconds, outputs(ready, asked.outputs, asked.seed, folder))
    return found


def _within(seconds: float, cases: Iterator[Case]) -> Iterator[Case]:
    end = SystemClock().monotonic() + seconds
    return itertools.takewhile(lambda _: SystemClock().monotonic() < end, cases)


def report(found: Findings) -> str:
    """Return the tables in Markdown."""
    lines = [*_table("input", found.inputs), "", *_table("output", found.outputs), ""]
    alarms = len(found.alarms)
    lines += [f"Clean sources refused: {alarms} of {found.clean}.", *found.alarms, ""]
    lines += ["| step or gate | share of the encode's time |", "|---|---|"]
    for name, seconds in found.cost.items():
        lines.append(f"| {name} | {seconds / max(found.encode_s, 1e-9):.1%} |")
    lines.append(f"The encodes took {found.encode_s:.1f} s.")
    return "\n".join(lines)


def _table(what: str, cases: list[Case]) -> list[str]:
    steps = ["probe", "plan", "preflight", "encode", *(g.value.partition(" ")[0] for g in Gate)]
    used = [step for step in steps if any(case.step == step for case in cases)]
    head = [f"damaged {what}", "files", *used, "harmless", "changed", "lost"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for kind in [*dict.fromkeys(case.kind for case in cases), "all"]:
        mine = [case for case in cases if kind in {case.kind, "all"}]
        caught, verdicts = Counter(c.step for c in mine), Counter(c.verdict for c in mine)
        row = [kind, len(mine), *(caught[step] for step in used)]
        row += [verdicts[word] for word in ("harmless", "changed", "lost")]
        lines.append(f"| {' | '.join(map(str, row))} |")
    lines += [
        f"- {case.kind} of {case.clip}: {case.verdict}: {case.detail}"
        for case in cases
        if case.verdict in {"lost", "changed"}
    ]
    return lines


def main() -> int:
    """Run the campaign as asked; exit code 1 if anything was accepted that has a loss."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.damage")
    parser.add_argument("--inputs", type=int, default=500)
    parser.add_argument("--outputs", type=int, default=500)
    parser.add_argument("--clean", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hevcq-damage-") as name:
        found = campaign(asked, Path(name))
    print(report(found))
    return 1 if found.unsafe() or len(found.alarms) > found.clean / 100 else 0


if __name__ == "__main__":
    raise SystemExit(main())
