"""A ladder in chunks: the frames, times, segments and key frames of a whole encode, in every rung."""

import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ffmpeg.hls.conftest import MadeSet
from ffmpeg.verify.conftest import ENCODER, complaints
from hevcq.domain.certificate import Gate, Outcome
from hevcq.domain.chunking import ChunkPlan, chunks_at
from hevcq.errors import PartUnfit
from hevcq.ffmpeg.containers.fragments import read_fragments
from hevcq.ffmpeg.hls import chunks
from hevcq.ffmpeg.hls.chunks import rungs_command
from hevcq.ports.encoder import EncodeRequest
from support.rendition import TOOLS

pytestmark = pytest.mark.media
STOP = threading.Event()


def parts_of(whole: MadeSet, folder: Path, plan: ChunkPlan) -> tuple[EncodeRequest, list[Path]]:
    """Encode every chunk of a plan; return the request of the join, and the chunk files."""
    request, files = whole.again(folder / "set"), []
    for chunk in plan.chunks:
        files.append(folder / f"{chunk.index}.part")
        ENCODER.encode_chunk(
            replace(request, output=files[-1]), plan, chunk, on_progress=lambda _: None, stop=STOP
        )
    return request, files


def planned(whole: MadeSet, *, each: int = 1) -> ChunkPlan:
    """Cut the source of a set at every segment, or at each so many."""
    known = whole.request
    index = ENCODER.keyframes(known.location, known.info, stop=STOP, ladder=known.plan.ladder)
    return chunks_at(known.profile, known.plan, index, tuple(range(0, len(index.keys), each)))


def joined(whole: MadeSet, folder: Path, plan: ChunkPlan) -> MadeSet:
    """Make the same set again, in chunks."""
    request, files = parts_of(whole, folder, plan)
    report = ENCODER.join(request, plan, files, on_progress=lambda _: None, stop=STOP)
    known = replace(whole.request, output=request.output, report=report)
    return MadeSet(known)


def packets(path: Path) -> tuple[list[int], list[int]]:
    """Return the presentation times of a file, ascending, and its decoding times as stored."""
    asked = ["-show_entries", "packet=pts,dts", "-of", "csv=p=0", str(path)]
    ran = subprocess.run(["ffprobe", "-v", "error", *asked], check=True, capture_output=True)
    assert not ran.stderr
    rows = [line.split(b",") for line in ran.stdout.split()]
    return sorted(int(row[0]) for row in rows), [int(row[1]) for row in rows]


def borders(playlist: Path) -> list[float]:
    """Return the lengths of a playlist's segments, but for the last, whose end is guessed."""
    lines = playlist.read_text().splitlines()
    return [float(x[8:].strip(",")) for x in lines if x.startswith("#EXTINF:")][:-1]


def require_alike(whole: MadeSet, split: MadeSet, *, key_frames: bool = True) -> None:
    """Require the same files, frames, times, segments and gates."""
    assert [file.name for file in split.report.files] == [file.name for file in whole.report.files]
    for path in sorted(whole.folder.glob("*.mp4")):
        other = split.folder / path.name
        one, two = read_fragments(path), read_fragments(other)
        assert (one.samples, one.timescale) == (two.samples, two.timescale), path.name
        shown, _ = packets(path)
        again, decoded = packets(other)
        assert again == shown, path.name
        assert decoded == sorted(set(decoded)), path.name
        assert borders(other.with_suffix(".m3u8")) == borders(path.with_suffix(".m3u8")), path.name
        if key_frames:
            assert [f.shown for f in two.fragments] == [f.shown for f in one.fragments], path.name
    found = split.judge()
    assert complaints(found) == []
    assert found[-1].gate is Gate.G8


def test_a_ladder_in_chunks_has_the_frames_and_segments_of_the_whole(made, tmp_path):
    """H.264 and HEVC, two languages, subtitles and chapters; the source has a key frame each 2 s."""
    split = joined(made, tmp_path, planned(made, each=2))

    require_alike(made, split)
    for name in ("text1.vtt", "chapters.json"):
        assert (split.folder / name).read_text() == (made.folder / name).read_text()
    assert (split.folder / "sound1.mp4").read_bytes() == (made.folder / "sound1.mp4").read_bytes()
    assert split.report.frames == 150
    assert not list(tmp_path.glob(".parts-*"))


def test_swapped_chunks_of_a_ladder_are_found(made, tmp_path):
    plan = planned(made)
    request, (first, second, third) = parts_of(made, tmp_path, plan)
    parts = [second, first, third]
    report = ENCODER.join(request, plan, parts, on_progress=lambda _: None, stop=STOP)

    last = MadeSet(replace(made.request, output=request.output, report=report)).judge()[-1]

    assert (last.gate, last.outcome) == (Gate.G8, Outcome.FAILED), last


def test_every_rung_of_a_chunk_is_compared_with_its_plan(made, tmp_path, monkeypatch):
    """That the first stream of a chunk is right does not excuse the others."""
    plan = planned(made)
    request = made.again(tmp_path / "1.part", threads=1)
    real = chunks.rungs_command

    length = plan.chunks[1].end_pts - plan.chunks[1].start_pts

    def one_short(*known: object) -> list[str]:
        return [word.replace(f":end_pts={length},", f":end_pts={length // 2 - 40},")
                if word.endswith("[hevc90]") else word for word in real(*known)]  # fmt: skip

    monkeypatch.setattr(chunks, "rungs_command", one_short)
    with pytest.raises(PartUnfit, match="stream 2, has 24 frames, expected 50"):
        ENCODER.encode_chunk(request, plan, plan.chunks[1], on_progress=lambda _: None, stop=STOP)
    assert not request.output.exists()


def test_a_chunk_decodes_once_and_gets_its_key_frames(made):
    plan = planned(made)
    request = made.again(Path("/nowhere"), location="/in.mkv", threads=1)

    argv = rungs_command(TOOLS, request, plan, plan.chunks[1])

    assert argv.count("-i") == 1
    graphs = [argv[n + 1] for n, word in enumerate(argv) if word == "-filter_complex"]
    length = plan.chunks[1].end_pts - plan.chunks[1].start_pts
    trim = f"[0:0]settb=1/1000,trim=start_pts=0:end_pts={length}"
    assert graphs == [
        f"{trim}[v180]",
        f"{trim},scale=160:90:flags=bicubic,setsar=1/1[v90]",
        f"{trim},scale=160:90:flags=bicubic,setsar=1/1[hevc90]",
    ]
    for number in range(3):
        assert argv[argv.index(f"-force_key_frames:{number}") + 1] == "0.000000,1.000000"
    assert argv[-2:] == ["mp4", "file:/nowhere"]
